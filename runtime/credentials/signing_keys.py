"""`SigningKeys`: the public keys that tokens are checked against, each with the algorithms that it may be used for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import jwt

from ...stores import UnderstudyError

__all__ = ["ALGORITHMS", "SigningKey", "SigningKeyError", "SigningKeys"]

_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_BY_CURVE: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA"}
ALGORITHMS: Final = frozenset((*_RSA, *_BY_CURVE.values()))
"""All that can be asked for. With `none` anybody, and with HS* everybody who can check a token, could make one."""
_PUBLIC: Final = {"RSA": ("kty", "n", "e"), "EC": ("kty", "crv", "x", "y"), "OKP": ("kty", "crv", "x")}
_FEWEST_RSA_BITS: Final = 2048
_MOST: Final = 100
_MOST_TRIED: Final = 4


class SigningKeyError(UnderstudyError, ValueError):
    """A key, or a set of keys (RFC 7517), that cannot be used."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One public key. Equal keys are the same key."""

    kid: str | None
    algorithms: frozenset[str]
    """What it may be used for: told by its type, never by a token (that is the confusion of RS256 and HS256)."""
    key: Any

    @classmethod
    def of_jwk(cls, jwk: Mapping[str, Any], accepted: frozenset[str]) -> SigningKey:
        """
        Raises:
            SigningKeyError: It is none, not for signatures, too weak, or for none of the `accepted` algorithms.
        """
        kty, kid = jwk.get("kty"), jwk.get("kid")
        members = _PUBLIC.get(kty) if isinstance(kty, str) else None
        if members is None:
            raise SigningKeyError("its kty is not RSA, EC or OKP")
        if kid is not None and not isinstance(kid, str):
            raise SigningKeyError("its kid is no text")
        operations = jwk.get("key_ops")
        if jwk.get("use", "sig") != "sig" or (isinstance(operations, list) and "verify" not in operations):
            raise SigningKeyError("it is not for checking signatures")
        fitting = set(_RSA if kty == "RSA" else [_BY_CURVE.get(str(jwk.get("crv")), "")]) & accepted
        if jwk.get("alg") is not None:
            fitting &= {jwk["alg"]} if isinstance(jwk["alg"], str) else set()
        if not fitting:
            raise SigningKeyError(f"it is for none of the algorithms {', '.join(sorted(accepted))}")
        # The public part alone: a set that gives its private keys away must not bring them in here.
        public = {name: jwk[name] for name in members if name in jwk}
        try:
            key: Any = jwt.PyJWK(public, algorithm=min(fitting)).key
        except Exception as error:
            # PyJWT lets through whatever its parts raise on hostile numbers.
            raise SigningKeyError(f"it cannot be read ({type(error).__name__})") from None
        if kty == "RSA" and key.key_size < _FEWEST_RSA_BITS:
            raise SigningKeyError(f"it has {key.key_size} bits; an RSA key must have {_FEWEST_RSA_BITS} or more")
        return cls(kid, frozenset(fitting), key)


class SigningKeys:
    """A set of keys, at most 100, found by the `kid` of a token."""

    def __init__(self, keys: tuple[SigningKey, ...]) -> None:
        self.keys = keys

    @classmethod
    def of_document(cls, document: object, accepted: frozenset[str]) -> SigningKeys:
        """From a JWK set. Keys that cannot be used are passed over, as RFC 7517 (section 5) wants it.

        Raises:
            SigningKeyError: It is no such set, has too many keys, or none that can be used.
        """
        listed = cast("dict[str, Any]", document).get("keys") if isinstance(document, dict) else None
        if not isinstance(listed, list):
            raise SigningKeyError('it is no JWK set: an object with a list "keys"')
        entries = cast("list[object]", listed)
        if len(entries) > _MOST:
            raise SigningKeyError(f"it has {len(entries)} keys; at most {_MOST} are taken")
        usable: list[SigningKey] = []
        reasons: list[str] = []
        for entry in entries:
            try:
                if not isinstance(entry, dict):
                    raise SigningKeyError("it is no object")
                usable.append(SigningKey.of_jwk(cast("dict[str, Any]", entry), accepted))
            except SigningKeyError as error:
                reasons.append(str(error))
        if not usable:
            raise SigningKeyError(f"it has no usable key{f': {reasons[0]}' if reasons else ''}")
        return cls(tuple(usable))

    def candidates(self, kid: str | None, algorithm: str) -> list[SigningKey]:
        """Those that a token may have been signed with; 4 at most, should several have one `kid`, or the token none."""
        fitting = (key for key in self.keys if algorithm in key.algorithms and (kid is None or key.kid == kid))
        return [key for key, _ in zip(fitting, range(_MOST_TRIED), strict=False)]

    def lacks_some_of(self, others: SigningKeys) -> bool:
        """Whether a key of `others` is not here."""
        return any(key not in self.keys for key in others.keys)
