"""The hands of the knowledge cache: keys and values that lie on the host and on disk."""
