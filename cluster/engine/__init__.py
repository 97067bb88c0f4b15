"""The engine: one loop that decides, runs and records."""
