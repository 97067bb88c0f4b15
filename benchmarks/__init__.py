"""What is measured, how, and against which aim: `python -m benchmarks --list`."""
