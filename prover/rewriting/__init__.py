"""Rewriting to normal forms, with the steps written down as a certificate has them."""
