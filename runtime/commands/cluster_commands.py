"""The commands of a cluster: run one on this machine, look at one, move and end its sessions."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from .cli_options import Parsed, nats_options, option
from .config import ConfigError, ServeOptions, parse_duration
from .key_file import read_keys
from .nats_options import NatsOptions, require_nats

if TYPE_CHECKING:
    from .finding import Found

__all__ = ["cluster", "drain", "nodes", "rotate_keys", "session", "sessions", "tenant", "top"]

F = TypeVar("F", bound=Callable[..., Any])

_OURS = {
    "host": "before --",
    "store": "before --",
    "cluster": "as --name",
    "nats": "before --",
    "port": "as --base-port",
    "node": "by the cluster itself",
    "advertise": "by the cluster itself",
    "reload": "by hand: understudy cluster has no such thing",
}
"""Options of `serve` that stand elsewhere on the command line of `cluster`."""

_HYPHENED_ID = re.compile(r"(?!--[a-z-]+\Z)-[A-Za-z0-9_-]{4,}", re.ASCII)
"""What looks like a session's id rather than like an option that is misspelt."""


def _finding(command: F) -> F:
    """The options that say which cluster is meant."""
    command = option(
        "--request-state-keys",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The cluster's keys, if its nodes are given them. [default: those that it keeps in NATS]",
    )(command)
    command = option("--cluster", metavar="NAME", help="The cluster's name. [default: the only one at that NATS]")(
        command
    )
    return nats_options("NATS of the cluster. [default: that of the `understudy cluster` started here last]")(command)


def _nats(given: dict[str, Any]) -> NatsOptions:
    """Takes the options of `nats_options` out of `given`."""
    require_nats()
    parts = ("nats", "nats_creds", "nats_nkey", "nats_ca", "nats_cert", "nats_key")
    return NatsOptions(*(given.pop(part) for part in parts))


def _found(given: dict[str, Any]) -> Found:
    """Takes the options of `_finding` out of `given`."""
    from .finding import find_cluster

    keys = given.pop("request_state_keys")
    found = find_cluster(_nats(given), given.pop("cluster"))
    return found if keys is None else replace(found, keys=tuple(read_keys(keys)))


_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_full = click.option(
    "--full", is_flag=True, help="Show whole ids. Whoever has an anonymous session's id has the session."
)


@click.command(short_help="Run a whole cluster on this machine.")
@click.argument("target", envvar="UNDERSTUDY_TARGET")
@click.argument("serve_options", nargs=-1, type=click.UNPROCESSED, metavar="[-- SERVE_OPTIONS]")
@click.option("--nodes", "count", type=click.IntRange(1, 64), metavar="N", default=3, show_default=True,
              help="How many nodes, named node-1, node-2, ...")  # fmt: skip
@click.option("--base-port", type=click.IntRange(0, 65535), metavar="N", default=8000, show_default=True,
              help="TCP port of the first node, the others' follow; 0 takes free ones.")  # fmt: skip
@option("--host", default="127.0.0.1", help="Address that all nodes listen on.")
@click.option("--name", metavar="NAME", default="local", show_default=True, help="The cluster's name.")
@option("--store", metavar="URL", help="Where sessions are kept. [default: the cluster's NATS, each write on disk]")
@click.option("--directory", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Where the cluster's own nats-server keeps its data. [default: gone at the end]")  # fmt: skip
@nats_options("An existing NATS server to use. [default: one of the cluster's own]")
def cluster(
    target: str,
    serve_options: tuple[str, ...],
    count: int,
    base_port: int,
    host: str,
    name: str,
    store: str | None,
    directory: Path | None,
    **given: Any,
) -> None:
    """Run the MCP server TARGET on several nodes of this machine, with a nats-server of their own.

    Any node answers for any session. A node that dies is started again, and so is nats-server; what each says is shown
    with its name in front. What stands behind -- goes to each node's `understudy serve`.

    \b
    Examples:
      understudy cluster server.py:mcp
      understudy cluster server.py:mcp --nodes 5 --base-port 9000 --directory ./nats
      understudy cluster server.py:mcp -- --idle-after 1m --log-level debug

    While it runs, `understudy nodes`, `sessions`, `top` and `drain` on this machine find it by themselves. SIGTERM or
    Ctrl-C: nodes drain and everything that was started here stops; a second one: at once.
    """
    from .local_cluster import LocalClusterOptions
    from .serve_cluster import serve_cluster

    nats = _nats(given)
    if nats.url is not None and directory is not None:
        raise ConfigError("--directory is for a nats-server of the cluster's own, and --nats names another: give one")
    if nats.url is None and nats != NatsOptions():
        raise ConfigError("--nats-creds, --nats-nkey, --nats-ca, --nats-cert and --nats-key go with --nats URL")
    served = _checked(target, serve_options, {"cluster": name, "host": host, "store": store}, nats)
    settings = nats.settings() if nats.url is not None else None
    options = LocalClusterOptions(
        target,
        nodes=count,
        base_port=base_port,
        host=host,
        name=name,
        store=store,
        nats=settings,
        directory=directory,
        serve=serve_options,
        path=served.path,
        tls=served.tls_cert is not None,
        drain_timeout=served.drain_timeout,
    )
    sys.exit(serve_cluster(options, json_lines=served.log_format == "json"))


def _checked(target: str, given: tuple[str, ...], ours: dict[str, Any], nats: NatsOptions) -> ServeOptions:
    """The options as each node's `serve` will read them: what is wrong with them is told once, before anything starts.

    Raises:
        click.UsageError, ConfigError, ConfigurationError: They are wrong.
    """
    from .cli import serve, serve_options

    with serve.make_context("understudy serve", [target, *given]) as context:
        for name, where in _OURS.items():
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                raise click.UsageError(f"--{name} behind -- is for one node; here it is given {where}")
        values = dict(context.params)
    values |= dict.fromkeys(("node", "advertise", *(name for name in values if name.startswith("nats"))))
    local = nats.url or "nats://127.0.0.1:4222"
    return serve_options(values | ours | {"nats": local, "port": 0, "reload": False})


@click.command(short_help="Show a cluster's nodes.")
@_finding
@_as_json
def nodes(as_json: bool, **given: Any) -> None:
    """Show the nodes of a cluster, from the leases that they keep in NATS.

    A node whose lease has run out is `lost`: its sessions go to others as they are asked for. One that is `draining`
    takes no sessions and moves those it has.
    """
    from .looking import show_nodes

    asyncio.run(show_nodes(_found(given), as_json=as_json))


@click.command(short_help="Show a cluster's sessions.")
@_finding
@click.option("--tenant", metavar="NAME", help="Only sessions of this tenant.")
@click.option("--node", metavar="ID", help="Only sessions in memory at this node, 500 at most.")
@click.option("--limit", type=click.IntRange(1, 100_000), metavar="N", default=100, show_default=True,
              help="Most sessions to show.")  # fmt: skip
@_full
@_as_json
def sessions(tenant: str | None, node: str | None, limit: int, full: bool, as_json: bool, **given: Any) -> None:
    """Show the sessions of a cluster: whose they are, where they are in memory, and what they do.

    `asleep`: in the store only; any node wakes it. `waiting`: calls that wait for their turn. Only the first 8
    characters of an id are shown: they are enough for `understudy session`.
    """
    from .looking import show_sessions

    asyncio.run(show_sessions(_found(given), tenant=tenant, node=node, limit=limit, full=full, as_json=as_json))


@click.group(short_help="Show or end one session.")
def session() -> None:
    """Show or end one session. ID is a whole id, or the beginning of only one: at least 6 characters."""


class _TakesId(click.Command):
    """A command whose argument may begin with a hyphen, as one id in 64 does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = {name for parameter in self.params for name in parameter.opts} | set(ctx.help_option_names)
        ids = [arg for arg in args if _HYPHENED_ID.fullmatch(arg) and arg not in known]
        if ids and "--" not in args:
            args = [*(arg for arg in args if arg not in ids), "--", *ids]
        return super().parse_args(ctx, args)


@session.command("show", cls=_TakesId)
@click.argument("id")
@_finding
@_full
@_as_json
def show(id: str, full: bool, as_json: bool, **given: Any) -> None:
    """Show one session: its record without the state, and how it does if it is in memory."""
    from .looking import show_session

    asyncio.run(show_session(_found(given), id, full=full, as_json=as_json))


@session.command("end", cls=_TakesId)
@click.argument("id")
@_finding
@_as_json
def end(id: str, as_json: bool, **given: Any) -> None:
    """End one session for good, wherever it is. Its state is deleted; its client is told that there is no such
    session and has to open another."""
    from .acting import end_session

    asyncio.run(end_session(_found(given), id, as_json=as_json))


@click.command(short_help="Move a node's sessions to the others.")
@click.argument("node")
@_finding
@click.option("--undo", is_flag=True, help="Take new sessions again.")
@click.option("--wait", is_flag=True, help="Return when all sessions have moved.")
@_as_json
def drain(node: str, undo: bool, wait: bool, as_json: bool, **given: Any) -> None:
    """Move the sessions of NODE to the others. Its process stays, and forwards what clients send it.

    Clients notice nothing: a call that runs is finished first, what waits goes along, and a session wakes at its new
    node when it is next called; until then it is shown as asleep. /readyz of the node answers 503 until --undo.
    """
    from .acting import drain_node

    if undo and wait:
        raise click.UsageError("--wait is for a drain; --undo is done at once")
    asyncio.run(drain_node(_found(given), node, undo=undo, wait=wait, as_json=as_json))


@click.command("rotate-keys", short_help="Change the key that seals requestState.")
@_finding
@_as_json
def rotate_keys(as_json: bool, **given: Any) -> None:
    """Make a new key for `requestState`, the state that a client carries from one round of a call to the next.

    Every node opens with the new key as soon as it learns of it, and seals with it when all living nodes do. What the
    old one has sealed is opened for one more hour, so no call that is under way breaks. Waits some seconds for that,
    and names the nodes that hold it up: it goes on without this command.

    A cluster changes its key by itself every 30 days (serve --key-rotation). Keys that nodes are given
    (serve --request-state-keys) are changed there.
    """
    from .acting import rotate_keys as rotate

    asyncio.run(rotate(_found(given), as_json=as_json))


@click.group(short_help="Say that a tenant has changed.")
def tenant() -> None:
    """Say that a tenant has changed."""


@tenant.command("changed")
@click.argument("id")
@_finding
@_as_json
def changed(id: str, as_json: bool, **given: Any) -> None:
    """Say that what tenant ID is allowed, or is served, may be another from now on: plan, scopes, keys, secrets.

    Every node forgets what it remembers of the tenant, makes the servers of its sessions anew when they are next
    called, ends streams whose credential is worth nothing any more, and tells clients that all lists have changed. A
    node that is cut off does so when it is back.
    """
    from .acting import tell_tenant_changed

    if not id:
        raise click.UsageError("ID is empty; name the tenant")
    asyncio.run(tell_tenant_changed(_found(given), id, as_json=as_json))


@click.command(short_help="Watch a cluster at work.")
@_finding
@click.option("--interval", type=Parsed("duration", parse_duration), default="1s", show_default=True,
              help="Time between two looks.")  # fmt: skip
@click.option("--once", is_flag=True, help="Look once, over one interval, print it and end.")
def top(interval: float, once: bool, **given: Any) -> None:
    """Watch a cluster at work, on the terminal. q or Ctrl-C ends it.

    \b
    CALLS/S   calls that ran at the node          WAIT   calls that wait for their turn
    FWD       share of them that another node     LINK   bytes that wait to go to other nodes
              had taken in                        LEASE  since the node last renewed it
    HOPS      forwards that went to a wrong node  P50, P99  duration of the calls since the last look
    """
    from .top import watch

    asyncio.run(watch(_found(given), interval=interval, once=once))
