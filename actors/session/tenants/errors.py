"""What the helpers of a tenant refuse."""

from __future__ import annotations

from ..errors import SessionError

__all__ = [
    "CacheError",
    "FileMissing",
    "FilesBusy",
    "FilesError",
    "FilesUnavailable",
    "NoCall",
    "NotOffered",
    "PathRefused",
    "QuotaExceeded",
    "SecretMissing",
    "SecretsUnavailable",
    "TenantHelperError",
    "WrongTenant",
]


class TenantHelperError(SessionError):
    """A helper of a tenant (`cache`, `files`, `secrets`, `connection`) refused what it was asked."""


class NoCall(TenantHelperError, LookupError):
    """A tenant's helpers were asked for outside of a call."""

    def __init__(self) -> None:
        super().__init__(
            "no call is running here, and so there is nobody whose cache, files, secrets or connection this could be: "
            "ask inside of a call that understudy hosts (a thread needs its context: asyncio.to_thread has it, "
            "loop.run_in_executor has not)"
        )


class WrongTenant(TenantHelperError):
    """A tenant's context, or something that it gave, was used in another party's call."""

    def __init__(self) -> None:
        super().__init__(
            "this belongs to another tenant or principal than the running call's: ask current_tenant() in each call, "
            "and keep nothing of it between calls"
        )


class NotOffered(TenantHelperError):
    """The runtime was given nothing for this helper."""

    def __init__(self, helper: str, option: str) -> None:
        super().__init__(f"tenant.{helper} is not offered here: give the runtime {option}")


class CacheError(TenantHelperError):
    """A value could not be made in time, or a key cannot be one."""


class FilesError(TenantHelperError):
    """A tenant's files: what was asked cannot be done. The message names no path but the one that was given."""


class PathRefused(FilesError, ValueError):
    """A path that leaves the tenant's folder, or might, or that no file can have everywhere."""

    def __init__(self, path: object, reason: str) -> None:
        shown = repr(path)
        super().__init__(f"the path {shown if len(shown) <= 80 else shown[:77] + '...'} is refused: {reason}")


class FileMissing(FilesError, LookupError):
    """There is no such file or folder."""


class QuotaExceeded(FilesError):
    """The tenant's files would take more room, or be more, than it may have. Nothing was changed."""


class FilesBusy(FilesError):
    """More file operations wait than may. Nothing was done."""


class FilesUnavailable(FilesError):
    """The file system failed, or did not answer in time. A change may or may not have been made."""


class SecretMissing(TenantHelperError, LookupError):
    """The tenant has no secret of this name."""


class SecretsUnavailable(TenantHelperError):
    """The tenant's secrets cannot be had now. The message never says what the source said."""
