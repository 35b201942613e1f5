# SPDX-License-Identifier: Apache-2.0
"""One episode: a policy plays a task in an environment until one of them, or a limit, ends it; then it is scored."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Literal

import gymnasium
import msgspec

from agentgym.chat import Message
from agentgym.env import ChatEnv
from agentgym.errors import DefinitionError, InfrastructureError, redact
from agentgym.protocols import Completion, EpisodeContext, Policy, Sampling
from agentgym.scoring import Finding, Score, Verifier, VerifierContext, gold_value, proxy_reward, verify
from agentgym.task import FrozenTask, Task
from agentgym.trajectory import EpisodeError, Trajectory

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
    """
    core: ChatEnv = env.unwrapped  # type: ignore[assignment]
    started_at = time.time()
    clock = time.monotonic()
    deadline = None if limits is None or limits.seconds is None else clock + limits.seconds
    layer: _ErrorKind = "environment"
    error: EpisodeError | None = None
    retryable = False
    started = False
    in_thread = threads is not None and core.blocking
    try:
        options = {"task": task, "frozen": frozen}
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
        while True:
            layer = "policy"
            completion = await _act(player, conversation, tools, sampling, deadline)
            message = completion.message
            layer = "environment"
            core.attach(completion)
            if in_thread:
                observation, reward, terminated, truncated, _ = await _run(threads, lambda m=message: env.step(m))  # type: ignore[misc]
            else:
                observation, reward, terminated, truncated, _ = env.step(message)
            turn = trajectory.turns[-1]
            if reward != turn.reward:  # a wrapper changed what is delivered
                turn.reward = float(reward)
            if terminated:
                break
            if truncated:
                if core._running:  # a wrapper (TimeLimit) cut it, so the environment has not been scored yet
                    core.finish("environment")
                break
            conversation.append(turn.message)
            conversation += observation
            if limits is not None:
                if turn_limit is not None and len(trajectory.turns) >= turn_limit:
                    raise _Cut("turns")
                if limits.tokens is not None and trajectory.usage.completion_tokens >= limits.tokens:
                    raise _Cut("tokens")
                if limits.cost_usd is not None and trajectory.usage.cost_usd >= limits.cost_usd:
                    raise _Cut("cost")
                if deadline is not None and time.monotonic() >= deadline:
                    raise _Cut("time")
    except _Cut as cut:
        core.finish(str(cut))
    except DefinitionError:
        raise
    except InfrastructureError as e:
        error = EpisodeError(layer, redact(str(e)), _where(e))
        retryable = e.retryable
    except Exception as e:
        error = EpisodeError(layer, redact(f"{type(e).__name__}: {e}"), _where(e))
    if not started:
        trajectory = Trajectory(task_id=task.id, turns=[])
        frozen = frozen or core.freeze(task)
    else:
        trajectory = core.trajectory
        frozen = core.frozen_task
    trajectory.trial = trial
    trajectory.seed = seed
    trajectory.policy = policy.name
    trajectory.task_hash = task_hash
    trajectory.started_at = started_at
    if error is not None:
        trajectory.outcome = "infrastructure"
        trajectory.truncation = None
        trajectory.error = error
        trajectory.duration_s = time.monotonic() - clock
        return EpisodeResult(trajectory, frozen, None, None, [], [], retryable)
    if in_thread:
        result = await _run(threads, lambda: score(core, trajectory, frozen))
    else:
        result = score(core, trajectory, frozen)
    trajectory.duration_s = time.monotonic() - clock
    return result


def score(core: ChatEnv, trajectory: Trajectory, frozen: FrozenTask) -> EpisodeResult:
    """Runs the gold and metric verifiers of a finished episode, beside what its proxy verifiers said."""
    context = VerifierContext(frozen)
    proxy = core.proxy_scores
    findings: list[Finding] = []
    paying: Sequence[Verifier] = core.proxy or core.gold
    wanted: Sequence[Verifier] = core.gold or core.proxy
    if paying is wanted:
        # the same verifiers on the same record: judged once, entered under both roles
        golden, found = _as_gold(proxy), core.proxy_findings
    else:
        golden, found = verify(wanted, "gold", trajectory, context)
        findings += core.proxy_findings
    findings += found
    scores = [*proxy, *golden]
    if core.metrics:
        more, found = verify(core.metrics, "metric", trajectory, context)
        scores += more
        findings += found
    reward: float | None = trajectory.total_reward
    if any(s.role == "proxy" and s.value is None for s in proxy) and proxy_reward(proxy, paying) is None:
        reward = None
    return EpisodeResult(trajectory, frozen, reward, gold_value(scores), scores, findings)


def _as_gold(proxy: list[Score]) -> list[Score]:
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


async def _act(
    player: Policy, conversation: list[Message], tools: Sequence[Any], sampling: Sampling, deadline: float | None
) -> Completion:
    """The policy's next answer, within the time that is left."""
    if deadline is None:
        completion = await player.act(conversation, tools, sampling)
    else:
        try:
            async with asyncio.timeout(deadline - time.monotonic()) as scope:
                completion = await player.act(conversation, tools, sampling)
        except TimeoutError:
            if not scope.expired():
                raise
            raise _Cut("time") from None
    if not isinstance(completion, Completion) or not isinstance(completion.message, Message):
        raise InfrastructureError(
            f"{player.name}: act must return a Completion with a Message in it, not {type(completion).__name__}",
            retryable=False,
        )
    return completion


async def _run(threads: Executor | None, function: Callable[[], Any]) -> Any:
    return await asyncio.get_running_loop().run_in_executor(threads, function)


def _where(error: BaseException) -> str:
    """The exception's type and its last frames, without values: variables could hold secrets."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return f"{type(error).__name__} at " + " < ".join(f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno}" for f in reversed(frames))
