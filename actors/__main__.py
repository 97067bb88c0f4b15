"""`python -m actors` is the command `thoth`."""

from actors.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
