"""`connect`: aiobotocore's client of DynamoDB, as the store wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, cast

from aiobotocore.config import AioConfig  # pyright: ignore[reportMissingTypeStubs]
from aiobotocore.session import AioSession  # pyright: ignore[reportMissingTypeStubs]
from botocore import exceptions as boto  # pyright: ignore[reportMissingTypeStubs]
from botocore.useragent import (  # pyright: ignore[reportMissingTypeStubs]
    sanitize_user_agent_string_component,  # pyright: ignore[reportUnknownVariableType]
)

from .descriptions import descriptions
from .errors import DynamoSettingsError
from .settings import DynamoSettings

__all__ = ["Client", "connect"]

_OPERATIONS = {
    "CreateTable": "create_table",
    "DeleteItem": "delete_item",
    "DescribeTable": "describe_table",
    "DescribeTimeToLive": "describe_time_to_live",
    "GetItem": "get_item",
    "PutItem": "put_item",
    "Scan": "scan",
    "UpdateItem": "update_item",
    "UpdateTimeToLive": "update_time_to_live",
}

Operation = Callable[..., Awaitable[dict[str, Any]]]


class Client:
    """The operations of DynamoDB by their names, each one request without repeats; `aclose` it."""

    def __init__(self, operations: dict[str, Operation], where: str, stack: AsyncExitStack) -> None:
        self.operations = operations
        self.where = where
        """Table, region and endpoint, for messages."""
        self._stack = stack

    async def aclose(self) -> None:
        """Close its connections. Idempotent."""
        await self._stack.aclose()


async def connect(settings: DynamoSettings, *, timeout: float) -> Client:
    """Find region and credentials; nothing is sent. `timeout`: seconds for a connection, and for an answer.

    Raises:
        DynamoSettingsError: There is no such profile, or no region.
    """
    # The files of botocore are read in a thread, and the event loop is free meanwhile.
    session = cast(Any, await asyncio.to_thread(_session, settings))
    config = AioConfig(
        # A repeat has to know what became of the try before it, so it is ours to make.
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=timeout,
        read_timeout=timeout,
        max_pool_connections=settings.connections,
        # What we send is ours; checking it costs a fifth of the request.
        parameter_validation=False,
        tcp_keepalive=True,
        # Fixed, as the one of botocore is put together anew for each request, which costs a tenth of it.
        user_agent=_user_agent(session),
        connector_args={"keepalive_timeout": 50},
    )
    stack = AsyncExitStack()
    try:
        client: Any = await stack.enter_async_context(
            session.create_client(
                "dynamodb", region_name=settings.region, endpoint_url=settings.endpoint, config=config
            )
        )
    except boto.NoRegionError:
        raise DynamoSettingsError(
            "no region is named: write dynamodb://table?region=eu-west-1, or set AWS_REGION"
        ) from None
    except (boto.ProfileNotFound, boto.ConfigParseError, boto.ConfigNotFound, boto.InvalidConfigError) as error:
        raise _unfit(settings, error) from error
    except (boto.BotoCoreError, ValueError) as error:
        raise DynamoSettingsError(
            f"the settings of AWS in the environment or in ~/.aws cannot be used ({type(error).__name__})"
        ) from error
    where = f"table {settings.table} in {client.meta.region_name}"
    if settings.endpoint is not None:
        where += f" at {settings.endpoint}"
    return Client({name: getattr(client, method) for name, method in _OPERATIONS.items()}, where, stack)


def _session(settings: DynamoSettings) -> AioSession:
    session: Any = AioSession(profile=settings.profile)
    try:
        # Asked for here, so that a profile that is not there is said before anything else.
        session.get_scoped_config()
        session.register_component("data_loader", descriptions(session.get_config_variable("data_path")))
    except boto.BotoCoreError as error:
        raise _unfit(settings, error) from error
    return session


def _user_agent(session: Any) -> str:
    name = f"aiobotocore/{session.user_agent_version} understudy"
    application: str | None = session.get_config_variable("user_agent_appid")
    if application is None:
        return name
    return f"{name} app/{sanitize_user_agent_string_component(application, allow_hash=True)}"


def _unfit(settings: DynamoSettings, error: Exception) -> DynamoSettingsError:
    if isinstance(error, boto.ProfileNotFound):
        name = settings.profile or "that AWS_PROFILE names"
        return DynamoSettingsError(f"the profile {name} is not in ~/.aws/config and ~/.aws/credentials")
    return DynamoSettingsError(f"~/.aws/config or ~/.aws/credentials cannot be used ({type(error).__name__})")
