"""The brains that decide who runs what: inside a worker, over workers, and over the actors
themselves."""
