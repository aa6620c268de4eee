"""`DynamoSettings`: which table, and where, from a URL. Credentials are never in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from .errors import DynamoSettingsError

__all__ = ["DynamoSettings"]

_TABLE = re.compile(r"[A-Za-z0-9_.-]{3,255}", re.ASCII)
_REGION = re.compile(r"[a-z]{2,}(?:-[a-z]+)+-[0-9]{1,2}", re.ASCII)
_PROFILE = re.compile(r"[A-Za-z0-9_.@+-]{1,128}", re.ASCII)
_OPTIONS = ("region", "endpoint", "profile", "connections")
_FORM = "write dynamodb://table?region=eu-west-1"
MOST_CONNECTIONS = 1000


@dataclass(frozen=True, slots=True)
class DynamoSettings:
    """Where the table is. Who we are is found as every client of AWS finds it: environment, profile, role.

    Raises:
        DynamoSettingsError: A value that cannot be.
    """

    table: str
    region: str | None = None
    """None: `AWS_REGION`, `AWS_DEFAULT_REGION`, or that of the profile."""
    endpoint: str | None = None
    """Another than that of AWS, as `http://127.0.0.1:8000`."""
    profile: str | None = None
    """A section of `~/.aws/config` and `~/.aws/credentials`; None: `AWS_PROFILE`, or `default`."""
    connections: int = 64
    """Most connections, and so requests under way, at once; the others wait."""

    def __post_init__(self) -> None:
        if _TABLE.fullmatch(self.table) is None:
            # Not echoed: a secret in the wrong place looks like this.
            raise DynamoSettingsError(
                f"the name of a DynamoDB table is 3 to 255 letters, digits, '.', '_' or '-'; {_FORM}"
            )
        if self.region is not None and _REGION.fullmatch(self.region) is None:
            raise DynamoSettingsError(f"region={self.region[:32]!r} is no region of AWS; {_FORM}")
        if self.profile is not None and _PROFILE.fullmatch(self.profile) is None:
            raise DynamoSettingsError(f"the profile is the name of a section of ~/.aws/config; {_FORM}&profile=name")
        if self.endpoint is not None:
            _check_endpoint(self.endpoint)
        if not 1 <= self.connections <= MOST_CONNECTIONS:
            raise DynamoSettingsError(f"connections={self.connections} must be 1 to {MOST_CONNECTIONS}")

    @staticmethod
    def from_url(url: str) -> DynamoSettings:
        """From `dynamodb://table?region=eu-west-1&profile=name&endpoint=http://127.0.0.1:8000&connections=64`.

        Raises:
            DynamoSettingsError: It cannot be understood. The message repeats nothing that may be secret.
        """
        if not url.isascii() or not url.isprintable() or " " in url or "#" in url:
            raise DynamoSettingsError(f"a DynamoDB URL is visible ASCII without #; {_FORM}")
        scheme, colon, rest = url.partition("://")
        if not colon or scheme != "dynamodb":
            raise DynamoSettingsError(f"a DynamoDB URL starts with dynamodb://; {_FORM}")
        table, _, query = rest.partition("?")
        if "@" in table:
            raise DynamoSettingsError(
                f"a DynamoDB URL has no user and no password: credentials come from the environment, from a profile or "
                f"from the role of the machine; {_FORM}"
            )
        options: dict[str, str] = {}
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=16) if query else []
        except ValueError:
            raise DynamoSettingsError(f"the options of a DynamoDB URL have the form name=value; {_FORM}") from None
        for name, value in pairs:
            if name not in _OPTIONS:
                raise DynamoSettingsError(
                    f"unknown option {name[:64]!r} in a DynamoDB URL; it takes {', '.join(_OPTIONS)}, and credentials "
                    "come from the environment, from a profile or from the role of the machine"
                )
            if name in options or not value:
                raise DynamoSettingsError(f"option {name!r} of a DynamoDB URL must be given once, with a value")
            options[name] = value
        connections = options.pop("connections", "64")
        if not connections.isdigit() or len(connections) > 6:
            raise DynamoSettingsError(f"connections must be a whole number, 1 to {MOST_CONNECTIONS}")
        return DynamoSettings(table, **options, connections=int(connections))


def _check_endpoint(endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or port == 0
        or "@" in parts.netloc
        or parts.path not in ("", "/")
        or parts.query
        or parts.fragment
    ):
        raise DynamoSettingsError(
            "the endpoint of DynamoDB is http:// or https:// with a host and a port, and nothing else: "
            "&endpoint=http://127.0.0.1:8000"
        )
