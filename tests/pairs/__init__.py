"""Edit pairs: the judge of the fingerprint."""
