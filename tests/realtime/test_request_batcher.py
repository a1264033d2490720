"""Batches: what waits together is answered together, and everybody gets the own answer."""

import asyncio
import threading

import pytest

from shortcut_policy.realtime.request_batcher import RequestBatcher


class Doubler:
    """Doubles numbers when it is allowed to, and remembers its batches and threads."""

    def __init__(self):
        self.batches, self.threads = [], set()
        self.started, self.go = threading.Event(), threading.Event()
        self.go.set()

    def __call__(self, items):
        self.batches.append(list(items))
        self.threads.add(threading.current_thread())
        self.started.set()
        assert self.go.wait(20)
        if "bad" in items:
            raise ZeroDivisionError("a bad item")
        return [2 * item for item in items]


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def test_what_arrived_meanwhile_is_batched_up_to_the_limit():
    async def main():
        double = Doubler()
        double.go.clear()
        batcher = RequestBatcher(double, max_batch=4)
        first = asyncio.create_task(batcher.submit(0))
        await until(double.started.is_set)
        others = [asyncio.create_task(batcher.submit(i)) for i in range(1, 7)]
        await asyncio.sleep(0)
        double.go.set()
        assert await asyncio.gather(first, *others) == [0, 2, 4, 6, 8, 10, 12]
        assert double.batches == [[0], [1, 2, 3, 4], [5, 6]]
        assert len(double.threads) == 1
        assert threading.current_thread() not in double.threads
        assert await batcher.submit(21) == 42, "it works again after it had nothing to do"
        batcher.close()

    asyncio.run(main())


def test_a_failure_reaches_its_batch_and_nobody_else():
    async def main():
        double = Doubler()
        batcher = RequestBatcher(double, max_batch=2)
        results = await asyncio.gather(*map(batcher.submit, [1, "bad", 3]), return_exceptions=True)
        assert [str(result) for result in results[:2]] == ["the policy failed: a bad item"] * 2
        assert all(isinstance(result, RuntimeError) for result in results[:2])
        assert results[2] == 6
        batcher.close()

    asyncio.run(main())


def test_a_function_that_loses_answers_is_reported():
    async def main():
        batcher = RequestBatcher(lambda items: items[:-1], max_batch=2)
        results = await asyncio.gather(*map(batcher.submit, [1, 2]), return_exceptions=True)
        assert all(isinstance(result, RuntimeError) for result in results)
        batcher.close()

    asyncio.run(main())


def test_who_gives_up_takes_no_place_and_spoils_nothing():
    async def main():
        double = Doubler()
        double.go.clear()
        batcher = RequestBatcher(double, max_batch=2)
        running = [asyncio.create_task(batcher.submit(i)) for i in (1, 2)]
        await until(double.started.is_set)
        waiting = [asyncio.create_task(batcher.submit(i)) for i in (3, 4, 5)]
        await asyncio.sleep(0)
        for task in (running[0], waiting[0]):
            task.cancel()
        await asyncio.sleep(0)
        double.go.set()
        assert await asyncio.gather(running[1], *waiting[1:]) == [4, 8, 10]
        assert double.batches == [[1, 2], [4, 5]]
        batcher.close()

    asyncio.run(main())


def test_closing_cancels_those_who_wait():
    async def main():
        double = Doubler()
        double.go.clear()
        batcher = RequestBatcher(double, max_batch=1)
        tasks = [asyncio.create_task(batcher.submit(i)) for i in (1, 2)]
        await until(double.started.is_set)
        batcher.close()
        double.go.set()
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        assert double.batches == [[1]]

    asyncio.run(main())
