# SPDX-License-Identifier: Apache-2.0
"""One episode: a policy plays a task in an environment until one of them, or a limit, ends it; then it is scored."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
import traceback
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor
from typing import Any, Literal, TypeVar, get_args

import gymnasium
import msgspec

from agentgym.chat import ImagePart, Message, clean_text
from agentgym.env import ChatEnv
from agentgym.errors import DefinitionError, InfrastructureError, MissingReplyError, redact
from agentgym.protocols import NO_USAGE, Completion, EpisodeContext, FinishReason, Left, Policy, Sampling, Usage
from agentgym.sandbox.protocol import SandboxError
from agentgym.scoring import Finding, Score, Verifier, VerifierContext, gold_value, proxy_reward, verify
from agentgym.task import FrozenTask, Task, from_numpy, plain
from agentgym.trajectory import EpisodeError, Trajectory, checked_tokens

DEFAULT_SAMPLING = Sampling()


class Limits(msgspec.Struct, frozen=True):
    """What cuts an episode short. It is then truncated, and scored on what was done until then. None: no limit."""

    turns: int | None = None
    """Turns, where this is fewer than the environment's own ``max_turns``."""
    seconds: float | None = None
    """Seconds by the monotonic clock, the policy's waiting included."""
    tokens: int | None = None
    """Sampled tokens (usage.completion_tokens), judged after each turn."""
    cost_usd: float | None = None
    """US dollars of model calls, judged after each turn."""


class EpisodeResult(msgspec.Struct):
    """An episode, recorded and scored."""

    trajectory: Trajectory
    task: FrozenTask
    reward: float | None
    """Proxy as delivered; None: could not be scored (a proxy verifier, or infrastructure, failed)."""
    gold: float | None
    """In [0, 1]; None: could not be scored."""
    scores: list[Score]
    findings: list[Finding]
    retryable: bool = False
    """Infrastructure outcomes only: whether playing it again may help."""


_ErrorKind = Literal["policy", "environment", "sandbox", "verifier", "internal"]


class Reins:
    """How an episode is held while it is played, from the same event loop; see `play`."""

    __slots__ = ("_hold", "_told", "cancelled_by", "held_s", "pulled", "task", "trajectory")

    def __init__(self) -> None:
        self.pulled = False
        """Whether there is anything to heed before the next turn: all that an episode looks at, once a turn."""
        self._hold: asyncio.Event | None = None
        self._told: asyncio.Task[Any] | None = None
        """The task that was cancelled and has not heeded it yet."""
        self.cancelled_by: str | None = None
        """Who has cancelled it; None: nobody."""
        self.held_s = 0.0
        """Seconds that it was paused."""
        self.task: asyncio.Task[Any] | None = None
        """Who plays it, where the playing may be interrupted at once."""
        self.trajectory: Trajectory | None = None
        """What was played so far."""

    @property
    def turns(self) -> int:
        """Turns that have ended."""
        return 0 if self.trajectory is None else len(self.trajectory.turns)

    @property
    def paused(self) -> bool:
        """Whether it waits before its next turn, or will."""
        return self._hold is not None

    def pause(self) -> None:
        """Lets the turn under way end, and no other begin."""
        if self._hold is None:
            self._hold = asyncio.Event()
            self.pulled = True

    def resume(self) -> None:
        """Lets it go on."""
        if self._hold is not None:
            self._hold.set()
            self._hold = None
            self.pulled = self.cancelled_by is not None

    def cancel(self, by: str) -> None:
        """Ends it as cancelled, at once where it waits for its policy or for a thread."""
        if self.cancelled_by is None:
            self.cancelled_by = by
            self.pulled = True
            if self.task is not None:
                self._told = self.task
                self.task.cancel()

    async def obey(self) -> None:
        """Waits while it is paused.

        Raises:
            CancelledError: somebody has cancelled it.
        """
        since = time.monotonic()
        while self._hold is not None and self.cancelled_by is None:
            await self._hold.wait()
        self.held_s += time.monotonic() - since
        if self.cancelled_by is not None:
            raise asyncio.CancelledError

    def taken(self) -> bool:
        """Whether the cancellation that has arrived is a person's and of this episode alone; it is heeded then."""
        if self.cancelled_by is None:
            return False
        told, self._told = self._told, None
        # one cancellation more than this one: the run itself is ending
        return told is None or told.uncancel() == 0

    async def nap(self, seconds: float) -> None:
        """Sleeps, until it is cancelled at most."""
        self.task = asyncio.current_task()
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            if not self.taken():
                raise
        finally:
            self.task = None


class _Cut(Exception):
    """A limit was reached; the text is its name."""


async def play(
    env: gymnasium.Env[Any, Any],
    task: Task,
    policy: Policy,
    *,
    frozen: FrozenTask | None = None,
    task_hash: str = "",
    trial: int = 0,
    seed: int = 0,
    sampling: Sampling = DEFAULT_SAMPLING,
    limits: Limits | None = None,
    threads: Executor | None = None,
    judge: Policy | None = None,
    reins: Reins | None = None,
) -> EpisodeResult:
    """Plays one episode and scores it.

    Whatever goes wrong that is not the agent's doing becomes an ``infrastructure`` outcome without reward; nothing
    but cancellation and `DefinitionError` is raised.

    Args:
        env: a `ChatEnv`, possibly under Gymnasium wrappers; their changes of the reward are what is recorded as
            delivered.
        task: what to play; made by ``env.make_task``.
        policy: who plays.
        frozen: ``env.freeze(task)``, if the caller has it.
        task_hash: content hash of ``frozen``, for the record.
        trial: repetition of the task.
        seed: what the policy's sampling is seeded with.
        sampling: parameters for the policy; its ``seed`` is replaced.
        limits: what cuts the episode.
        threads: where steps run that may block; None runs them in place.
        judge: whom verifiers ask that need one. They wait for it, so they run where steps that may block do.
        reins: by which it may be paused between turns (which counts neither for its limit of time nor for its duration), or
            cancelled; it then keeps what was played, and has neither reward nor gold.
    """
    core: ChatEnv = env.unwrapped  # type: ignore[assignment]
    core.judge = judge
    started_at = time.time()
    clock = time.monotonic()
    deadline = None if limits is None or limits.seconds is None else clock + limits.seconds
    layer: _ErrorKind = "environment"
    error: EpisodeError | None = None
    retryable = False
    started = False
    base = 0.0  # what the environment itself paid for the last turn, before wrappers
    player: Policy | None = None
    in_thread = threads is not None and waits(core)
    bare = env is core and not in_thread and type(core).step is ChatEnv.step  # then nothing can come between
    try:
        options = {"task": task, "frozen": frozen, "trial": trial}
        observation, _ = await _run(threads, lambda: env.reset(options=options)) if in_thread else env.reset(options=options)
        started = True
        trajectory = core.trajectory
        conversation: list[Message] = list(observation)
        layer = "policy"
        context = EpisodeContext(task.id, trial, seed, env if getattr(policy, "privileged", False) else None)
        player = policy.begin(context)
        sampling = msgspec.structs.replace(sampling, seed=seed)
        tools = core.tool_specs
        turn_limit = None if limits is None else limits.turns
        if reins is not None:
            reins.trajectory, reins.task = trajectory, asyncio.current_task()
        while True:
            layer = "policy"
            if reins is not None and reins.pulled:
                before = reins.held_s
                await reins.obey()
                deadline = deadline and deadline + reins.held_s - before
            if deadline is None:
                completion = await player.act(conversation, tools, sampling)
            else:
                completion = await _in_time(player.act(conversation, tools, sampling), deadline)
            completion = _kept(completion, player)
            message = completion.message
            layer = "environment"
            core.attach(completion)
            if bare:
                turn, terminated, truncated = core._play(message)
                new: Sequence[Message] = turn.observation
            else:
                if in_thread:
                    new, reward, terminated, truncated, _ = await _run(threads, lambda m=message: env.step(m))  # type: ignore[misc]
                else:
                    new, reward, terminated, truncated, _ = env.step(message)
                turn = trajectory.turns[-1]
                base = turn.reward
                if reward != base:  # a wrapper changed what is delivered
                    turn.reward = float(reward)
            if terminated:
                break
            if truncated:
                if core._running:  # a wrapper (TimeLimit) cut it, so the environment has not been scored yet
                    await _in_place(threads if in_thread else None, functools.partial(_finish, env, core, "environment", base))
                break
            conversation.append(turn.message)
            conversation += new
            if limits is not None:
                if turn_limit is not None and len(trajectory.turns) >= turn_limit:
                    raise _Cut("turns")
                if limits.tokens is not None and trajectory.usage.completion_tokens >= limits.tokens:
                    raise _Cut("tokens")
                if limits.cost_usd is not None and trajectory.usage.cost_usd >= limits.cost_usd:
                    raise _Cut("cost")
                if deadline is not None and time.monotonic() >= deadline:
                    raise _Cut("time")
    except (_Cut, Left) as cut:
        limit = str(cut)
        try:
            await _in_place(threads if in_thread else None, lambda: _finish(env, core, limit, base))
        except Exception as e:
            error = episode_error("environment", e)
            retryable = isinstance(e, InfrastructureError) and e.retryable
    except DefinitionError:
        raise
    except asyncio.CancelledError as e:
        current = asyncio.current_task()
        if reins is not None and reins.taken():
            error = _cancelled(reins)
        elif layer != "policy" or current is None or current.cancelling():
            raise
        else:
            error = episode_error(layer, e)  # nobody has cancelled this task: something inside of the policy was
    except (Exception, SystemExit) as e:  # an agent's code may well call sys.exit
        if reins is not None and reins.taken():  # what a client makes of being cancelled
            error = _cancelled(reins)
        else:
            error = episode_error(layer, e)
            retryable = isinstance(e, InfrastructureError) and e.retryable
    finally:
        if reins is not None:
            reins.task = None  # what follows is not to be interrupted
        # what a player holds for this one episode, such as a process, ends with it
        end = getattr(player, "end", None)
        if end is not None:
            with contextlib.suppress(Exception):  # what was played stands, however badly the player leaves
                await end()
        if core._running:  # it was cut short by an error or by cancellation: nobody has finished it
            core._running = False
            with contextlib.suppress(Exception):
                core.release()
    if not started:
        trajectory = Trajectory(task_id=task.id, turns=[])
        frozen = frozen or core.freeze(task)
    else:
        trajectory = core.trajectory
        frozen = core.frozen_task
        trajectory.calls = list(getattr(player, "model_calls", ()))  # of a program that asks its model by itself
    trajectory.trial = trial
    trajectory.seed = seed
    trajectory.policy = public_name(policy.name)
    trajectory.task_hash = task_hash
    trajectory.started_at = started_at
    result: EpisodeResult
    if error is None:
        try:
            if reins is not None and in_thread:
                reins.task = asyncio.current_task()
            if in_thread:
                result = await _run(threads, lambda: score(core, trajectory, frozen))
            else:
                result = score(core, trajectory, frozen)
        except asyncio.CancelledError:  # a judge that does not answer, say
            if reins is None or not reins.taken():
                raise
            error = _cancelled(reins)
        except Exception as e:  # a sandbox that a verifier needed: nothing can be said about the episode
            error, retryable = episode_error("verifier", e), isinstance(e, InfrastructureError) and e.retryable
        finally:
            if reins is not None:
                reins.task = None
    if error is not None:
        if error.kind == "cancelled":  # a thread may still be in the middle of a step, and write to the other one
            trajectory = msgspec.structs.replace(trajectory, turns=[*trajectory.turns])
        trajectory.outcome = "cancelled" if error.kind == "cancelled" else "infrastructure"
        trajectory.truncation = None
        trajectory.error = error
        result = EpisodeResult(trajectory, frozen, None, None, [], [], retryable)
    trajectory.duration_s = time.monotonic() - clock - (0.0 if reins is None else reins.held_s)
    return result


def _cancelled(reins: Reins) -> EpisodeError:
    n = reins.turns
    return EpisodeError("cancelled", f"by {clean_text(reins.cancelled_by or 'somebody')}, after {n} turn{'s' * (n != 1)}")


def waits(env: ChatEnv) -> bool:
    """Whether its steps belong on a thread: it says so, or one of its verifiers runs code or asks a model."""
    return env.blocking or bool(env.needs())


def score(core: ChatEnv, trajectory: Trajectory, frozen: FrozenTask) -> EpisodeResult:
    """Runs the gold and metric verifiers of a finished episode, beside what its proxy verifiers said.

    Raises:
        InfrastructureError: a sandbox that a verifier needs has failed.
    """
    context = VerifierContext(frozen, judge=core.judge)
    proxy = core.proxy_scores
    findings: list[Finding] = []
    paying: Sequence[Verifier] = core.proxy or core.gold
    wanted: Sequence[Verifier] = core.gold or core.proxy
    if paying is wanted:
        # the same verifiers on the same record: judged once, entered under both roles
        golden, found = as_gold(proxy), core.proxy_findings
    else:
        golden, found = verify(wanted, "gold", trajectory, context, core.sandboxes)
        findings += core.proxy_findings
    findings += found
    scores = [*proxy, *golden]
    if core.metrics:
        more, found = verify(core.metrics, "metric", trajectory, context, core.sandboxes)
        scores += more
        findings += found
    reward: float | None = trajectory.total_reward
    if any(s.role == "proxy" and s.value is None for s in proxy) and proxy_reward(proxy, paying) is None:
        reward = None
    return EpisodeResult(trajectory, frozen, reward, gold_value(scores), scores, findings)


def as_gold(proxy: list[Score]) -> list[Score]:
    """Proxy scores as the gold ones that the same verifiers give; what lies outside [0, 1] is unscorable."""
    result = []
    for s in proxy:
        if s.role != "proxy":
            continue
        if s.value is not None and not 0.0 <= s.value <= 1.0:
            reason = f"gold must lie in [0, 1], not {s.value}"
            result.append(msgspec.structs.replace(s, role="gold", value=None, status="unscorable", reason=reason))
        else:
            result.append(msgspec.structs.replace(s, role="gold"))
    return result


async def _in_time(answer: Coroutine[Any, Any, Completion], deadline: float) -> Completion:
    """The policy's answer, within the time that is left."""
    try:
        async with asyncio.timeout(deadline - time.monotonic()) as scope:
            return await answer
    except TimeoutError:
        if not scope.expired():
            raise
        raise _Cut("time") from None


def _kept(completion: Any, player: Policy) -> Completion:
    """The completion with plain numbers in it. Structs do not check what they are constructed with, and what one
    policy gets wrong must not make its episode impossible to keep.

    Raises:
        InfrastructureError: something in it is not what `Completion` says; the text names it.
    """
    try:
        return _checked(completion)
    except (TypeError, ValueError, AttributeError) as e:
        raise InfrastructureError(f"{player.name}: act returned what cannot be kept: {e}", retryable=False) from e


def _checked(completion: Any) -> Completion:
    if not isinstance(completion, Completion) or not isinstance(completion.message, Message):
        given = completion.message if isinstance(completion, Completion) else completion
        raise TypeError(f"expected a Completion with a Message in it, not {type(given).__name__}")
    message = completion.message
    if type(message.content) is not str:
        parts: Any = message.content
        for part in parts:
            if not isinstance(part.data if isinstance(part, ImagePart) else part.text, (str, bytes)):
                raise TypeError("a part of the Message holds no text")
    for c in message.tool_calls:
        if not (isinstance(c.name, str) and isinstance(c.arguments, str) and isinstance(c.id, str)):
            raise TypeError("a tool call's name, id and arguments are text; arguments are JSON that is not parsed yet")
    if completion.finish_reason not in _FINISH_REASONS:
        raise ValueError(f"finish_reason is one of {', '.join(_FINISH_REASONS)}, not {completion.finish_reason!r}")
    changed: dict[str, Any] = {}
    usage = completion.usage
    if usage is not NO_USAGE:
        if type(usage) is not Usage or tuple(map(type, msgspec.structs.astuple(usage))) != _PLAIN_USAGE:
            usage = changed["usage"] = _as_plain(usage, Usage)
        # each by itself: a NaN among several would pass their least and largest
        prompt, sampled, cached, cost = usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.cost_usd
        if not (0 <= prompt < _MOST and 0 <= sampled < _MOST and 0 <= cached < _MOST and 0 <= cost < _MOST):
            raise ValueError(f"usage counts from 0 up, not {usage}")
    if completion.sampling is not None:
        changed["sampling"] = _as_plain(completion.sampling, Sampling)
    if type(completion.latency_s) is not float:
        changed["latency_s"] = msgspec.convert(plain(completion.latency_s), float)
    tokens = completion.tokens
    if tokens is not None and (kept := checked_tokens(tokens)) is not tokens:
        changed["tokens"] = kept
    if completion.notes:
        changed["notes"] = tuple((str(kind), plain(data)) for kind, data in completion.notes)
    return msgspec.structs.replace(completion, **changed) if changed else completion


_FINISH_REASONS: tuple[str, ...] = get_args(FinishReason)

_PLAIN_USAGE = (int, int, int, float, bool)

_MOST = 1 << 53
"""Usage counts below it: a double holds each of these numbers exactly, and so does every reader of a record."""

_S = TypeVar("_S", bound=msgspec.Struct)


def _as_plain(value: Any, kind: type[_S]) -> _S:
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}, not {type(value).__name__}")
    return msgspec.convert(msgspec.to_builtins(value, enc_hook=from_numpy), kind)


def _finish(env: gymnasium.Env[Any, Any], core: ChatEnv, truncation: str, base: float) -> None:
    """Closes an episode that was cut from outside. What is paid then goes the way of every reward: through wrappers.

    Args:
        env: the environment under its wrappers.
        core: the environment itself.
        truncation: name of the limit.
        base: what it paid for the last turn, before wrappers.
    """
    turns = core.trajectory.turns
    delivered = turns[-1].reward if turns else 0.0
    extra = core.finish(truncation)
    wrappers: list[Any] = []
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, gymnasium.RewardWrapper) or hasattr(env, "finish_reward"):
            wrappers.append(env)
        env = env.env
    if not wrappers or not turns:
        return
    if any(hasattr(w, "finish_reward") for w in wrappers):
        # some keep account of what they have delivered, and are told of what comes on top of it
        for wrapper in reversed(wrappers):
            own = getattr(wrapper, "finish_reward", None)
            extra = float(own(extra)) if own else float(wrapper.reward(extra)) - float(wrapper.reward(0.0))
        turns[-1].reward = delivered + extra
        return
    reward = base + extra
    for wrapper in reversed(wrappers):
        reward = float(wrapper.reward(reward))
    turns[-1].reward = reward


@functools.lru_cache(maxsize=64)
def public_name(name: str) -> str:
    """A policy's name as it is recorded: it may hold the address of a server, with credentials."""
    return redact(clean_text(name))


def episode_error(layer: _ErrorKind, error: BaseException) -> EpisodeError:
    """The error as it is kept: storable, of bounded length, without secrets. A sandbox's error is its own layer's."""
    if isinstance(error, MissingReplyError):
        return EpisodeError("replay", redact(clean_text(str(error))))
    if isinstance(error, SandboxError):
        layer = "sandbox"
    try:
        text = str(error)
    except Exception:  # somebody's __str__
        text = "(its text cannot be read)"
    if not isinstance(error, InfrastructureError):
        text = f"{type(error).__name__}: {text}"
    text = redact(clean_text(text[:20_000]))
    return EpisodeError(layer, text if len(text) <= 2000 else f"{text[:2000]} ...", _where(error))


async def _run(threads: Executor | None, function: Callable[[], Any]) -> Any:
    return await asyncio.get_running_loop().run_in_executor(threads, function)


async def _in_place(threads: Executor | None, function: Callable[[], Any]) -> Any:
    """What the function returns, called on a thread where there are some, else here."""
    return function() if threads is None else await _run(threads, function)


def _where(error: BaseException) -> str:
    """The exception's type and its last frames, without values: variables could hold secrets."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return f"{type(error).__name__} at " + " < ".join(f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno}" for f in reversed(frames))
