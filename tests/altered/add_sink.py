own = "tests/interventions/test_add_sink.py"
