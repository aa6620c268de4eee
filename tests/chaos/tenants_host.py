"""`understudy serve` with what only `Runtime` can be told: where tenants' files and secrets are.

CHAOS_TENANTS names a folder that all nodes see, with `files/` and `secrets.toml`; CHAOS_DATABASE a
PostgreSQL, if there is one.
Run it with `python -P`: its own folder has a module `http`.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from understudy.runtime import RowLevelSecurity, runtime
from understudy.runtime.commands.cli import main

FOLDER = "CHAOS_TENANTS"
DATABASE = "CHAOS_DATABASE"


def serve() -> None:
    """As the command line does it, which asks for the class when it needs it."""
    folder = Path(os.environ[FOLDER])
    more: dict[str, Any] = {"files": str(folder / "files"), "secrets": str(folder / "secrets.toml")}
    if (url := os.environ.get(DATABASE)) is not None:
        more["database"] = RowLevelSecurity(url)
    runtime.Runtime = partial(runtime.Runtime, **more)  # type: ignore[assignment,misc]
    main()


if __name__ == "__main__":
    serve()
