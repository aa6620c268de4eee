"""`understudy serve` with what only `Runtime` can be told: where tenants' files and secrets are.

CHAOS_TENANTS names a folder that all nodes see, with `files/` and `secrets.toml`.
Run it with `python -P`: its own folder has a module `http`.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from understudy.runtime import runtime
from understudy.runtime.cli import main

FOLDER = "CHAOS_TENANTS"


def serve() -> None:
    """As the command line does it, which asks for the class when it needs it."""
    folder = Path(os.environ[FOLDER])
    helped = partial(runtime.Runtime, files=str(folder / "files"), secrets=str(folder / "secrets.toml"))
    runtime.Runtime = helped  # type: ignore[assignment,misc]
    main()


if __name__ == "__main__":
    serve()
