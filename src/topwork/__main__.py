"""The command line: `topwork ...` or `python -m topwork ...`."""

from topwork.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
