"""`Control`: what operators ask a node, over NATS: request and reply, msgpack maps.

A request is `{"op": name, ...}`; a reply `{"ok": value}` or `{"error": text}`. Both are sealed (`Orders`): whoever can
ask a node can end and move sessions, and read their ids. Only what tells nothing is not: whether somebody is there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, cast

from ...actors.packing import pack, unpack
from ...actors.task_owner import TaskOwner
from ...stores import UnderstudyError
from .names import Names
from .nats_api import subscribe
from .orders import BadOrder, Orders, is_sealed

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

    from ..link.seals import Seals

__all__ = ["Control", "ControlError", "NobodyThere", "Operation", "ask"]

logger = logging.getLogger("understudy.cluster")

Operation = Callable[[Mapping[str, Any]], Awaitable[Any]]

AT_ONCE: Final = 16
_FOR_ANYBODY: Final = "ping"
TIMEOUT: Final = 5.0


class ControlError(UnderstudyError):
    """A node did not answer an operator's question, or refused it."""


class Control:
    """Answers on the node's control subject, at most `AT_ONCE` questions at a time."""

    def __init__(
        self,
        connection: Client,
        names: Names,
        node: str,
        operations: Mapping[str, Operation],
        orders: Orders,
        *,
        takes_plain: bool = False,
    ) -> None:
        """`takes_plain`: questions that are not sealed too, as those of earlier versions are."""
        self._connection = connection
        self._orders = orders
        self._takes_plain = takes_plain
        self.refused = 0
        """Questions that were not sealed as they must be."""
        self._subject = names.control(node)
        self._operations = dict(operations)
        self._tasks = TaskOwner()
        self._answering: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._subscription = await subscribe(self._connection, self._subject, self._on_message)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._subscription.unsubscribe()
        except Exception:
            logger.debug("the control subscription could not be ended", exc_info=True)
        for answering in self._answering:
            # A drain that was asked for may take a quarter of an hour.
            answering.cancel()
        await self._tasks.__aexit__(kind, error, trace)

    async def _on_message(self, message: Msg) -> None:
        if not message.reply:
            return
        if len(self._answering) >= AT_ONCE:
            await self._reply(message, {"error": "too many questions at once; ask again in a moment"})
            return
        answering = self._tasks.spawn(self._answer(message))
        self._answering.add(answering)
        answering.add_done_callback(self._answering.discard)

    async def _answer(self, message: Msg) -> None:
        try:
            if is_sealed(message.data):
                question, mark = self._orders.read(message.data)
                answer = await self._outcome(question)
                await self._connection.publish(message.reply, self._orders.answer(answer, mark))
            else:
                await self._reply(message, await self._outcome(self._plain(message.data)))
        except BadOrder as error:
            self.refused += 1
            await self._reply(message, {"error": str(error)})
        except Exception:
            logger.debug("an operator's question could not be answered", exc_info=True)

    def _plain(self, packed: bytes) -> dict[Any, Any]:
        """
        Raises:
            BadOrder: It must be sealed.
        """
        try:
            question: Any = unpack(packed)
        except ValueError:
            raise BadOrder("the question is not msgpack") from None
        asked = cast("dict[Any, Any]", question) if isinstance(question, dict) else {}
        if not self._takes_plain and asked.get("op") != _FOR_ANYBODY:
            raise BadOrder(
                "this node takes questions only that are sealed with a key of the cluster: ask with this version of "
                "understudy, and name the keys with --request-state-keys if the cluster's are given"
            )
        return asked

    async def _outcome(self, question: Mapping[Any, Any]) -> dict[str, Any]:
        name: Any = question.get("op")
        operation = self._operations.get(name) if isinstance(name, str) else None
        if operation is None:
            known = ", ".join(sorted(self._operations))
            return {"error": f"this node knows no operation {str(name)[:40]!r}; it knows {known}"}
        try:
            return {"ok": await operation(cast("dict[str, Any]", question))}
        except (UnderstudyError, ValueError) as error:
            return {"error": str(error)}
        except Exception as error:
            logger.exception("operation %r failed", name)
            return {"error": f"operation {name!r} failed: {type(error).__name__}"}

    async def _reply(self, message: Msg, reply: dict[str, Any]) -> None:
        await self._connection.publish(message.reply, pack(reply))


async def ask(
    connection: Client,
    names: Names,
    node: str,
    op: str,
    *,
    timeout: float = TIMEOUT,
    seals: Seals | None = None,
    **fields: Any,
) -> Any:
    """What the node answers to one question, sealed with the keys of `seals` if it has any.

    Raises:
        ControlError: It refused, nobody is there, or it did not answer within `timeout` seconds.
    """
    from nats.errors import Error as NatsError
    from nats.errors import NoRespondersError

    from ...stores.nats.connection import translated

    orders = Orders(seals, node) if seals is not None and seals.first else None
    question, mark = (pack({"op": op, **fields}), b"") if orders is None else orders.question({"op": op, **fields})
    try:
        message = await connection.request(names.control(node), question, timeout=timeout)
    except NoRespondersError:
        raise NobodyThere(
            f"no node {node!r} in cluster {names.cluster!r} answers; `understudy nodes` lists them"
        ) from None
    except TimeoutError as error:
        raise ControlError(
            f"node {node!r} did not answer within {timeout:g} s: it hangs or is very busy; "
            "`understudy nodes` has the age of its lease"
        ) from error
    except (NatsError, OSError) as error:
        raise ControlError(str(translated(error, f"asking node {node!r}"))) from error
    reply: Any = None
    try:
        if orders is not None and is_sealed(message.data):
            reply = orders.read_answer(message.data, mark)
        else:
            reply = unpack(message.data)
    except BadOrder as error:
        raise ControlError(f"node {node!r}: {error}") from error
    except ValueError:
        pass
    if orders is not None and not is_sealed(message.data):
        # A refusal may come from a node that cannot read the question; anything else, from anybody.
        match reply:
            case {"error": str()}:
                pass
            case _:
                raise ControlError(f"node {node!r}: the answer is not sealed")
    match reply:
        case {"ok": value}:
            return value
        case {"error": str(text)}:
            raise ControlError(f"node {node!r}: {text}")
        case _:
            raise ControlError(f"node {node!r} gave an answer that this version cannot read")


class NobodyThere(ControlError):
    """No process listens on the node's control subject."""
