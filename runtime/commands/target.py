"""TARGET: finding the user's MCP server from `module:attr` or `file.py:attr`, with errors that help."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from ...stores import UnderstudyError

__all__ = ["Target", "TargetError", "default_store_path", "load_target", "watch_roots"]

_OURS = str(Path(__file__).resolve().parent)


class TargetError(UnderstudyError):
    """A target that cannot be loaded. `details` is the user's own traceback, where their code raised."""

    def __init__(self, message: str, *, details: str = "") -> None:
        super().__init__(message)
        self.details = details


@dataclass(frozen=True, slots=True)
class Target:
    """A loaded target: the server object, or the factory that makes one per session, and where it came from."""

    spec: str
    server: Any
    source: Path | None
    """The file of its module; None if it has none."""


def load_target(spec: str) -> Target:
    """Import what `spec` names and check that it can be hosted.

    `module:attr` is looked up from the working directory as `python -m` would, `file.py:attr` is run as a module with
    its directory importable, as `python file.py` would. `attr` may be dotted.

    Raises:
        TargetError: No such file, module or attribute, code that raises while it is imported, or an object that is
            neither an MCP server nor a factory of one.
    """
    where, attr = _split(spec)
    module = _load_file(where, attr) if where.endswith(".py") else _load_module(where, attr)
    server = _find(module, attr, spec)
    _check(server, spec)
    file = getattr(module, "__file__", None)
    return Target(spec, server, Path(file).resolve() if file else None)


def default_store_path(target: Target) -> Path:
    """The SQLite file that `serve` keeps sessions of this target in unless told otherwise.

    In `$XDG_STATE_HOME/understudy` (or `~/.local/state/understudy`), named after the target and its place on disk,
    so that two projects with a `server:mcp` each do not share one. Created empty, readable by its owner alone.

    Raises:
        TargetError: The directory or file cannot be made.
    """
    _, attr = _split(target.spec)
    stem = target.source.stem if target.source else target.spec.partition(":")[0]
    mark = hashlib.sha256(f"{target.source or target.spec}:{attr}".encode()).hexdigest()[:8]
    name = re.sub(r"[^A-Za-z0-9]+", "-", f"{stem}-{attr}")[:64].strip("-")
    base = os.environ.get("XDG_STATE_HOME", "")
    try:
        # The XDG specification: a relative path there is invalid and to be ignored.
        directory = (Path(base) if os.path.isabs(base) else Path.home() / ".local" / "state") / "understudy"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = directory / f"{name}-{mark}.db"
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except (OSError, RuntimeError) as error:
        raise TargetError(f"no place to keep sessions: {error}; name one with --store sqlite:///path") from error
    return path


def watch_roots(spec: str) -> list[Path]:
    """The directories whose Python files make up the target, found without importing it."""
    where, _ = _split(spec)
    if where.endswith(".py"):
        return [Path(where).resolve().parent]
    _prepend_path(os.getcwd())
    try:
        found = importlib.util.find_spec(where.partition(".")[0])
    except (ImportError, ValueError):
        found = None
    if found is not None and found.submodule_search_locations:
        return [Path(place).resolve() for place in found.submodule_search_locations]
    if found is not None and found.origin and found.has_location:
        return [Path(found.origin).resolve().parent]
    return [Path.cwd()]


def _split(spec: str) -> tuple[str, str]:
    where, colon, attr = spec.rpartition(":")
    if not colon or not where or not attr:
        example = f"{(where or attr or 'server.py').rstrip(':')}:server"
        raise TargetError(f"target {spec!r} must be module:attr or file.py:attr, such as {example}")
    if not all(part.isidentifier() for part in attr.split(".")):
        raise TargetError(f"target {spec!r}: {attr!r} is no attribute name")
    return where, attr


def _load_file(where: str, attr: str) -> ModuleType:
    file = Path(where).expanduser()
    if not file.is_file():
        raise TargetError(f"no file {where!r}{_near(file.name, _python_files(file.parent))}")
    file = file.resolve()
    # A file called like a module that is loaded already (queue.py, server.py) must not take its place.
    name = file.stem if file.stem.isidentifier() and file.stem not in sys.modules else f"understudy_target_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise TargetError(f"{where!r} cannot be loaded as Python")
    _prepend_path(str(file.parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _user_code(where):
            spec.loader.exec_module(module)
    except TargetError as error:
        del sys.modules[name]
        if isinstance(error.__cause__, ImportError) and "relative import" in str(error.__cause__):
            package = file.parent.name
            raise TargetError(
                f"{error}; it belongs to a package: name it {package}.{file.stem}:{attr} from the directory above",
                details=error.details,
            ) from error.__cause__
        raise
    return module


def _load_module(where: str, attr: str) -> ModuleType:
    if not all(part.isidentifier() for part in where.split(".")):
        raise TargetError(f"{where!r} is neither a module's name (my.module) nor a file (my_file.py)")
    _prepend_path(os.getcwd())
    importlib.invalidate_caches()
    try:
        with _user_code(where):
            return importlib.import_module(where)
    except TargetError as error:
        cause = error.__cause__
        # Told apart from a module that the user's own code fails to import: that one's name is no prefix of `where`.
        if isinstance(cause, ModuleNotFoundError) and cause.name and f"{where}.".startswith(f"{cause.name}."):
            file = where.replace(".", "/") + ".py"
            hint = f"; for the file say {file}:{attr}" if Path(file).is_file() else ""
            raise TargetError(f"no module {cause.name!r} here ({os.getcwd()}) or installed{hint}") from cause
        raise


class _user_code:  # noqa: N801 - used as a `with` word
    """Turns whatever the user's code raises while it is imported into a `TargetError` with their traceback."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, SystemExit):
            raise TargetError(
                f"{self.where} exited while it was imported (code {error.code}); put its start under "
                'if __name__ == "__main__":'
            ) from error
        if isinstance(error, Exception):
            raise TargetError(
                f"{self.where} cannot be imported: {_one_line(error)}", details=_trimmed(error)
            ) from error


def _one_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__


def _trimmed(error: BaseException) -> str:
    """The traceback without the import machinery and without understudy's own frames."""
    shown = traceback.TracebackException.from_exception(error)
    for each in _chain(shown):
        kept = [
            frame
            for frame in each.stack
            if not frame.filename.startswith(("<frozen importlib", _OURS)) and "/importlib/" not in frame.filename
        ]
        each.stack = traceback.StackSummary.from_list(kept)
    return "".join(shown.format())


def _chain(shown: traceback.TracebackException | None) -> Iterable[traceback.TracebackException]:
    while shown is not None:
        yield shown
        shown = shown.__cause__ or shown.__context__


def _find(module: ModuleType, attr: str, spec: str) -> Any:
    value: Any = module
    walked = module.__name__
    for part in attr.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            names = [name for name in dir(value) if not name.startswith("_")]
            servers = [name for name in names if _is_server(getattr(value, name, None))]
            near = _near(part, names) or (f"; it has {', '.join(sorted(servers)[:5])}" if servers else "")
            raise TargetError(f"target {spec!r}: {walked} has no attribute {part!r}{near}") from None
        walked = f"{walked}.{part}"
    return value


def _near(word: str, words: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, list(words), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(name) for name in found)}?" if found else ""


def _python_files(directory: Path) -> list[str]:
    try:
        return [name for name in os.listdir(directory) if name.endswith(".py")]
    except OSError:
        return []


def _server_classes() -> tuple[type, ...]:
    # Here and not above: `understudy --help` should not wait for the SDK.
    from mcp.server.lowlevel import Server
    from mcp.server.mcpserver import MCPServer

    return (MCPServer, Server)


def _is_server(value: object) -> bool:
    if isinstance(value, _server_classes()):
        return True
    # FastMCP is not ours to import: where it is not loaded already, the target cannot be one.
    fastmcp = sys.modules.get("fastmcp")
    return fastmcp is not None and isinstance(value, getattr(fastmcp, "FastMCP", ()))


def _check(value: object, spec: str) -> None:
    if _is_server(value):
        return
    wanted = "it must be an MCPServer, a low-level Server, a FastMCP server, or a factory (tenant) -> server"
    if inspect.isclass(value) and issubclass(value, _server_classes()):
        raise TargetError(f"target {spec!r} is the class {value.__name__}, not a server made from it; {wanted}")
    if inspect.isclass(value) or not callable(value):
        kind = f"the class {value.__name__}" if inspect.isclass(value) else f"of type {type(value).__name__}"
        from ..runtime import Runtime

        if isinstance(value, Runtime):
            wanted = "serve its `app` (uvicorn MODULE:NAME.app), or name the server and have `serve` make a Runtime"
        raise TargetError(f"target {spec!r} is {kind}; {wanted}")
    _check_factory(value, spec)


def _check_factory(factory: Callable[..., Any], spec: str) -> None:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(object())
    except TypeError:
        raise TargetError(
            f"target {spec!r} is called with one argument, the tenant context, but takes {signature}; "
            "write def make_server(tenant): ..."
        ) from None


def _prepend_path(directory: str) -> None:
    if directory not in sys.path:
        sys.path.insert(0, directory)
