"""The brain of KV memory: blocks of 16 tokens, who holds them, and how a segment lies in them."""
