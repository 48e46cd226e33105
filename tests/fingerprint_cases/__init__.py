"""Small programs before and after an edit, for tests/test_fingerprint_edits.py."""
