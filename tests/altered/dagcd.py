own = "tests/interventions/test_logits.py"
