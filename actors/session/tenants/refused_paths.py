"""`told`: what the system refuses, in words that name no path but the one that was given."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager

from .errors import FileMissing, FilesError, FilesUnavailable, PathRefused

__all__ = ["shown", "told"]


@contextmanager
def told(path: object) -> Generator[None]:
    """Say what the system refused, without the paths that it names."""
    try:
        yield
    except OSError as error:
        # `from None`: the error of the system names the path outside.
        raise _refusal(path, error) from None


def _refusal(path: object, error: OSError) -> FilesError:
    match error.errno:
        case errno.ENOENT:
            return FileMissing(f"there is no file or folder {shown(path)}")
        case errno.ELOOP | errno.EMLINK:
            return PathRefused(path, "it leads through a symbolic link")
        case errno.ENOTDIR:
            return PathRefused(path, "it leads through something that is no folder, or through a symbolic link")
        case errno.EISDIR:
            return FilesError(f"{shown(path)} is a folder, not a file")
        case errno.ENOTEMPTY | errno.EEXIST:
            return FilesError(f"the folder {shown(path)} is not empty")
        case errno.EINVAL:
            return FilesError(f"{shown(path)} cannot be there: a folder cannot be inside itself")
        case errno.ENAMETOOLONG | errno.EILSEQ:
            return PathRefused(path, "the file system takes no such name")
        case errno.ENXIO | errno.ENODEV:
            return PathRefused(path, "it is a device, a pipe or a socket")
        case errno.EDQUOT | errno.ENOSPC:
            return FilesUnavailable("the file system is full")
        case _:
            return FilesUnavailable(f"the file system failed: {os.strerror(error.errno or 0)}")


def shown(path: object) -> str:
    """`path` for a message, not too long."""
    written = repr(path if isinstance(path, str) else str(path))
    return written if len(written) <= 80 else written[:77] + "..."
