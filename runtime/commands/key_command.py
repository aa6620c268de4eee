"""`understudy key`: makes API keys for `serve --api-keys` and `ApiKeys`."""

from __future__ import annotations

import time
from functools import partial

import click

from .cli_options import Parsed
from .config import ConfigError, parse_duration

__all__ = ["key"]


@click.group(short_help="Make API keys.")
def key() -> None:
    """Make API keys, by which a server knows its tenants."""


@key.command(short_help="A new API key, shown once.")
@click.option("--tenant", required=True, metavar="ID", help="The customer.")
@click.option("--principal", required=True, metavar="ID", help="Who of the customer; a session answers to nobody else.")
@click.option("--plan", metavar="NAME", help="What the customer pays for.")
@click.option("--scope", "scopes", multiple=True, metavar="SCOPE", help="What the key allows; repeatable.")
@click.option("--expires-in", type=Parsed("duration", partial(parse_duration)), metavar="DURATION",
              help="When it ends, such as 90d. [default: never]")  # fmt: skip
def new(tenant: str, principal: str, plan: str | None, scopes: tuple[str, ...], expires_in: float | None) -> None:
    """Make an API key. The key goes to standard error, this once; its line for the file, to standard output.

    \b
    Examples:
      understudy key new --tenant acme --principal ada >> keys.toml
      understudy key new --tenant acme --principal ci --plan pro --scope orders:read --expires-in 90d >> keys.toml

    The file holds the hash alone: who reads it learns no key. To change a key, add the new line, give the new key to
    its bearer, and remove the old line, or put `revoked = true` in it, when the old key is in use no more.
    """
    from ...actors.session import TenantContext
    from ..credentials.api_key import ApiKey, new_api_key
    from ..credentials.api_key_lines import key_line
    from ..credentials.challenges import checked_scopes

    try:
        context = TenantContext(
            tenant,
            principal,
            plan,
            frozenset(checked_scopes(scopes)),
            expires=None if expires_in is None else time.time() + expires_in,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    text = new_api_key()
    click.echo(key_line(ApiKey.of(text, context)))
    click.echo(text, err=True)
