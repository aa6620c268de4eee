"""`descriptions`: botocore's data about services, and only what the store needs of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, cast

from botocore.exceptions import DataNotFoundError  # pyright: ignore[reportMissingTypeStubs]
from botocore.loaders import Loader  # pyright: ignore[reportMissingTypeStubs]

__all__ = ["descriptions"]


@lru_cache(maxsize=4)
def descriptions(path: str | None) -> Loader:
    """The loader for botocore's sessions, which has read what a client of DynamoDB asks it for: once for the process.
    Blocks while it reads.

    Args:
        path: Where else to look, as `AWS_DATA_PATH` says it.
    """
    folders = [] if path is None else path.split(os.pathsep)
    loader: Any = _Loader([os.path.expanduser(os.path.expandvars(folder)) for folder in folders])
    for name in ("endpoints", "partitions", "sdk-default-configuration"):
        loader.load_data_with_path(name)
    for kind in ("service-2", "endpoint-rule-set-1"):
        loader.load_service_model("dynamodb", kind, api_version=None)
    return loader


class _Loader(Loader):
    def list_available_services(self, type_name: str) -> Any:
        return _Services(self, type_name)


class _Services:
    """Those that there are descriptions of. botocore looks into the folders of all four hundred, once for each type of
    description, to learn whether one of them is there: a third of the work of making a client.
    """

    def __init__(self, loader: _Loader, type_name: str) -> None:
        self._loader: Any = loader
        self._type_name = type_name

    def __contains__(self, service: str) -> bool:
        try:
            return bool(self._loader.list_api_versions(service, self._type_name))
        except DataNotFoundError:
            return False

    def __iter__(self) -> Iterator[str]:
        return iter(cast(Any, Loader).list_available_services(self._loader, self._type_name))
