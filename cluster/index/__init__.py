"""Search by meaning: a static embedding and a flat Faiss index."""
