own = "tests/test_patch.py"
