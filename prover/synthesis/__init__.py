"""Terms and equations found by their values: candidates, to be proved by those who asked."""
