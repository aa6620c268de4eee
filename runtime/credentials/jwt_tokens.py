"""`JwtTokens`: who is asking, told by a signed token (RFC 7519, RFC 9068)."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final, cast

import jwt
from starlette.requests import Request

from ...actors.clock import Clock, SystemClock
from ...actors.session import TenantContext
from ..errors import ConfigurationError
from .challenges import checked_scopes, require_scopes
from .claims import ClaimNames, ClaimsRefused
from .credential_header import CredentialHeader
from .jwks_url import JwksUrl
from .signing_keys import ALGORITHMS, SigningKeyError, SigningKeys
from .tenants import CredentialUnchecked, Unauthenticated

__all__ = ["JwtTokens"]

LARGEST: Final = 8192
LONGEST_KID: Final = 256
_LATEST: Final = 2**40

Revoked = Callable[[Mapping[str, Any]], bool | Awaitable[bool]]
Told = TenantContext | Awaitable[TenantContext]
_Verdict = tuple[TenantContext, dict[str, Any]]


class JwtTokens:
    """A `TenantResolver` for JWTs in `Authorization: Bearer`, checked here by the issuer's public keys.

        Runtime(server, tenants=JwtTokens(
            issuer="https://auth.example.com", audience="https://mcp.example.com/mcp",
            jwks_url="https://auth.example.com/.well-known/jwks.json", claims=ClaimNames(tenant="org_id"),
        ))

    A token that is not in order gets 401, whatever is wrong with it; one that lacks a scope, 403; and 503 one that
    cannot be judged because the keys are out of reach. One issuer each, as `sub` means something to its issuer only.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str | Sequence[str],
        jwks_url: str | None = None,
        keys: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        algorithms: Iterable[str] = ("RS256", "ES256", "EdDSA"),
        types: Iterable[str] = ("JWT", "at+jwt"),
        claims: ClaimNames | Callable[[Mapping[str, Any]], TenantContext] | None = None,
        required_claims: Iterable[str] = (),
        required_scopes: Iterable[str] = (),
        revoked: Revoked | None = None,
        header: str = "authorization",
        leeway: float = 30.0,
        cached_tokens: int = 10_000,
        max_age: float = 300.0,
        max_stale: float = 86_400.0,
        pause: float = 5.0,
        deadline: float = 3.0,
        clock: Clock | None = None,
    ) -> None:
        """
        Args:
            issuer: What `iss` must be.
            audience: What `aud` must be, or have among others: one of these.
            jwks_url: Where the issuer publishes its keys. Either this or `keys`.
            keys: Its keys: a JWK set (`{"keys": [...]}`), or a list of JWKs.
            algorithms: What tokens may be signed with. Public-key signatures only.
            types: What `typ` in a token's head may be, if it is there (RFC 8725, 3.11): what the same issuer signs for
                another purpose, such as a `logout+jwt`, is no credential.
            claims: Which claims say who it is, or a function of all claims. A `ValueError` of it is a 401, and its text
                goes to the client if it is a `ClaimsRefused`.
            required_claims: What must be there beside `iss`, `aud` and `exp`.
            required_scopes: What each token must have been given.
            revoked: Asked on every request, of the claims of a token that is otherwise good; be quick. True: 401.
            header: Where the token stands: `authorization`, or a header that holds nothing else.
            leeway: Seconds that clocks may differ by.
            cached_tokens: Tokens whose verdict is remembered until they expire; beyond it the least recently used go.
            max_age: Seconds after which the keys are fetched again; then a key that is gone has no say any more.
            max_stale: Seconds that keys are used for while `jwks_url` does not answer; then 503.
            pause: Least seconds between two fetches. A token with an unknown `kid` may wait so long for the next one.
            deadline: Seconds that a fetch may take.
            clock: For tests.

        Raises:
            ConfigurationError: A value is out of range, or an algorithm is none of `understudy`'s.
            SigningKeyError: `keys` has none that can be used.
        """
        self._algorithms = frozenset(algorithms)
        unknown = self._algorithms - ALGORITHMS
        if isinstance(algorithms, str) or not self._algorithms or unknown:
            named = algorithms if isinstance(algorithms, str) else ", ".join(sorted(unknown))
            raise ConfigurationError(
                f"algorithms has {named!r}; choose from {', '.join(sorted(ALGORITHMS))}. HS* and none are not among "
                "them: with those, whoever can check a token, or anybody, can make one"
            )
        self._audience = [audience] if isinstance(audience, str) else list(audience)
        if not issuer or not self._audience or not all(self._audience):
            raise ConfigurationError("issuer and audience must be named: a token for somebody else would be taken")
        if (jwks_url is None) == (keys is None):
            raise ConfigurationError("name either jwks_url or keys")
        if not 0 <= leeway <= 3600:
            raise ConfigurationError(f"leeway is {leeway!r}; it must be 0 to 3600 seconds")
        if cached_tokens < 1:
            raise ConfigurationError(f"cached_tokens is {cached_tokens!r}; it must be 1 or more")
        self._types = frozenset(_bare_type(each) for each in types)
        self._issuer = issuer
        self._leeway = leeway
        self._header = CredentialHeader(header)
        self._required = checked_scopes(required_scopes)
        self._required_claims = ["exp", "iss", "aud", *required_claims]
        self._claims = claims or ClaimNames()
        self._revoked = revoked
        self._cached: OrderedDict[bytes, _Verdict] = OrderedDict()
        self._most_cached = cached_tokens
        self._refused = self._verified = 0
        self._fixed: SigningKeys | None = None
        self._url: JwksUrl | None = None
        if keys is not None:
            document = keys if isinstance(keys, Mapping) else {"keys": list(keys)}
            try:
                self._fixed = SigningKeys.of_document(dict(document), self._algorithms)
            except SigningKeyError as error:
                raise SigningKeyError(f"keys cannot be used: {error}") from None
        else:
            self._url = JwksUrl(
                jwks_url or "",
                self._algorithms,
                max_age=max_age,
                max_stale=max_stale,
                pause=pause,
                deadline=deadline,
                clock=clock or SystemClock(),
                # A verdict must not outlive the key that it rests on.
                changed=self._cached.clear,
            )

    def __call__(self, request: Request) -> Told:
        """A `TenantResolver`: whose token the request carries."""
        try:
            token = self._header.read(request)
            if len(token) > LARGEST:
                raise self._header.refusal(f"the token is longer than {LARGEST} bytes")
            digest = hashlib.sha256(token).digest()
            if self._url is not None and self._url.is_due():
                return self._after_refresh(self._url, token, digest)
            return self._judge(token, digest)
        except Unauthenticated:
            self._refused += 1
            raise

    def _judge(self, token: bytes, digest: bytes) -> Told:
        keys = self._fixed if self._url is None else self._url.keys
        verdict = self._cached.get(digest)
        if verdict is not None and keys is not None:
            expires = verdict[0].expires
            if expires is None or expires > time.time():
                self._cached.move_to_end(digest)
                return self._admit(verdict)
            del self._cached[digest]
            raise self._header.refusal("the token has expired")
        algorithm, kid = self._head(token)
        verdict = None if keys is None else self._verify(token, digest, keys, algorithm, kid)
        if verdict is not None:
            return self._admit(verdict)
        if self._url is None:
            raise self._header.refusal("the token was signed with an unknown key")
        return self._after_fetch(self._url, token, digest, algorithm, kid)

    async def _after_refresh(self, url: JwksUrl, token: bytes, digest: bytes) -> TenantContext:
        await url.refresh()
        return await self._awaited(lambda: self._judge(token, digest))

    async def _after_fetch(
        self, url: JwksUrl, token: bytes, digest: bytes, algorithm: str, kid: str | None
    ) -> TenantContext:
        try:
            # What cannot become good by any key need not have one fetched.
            self._decode(token, None, algorithm)
        except Unauthenticated:
            self._refused += 1
            raise
        before = url.keys
        await url.until(lambda: url.keys is not before and _knows(url.keys, kid, algorithm))
        return await self._awaited(lambda: self._last_word(url, token, digest, algorithm, kid))

    def _last_word(self, url: JwksUrl, token: bytes, digest: bytes, algorithm: str, kid: str | None) -> Told:
        keys = url.keys
        verdict = None if keys is None else self._verify(token, digest, keys, algorithm, kid)
        if verdict is not None:
            return self._admit(verdict)
        if keys is None or url.failing:
            raise CredentialUnchecked("the key of this token cannot be fetched now", retry_after=url.pause)
        raise self._header.refusal("the token was signed with an unknown key")

    async def _awaited(self, judge: Callable[[], Told]) -> TenantContext:
        try:
            told = judge()
        except Unauthenticated:
            self._refused += 1
            raise
        return told if isinstance(told, TenantContext) else await told

    def _head(self, token: bytes) -> tuple[str, str | None]:
        """The algorithm and the key that a token says it was signed with.

        Raises:
            Unauthenticated: It is no token, or not signed as it must be.
        """
        try:
            head: dict[str, Any] = jwt.get_unverified_header(token)
        except Exception:
            # PyJWT lets through whatever its parts raise on hostile bytes.
            raise self._header.refusal("the token is malformed") from None
        algorithm, kid, kind = head.get("alg"), head.get("kid"), head.get("typ")
        if kind is not None and not (isinstance(kind, str) and _bare_type(kind) in self._types):
            raise self._header.refusal("the token is of a type that is not accepted here")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise self._header.refusal("the token is not signed with an algorithm that is accepted here")
        if kid is not None and not (isinstance(kid, str) and len(kid) <= LONGEST_KID):
            raise self._header.refusal("the token is malformed")
        return algorithm, kid

    def _verify(
        self, token: bytes, digest: bytes, keys: SigningKeys, algorithm: str, kid: str | None
    ) -> _Verdict | None:
        """What a token says; None: none of the keys has signed it that it may be signed with.

        Raises:
            Unauthenticated: It is worth nothing.
        """
        candidates = keys.candidates(kid, algorithm)
        for candidate in candidates:
            claims = self._decode(token, candidate.key, algorithm)
            if claims is not None:
                return self._remember(digest, claims)
        if candidates and kid is not None:
            raise self._header.refusal("the signature of the token is wrong")
        return None

    def _decode(self, token: bytes, key: Any, algorithm: str) -> dict[str, Any] | None:
        """The claims, if they are in order and signed with `key`; None if they are not signed with it. Without a key
        only what the claims say is looked at.

        Raises:
            Unauthenticated: They are not in order.
        """
        checks: dict[str, Any] = {
            f"verify_{name}": True for name in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti", "signature")
        }
        checks["require"] = self._required_claims
        checks["verify_signature"] = key is not None
        try:
            return jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                options=cast("Any", checks),
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway,
            )
        except jwt.InvalidSignatureError:
            return None
        except jwt.ExpiredSignatureError:
            reason = "the token has expired"
        except jwt.ImmatureSignatureError:
            reason = "the token is not valid yet"
        except jwt.InvalidAudienceError:
            reason = "the token is for another audience"
        except jwt.InvalidIssuerError:
            reason = "the token is of another issuer"
        except jwt.MissingRequiredClaimError as error:
            reason = f"the token lacks the claim {error.claim}"
        except Exception:
            # As above. A token that can do this is none.
            reason = "the token is malformed"
        raise self._header.refusal(reason)

    def _remember(self, digest: bytes, claims: dict[str, Any]) -> _Verdict:
        # The leeway is for the end too: without it two checks of one token would differ.
        expires = min(int(claims["exp"]), _LATEST) + self._leeway
        try:
            if isinstance(self._claims, ClaimNames):
                context = self._claims.context(claims, expires=expires)
            else:
                context = self._claims(claims)
                if context.expires is None or context.expires > expires:
                    context = replace(context, expires=expires)
        except ClaimsRefused as error:
            raise self._header.refusal(str(error)) from None
        except ValueError:
            raise self._header.refusal("the claims of the token cannot be used") from None
        self._verified += 1
        self._cached[digest] = verdict = (context, claims)
        if len(self._cached) > self._most_cached:
            self._cached.popitem(last=False)
        return verdict

    def _admit(self, verdict: _Verdict) -> Told:
        context, claims = verdict
        if self._revoked is not None:
            revoked = self._revoked(MappingProxyType(claims))
            if inspect.isawaitable(revoked):
                return self._admit_later(context, revoked)
            self._refuse_if(revoked)
        return require_scopes(context, self._required)

    async def _admit_later(self, context: TenantContext, revoked: Awaitable[bool]) -> TenantContext:
        try:
            self._refuse_if(await revoked)
        except Unauthenticated:
            self._refused += 1
            raise
        return require_scopes(context, self._required)

    def _refuse_if(self, revoked: bool) -> None:
        if revoked:
            raise self._header.refusal("the token has been revoked")

    def forget(self, tenant: str | None) -> None:
        """Check the tokens of `tenant`, or of all, anew when they come again. The issuer's keys stay."""
        for digest in [key for key, known in self._cached.items() if tenant is None or known[0].tenant == tenant]:
            del self._cached[digest]

    def stats(self) -> dict[str, int | float]:
        """Plain numbers, for `/metrics`."""
        numbers: dict[str, int | float] = {
            "tokens_cached": len(self._cached),
            "tokens_verified_total": self._verified,
            "refused_total": self._refused,
        }
        return numbers | (self._url.stats() if self._url is not None else {})


def _bare_type(kind: str) -> str:
    """A media type as it is compared (RFC 7515, 4.1.9): in any case, with or without its first half."""
    return kind.lower().removeprefix("application/")


def _knows(keys: SigningKeys | None, kid: str | None, algorithm: str) -> bool:
    return keys is not None and bool(keys.candidates(kid, algorithm))
