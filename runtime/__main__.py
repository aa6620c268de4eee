"""`python -m understudy.runtime`: the command line, where its script is not on the path."""

from __future__ import annotations

from .commands.script import main

if __name__ == "__main__":
    main()
