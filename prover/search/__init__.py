"""Searches for proofs: nothing here is trusted, for only what the checker accepts is proved."""
