own = "tests/interventions/test_compression.py"
