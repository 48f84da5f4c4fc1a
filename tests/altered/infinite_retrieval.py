own = "tests/interventions/test_infinite_retrieval.py"
