"""The brain of retrieval: what documents and chunks are, and how rankings are fused."""
