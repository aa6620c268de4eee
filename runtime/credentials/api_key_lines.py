"""`key_line`, `parse_keys`: API keys as an operator writes them, in TOML."""

from __future__ import annotations

import re
import tomllib
from datetime import UTC, datetime
from typing import Any, Final, cast

from ...actors.session import TenantContext
from ..errors import ConfigurationError
from .api_key import ApiKey, ApiKeyError
from .challenges import checked_scopes

__all__ = ["key_line", "parse_keys"]

_NAME: Final = re.compile(r"sha256:[0-9a-f]{64}")
_FIELDS: Final = frozenset({"tenant", "principal", "plan", "scopes", "expires", "revoked"})


def key_line(key: ApiKey) -> str:
    """The line of the file that stands for `key`."""
    context = key.context
    fields = [("tenant", context.tenant), ("principal", context.principal)]
    if context.plan is not None:
        fields.append(("plan", context.plan))
    words = [f"{name} = {_quoted(text)}" for name, text in fields]
    if context.scopes:
        words.append(f"scopes = [{', '.join(_quoted(scope) for scope in sorted(context.scopes))}]")
    if context.expires is not None:
        moment = datetime.fromtimestamp(context.expires, UTC)
        words.append(f"expires = {moment.isoformat(timespec='seconds').replace('+00:00', 'Z')}")
    if key.revoked:
        words.append("revoked = true")
    return f'"sha256:{key.sha256}" = {{ {", ".join(words)} }}'


def _quoted(text: str) -> str:
    """A TOML basic string."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(letter if letter.isprintable() else f"\\U{ord(letter):08x}" for letter in plain) + '"'


def parse_keys(text: str, where: str) -> list[ApiKey]:
    """The keys that a file's text names. `where`: what to call it in errors.

    Raises:
        ApiKeyError: It is no TOML, or an entry cannot be used.
    """
    try:
        entries = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        # The end of the message says where. The rest may quote the file.
        place = re.search(r"\(at [^()]*\)$", str(error))
        raise ApiKeyError(f"{where} is no TOML{f' {place[0]}' if place else ''}") from None
    return [_entry(name, value, f"{where}, entry {number}") for number, (name, value) in enumerate(entries.items(), 1)]


def _entry(name: str, value: object, where: str) -> ApiKey:
    if _NAME.fullmatch(name) is None:
        # Not repeated: somebody may have written the key itself there.
        raise ApiKeyError(f'{where}: the name must be "sha256:" and 64 hexadecimal digits, the hash of a key')
    where = f"{where} ({name[:19]}...)"
    if not isinstance(value, dict):
        raise ApiKeyError(f'{where} must be a table: {{ tenant = "acme", principal = "ada" }}')
    given = cast("dict[str, Any]", value)
    if unknown := sorted(given.keys() - _FIELDS):
        raise ApiKeyError(f"{where} has the unknown field {unknown[0][:32]!r}; known: {', '.join(sorted(_FIELDS))}")
    texts = {field: given.get(field) for field in ("tenant", "principal", "plan")}
    for field, text in texts.items():
        if not (isinstance(text, str) and text) and not (field == "plan" and text is None):
            raise ApiKeyError(f"{where}: {field} must be text{' that is not empty' if text == '' else ''}")
    scopes = given.get("scopes", [])
    if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in cast("list[object]", scopes)):
        raise ApiKeyError(f"{where}: scopes must be a list of texts")
    revoked = given.get("revoked", False)
    if not isinstance(revoked, bool):
        raise ApiKeyError(f"{where}: revoked must be true or false")
    expires = given.get("expires")
    if expires is not None and (not isinstance(expires, datetime) or expires.tzinfo is None):
        raise ApiKeyError(f"{where}: expires must be a moment with its zone, such as 2027-01-01T00:00:00Z")
    try:
        context = TenantContext(
            tenant=cast("str", texts["tenant"]),
            principal=cast("str", texts["principal"]),
            plan=texts["plan"],
            scopes=frozenset(checked_scopes(cast("list[str]", scopes))),
            expires=None if expires is None else expires.timestamp(),
        )
    except (ConfigurationError, ValueError) as error:
        raise ApiKeyError(f"{where}: {error}") from None
    return ApiKey(name.removeprefix("sha256:"), context, revoked)
