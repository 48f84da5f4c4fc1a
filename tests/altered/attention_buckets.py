own = "tests/interventions/test_buckets.py"
