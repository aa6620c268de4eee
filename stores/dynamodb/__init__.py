"""Records in Amazon DynamoDB. What needs aiobotocore is imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .settings import DynamoSettings
from .table import cloudformation, iam_policy, table_description, terraform

if TYPE_CHECKING:
    from .creating import create_table
    from .store import DynamoStore

__all__ = [
    "DynamoSettings",
    "DynamoStore",
    "cloudformation",
    "create_table",
    "iam_policy",
    "table_description",
    "terraform",
]


def __getattr__(name: str) -> Any:
    if name == "DynamoStore":
        from .store import DynamoStore

        return DynamoStore
    if name == "create_table":
        from .creating import create_table

        return create_table
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
