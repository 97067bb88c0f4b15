"""The parts of the cluster as Ray actors, and the command that starts them."""
