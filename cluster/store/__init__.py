"""Documents that survive: one SQLite database with a word index and a log of changes."""
