own = "tests/interventions/test_pause_tokens.py"
