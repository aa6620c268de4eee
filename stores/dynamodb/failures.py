"""What botocore raises, as a `Failure` of ours: what to say, whether it may have been done, whether to try again."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from botocore import exceptions as boto  # pyright: ignore[reportMissingTypeStubs]
from botocore.parsers import ResponseParserError  # pyright: ignore[reportMissingTypeStubs]

from .errors import DynamoRefused, DynamoThrottled, DynamoUnavailable

__all__ = ["Failure", "Retry", "failure_of", "is_condition"]

_THROTTLING = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "Throttling",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestLimitExceeded",
        "TooManyRequestsException",
        "ReplicatedWriteConflictException",
        "TransactionInProgressException",
    }
)
_UNKNOWN_TO_AWS = frozenset(
    {
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "InvalidAccessKeyId",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "AuthFailure",
    }
)
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpiredToken"})
_SIGNATURE = frozenset(
    {"InvalidSignatureException", "SignatureDoesNotMatch", "RequestExpired", "RequestTimeTooSkewed", "SignatureExpired"}
)
_DENIED = frozenset({"AccessDeniedException", "AccessDenied", "NotAuthorized", "OptInRequired"})
_CLOCK = re.compile(r"signature (?:has )?expired|not yet current|is earlier than|is later than|skew", re.IGNORECASE)
_NO_CREDENTIALS = (
    "there are no credentials for DynamoDB: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile "
    "(?profile=name, AWS_PROFILE), or give the machine a role"
)


_CREDENTIALS = (
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.TokenRetrievalError,
    boto.NoAuthTokenError,
    boto.SSOError,
    boto.InvalidConfigError,
    boto.MetadataRetrievalError,
    boto.RefreshWithMFAUnsupportedError,
)


class Retry(Enum):
    """Whether the same request may help, in this call."""

    NO = 0
    SOON = 1
    """A few times: a connection that broke, a server that failed."""
    LATER = 2
    """As long as there is time: throttled."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One try of one request that failed."""

    message: str
    retry: Retry
    outcome_unknown: bool
    kind: type[DynamoUnavailable] = DynamoUnavailable
    code: str = ""

    def error(self, *, outcome_unknown: bool) -> DynamoUnavailable:
        """To be raised. `outcome_unknown`: of all tries together."""
        error = self.kind(self.message, outcome_unknown=outcome_unknown)
        error.code = self.code
        return error


def is_condition(error: Exception) -> bool:
    """Whether DynamoDB has compared and not written."""
    return isinstance(error, boto.ClientError) and _code(error) == "ConditionalCheckFailedException"


def failure_of(error: Exception, operation: str, where: str) -> Failure:
    """What `error` means. `where`: table and region, for the message."""
    if isinstance(error, boto.ClientError):
        return replace(_answered(error, operation, where), code=_code(error))
    if isinstance(error, boto.SSLError):
        return _refused(
            f"TLS with {where} failed: its certificate is not trusted (AWS_CA_BUNDLE names a CA of your own), or it "
            "speaks no TLS there"
        )
    if isinstance(error, boto.ConnectTimeoutError | boto.EndpointConnectionError | boto.ProxyConnectionError):
        return Failure(
            f"DynamoDB is out of reach at {where}: no connection; is the region right, and a way there open?",
            Retry.NO,
            outcome_unknown=False,
        )
    if isinstance(error, boto.ReadTimeoutError | TimeoutError):
        return Failure(f"DynamoDB did not answer {operation} in time at {where}", Retry.NO, outcome_unknown=True)
    if isinstance(error, boto.NoCredentialsError):
        return _refused(_NO_CREDENTIALS)
    if isinstance(error, _CREDENTIALS):
        return _refused(f"credentials for DynamoDB could not be had ({type(error).__name__}); {_NO_CREDENTIALS}")
    if isinstance(error, boto.HTTPClientError | OSError):
        return Failure(f"the connection to DynamoDB broke during {operation} at {where}", Retry.SOON, True)
    if isinstance(error, ResponseParserError):
        return Failure(f"what answers at {where} is no DynamoDB", Retry.NO, outcome_unknown=True, kind=DynamoRefused)
    return Failure(
        f"{operation} at {where} failed ({type(error).__name__})", Retry.NO, outcome_unknown=True, kind=DynamoRefused
    )


def _answered(error: Any, operation: str, where: str) -> Failure:
    code, message = _code(error), str(error.response.get("Error", {}).get("Message", ""))[:300]
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _THROTTLING or status == 429:
        return Failure(
            f"DynamoDB throttles {operation} of {where} ({code}): raise its capacity, or spread the load",
            Retry.LATER,
            outcome_unknown=False,
            kind=DynamoThrottled,
        )
    if code == "ResourceNotFoundException":
        return _refused(
            f"there is no {where}: make it with `understudy store init dynamodb://...`, or name the region and the "
            "account that it is in"
        )
    if code in _DENIED:
        return _refused(f"these credentials do not permit {operation} of {where}: {message}")
    if code in _UNKNOWN_TO_AWS:
        return _refused(f"AWS does not know these credentials ({code}), at {where}: a wrong key, or of another account")
    if code in _EXPIRED:
        return _refused(
            f"the credentials have expired ({code}), at {where}: renew them, and start anew if they are in the "
            "environment"
        )
    if code in _SIGNATURE:
        # AWS's own message may repeat the headers that were signed, a session token among them.
        if code in ("RequestExpired", "RequestTimeTooSkewed", "SignatureExpired") or _CLOCK.search(message):
            return _refused(f"the clock of this machine is minutes off the clock of AWS ({code}): set it right")
        return _refused(
            f"the signature is not right ({code}), at {where}: a wrong secret key, or another region than the "
            "endpoint's"
        )
    if status >= 500 or code in ("InternalServerError", "ServiceUnavailable"):
        return Failure(f"DynamoDB failed at {operation} of {where} ({code})", Retry.SOON, outcome_unknown=True)
    if status == 413 or "Item size" in message or "item size" in message:
        return _refused(f"{operation} of {where}: the item is larger than DynamoDB takes ({message or code})")
    if "does not match the schema" in message or "Missing the key" in message or "Type mismatch for key" in message:
        return _refused(
            f"{where} has another key than understudy's, which is sessionId (a string) alone: make one of its own with "
            "`understudy store init`"
        )
    # An error of DynamoDB has a name; of a page of something else botocore makes its status the name.
    if code.isdigit() or not code:
        return Failure(
            f"what answers at {where} is no DynamoDB (status {status})", Retry.NO, status < 400, kind=DynamoRefused
        )
    return _refused(f"DynamoDB refuses {operation} of {where}: {code}: {message}")


def _refused(message: str) -> Failure:
    return Failure(message, Retry.NO, outcome_unknown=False, kind=DynamoRefused)


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))[:80]
