"""The brain of the knowledge cache: documents' keys and values kept as a tree over the tiers."""
