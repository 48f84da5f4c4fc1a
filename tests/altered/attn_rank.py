own = "tests/interventions/test_attn_rank.py"
