"""The public door. A gateway owns a request from its first byte to its last."""
