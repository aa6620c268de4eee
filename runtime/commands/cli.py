"""The command line: `understudy serve`, `demo`, `bench`, and the commands of a cluster."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ...stores import StoreError, StoreURLError, UnderstudyError, store_of_environment
from ...stores.environment import AUTO
from ..cluster.errors import ClusterError, StoreNotShared
from ..store_commands import store
from ..telemetry.tenant_label import DEFAULT_LABELS, MOST_LABELS
from .child import LIFELINE, LISTEN
from .cli_options import CommaList, Parsed, nats_options, option
from .cluster_commands import cluster, drain, nodes, rotate_keys, session, sessions, tenant, top
from .collector import collector_paused
from .config import ConfigError, ServeOptions, not_in_a_cluster, parse_duration, parse_size
from .key_command import key
from .nats_options import LOGIN_VARIABLES
from .operator_errors import OperatorError
from .target import TargetError

__all__ = ["main", "serve", "serve_options"]

MACHINE_ERROR = 1
USAGE_ERROR = 2


class OneLineErrors(click.Group):
    """A group that answers a usage error in one line, with exit code 2, and one of ours without a traceback."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **extra)
        try:
            code = super().main(*args, standalone_mode=False, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = USAGE_ERROR
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else "understudy"
            _complain(f"{error.format_message().rstrip('.')} (see {path} --help)")
            code = error.exit_code
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except UnderstudyError as error:
            if isinstance(error, TargetError) and error.details:
                click.echo(error.details.rstrip(), err=True)
            _complain(str(error))
            # What the machine refuses (an address, a store) may be well tomorrow; what was asked for will not.
            usage = isinstance(error, StoreURLError | StoreNotShared)
            refused = isinstance(error, StoreError | OSError | ClusterError | OperatorError) and not usage
            code = MACHINE_ERROR if refused else USAGE_ERROR
        except (click.Abort, KeyboardInterrupt):
            click.echo("interrupted", err=True)
            code = 130
        sys.exit(code if isinstance(code, int) else 0)


def _complain(message: str) -> None:
    click.echo(f"understudy: {message}", err=True)


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="understudy", prog_name="understudy", message="%(prog)s %(version)s")
def main() -> None:
    """Hosts MCP servers so that every conversation survives its process.

    Each MCP session is an actor with durable state. Kill the server in the middle of the day, start it again, and
    no client notices more than a pause.

    \b
      understudy demo                       see it happen, in half a minute
      understudy serve server.py:mcp        host your own server on http://127.0.0.1:8000/mcp
      understudy cluster server.py:mcp      host it on three nodes of this machine, one of which may die

    Your server needs no change. To keep state, a tool takes the session:

    \b
      from understudy.runtime import Session
    \b
      @mcp.tool()
      async def remember(fact: str, session: Session) -> str:
          session.state.setdefault("facts", []).append(fact)
          return "noted"
    """


@main.command(short_help="Host an MCP server.")
@click.argument("target", envvar="UNDERSTUDY_TARGET")
@option("--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 or :: for all (then see --allowed-host).")
@option("--port", type=click.IntRange(0, 65535), metavar="N", default=8000, help="TCP port; 0 takes a free one.")
@option("--path", default="/mcp", help="Path of the MCP endpoint.")
@option("--store", metavar="URL", help="Where sessions are kept: sqlite:///file.db, memory://, nats://host/bucket, "
        "redis://host, postgresql://host/database, dynamodb://table; auto for the one that REDIS_URL, "
        "DATABASE_URL and the like name. "
        "[default: a SQLite file of the target's own, said at start; in a cluster its NATS]")  # fmt: skip
@option("--next-store", metavar="URL", help="Moving to another store, first restart: the store to move to. Sessions "
        "that other nodes have moved there are found.")  # fmt: skip
@option("--former-store", metavar="URL", help="Moving to another store, second restart: the store to move from. "
        "Sessions that are still there are brought to --store when they are used.")  # fmt: skip
@option("--event-log", type=click.Choice(["store", "off"]), default="store",
         help="Where streams are kept that clients may resume: with the sessions, or only in memory.")  # fmt: skip
@option("--event-log-age", type=Parsed("duration", parse_duration), default="10m",
         help="How long a stream can be resumed after its newest event.")  # fmt: skip
@option("--event-log-size", type=Parsed("size", partial(parse_size, most=2**44)), default="1GiB",
         help="Room for the events of all streams; beyond it the oldest go.")  # fmt: skip
@option("--encryption-keys", type=click.Path(path_type=Path), metavar="FILE",
         help="Encrypt sessions and streams in the store: keys, one a line, an id and 32 bytes in base64; the first "
         "encrypts, all decrypt; read anew while it runs. [default: not encrypted]")  # fmt: skip
@option("--encryption-allow-plain/--no-encryption-allow-plain", default=False,
         help="Read also what was stored before it was encrypted; its next save encrypts it.")  # fmt: skip
@option("--limits", type=click.Path(path_type=Path), metavar="FILE",
        help="How much a tenant may use, by its plan: TOML or JSON with the tables default and plans.NAME. "
        "[default: no limits]")  # fmt: skip
@option("--when-counters-fail", type=click.Choice(["open", "closed"]), default="open",
        help="Cluster, while its nodes cannot count together: each applies the limits alone, or refuses.")  # fmt: skip
@option("--audit", metavar="FILE",
         help="Write who opened, called, was refused and ended, a line of JSON each; - for stderr.")  # fmt: skip
@option("--audit-when-full", type=click.Choice(["drop", "block"]), default="drop",
         help="What to do when that is too slow: drop lines and count them, or let requests wait.")  # fmt: skip
@option("--session-ttl", type=Parsed("duration", parse_duration), default="24h",
         help="How long a session lives after its last use.")  # fmt: skip
@option("--idle-after", type=Parsed("duration", parse_duration), default="5m",
         help="How long an unused session stays in memory before it is only in the store.")  # fmt: skip
@option("--max-sessions", type=click.IntRange(min=1), metavar="N", default=10_000,
         help="Sessions in memory at once; those not in use make room for others.")  # fmt: skip
@option("--max-body", type=Parsed("size", parse_size), default="4MiB", help="Largest request body taken.")
@option("--http", type=click.Choice(["hypercorn", "uvicorn", "granian"]), default="hypercorn",
         help="HTTP server. hypercorn and granian speak HTTP/2; uvicorn and granian are installed apart.")  # fmt: skip
@option("--tls-cert", type=click.Path(path_type=Path), help="PEM certificate (chain): serve https.")
@option("--tls-key", type=click.Path(path_type=Path), help="Its PEM key, not encrypted.")
@option("--allowed-host", type=CommaList(), multiple=True, metavar="HOST",
         help="Host header to answer, with or without :port; repeatable; * for any. [default: localhost]")  # fmt: skip
@option("--allowed-origin", type=CommaList(), multiple=True, metavar="ORIGIN",
         help="Browser origin to answer (https://app.example.com); repeatable. [default: localhost]")  # fmt: skip
@option("--log-format", type=click.Choice(["text", "json"]), default="text", help="Log lines on stderr.")
@option("--log-level", type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False), default="info",
         help="Least level that is logged.")  # fmt: skip
@option("--drain-timeout", type=Parsed("duration", parse_duration), default="30s",
         help="How long calls in flight may take to finish when the server is asked to stop.")  # fmt: skip
@option("--reload/--no-reload", default=False, help="Start anew when the target's Python files change; sessions stay.")
@option("--api-keys", type=click.Path(path_type=Path), metavar="FILE",
        help="Answer only who has one of these API keys, by their hashes; `understudy key new` makes them. Read again "
        "when it changes. [default: everybody is answered]")  # fmt: skip
@option("--credential-check", type=Parsed("duration", parse_duration), default="60s",
        help="How often a key or token is checked while streams are open with it. They end when it does.")  # fmt: skip
@option("--jwt-issuer", metavar="URL", help="Answer only who has a token (JWT) of this issuer.")
@option("--jwt-audience", metavar="URL", help="Whom its tokens must be for: this server, as the issuer knows it.")
@option("--jwks-url", metavar="URL", help="Where the issuer publishes its keys.")
@option("--jwt-tenant", metavar="CLAIM", default="tenant", help="The claim of a token that names the tenant.")
@option("--files", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
        help="Where tenant.files are, a folder for each tenant. Cluster: all nodes must see it.")  # fmt: skip
@option("--secrets", type=click.Path(path_type=Path), metavar="FILE",
        help="What tools find in tenant.secrets: TOML or JSON with the tables all, tenants.ID, users.TENANT.PRINCIPAL, "
        "or .env; mode 600; read again when it changes.")  # fmt: skip
@option("--database", metavar="URL", help="PostgreSQL that tenant.connection() connects to. Better said by its "
        "variable, as it may hold a password.")  # fmt: skip
@option("--database-isolation", type=click.Choice(["rows", "schemas", "roles", "databases"]),
        help="What keeps tenants apart there: policies on rows; a schema each; a schema and a role each; a database "
        "each.")  # fmt: skip
@option("--tenant-cache", type=Parsed("size", parse_size), default="8MiB",
        help="What one tenant's tools may keep in tenant.cache at this node, by estimate.")  # fmt: skip
@option("--tenant-cache-total", type=Parsed("size", partial(parse_size, most=2**44)), default="64MiB",
        help="What those of all tenants may; beyond it the one goes that was not used for longest.")  # fmt: skip
@option("--fairness", type=click.Choice(["equal", "off"]), default="equal",
        help="Where tenants are known: whether those of one wait for each other, or all for all.")  # fmt: skip
@option("--plan-weight", type=CommaList(), multiple=True, metavar="PLAN=N",
        help="Tenants of this plan get N times the share of others, 0.01 to 100; repeatable.")  # fmt: skip
@option("--blocking-threads", type=click.IntRange(1, 64), metavar="N",
        help="Of 64 worker threads, those that a tenant's plain functions may have. [default: 8]")  # fmt: skip
@option("--tenant-labels", type=click.IntRange(0, MOST_LABELS), metavar="N", default=DEFAULT_LABELS,
        help="How many tenants, the busiest, have a label of their own in /metrics; the others share one.")  # fmt: skip
@option("--cluster", metavar="NAME", help="Be one node of this cluster: any node answers for any session.")
@nats_options("Cluster: the NATS server that its nodes share, nats://user:password@host:4222, or several after commas.")
@option("--node", metavar="ID", help="Cluster: this node's name. [default: host name and a random part]")
@option("--advertise", metavar="URL", help="Cluster: where this node is reached, to be shown. [default: host and port]")
@option("--lease", type=Parsed("duration", parse_duration), default="3s",
        help="Cluster: how long a node that hangs keeps its sessions from the others.")  # fmt: skip
@option("--request-state-keys", type=click.Path(path_type=Path), metavar="FILE",
        help="Cluster: keys that seal requestState, one a line in base64, 32 bytes or more; the first seals, all open. "
        "[default: one that the cluster makes and changes]")  # fmt: skip
@option("--key-rotation", type=Parsed("duration", partial(parse_duration, or_none=True)), default="30d",
        help="Cluster: how long it uses one key of its own for requestState; 0: until rotate-keys.")  # fmt: skip
@option("--lame-duck", type=Parsed("duration", partial(parse_duration, or_none=True)),
        help="How long a node that is asked to stop answers on at least, /readyz saying 503, so that balancers turn "
        "away in time. [default: 2s in a cluster, else 0]")  # fmt: skip
@option("--link-version", type=click.IntRange(min=1), metavar="N",
        help="Cluster: speak no newer format than this to the other nodes, while some of them are older.")  # fmt: skip
@option("--unsigned-contexts", type=click.Choice(["refuse", "accept"]),
        help="Cluster: whether to take what nodes from before link version 4 say, which anybody could say who reaches "
        "NATS. Accept it for the time of an upgrade. [default: refuse]")  # fmt: skip
def serve(target: str, **given: Any) -> None:
    """Host the MCP server TARGET over Streamable HTTP, in both protocol eras.

    TARGET is module:attr or file.py:attr. attr names an MCPServer, a low-level Server, a FastMCP server, or a function
    (tenant) -> server, plain or async, that makes each session a server of its own.

    \b
    Examples:
      understudy serve server.py:mcp
      understudy serve my_package.server:mcp --port 9000 --store sqlite:///sessions.db
      understudy serve server.py:mcp --host 0.0.0.0 --allowed-host mcp.example.com
      understudy serve server.py:mcp --tls-cert cert.pem --tls-key key.pem --log-format json
      understudy serve server.py:mcp --reload
      understudy serve server.py:mcp --cluster shop --nats nats://nats.internal:4222 --host 0.0.0.0

    Every option can be set as UNDERSTUDY_<NAME> in the environment (UNDERSTUDY_PORT=9000,
    UNDERSTUDY_ALLOWED_HOST=a.example,b.example), TARGET as UNDERSTUDY_TARGET; the command line wins. Durations
    are seconds or 30m, 24h, 7d; sizes bytes or 512KiB, 4MiB. What NATS wants to know and others should not see can
    stay off the command line: UNDERSTUDY_NATS, UNDERSTUDY_NATS_USER, UNDERSTUDY_NATS_PASSWORD, UNDERSTUDY_NATS_TOKEN.

    Beside the endpoint: /healthz (alive), /readyz (store reachable, not draining), /metrics (Prometheus).
    SIGTERM or Ctrl-C: no new sessions, calls in flight finish and are saved, exit code 0; a second one: at once.
    In a cluster the sessions move to other nodes first, and their clients notice nothing.
    """
    options = serve_options(given)
    if options.cluster is None:
        context = click.get_current_context()
        for name in ("lease", "key_rotation"):
            if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
                raise not_in_a_cluster(name)
    for name in misspelt_variables(os.environ):
        click.echo(f"understudy: {name} in the environment is no option's variable and is ignored", err=True)
    if options.reload:
        from .reload import serve_with_reload

        if LISTEN not in os.environ:
            sys.exit(serve_with_reload(target, options, sys.argv[1:]))
    with collector_paused():
        from .serve import serve as run

        run(target, options)


def misspelt_variables(environment: Mapping[str, str]) -> list[str]:
    """The names in `environment` that look like variables of `serve` but are none of its."""
    known = {str(parameter.envvar) for parameter in serve.params} | {LIFELINE, LISTEN, *LOGIN_VARIABLES}
    return sorted(name for name in environment if name.startswith("UNDERSTUDY_") and name not in known)


for command in (cluster, nodes, sessions, session, drain, tenant, rotate_keys, top, key, store):
    main.add_command(command)


@main.command(short_help="Kill a server in mid-conversation and see the conversation go on.")
@click.option("--exit", "leave", is_flag=True, help="End after the scene instead of serving on.")
@click.option("--port", type=click.IntRange(0, 65533), default=0, metavar="N",
              help="TCP port of the first of three nodes; 0 takes free ones.")  # fmt: skip
def demo(leave: bool, port: int) -> None:
    """Kill a server in the middle of a conversation and see the conversation go on.

    Starts the demo server on three nodes and a nats-server of its own, opens a session with the MCP SDK's own client,
    changes its state, kills the process that owns the session outright, and goes on with the same client. Then one
    node is stopped in order, and its sessions move first. In the end it keeps serving until Ctrl-C.
    """
    import anyio

    from .scene import play

    # The client notices its server dying, as it should; here that is the plot, not news.
    logging.getLogger("mcp").setLevel(logging.CRITICAL)
    sys.exit(anyio.run(lambda: play(port=port, stay=not leave)))


@main.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    short_help="Measure the runtime beside what it is compared with.",
)
@click.pass_context
def bench(ctx: click.Context) -> None:
    """Measure the runtime beside what it is compared with."""
    # By name: the bench room knows all others and none knows it.
    try:
        group: click.Group = importlib.import_module("understudy.bench.cli").bench
    except ModuleNotFoundError as error:
        raise ConfigError(f"understudy bench needs the package {error.name}: pip install 'understudy[dev]'") from error
    group.main(args=list(ctx.args), prog_name=ctx.command_path, standalone_mode=False)


def serve_options(given: dict[str, Any]) -> ServeOptions:
    """From the parameters of the command `serve`. Raises as `ServeOptions`, and as `store_of_environment`."""
    renamed = {
        "allowed_host": "allowed_hosts",
        "allowed_origin": "allowed_origins",
        "plan_weight": "plan_weights",
    }
    values = {renamed.get(name, name): value for name, value in given.items()}
    if values.get("store") == AUTO:
        values["store"] = store_of_environment(os.environ).url
    known = {field.name for field in fields(ServeOptions)}
    return ServeOptions(**{name: value for name, value in values.items() if name in known})
