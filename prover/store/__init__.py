"""Proved lemmas, kept for other programs: what is kept is never trusted, only tried again."""
