"""Requests that wait at the same time are answered together."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")
logger = logging.getLogger(__name__)


class RequestBatcher(Generic[Item, Answer]):
    """Runs a function on batches, in one thread of its own, so that the event loop goes on meanwhile.

    Nobody waits for a batch to fill: the function begins as soon as it is free, with all that wait by then. A robot
    alone is answered at once, and the batches grow with the load.

    Args:
        run: maps a batch of items to as many answers, in their order.
        max_batch: the most items in a batch.
    """

    def __init__(self, run: Callable[[Sequence[Item]], Sequence[Answer]], max_batch: int) -> None:
        self._run = run
        self._max_batch = max_batch
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="policy")
        self._task: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Answer:
        """The answer to one item; whoever is cancelled while waiting takes no place in a batch.

        Raises:
            RuntimeError: the function failed on the batch of which the item was part.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return await future

    def close(self) -> None:
        """Answer nobody any more: those who wait are cancelled."""
        if self._task is not None:
            self._task.cancel()
        for _, future in self._waiting:
            future.cancel()
        self._waiting.clear()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        while self._waiting:
            batch = self._take()
            if not batch:
                continue
            items = [item for item, _ in batch]
            try:
                answers = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, items)
                pairs = list(zip(batch, answers, strict=True))
            except Exception as error:  # reported to everybody in the batch; the next one may be well
                logger.exception("a batch of %d requests failed", len(batch))
                for _, future in batch:
                    if not future.done():
                        future.set_exception(RuntimeError(f"the policy failed: {error}"))
                continue
            for (_, future), answer in pairs:
                if not future.done():
                    future.set_result(answer)

    def _take(self) -> list[tuple[Item, asyncio.Future[Answer]]]:
        batch: list[tuple[Item, asyncio.Future[Answer]]] = []
        while self._waiting and len(batch) < self._max_batch:
            item, future = self._waiting.popleft()
            if not future.done():
                batch.append((item, future))
        return batch
