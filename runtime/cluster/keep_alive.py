"""`KeepAlive`: comments on forwarded streams that are silent, written at the edge: between nodes silence is free."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from ...actors.task_owner import TaskOwner
from ..edge.sse import KEEP_ALIVE
from ..wire.http import Send
from ..wire.patience import Patience
from .response import Response

__all__ = ["KeepAlive"]

logger = logging.getLogger("understudy.cluster")


class KeepAlive:
    """One timer for all forwarded streams of a node."""

    def __init__(self, tasks: TaskOwner, every: float = KEEP_ALIVE) -> None:
        """`every`: seconds of silence after which a comment is due."""
        self._tasks = tasks
        self._silent: Patience[Response] = Patience(every, self._due)
        self._watched: set[Response] = set()

    def watch(self, response: Response) -> Send:
        """`response.send`, which from the start of a stream on is watched for silence. Until `leave`."""
        self._watched.add(response)
        if response.stream:
            response.share()

        async def send(message: MutableMapping[str, Any]) -> None:
            if not response.stream:
                await response.send(message)
                if response.stream:
                    # A comment may be sent beside what follows.
                    response.share()
            else:
                self._silent.end(response)
                await response.send(message)
            if response.stream and not response.ended:
                self._silent.begin(response)

        return send

    def hold(self, response: Response) -> None:
        """Watch the stream of `response` though nobody writes it at present. Until `leave`."""
        if response not in self._watched and not response.ended:
            response.share()
            self._watched.add(response)
            self._silent.begin(response)

    def leave(self, response: Response) -> None:
        """The forward is over, or whoever writes the stream now sees to this too."""
        self._watched.discard(response)
        self._silent.end(response)

    def _due(self, response: Response) -> None:
        self._tasks.spawn(self._comment(response))

    async def _comment(self, response: Response) -> None:
        try:
            await response.comment()
        except Exception:
            # Whoever writes the stream finds out, and ends it.
            logger.debug("a keep-alive could not be sent", exc_info=True)
            return
        if response in self._watched:
            self._silent.begin(response)
