"""Threads that end after one job, for system calls that change the calling thread for good.

unshare(2), setns(2) and a private working directory belong to one thread; a thread that called them must
never serve anybody else, so none of these comes from or goes back to a pool.
"""

from __future__ import annotations

import _thread
import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def run_in_fresh_thread(function: Callable[[], T]) -> T:
    """Run `function` in a thread of its own and wait for it; blocks the caller, so only for short jobs."""
    result: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            result.append(function())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=body, name="fresh")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def in_fresh_thread(function: Callable[[], T]) -> asyncio.Future[T]:
    """Start `function` in a thread of its own; the future has its result or its error.

    The thread cannot be cancelled: when the future is, the job still runs to its end and its result is
    dropped. A job that may block for ever does not keep the interpreter from ending.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, failure: BaseException | None) -> None:
        if future.done():
            return
        if failure is not None:
            future.set_exception(failure)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def body() -> None:
        result: T | None = None
        failure: BaseException | None = None
        try:
            result = function()
        except BaseException as error:
            failure = error
        try:
            loop.call_soon_threadsafe(settle, result, failure)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    # threading.Thread would wait until the thread runs: two context switches on the way to every pod.
    _thread.start_new_thread(body, ())
    return future
