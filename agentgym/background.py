# SPDX-License-Identifier: Apache-2.0
"""One event loop in the background, on which code that is not async waits for what is: a verifier for its judge.

There is one for the process, so that a model's client, which belongs to the loop that it was first used on, serves all who
ask it. A forked child makes one of its own.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import wait
from typing import Any, TypeVar

_Result = TypeVar("_Result")

_lock = threading.Lock()
_loops: dict[int, tuple[asyncio.AbstractEventLoop, threading.Thread]] = {}
"""Process id -> its loop. The entry of a parent means nothing after a fork: no thread of it lives here."""


def run_blocking(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Runs ``work`` on the background loop and waits for it; returns or raises what it does.

    May be called from any thread but the loop's own. Under a running event loop it holds that loop up, so the episode loop
    calls verifiers that wait on threads of their own.

    Raises:
        RuntimeError: it was called by what runs on the background loop, which would wait for itself for ever.
    """
    loop, thread = _loop()
    if threading.current_thread() is thread:
        work.close()
        raise RuntimeError("what runs on the background loop must await, not wait")
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        while not wait([future], 0.1).done:  # a wait without end may sleep through Ctrl-C
            pass
    except BaseException:
        future.cancel()
        raise
    return future.result()


def _loop() -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
    found = _loops.get(os.getpid())
    if found is None:
        with _lock:
            found = _loops.get(os.getpid())
            if found is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(target=_serve, args=(loop,), name="agentgym-background", daemon=True)
                thread.start()
                found = loop, thread
                _loops.clear()
                _loops[os.getpid()] = found
    return found


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()


def _forked() -> None:
    global _lock
    _lock = threading.Lock()  # it may have been held by a thread that the child does not have


os.register_at_fork(after_in_child=_forked)
