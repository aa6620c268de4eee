"""`RuntimeOptions`: what a `Runtime` was asked for, checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from ..actors.session.surfaces import ToolsFor
from ..stores import EventLog, EventLogBounds, KeyRing, SessionStore
from .audit.audit import Audit
from .credentials.tenants import TenantResolver
from .errors import ConfigurationError
from .fairness import Fairness
from .limits.options import LimitOptions
from .provider.session_hooks import SessionHooks
from .telemetry.tenant_label import MOST_LABELS
from .tenant_helpers import HelperOptions
from .wire.routing import Placement

if TYPE_CHECKING:
    from .cluster import ClusterOptions

__all__ = ["Era", "RuntimeOptions"]

Era = Literal["handshake", "modern"]

_ABOVE_ZERO: Final = (
    "credential_check",
    "session_ttl",
    "idle_after",
    "max_sessions",
    "max_memory",
    "max_body",
    "max_state",
    "mailbox_size",
    "body_timeout",
    "store_timeout",
    "answer_timeout",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeOptions:
    """`Runtime` says what each means."""

    store: SessionStore | str
    next_store: SessionStore | str | None
    former_store: SessionStore | str | None
    path: str
    eras: Sequence[Era]
    tenants: TenantResolver | None
    credential_check: float
    tools_for: ToolsFor | None
    session_ttl: float
    idle_after: float
    max_sessions: int
    max_memory: int | None
    max_body: int
    max_state: int
    mailbox_size: int
    body_timeout: float
    store_timeout: float
    answer_timeout: float
    allowed_hosts: Sequence[str] | None
    allowed_origins: Sequence[str] | None
    turns: Literal["exclusive", "interleaved"]
    cluster: ClusterOptions | None
    placement: Placement | None
    event_log: EventLog | Literal["store", "off"]
    event_bounds: EventLogBounds | None
    encryption: KeyRing | None
    encryption_allows_plain: bool
    audit: Audit | None
    tenant_labels: int
    fairness: Fairness | None
    """None: first come, first served."""
    helpers: HelperOptions
    limits: LimitOptions | None
    hooks: SessionHooks | None

    def __post_init__(self) -> None:
        """
        Raises:
            ConfigurationError: A value is out of range, or two do not go together.
        """
        for name in ("store", "next_store", "former_store"):
            store = getattr(self, name)
            known = isinstance(store, str) or (isinstance(store, SessionStore) and not isinstance(store, type))
            if not known and (store is not None or name == "store"):
                raise ConfigurationError(f"{name} is {store!r:.80}; it must be the URL of a store, or a SessionStore")
        for name in ("allowed_hosts", "allowed_origins"):
            allowed = getattr(self, name)
            # Of a text each letter would be a host, and a star in it all of them.
            if isinstance(allowed, str) or not all(isinstance(each, str) for each in allowed or ()):
                raise ConfigurationError(f'{name} is {allowed!r:.80}; it must be several texts, as ["example.com"]')
        if self.tenants is not None and (not callable(self.tenants) or isinstance(self.tenants, type)):
            raise ConfigurationError(
                f"tenants is {self.tenants!r:.80}; it must be a resolver: ApiKeys(...), JwtTokens(...), a function "
                "(request) -> TenantContext"
            )
        if self.encryption is not None and not isinstance(self.encryption, KeyRing):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"encryption is of type {type(self.encryption).__name__}; it must be a KeyRing")
        for name in _ABOVE_ZERO:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigurationError(f"{name} is {value!r}; it must be greater than 0")
        if not 0 <= self.tenant_labels <= MOST_LABELS:
            raise ConfigurationError(f"tenant_labels is {self.tenant_labels!r}; it must be 0 to {MOST_LABELS}")
        if self.tools_for is not None and not callable(self.tools_for):
            raise ConfigurationError(
                f"tools_for is {type(self.tools_for).__name__!r}; it must be a function (tenant) -> names of tools"
            )
        if not self.eras or set(self.eras) - {"handshake", "modern"}:
            raise ConfigurationError(f'eras is {tuple(self.eras)!r}; name "handshake", "modern" or both')
        if self.turns not in ("exclusive", "interleaved"):
            raise ConfigurationError(f'turns is {self.turns!r}; it must be "exclusive" or "interleaved"')
        if isinstance(self.event_log, str) and self.event_log not in ("store", "off"):
            raise ConfigurationError(f'event_log is {self.event_log!r}; it must be "store", "off" or an EventLog')
        if self.event_bounds is not None and not isinstance(self.store, str):
            raise ConfigurationError("event_bounds is for a store that is named by its URL; open yours with its bounds")
        if self.encryption is not None and not isinstance(self.event_log, str):
            raise ConfigurationError("encryption is for what the store keeps, and event_log is kept apart from it")
        if self.encryption_allows_plain and self.encryption is None:
            raise ConfigurationError("encryption_allows_plain is given without encryption; name the keys")
        if self.next_store is not None and self.former_store is not None:
            raise ConfigurationError(
                "next_store and former_store are given: a node follows its sessions to another store, or moves them "
                "from one; name one of the two"
            )
        if self.hooks is not None and not isinstance(self.hooks, SessionHooks):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"hooks is {self.hooks!r:.80}; it must be SessionHooks(opened=..., ended=...)")
        if self.cluster is not None and not hasattr(self.cluster, "max_body"):
            raise ConfigurationError(f"cluster is {self.cluster!r:.80}; it must be ClusterOptions(name, nats=...)")
        if self.cluster is not None and self.max_body > self.cluster.max_body:
            raise ConfigurationError(
                f"max_body is {self.max_body}, but at most {self.cluster.max_body} bytes can cross between nodes, any "
                "of which must be able to take any request"
            )
