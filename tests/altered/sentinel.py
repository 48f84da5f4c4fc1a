own = "tests/interventions/test_sentinel.py"
