"""`tls_context`: TLS to a store's server by files that an operator names; `load_plain_key`: our own certificate."""

from __future__ import annotations

import ssl
from pathlib import Path

from .errors import StoreURLError

__all__ = ["load_plain_key", "tls_context"]


def tls_context(
    ca: Path | None, cert: Path | None, key: Path | None, *, of: str, error: type[StoreURLError]
) -> ssl.SSLContext:
    """What the servers' certificates are checked against (None: the system's authorities), and our own, if both of
    `cert` and `key` are given. `of`: whose options they are, for messages.

    Raises:
        StoreURLError: As `error`: a file cannot be read, or holds no certificate or key.
    """
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (OSError, ValueError) as cause:
        text = f"{of} option 'ca': {str(ca)!r} holds no certificate that can be read: {_reason(cause)}"
        raise error(text) from cause
    if cert is not None and key is not None:
        try:
            load_plain_key(context, cert, key)
        except ValueError as cause:
            text = f"{of} options 'cert' {str(cert)!r} and 'key' {str(key)!r} are no certificate and its plain key"
            raise error(f"{text}: {cause}") from cause
    return context


def load_plain_key(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    """Have `context` show `cert`.

    Raises:
        ValueError: The files are no certificate and its key, or the key is encrypted; says which.
    """
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except (OSError, ValueError) as error:
        raise ValueError(_reason(error)) from error


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)


def _no_password() -> str:
    # Without a callback OpenSSL asks on the terminal, and a service hangs at its start.
    raise ValueError("the key is encrypted")
