own = "tests/interventions/test_ordering.py"
