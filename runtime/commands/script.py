"""`main`: what the script `understudy` runs. Ctrl-C is heeded from here on, also while the command line is imported."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command that `sys.argv` names, and exit with its code."""
    try:
        from .cli import main as command_line
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    command_line(prog_name="understudy")
