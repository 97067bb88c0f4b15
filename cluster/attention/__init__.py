"""Attention over paged keys and values, as a fold of partial states."""
