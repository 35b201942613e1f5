# SPDX-License-Identifier: Apache-2.0
"""TRL's AsyncGRPOTrainer: any environment as its rollout worker, played all the while the trainer trains.

    from trl.experimental.async_grpo import AsyncGRPOConfig, AsyncGRPOTrainer
    args = AsyncGRPOConfig(output_dir="out", num_generations=8)
    policy = "vllm:Qwen/Qwen3-8B@http://localhost:8000/v1#tokenizer=models/Qwen3-8B"
    trainer = AsyncGRPOTrainer("Qwen/Qwen3-8B", args=args, **agentgym.training.trl_async.kit("tools.lookup", policy, args))

The worker plays groups of a family without end, as far ahead of the trainer as it may, and hands over rows of exact tokens with
the advantage of their episode. `agentgym.training.trl` has the hooks of the trainer that waits for its rollouts.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from agentgym import registry
from agentgym.chat import Message
from agentgym.env import ChatEnv
from agentgym.episode import EpisodeResult, Limits, play, waits
from agentgym.errors import AgentGymError, InfrastructureError, UsageError
from agentgym.policies.load import load_policy
from agentgym.policies.wire import message_to_openai
from agentgym.protocols import Completion, EpisodeContext, Policy, PolicyBase, Sampling
from agentgym.rollout.scheduler import HOPELESS, episode_seed
from agentgym.rollout.selection import parse_label
from agentgym.task import content_hash
from agentgym.tokens.rows import Drift, RowSet
from agentgym.toolspec import ToolSpec
from agentgym.training.engine import Played, dataset_of, judged, threads
from agentgym.training.groups import Advantages, Baseline, advantages
from agentgym.training.trl import OnEpisode, Pay, distinct

_log = logging.getLogger(__name__)

FRUITLESS = 50
"""Groups in a row without a row to train on, after which the worker gives up: the trainer would wait without end."""

_JOIN_S = 60.0
"""Seconds that `Worker.stop` waits for an environment's step that nothing can interrupt."""


def kit(
    families: str | Sequence[str],
    policy: str | Policy,
    args: Any,
    *,
    split: str | None = "train",
    variant: str = "control",
    tasks: int = 256,
    **more: Any,
) -> dict[str, Any]:
    """Keyword arguments for ``AsyncGRPOTrainer``: ``train_dataset``, ``rollout_worker`` and, for a model that is sampled in
    this process, ``weight_transfer``.

    Args:
        families: one family, with parameters if need be (``tools.lookup:level=2``), or several to mix.
        policy: who samples: ``vllm:MODEL@URL``, the server that TRL sends its weights to; or a model of its own in this
            process, ``hf:FOLDER`` or an `HFPolicy`. It cannot be the trainer's: TRL gives that one an attention of its own.
        args: the trainer's ``AsyncGRPOConfig``. Group size, sampling, seed and how far the worker may be ahead are taken from
            it.
        split: which half of the tasks; None for any.
        variant: which twin.
        tasks: of each family; an epoch of the trainer is one round over them.
        **more: see `Worker`.

    Raises:
        UsageError: there is no such family or model, or numbers that do not go together.
    """
    samples = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    given: dict[str, Any] = {
        "group": args.num_generations,
        # rows that are further ahead would be too old for the trainer when their turn comes
        "lead": args.max_inflight_tasks if args.max_inflight_tasks > 0 else max(args.max_staleness, 1) * samples,
        "sampling": Sampling(
            temperature=args.temperature,
            top_p=args.top_p if args.top_p < 1.0 else None,
            top_k=args.top_k if args.top_k > 0 else None,
            max_tokens=args.max_completion_length,
        ),
        "seed": args.seed,
        **more,
    }
    worker = Worker(families, policy, split=split, variant=variant, tasks=tasks, **given)
    result: dict[str, Any] = {"train_dataset": dataset_of(worker.prompts()), "rollout_worker": worker}
    if callable(getattr(worker.policy, "load_weights", None)):
        result["weight_transfer"] = WeightTransfer(worker)
    return result


class Worker:
    """What TRL takes as ``rollout_worker``: a thread that plays groups and queues their rows.

    Each task in turn is played ``group`` times; the advantage of each episode is taken over its group, and all rows of an
    episode carry it. Episodes that could not be scored take no part, and are counted. A row tells the oldest weight version of
    its episode's tokens, so that TRL never takes an episode for younger than it is; where the policy tells none, the version
    that was current when the episode began.

    Args:
        families: see `kit`.
        policy: who plays. It must keep exact tokens with log-probabilities of the distribution that is sampled from.
        group: episodes of a task that are compared with each other.
        lead: most episodes and rows ahead of the trainer, under way or in the queue; at least one group.
        split: which half of the tasks; None for any.
        variant: which twin.
        tasks: of each family.
        sampling: of each turn.
        limits: of each episode.
        baseline: see `agentgym.training.groups.Baseline`.
        overlong: what becomes of episodes that a limit cut, see `agentgym.training.groups.advantages`.
        pay: what an episode is paid; None: its reward.
        on_episode: called with every episode of a group that has ended, scored, in the worker's thread.
        retries: further attempts at an episode that infrastructure spoiled, where that may help.
        seed: of the sampling.

    Raises:
        UsageError: there is no such family or model, or numbers that do not go together.
    """

    def __init__(
        self,
        families: str | Sequence[str],
        policy: str | Policy,
        *,
        group: int = 8,
        lead: int = 64,
        split: str | None = "train",
        variant: str = "control",
        tasks: int = 256,
        sampling: Sampling | None = None,
        limits: Limits | None = None,
        baseline: Baseline = "grpo",
        overlong: Literal["keep", "mask", "exclude"] = "keep",
        pay: Pay | None = None,
        on_episode: OnEpisode | None = None,
        retries: int = 2,
        seed: int = 0,
    ) -> None:
        if group < 2 and baseline != "none":
            raise UsageError(f"a group has at least 2 episodes to compare, not {group}")
        self.policy: Policy = load_policy(policy)
        self.group, self.lead = group, max(lead, group)
        self.variant, self.sampling, self.limits = variant, sampling or Sampling(temperature=1.0), limits
        self.baseline: Baseline = baseline
        self.overlong: Literal["keep", "mask", "exclude"] = overlong
        self.pay: Pay = pay or (lambda result: result.reward)
        self.on_episode, self.retries, self.seed = on_episode, retries, seed
        self.plan = _plan(families, variant, split, tasks)
        """(family with its parameters, item) of each task, in the order in which they are played, again and again."""
        self.rollout_buffer: queue.Queue[Any] = _Buffer(self._wake)
        """TRL's ``RolloutSample``, one a row."""
        self.metrics_queue: queue.Queue[dict[str, float | tuple[float, float]]] = queue.Queue()
        """What each group came to, for the trainer's log: ``agentgym/...``."""
        self.version = 0
        """Weight version that is current, as the trainer last told."""
        self.counts: collections.Counter[str] = collections.Counter()
        """What became of episodes and groups so far, see the page on training."""
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._groups = itertools.count()
        self._under_way = 0
        self._beat = 0.0
        self._unscored = self._fruitless = 0

    # -- what TRL calls, in the trainer's thread --------------------------------------------------------------------------

    def start(self) -> None:
        """Begins to play. What an earlier training has left in the queue is dropped."""
        if self._thread is not None:
            raise UsageError("the worker plays for a trainer already: one worker, one trainer")
        with contextlib.suppress(queue.Empty):
            while True:
                self.rollout_buffer.get_nowait()
        self._failure = None
        self._under_way = self._unscored = self._fruitless = 0
        self._beat = time.monotonic()
        self._stopping, self._room = asyncio.Event(), asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(self._loop,), name="agentgym-rollouts", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the episodes that are under way, the thread and those of the policy; harmless if nothing runs."""
        thread, self._thread = self._thread, None
        if thread is None or self._loop is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: it has failed before
            self._loop.call_soon_threadsafe(self._stopping.set)
        thread.join(_JOIN_S)
        if thread.is_alive():
            _log.warning("a step of an environment still runs after %.0f s; its thread ends with the process", _JOIN_S)

    def update_model_version(self, model_version: int) -> None:
        """From now on the policy's weights are of this version."""
        self.version = model_version
        tell = getattr(self.policy, "set_version", None)
        # a policy that got the weights here knows, and being told again would drop its cache
        if callable(tell) and getattr(self.policy, "version", None) != model_version:
            tell(model_version)

    def check_health(self, stale_after_s: float) -> None:
        """Says whether there is anything to wait for.

        Raises:
            InfrastructureError: the worker has failed, or no turn was answered for so long.
        """
        failure = self._failure
        if failure is not None:
            said = str(failure) if isinstance(failure, AgentGymError) else f"{type(failure).__name__}: {failure}"
            raise InfrastructureError(f"the rollouts have ended: {said}", retryable=False) from failure
        silent = time.monotonic() - self._beat
        if self._thread is not None and self._under_way and silent > stale_after_s:
            raise InfrastructureError(
                f"no turn of any episode was answered for {silent:.0f} s: the policy hangs, or a turn takes longer than the "
                f"trainer's heartbeat_stale_after_s ({stale_after_s:.0f})",
                retryable=False,
            )

    # -- the thread -------------------------------------------------------------------------------------------------------

    def prompts(self) -> Iterator[dict[str, Any]]:
        """A row for each task of the plan: its opening messages in OpenAI's form, and its name."""
        for name, item in self.plan:
            env = _environment(name, self.variant)
            task = env.make_task(item)
            yield {"prompt": [message_to_openai(m) for m in env.freeze(task).opening], "task": task.id}

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(self._main())
        except BaseException as e:  # told to the trainer by check_health, which raises it there
            self._failure = _cause(e)

    async def _main(self) -> None:
        playing = asyncio.create_task(self._play())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({playing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if playing.done():
                playing.result()
        finally:
            for task in (playing, stopping):
                task.cancel()
            await asyncio.gather(playing, stopping, return_exceptions=True)
            close = getattr(self.policy, "aclose", None)
            if close is not None:
                await close()

    async def _play(self) -> None:
        prepare = getattr(self.policy, "prepare", None)
        if prepare is not None:
            await asyncio.to_thread(prepare)
        async with asyncio.TaskGroup() as groups:
            while True:
                begun = time.monotonic()
                while self._under_way + self.rollout_buffer.qsize() + self.group > self.lead:
                    self._room.clear()
                    await self._room.wait()
                self.metrics_queue.put({"agentgym/backpressure_s": time.monotonic() - begun})
                self._under_way += self.group
                self._beat = time.monotonic()
                groups.create_task(self._one_group(next(self._groups)))
                await asyncio.sleep(0)

    def _wake(self) -> None:
        """A row was taken, by whichever thread: there may be room for another group."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._room.set)

    async def _one_group(self, number: int) -> None:
        name, item = self.plan[number % len(self.plan)]
        first = number // len(self.plan) * self.group  # later rounds over the tasks are further trials of them
        async with asyncio.TaskGroup() as episodes:
            tasks = [episodes.create_task(self._episode(name, item, first + i)) for i in range(self.group)]
        ended = [task.result() for task in tasks]
        for sample in self._samples(number, ended):
            sample.enqueued_at = time.time()  # TRL's clock
            self.rollout_buffer.put_nowait(sample)
        self._under_way -= self.group
        self._room.set()
        if self.on_episode is not None:
            for result, _ in ended:
                self.on_episode(result)

    async def _episode(self, name: str, item: str, trial: int) -> tuple[EpisodeResult, int]:
        """An episode, and the version that was current when it began."""
        watched = _Watched(self.policy, self._lives)
        left = self.retries
        while True:
            env = _environment(name, self.variant)
            task = env.make_task(item)
            frozen = env.freeze(task)
            since = self.version
            try:
                result = await play(
                    env, task, watched, frozen=frozen, task_hash=content_hash(frozen.encode()), trial=trial,
                    seed=episode_seed(self.seed, task.id, trial), sampling=self.sampling, limits=self.limits,
                    threads=threads() if waits(env) else None,
                )  # fmt: skip
            finally:
                env.close()
            if result.trajectory.outcome != "infrastructure" or not result.retryable or left < 1:
                return result, since
            left -= 1
            self._count(retried=1)

    def _lives(self) -> None:
        self._beat = time.monotonic()

    # -- from episodes to rows --------------------------------------------------------------------------------------------

    def _samples(self, number: int, ended: Sequence[tuple[EpisodeResult, int]]) -> list[Any]:
        """The rows of a group, and its figures for the log."""
        from trl.experimental.async_grpo.async_rollout_worker import RolloutSample  # type: ignore[import-not-found, unused-ignore]

        played = [_judged(result, self.sampling) for result, _ in ended]
        paid = [self._paid(p) for p in played]
        found = advantages(
            paid,
            [number] * len(played),
            baseline=self.baseline,
            truncated=[p.truncated for p in played],
            overlong=self.overlong,
            acted=[bool(p.rows.rows) for p in played],
        )
        samples = []
        forked = spanning = 0
        for p, (result, since), reward, advantage, used in zip(played, ended, paid, found.values, found.used, strict=True):
            if not used or reward is None:
                continue
            oldest, newest = _span(p, since)
            forked += len(p.rows.rows) > 1
            spanning += newest > oldest
            metrics = {"reward": reward, "turns": float(len(result.trajectory.turns)), "truncated": float(p.truncated)}
            if result.gold is not None:
                metrics["gold"] = float(result.gold)
            prompt = [message_to_openai(m) for m in result.trajectory.opening]
            completion = [message_to_openai(m) for m in result.trajectory.messages[len(prompt) :]]
            samples += [
                RolloutSample(
                    prompt, completion, row.token_ids.astype("int64"), row.loss_mask.astype("int64"),
                    row.logprobs.astype("float32"), float(advantage), oldest, number, dict(metrics),
                )
                for row in p.rows.rows
            ]  # fmt: skip
        self._report(played, paid, found, forked=forked, spanning=spanning, rows=len(samples))
        return samples

    def _paid(self, p: Played) -> float | None:
        if p.result.trajectory.outcome == "infrastructure":
            return None
        paid = self.pay(p.result)
        return None if paid is None or not math.isfinite(paid) else float(paid)

    def _report(self, played: Sequence[Played], paid: Sequence[float | None], found: Advantages, **more: int) -> None:
        """Counts, tells the trainer's log, and ends a training that nothing comes of.

        Raises:
            InfrastructureError: nothing could be scored, or nothing was worth a row, for long.
        """
        known = [r for r in paid if r is not None]
        self._count(
            groups=1, episodes=len(played), excluded=found.excluded, idle=found.idle, overlong=found.overlong,
            alone=found.alone, flat=len(found.flat), shrunk=len(found.shrunk), **more,
        )  # fmt: skip
        if known:
            self.metrics_queue.put({"agentgym/reward": (sum(known), float(len(known)))})
        self._unscored = 0 if known else self._unscored + found.excluded
        self._fruitless = 0 if more["rows"] else self._fruitless + 1
        reason = next((p.reason for p in played if p.reason), "no two of them could be compared")
        if self._unscored >= HOPELESS:
            raise InfrastructureError(f"{self._unscored} episodes in a row could not be scored: {reason}", retryable=False)
        if self._fruitless >= FRUITLESS:
            raise InfrastructureError(f"{FRUITLESS} groups in a row gave nothing to train on: {reason}", retryable=False)

    def _count(self, **more: int) -> None:
        self.counts.update(more)
        self.metrics_queue.put({f"agentgym/{name}_total": float(n) for name, n in more.items()})


class WeightTransfer:
    """What TRL takes as ``weight_transfer`` where the worker's policy samples in this process: copies the weights over.

    Answers in the making wait, and go on under the new weights. The trainer's weights and the policy's lie in memory side by
    side.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def init_weight_transfer(self) -> None:
        """Nothing needs setting up."""

    def pause(self) -> None:
        """`send_weights` pauses by itself."""

    def send_weights(self, iterator: Iterator[tuple[str, Any]]) -> None:
        """Copies them, as the version that the trainer is about to announce."""
        self._worker.policy.load_weights(iterator, self._worker.version + 1)  # type: ignore[attr-defined]

    def resume(self) -> None:
        """`send_weights` has resumed."""

    def destroy(self) -> None:
        """Nothing is held."""


class _Buffer(queue.Queue[Any]):
    """Tells when a row is taken."""

    def __init__(self, taken: Callable[[], None]) -> None:
        super().__init__()
        self._taken = taken

    def _get(self) -> Any:
        row = super()._get()
        self._taken()
        return row


class _Watched(PolicyBase):
    """A policy that tells when it has answered."""

    def __init__(self, inner: Policy, lives: Callable[[], None]) -> None:
        self.name = inner.name
        self.privileged = getattr(inner, "privileged", False)
        self._inner, self._lives = inner, lives

    def begin(self, context: EpisodeContext) -> Policy:
        return _Watched(self._inner.begin(context), self._lives)

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        completion = await self._inner.act(conversation, tools, sampling)
        self._lives()
        return completion

    @property
    def model_calls(self) -> Any:
        """Of a program that asks its model by itself."""
        return getattr(self._inner, "model_calls", ())

    async def end(self) -> None:
        end = getattr(self._inner, "end", None)
        if end is not None:
            await end()


def _plan(families: str | Sequence[str], variant: str, split: str | None, tasks: int) -> list[tuple[str, str]]:
    """Tasks of several families take turns."""
    names = [families] if isinstance(families, str) else list(families)
    columns = [[(name, item) for item in distinct(_environment(name, variant, split), tasks)] for name in names]
    plan = [entry for row in itertools.zip_longest(*columns) for entry in row if entry is not None]
    if not plan:
        raise UsageError("name at least one family with tasks to train on")
    return plan


def _environment(name: str, variant: str, split: str | None = None) -> ChatEnv:
    family, params = parse_label(name)
    return registry.env_class(family)(variant=variant, split=split, **params)


def _judged(result: EpisodeResult, sampling: Sampling) -> Played:
    """The episode with its rows.

    Raises:
        UsageError: its tokens are missing, or have no log-probabilities of what was sampled from: TRL's loss needs these.
    """
    if not result.trajectory.turns and result.trajectory.outcome != "infrastructure":  # a clock ran out before its first turn
        return Played(result, RowSet((), Drift(), 0), "nothing was said in it")
    p = judged(result)
    if p.rows.sampled_tokens and p.rows.drift.unknown_logprobs == p.rows.sampled_tokens:
        raise UsageError(f"{result.trajectory.policy} tells no log-probabilities, which the trainer compares its own with")
    kinds = {t.logprob_kind for t in result.trajectory.tokens or () if t is not None}
    cut = (sampling.top_p or 1.0) < 1.0 or bool(sampling.top_k)
    if ("raw" in kinds and sampling.temperature not in (None, 1.0)) or ("processed" in kinds and cut):
        raise UsageError(
            f"{result.trajectory.policy} tells log-probabilities of another distribution ({', '.join(sorted(kinds))}) than the "
            f"trainer's (temperature {sampling.temperature}, nothing cut off): sample at 1.0, or have it tell scaled ones"
        )
    return p


def _span(p: Played, since: int) -> tuple[int, int]:
    """Oldest and newest weight version of an episode's trained tokens; where they are not told, of its beginning."""
    told = {int(v) for row in p.rows.rows for v in row.versions[row.loss_mask != 0]}
    if -1 in told or not told:
        told = {v for v in told if v >= 0} | {since}
    return min(told), max(told)


def _cause(error: BaseException) -> BaseException:
    """The first error of nested groups of them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
