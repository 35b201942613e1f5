# SPDX-License-Identifier: Apache-2.0
"""Calls to a server that may be slow, busy or down: what is tried again, how often, and how many calls run at once.

Four rules keep a bad hour of a server from becoming a storm of requests:

- Only faults of infrastructure are tried again, with full jitter [1], within a deadline for the whole call.
- A retry costs one coin of a purse that all calls share, and only successes put coins in (half a coin each) [2]. So
  over a run, requests stay below ``calls + successes / 2 + reserve`` however many calls there are.
- Calls in flight are limited by additive increase and multiplicative decrease, as TCP does it [3]: a server that says
  "too many", or lets calls time out, gets fewer.
- A server that says "not now" (429, 503), or that has gone away, is left alone by every call until a pause is over,
  which doubles while nothing succeeds; then one call tries for all. This needs no coins, and goes on until the deadline.

An episode that still fails is played again by the scheduler (``--retries``), after this.

[1] Brooker, "Exponential Backoff And Jitter", 2015. [2] gRPC proposal A6, "Throttling Retry Attempts".
[3] Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance", 1989.
"""

from __future__ import annotations

import asyncio
import collections
import email.utils
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, TypeVar

import msgspec

from agentgym.errors import InfrastructureError, redact

T = TypeVar("T")

RETRIED = frozenset({408, 409, 425, 429, *range(500, 600)})
"""HTTP status codes after which the same call may succeed."""

BUSY = frozenset({429, 503, 529})
"""HTTP status codes by which a server says that it has too much to do."""

Kind = Literal["busy", "server", "timeout", "connect", "cut", "malformed"]


class Fault(Exception):
    """One attempt failed in a way that another may not.

    Args:
        kind: ``busy``: the server refused for now; ``server``: it failed (5xx); ``timeout``; ``connect``: it cannot be
            reached; ``cut``: the reply broke off; ``malformed``: the reply is not what it should be.
        message: what happened, for a person; without secrets.
        retry_after: seconds that the server asks to wait; None: it did not say.
    """

    def __init__(self, kind: Kind, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.retry_after = retry_after


class Patience(msgspec.Struct, frozen=True):
    """How long and how often calls are tried."""

    timeout_s: float = 600.0
    """Seconds for one attempt. Long, since models that think answer late."""
    deadline_s: float = 1200.0
    """Seconds for a call from its first attempt on. Waiting for that one, while others are served, does not count."""
    attempts: int = 6
    """Most attempts of a call, not counting those refused for being too many."""
    base_s: float = 0.5
    """The first pause is random between 0 and this, the next one's upper end twice as long, and so on."""
    cap_s: float = 60.0
    """Longest pause that is of our own choosing."""
    reserve: float = 20.0
    """Coins in the purse at the beginning, and at most."""
    earned: float = 0.5
    """Coins for a success."""
    in_flight: int | None = None
    """Most calls at once; None: as many as are made, until the server shows that these are too many."""


class Purse:
    """Coins for retries; see the module's text."""

    def __init__(self, reserve: float, earned: float) -> None:
        self._coins = self._reserve = reserve
        self._earned = earned

    def earn(self) -> None:
        """A call succeeded."""
        self._coins = min(self._reserve, self._coins + self._earned)

    def pay(self) -> bool:
        """Takes a coin; False where there is none."""
        if self._coins < 1.0:
            return False
        self._coins -= 1.0
        return True


class Gate:
    """Lets so many calls in at once as the server seems to bear, in the order in which they came.

    Args:
        limit: most at once; None: no limit until there is a sign that there must be one.
        base_s: first pause of all calls after a refusal.
        cap_s: longest one.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        limit: int | None = None,
        base_s: float = 0.5,
        cap_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most = math.inf if limit is None else float(limit)
        self.limit = self.most
        self.in_flight = 0
        self.down_since: float | None = None
        """When the server refused for the first time since it last answered, by the clock; None: it answers."""
        self._base_s = base_s
        self._cap_s = cap_s
        self._clock = clock
        self._queue: collections.deque[asyncio.Future[None]] = collections.deque()
        self._not_before = self._paused_at = self._shrunk_at = -math.inf
        self._refusals = 0
        self._answers = 0
        """Since the last shrinking."""
        self._steep_below = 0.0
        """Up to here the limit grows by one with every success, above by one with every round of them."""
        self._waker: asyncio.TimerHandle | None = None

    async def enter(self, *, again: bool = False) -> float:
        """Waits for a place; returns when it was got, by the clock. Each `enter` needs one `leave`.

        Args:
            again: this call was in before, so it goes to the head of the queue.

        Raises:
            InfrastructureError: `give_up` was called.
        """
        if (self._queue and not again) or not self._free():
            place = asyncio.get_running_loop().create_future()
            if again:
                self._queue.appendleft(place)
            else:
                self._queue.append(place)
            self._let_in()
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled() and place.exception() is None:  # let in at the same moment
                    self.leave()
                raise
        else:
            self.in_flight += 1
        return self._clock()

    def leave(self) -> None:
        """Gives the place back."""
        self.in_flight -= 1
        self._let_in()

    def succeeded(self) -> None:
        """The server answered."""
        self._refusals = 0
        self.down_since = None
        self._answers += 1
        if self.limit < self.most:
            self.limit = min(self.most, self.limit + (1.0 if self.limit < self._steep_below else 1.0 / self.limit))

    def shrink(self, begun: float) -> None:
        """A sign of too many calls, by one that began at ``begun``. Calls of before the last shrinking tell nothing new."""
        if begun < self._shrunk_at:
            return
        now_in = max(1.0, min(self.limit, float(self.in_flight)))
        if self._answers:  # an outage says nothing about how many are too many
            self._steep_below = now_in / 2.0
        self.limit = max(1.0, now_in / 2.0)
        self._answers = 0
        self._shrunk_at = self._clock()

    def pause(self, seconds: float | None, begun: float) -> None:
        """Lets nobody in for so long, and then one at a time until one succeeds.

        Args:
            seconds: None: a random time that doubles from refusal to refusal.
            begun: when the refused call began. Calls that began before the pause did were refused for the same reason, and
                do not prolong it unless the server asks for longer.
        """
        now = self._clock()
        if self.down_since is None:
            self.down_since = now
        if seconds is None:
            if begun < self._paused_at:
                return
            ceiling = min(self._cap_s, self._base_s * 2.0 ** min(self._refusals, 30))
            seconds = random.uniform(ceiling / 2, ceiling)
        if begun >= self._paused_at:
            self._paused_at = now
            self._refusals += 1
        self._not_before = max(self._not_before, now + seconds)

    def give_up(self, why: str) -> None:
        """Everyone in the queue fails: the server has been away for too long."""
        while self._queue:
            place = self._queue.popleft()
            if not place.done():
                place.set_exception(InfrastructureError(why, retryable=False))

    def _free(self) -> bool:
        limit = 1.0 if self._refusals else self.limit
        return self.in_flight < limit and self._not_before <= self._clock()

    def _let_in(self) -> None:
        while self._queue and self._free():
            place = self._queue.popleft()
            if not place.done():
                place.set_result(None)
                self.in_flight += 1
        if self._queue and self._waker is None and (wait := self._not_before - self._clock()) > 0:
            self._waker = asyncio.get_running_loop().call_later(wait, self._wake)

    def _wake(self) -> None:
        self._waker = None
        self._let_in()


class Caller:
    """Makes calls to one server by the rules above. Belongs to one event loop at a time.

    Args:
        server: how errors name it; without secrets.
        patience: see there.
        secrets: texts that no error may hold; replaced by ``***``.
    """

    def __init__(self, server: str, patience: Patience, secrets: tuple[str, ...] = ()) -> None:
        self.server = server
        self.patience = patience
        self.counts: collections.Counter[str] = collections.Counter()
        """``requests``, ``retries``, and faults by kind."""
        self._secrets = tuple(s for s in secrets if s)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reached = False
        self._renew()

    def _renew(self) -> None:
        p = self.patience
        self.gate = Gate(p.in_flight, p.base_s, p.cap_s)
        self.purse = Purse(p.reserve, p.earned)

    def clean(self, text: str) -> str:
        """``text`` without this caller's secrets, nor anything that looks like one."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return redact(text)

    async def call(self, attempt: Callable[[float], Awaitable[T]]) -> T:
        """The result of ``attempt``, tried until it succeeds or patience ends.

        Args:
            attempt: is given the seconds it may take; raises `Fault` where another attempt may help.

        Raises:
            InfrastructureError: all attempts failed, or one failed for good.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # whoever waits in the gate waits on another loop
            self._loop = loop
            self._renew()
        p = self.patience
        begun = await self.gate.enter()
        deadline = begun + p.deadline_s
        charged = 0
        while True:
            self.counts["requests"] += 1
            try:
                result = await attempt(max(0.0, min(p.timeout_s, deadline - begun)))
            except Fault as fault:
                self.counts[fault.kind] += 1
                passing = fault.kind == "busy" or (fault.kind == "connect" and self._reached)
                charged += not passing
                pause = self._judge(fault, passing, begun, charged, deadline - time.monotonic())
            else:
                self._reached = True
                self.gate.succeeded()
                self.purse.earn()
                return result
            finally:
                self.gate.leave()
            self.counts["retries"] += 1
            await asyncio.sleep(pause)
            begun = await self.gate.enter(again=True)

    def _judge(self, fault: Fault, passing: bool, begun: float, charged: int, left: float) -> float:
        """Seconds to wait before the next attempt.

        Args:
            fault: what happened.
            passing: whether every call would fail like this for now, so that the gate makes them wait together.
            begun: when the attempt began.
            charged: how many attempts of this call failed by themselves.
            left: seconds until the call's deadline.

        Raises:
            InfrastructureError: there is to be none.
        """
        p = self.patience
        if fault.kind == "connect" and not self._reached:
            # nothing was ever there: more likely a wrong address, or a server not started, than a passing fault
            if charged >= 2:
                raise self._error(fault, "is the server running, and is this its address?", retryable=False)
            return random.uniform(0.0, p.base_s)
        self._reached = True
        if fault.kind in ("busy", "timeout"):
            self.gate.shrink(begun)
        if fault.retry_after is not None and fault.retry_after > p.deadline_s:
            why = f"it asks to wait {fault.retry_after:.0f} s, longer than a call may take ({p.deadline_s:.0f} s)"
            raise self._error(fault, why, retryable=False)
        if passing or fault.retry_after is not None:
            self.gate.pause(fault.retry_after, begun)
            down_since = self.gate.down_since
            if down_since is not None and time.monotonic() - down_since > p.deadline_s:
                error = self._error(fault, f"it has not answered for {p.deadline_s:.0f} s", retryable=False)
                self.gate.give_up(str(error))
                raise error
        if left <= 0:
            raise self._error(fault, f"given up after {p.deadline_s:.0f} s")
        if passing:
            return 0.0  # the pause is the gate's
        if charged >= p.attempts:
            raise self._error(fault, f"given up after {charged} attempts")
        if not self.purse.pay():
            raise self._error(fault, "not tried again, as too many calls to this server fail")
        return random.uniform(0.0, max(0.0, min(left, p.cap_s, p.base_s * 2.0 ** (charged - 1))))

    def _error(self, fault: Fault, why: str, *, retryable: bool = True) -> InfrastructureError:
        return InfrastructureError(self.clean(f"{self.server}: {fault}; {why}"), retryable=retryable)


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that a reply's headers ask to wait: ``retry-after-ms``, or ``Retry-After`` as seconds or date (RFC 9110).

    None where they do not say, or say something that is no time from now on.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000.0
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is not None or not text:
        return seconds
    try:
        at = email.utils.parsedate_to_datetime(text)
        return max(0.0, at.timestamp() - (time.time() if now is None else now))
    except (ValueError, TypeError, OverflowError):
        return None


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def count(value: Any) -> int:
    """A server's count as a number that can be kept: 0 for what is missing, negative, no integer or absurd."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0
    if isinstance(value, float):
        if not math.isfinite(value) or value != int(value):
            return 0
        value = int(value)
    return value if 0 <= value < 1 << 40 else 0


def dollars(value: Any) -> float:
    """A price as a number that can be kept: 0.0 for what is missing, negative, not finite or no number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0.0
    value = float(value) if abs(value) < 1e12 else 0.0
    return value if math.isfinite(value) and value > 0 else 0.0
