"""The core of Thoth: brains that decide, hands that do, and the wire between them."""
