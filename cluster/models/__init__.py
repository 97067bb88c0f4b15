"""Models: where weights come from, and the forward pass. Knows nothing of caches and batches."""
