"""`ClientWatch`: notices that a client has left while another node works for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from ...actors.task_owner import TaskOwner
from ..edge.posts import DEFERRAL
from ..wire.http import Receive, disconnected
from ..wire.patience import Patience

__all__ = ["ClientWatch"]


logger = logging.getLogger("understudy.cluster")


class _Watched:
    __slots__ = ("gone", "receive", "task", "watcher")

    def __init__(self, task: asyncio.Task[Any], receive: Receive) -> None:
        self.task = task
        self.receive = receive
        self.watcher: asyncio.Task[Any] | None = None
        self.gone = False


class ClientWatch:
    """Looks at connections only after a while: most answers are quicker than a task is made."""

    def __init__(self, tasks: TaskOwner, after: float = DEFERRAL) -> None:
        """`after`: seconds."""
        self._tasks = tasks
        self._quick: Patience[_Watched] = Patience(after, self._begin)

    async def during(self, receive: Receive, work: Coroutine[Any, Any, None], *, at_once: bool = False) -> bool:
        """Await `work`, which is cancelled if the client leaves first; whether it did. Raises what `work` raises.

        `at_once`: the connection is looked at from the beginning.
        """
        task = asyncio.current_task()
        assert task is not None
        watched = _Watched(task, receive)
        if at_once:
            self._begin(watched)
        else:
            self._quick.begin(watched)
        try:
            await work
        except asyncio.CancelledError:
            if not watched.gone or task.uncancel():
                raise
            return True
        finally:
            self._quick.end(watched)
            if watched.watcher is not None:
                watched.watcher.cancel()
        if watched.gone and task.cancelling():
            task.uncancel()
        return False

    def _begin(self, watched: _Watched) -> None:
        watched.watcher = self._tasks.spawn(self._watch(watched))

    async def _watch(self, watched: _Watched) -> None:
        try:
            await disconnected(watched.receive)
        except Exception:
            # Some servers raise where others say `http.disconnect`; a task that raised would end the node.
            logger.debug("the connection of a client cannot be watched any more", exc_info=True)
        watched.gone = True
        watched.task.cancel()
