"""Reads problems: SMT-LIB 2.0 and 2.6, TIP, and a small language of our own."""
