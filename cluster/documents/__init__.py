"""Texts come in here: files, folders and the language reference, cut into chunks."""
