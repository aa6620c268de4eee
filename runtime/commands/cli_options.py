"""What the command line's options have in common: types, environment variables, and how to reach NATS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .config import ConfigError

__all__ = ["CommaList", "Parsed", "nats_options", "option"]

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    # Generic for type checkers only: click 8.2 cannot be subscripted.
    _ParamType = click.ParamType

F = TypeVar("F", bound=Callable[..., Any])


class Parsed(_ParamType):
    """An option's type from a function that raises `ConfigError` on what it cannot read."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self.parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


class CommaList(_ParamType):
    """Text whose environment variable holds several, separated by commas."""

    name = "text"
    envvar_list_splitter = ","

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).strip()
        if not text:
            self.fail("an empty entry; remove the stray comma", param, ctx)
        return text


def option(name: str, *, type: Any = None, default: Any = None, help: str, **extra: Any) -> Callable[[F], F]:
    """An option that its environment variable can set too, both named after it."""
    variable = f"UNDERSTUDY_{name.removeprefix('--').partition('/')[0].replace('-', '_').upper()}"
    return click.option(
        name, type=type, default=default, help=help, envvar=variable, show_default=default is not None, **extra
    )


def nats_options(which: str) -> Callable[[F], F]:
    """`--nats` and the files that go with it. `which`: what is said of `--nats`."""
    path = click.Path(path_type=Path)
    options = (
        option("--nats", metavar="URL", help=which),
        option("--nats-creds", type=path, metavar="FILE", help="NATS credentials: a JWT and its seed."),
        option("--nats-nkey", type=path, metavar="FILE", help="NATS credentials: an NKey seed."),
        option("--nats-ca", type=path, metavar="FILE", help="Certificates that NATS' own is checked against."),
        option("--nats-cert", type=path, metavar="FILE", help="Our certificate, if NATS asks for one."),
        option("--nats-key", type=path, metavar="FILE", help="Its key."),
    )

    def decorate(command: F) -> F:
        for add in reversed(options):
            command = add(command)
        return command

    return decorate
