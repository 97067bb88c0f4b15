"""Other engines beside ours, each in a process and a Python environment of its own."""
