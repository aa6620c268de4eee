"""The commands themselves. What each does is imported when it runs, so that the command line starts without it."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from ...stores import StoreUnavailable
from ..commands.cli_options import Parsed, option
from ..commands.config import parse_duration

__all__ = ["store"]

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_NOWHERE = logging.NullHandler()


def _timeout(default: str | None) -> Callable[[F], F]:
    return click.option("--timeout", type=Parsed("duration", parse_duration), default=default, show_default=True,
                        help="Give up after this long altogether.")  # fmt: skip


def _run(work: Coroutine[Any, Any, T], timeout: float | None) -> T:
    """
    Raises:
        StoreUnavailable: It took longer than `timeout` seconds.
    """

    async def within() -> T:
        try:
            async with asyncio.timeout(timeout):
                return await work
        except TimeoutError as error:
            raise StoreUnavailable(
                f"it took longer than {timeout:g} s and was given up; give it more with --timeout", outcome_unknown=True
            ) from error

    return asyncio.run(within())


_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_dry_run = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
_tenant = click.option("--tenant", metavar="ID", help="Only sessions of this tenant.")
_keys = option("--encryption-keys", type=click.Path(path_type=Path), metavar="FILE",
               help="The keys of an encrypted store, as `serve` takes them.")  # fmt: skip


@click.group(short_help="Set up, look into, check and leave a store.")
def store() -> None:
    """Set up, look into, check and leave the store of sessions at URL.

    URL is what `serve --store` takes: sqlite:///sessions.db, nats://host/bucket, postgresql://host/database,
    redis://host, dynamodb://table. Instead of standing on the command line, where every process of the machine can
    read the password in it, it can be UNDERSTUDY_STORE in the environment.
    """
    # What stores log when they are opened, these commands say themselves.
    logging.getLogger("understudy").addHandler(_NOWHERE)


_url = click.argument("url", envvar="UNDERSTUDY_STORE")


@store.command(short_help="Make what a store needs.")
@_url
@_dry_run
@click.option("--cloudformation", "kind", flag_value="cloudformation", help="DynamoDB: print a template, do nothing.")
@click.option("--terraform", "kind", flag_value="terraform", help="DynamoDB: print the same for Terraform, do nothing.")
@_timeout("30s")
def init(url: str, dry_run: bool, kind: Literal["cloudformation", "terraform"] | None, timeout: float | None) -> None:
    """Make what the store at URL needs, and say what was there already: file, tables, bucket, event log.

    A node does the same when it starts, if its user may, but makes no table of DynamoDB; this is for when it may not,
    and for looking first: --dry-run prints what would be done, as the server is told. Doing it again does nothing.
    """
    from .setting_up import set_up, template

    if kind is not None:
        click.echo(template(url, kind), nl=False)
        return
    _run(set_up(url, dry_run=dry_run), timeout)


@store.command(short_help="Bring an older store forward.")
@_url
@_dry_run
@_timeout("10m")
def migrate(url: str, dry_run: bool, timeout: float | None) -> None:
    """Bring the store at URL to the format that this understudy writes.

    A node does the same when it starts. Nodes of an earlier understudy may refuse the store from then on: upgrade them.
    What is newer than this understudy is left as it is.
    """
    from .setting_up import bring_forward

    _run(bring_forward(url, dry_run=dry_run), timeout)


@store.command(short_help="Try a store out.")
@_url
@_as_json
@_timeout("30s")
def check(url: str, as_json: bool, timeout: float) -> None:
    """Try out all that a node does to the store at URL, with a session of its own that is removed in the end.

    Says how long each took, and what of the settings may lose acknowledged changes. What has expired is swept, up to
    100 sessions, as nodes do. Nothing is made: a store that is not there is broken.

    Exit code 0: all is well; 1: it works, with warnings; 2: it does not work.
    """
    from .trying_out import try_out

    sys.exit(asyncio.run(try_out(url, as_json=as_json, timeout=timeout)))


@store.command(short_help="Count what is in a store.")
@_url
@click.option("--top", type=click.IntRange(1, 1000), metavar="N", default=10, show_default=True,
              help="How many tenants to show, those with the most sessions.")  # fmt: skip
@click.option("--soon", type=Parsed("duration", parse_duration), default="1h", show_default=True,
              help="Count apart what expires within this time.")  # fmt: skip
@_as_json
@_timeout(None)
def stat(url: str, top: int, soon: float, as_json: bool, timeout: float | None) -> None:
    """Count what is in the store at URL: sessions by tenant and kind, sizes, ages, the event log.

    Reads about all records, without their snapshots, a page at a time; other work goes on meanwhile.
    """
    from .counting import count

    _run(count(url, top=top, soon=soon, as_json=as_json), timeout)


@store.command(short_help="Print the sessions of a store as JSON lines.")
@_url
@_tenant
@_keys
@click.option("--format", "form", type=click.Choice(["jsonl"]), default="jsonl", show_default=True,
              help="One JSON object a line.")  # fmt: skip
@_timeout(None)
def export(url: str, tenant: str | None, encryption_keys: Path | None, form: str, timeout: float | None) -> None:
    """Print the sessions of the store at URL, one JSON object a line, with their state.

    What JSON cannot say is an object with one key: {"$bytes": base64}, {"$datetime": ISO 8601}, {"$float": "nan"},
    {"$map": [[key, value], ...]}. What cannot be read is printed with an "error" and the stored bytes, and the exit
    code is 1. Whoever holds the whole id of an anonymous session holds the session: keep the output as safe as the
    store.
    """
    from .exporting import export_lines

    sys.exit(_run(export_lines(url, tenant=tenant, keys=encryption_keys), timeout))


@store.command(short_help="Copy sessions to another store while they are in use.")
@click.argument("source")
@click.argument("target")
@_tenant
@click.option("--verify/--no-verify", default=True, show_default=True,
              help="In the end load every session from both stores and compare it byte by byte.")  # fmt: skip
@_timeout(None)
def copy(source: str, target: str, tenant: str | None, verify: bool, timeout: float | None) -> None:
    """Copy the sessions of the store at SOURCE to the one at TARGET, while nodes use the source.

    Passes follow each other, each of which copies what has changed since the last; it ends when one finds nothing to
    do. To move: start it, and when its passes have little to do, stop the nodes. What it says in the end is then true
    for good: no session is missing, and each is as it was last acknowledged. Then start the nodes with the target.

    The source is only read. Stopped at any point, it goes on where it was when it is started again. Encrypted sessions
    are copied as they are, and need the same keys at the target. Streams under way cannot be resumed there. Once
    nodes run with the target, a copy is refused.
    """
    from .moving import move

    _run(move(source, target, tenant=tenant, verify=verify), timeout)


@store.command("move", short_help="Move what sleeps to another store while nodes use both.")
@click.argument("source")
@click.argument("target")
@click.option("--rate", type=click.FloatRange(min=0.001), metavar="N", default=1000.0, show_default=True,
              help="Sessions a second at most.")  # fmt: skip
@click.option("--verify/--no-verify", default=True, show_default=True,
              help="Load every session before and afterwards and compare it byte by byte.")  # fmt: skip
@_timeout(None)
def move_command(source: str, target: str, rate: float, verify: bool, timeout: float | None) -> None:
    """Move the sessions of the store at SOURCE to the one at TARGET, until nothing is left, while nodes run with
    `--store TARGET --former-store SOURCE`.

    Such nodes move a session when it is used; this moves those that sleep, in the same way. It is for when every node
    has been started so: a session that a node of another kind has in memory loses it, and is loaded anew for its next
    call. Then nodes may be started without --former-store.

    Stopped at any point, it goes on where it was when it is started again. Encrypted sessions are moved as they are,
    and need the same keys at the target. Streams stay, and can be resumed while nodes know both stores.
    """
    from .moving import move_out

    _run(move_out(source, target, rate=rate, verify=verify), timeout)
