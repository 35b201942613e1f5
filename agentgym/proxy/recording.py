# SPDX-License-Identifier: Apache-2.0
"""``agentgym.proxy.record``: one episode, played by whatever the caller starts in the meantime."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future, wait
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from agentgym.env import ChatEnv
from agentgym.episode import EpisodeResult, Limits
from agentgym.errors import AgentGymError, InfrastructureError, UsageError
from agentgym.policies.load import DEFAULT, load_policy
from agentgym.protocols import Policy, Sampling
from agentgym.proxy.program import ProxiedPolicy
from agentgym.proxy.seat import Left, Seat
from agentgym.records.run import Run, runs_root
from agentgym.rollout.evaluate import Outcome, start, with_suite_settings
from agentgym.rollout.scheduler import Options
from agentgym.rollout.selection import Choice, Plan, resolve
from agentgym.task import TaskId


class Recording:
    """An episode that is being played by a program. Made by `record`; a context manager.

    When the block is left, the episode ends, is scored and kept; ``result`` has it from then on. Where the block raises, the
    episode is an infrastructure outcome, and what was raised goes on.
    """

    def __init__(self, plan: Any, options: Options, model: Policy, *, host: str, port: int, open_to_others: bool, root: Path):
        self._policy = ProxiedPolicy(
            model, f"proxy:{model.name}", host=host, port=port, open_to_others=open_to_others, on_seat=self._on_seat
        )
        self._plan, self._options, self._root = plan, options, root
        self._seated: Future[tuple[Seat, asyncio.AbstractEventLoop]] = Future()
        self._played: Future[Outcome] = Future()
        self._may_close: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._play, name="agentgym-proxy", daemon=True)
        self._result: EpisodeResult | None = None
        self.run: Path | None = None
        """Directory of the run that the episode is in, once it has ended."""

    @property
    def environ(self) -> dict[str, str]:
        """This process's environment with what the program must know added."""
        return self._policy.gateway.environ(self._seat)

    @property
    def variables(self) -> dict[str, str]:
        """Only what is added: ``OPENAI_BASE_URL``, ``OPENAI_API_KEY``, ``AGENTGYM_URL`` and so on. The keys are secrets."""
        return self._policy.gateway.variables(self._seat)

    @property
    def done(self) -> bool:
        """Whether the episode is over."""
        return bool(self._seat.over) or self._played.done()

    @property
    def result(self) -> EpisodeResult:
        """The episode, scored.

        Raises:
            UsageError: it has not ended.
        """
        if self._result is None:
            raise UsageError("the episode has no result before its `with` block has ended")
        return self._result

    @property
    def _seat(self) -> Seat:
        return self._seated.result(0)[0]

    def _on_seat(self, seat: Seat) -> None:
        if not self._seated.done():
            self._seated.set_result((seat, asyncio.get_running_loop()))

    def _play(self) -> None:
        try:
            name = self._policy.name
            work = start(self._plan, self._policy, self._options, model=name, named=False, root=self._root)
            self._played.set_result(asyncio.run(self._open_until_left(work)))
        except BaseException as e:
            self._played.set_exception(e)

    async def _open_until_left(self, work: Any) -> Outcome:
        """Plays; the server outlives the episode for as long as the block lasts, so that a program may end in order."""
        self._may_close = asyncio.Event()
        close = self._policy.gateway.close

        async def later() -> None:
            assert self._may_close is not None
            await self._may_close.wait()
            await close()

        self._policy.gateway.close = later  # type: ignore[method-assign]
        outcome: Outcome = await work
        return outcome

    def __enter__(self) -> Recording:
        self._thread.start()
        try:
            either: list[Future[Any]] = [self._seated, self._played]
            while not wait(either, 0.1, "FIRST_COMPLETED").done:
                pass
        except BaseException:
            self._leave(Left("the recording was interrupted"))
            raise
        if not self._seated.done():
            self._leave(Left())
            self._finish()
            error = self.result.trajectory.error
            raise InfrastructureError(error.message if error else "the episode ended before it began", retryable=False)
        return self

    def _leave(self, left: Left) -> None:
        if not self._seated.done():
            if self._may_close is not None:
                self._may_close.set()
            return
        seat, loop = self._seated.result()

        def tell() -> None:
            seat.left(left)
            assert self._may_close is not None
            self._may_close.set()

        try:
            loop.call_soon_threadsafe(tell)
        except RuntimeError:  # the loop is closed: the episode has ended
            return

    def _finish(self) -> None:
        while not wait([self._played], 0.1).done:
            pass
        outcome = self._played.result()
        self._thread.join()
        self.run = outcome.path
        with Run(outcome.path) as run:
            e = next(iter(run.episodes()))
            self._result = EpisodeResult(e.trajectory, e.task, e.reward, e.gold, list(e.all_scores), list(e.findings))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        failure = "" if error is None else f"the recorded block raised {type(error).__name__}: {str(error)[:300]}"
        self._leave(Left(failure.replace(self._seat.key, "***")))
        try:
            self._finish()
        except AgentGymError:
            if error is None:  # else that one says more
                raise


def record(
    task: str | type[ChatEnv],
    *,
    seed: int | str | None = None,
    variant: str = "control",
    model: str | Policy | None = None,
    params: Mapping[str, Any] | None = None,
    data: str | os.PathLike[str] | None = None,
    sampling: Sampling | None = None,
    limits: Limits | None = None,
    trial_seed: int = 0,
    sandbox: str | None = None,
    runs: str | os.PathLike[str] | None = None,
    host: str | None = None,
    port: int = 0,
) -> Recording:
    """One episode for any agent program: a context manager that runs the proxy and records what goes through it.

    ```
    with agentgym.proxy.record("tools.retail", seed=3, model="local:smollm2") as episode:
        subprocess.run(["my-agent"], env=episode.environ, check=True)
    episode.result.gold
    ```

    Args:
        task: a family (``tools.retail``), a task's id (``tools.retail/tempt/3``), a place (``file.py:Class``) or a class.
        seed: which task of the family; None for the one that the id names, else for the first.
        variant: which twin.
        model: who answers what the program asks its model; None for ``local:smollm2``.
        params: environment parameters.
        data: data file or ``hf:NAME``, for environments over data sets.
        sampling: parameters for the model, where the program names none.
        limits: what cuts the episode.
        trial_seed: seeds the model's sampling, not the task.
        sandbox: backend that code runs in.
        runs: folder of runs; None for ``$AGENTGYM_RUNS``, else ``runs``.
        host: where to listen; None: on this machine alone. Other machines can reach any other, so it has to be named.
        port: 0 for any.

    Raises:
        UsageError: something asked for does not exist or does not fit.
    """
    plan = _plan(
        task, seed, variant, Choice(trials=1, params=dict(params or {}), data=None if data is None else os.fspath(data))
    )
    options = with_suite_settings(plan, Options(1, 0, trial_seed, sampling or Sampling(), limits, sandbox=sandbox))
    policy = load_policy(DEFAULT if model is None else model)
    root = runs_root(runs)
    where = "127.0.0.1" if host is None else host
    return Recording(plan, options, policy, host=where, port=port, open_to_others=host is not None, root=root)


def _plan(task: str | type[ChatEnv], seed: int | str | None, variant: str, choice: Choice) -> Plan:
    """The plan of one task."""
    if isinstance(task, str) and task.count("/") >= 2 and not task.startswith((".", "/")) and ".py" not in task:
        if seed is not None or variant != "control":
            raise UsageError(f"{task} names its variant and item already: leave seed and variant out")
        plan = resolve([task], choice)
    else:
        plan = resolve([task], msgspec.structs.replace(choice, variants=[variant], limit=1))
        if seed is not None and len(plan.tasks) == 1:
            one = plan.tasks[0]
            family = TaskId.parse(one.task_id).family
            chosen = msgspec.structs.replace(one, item=str(seed), task_id=str(TaskId(family, variant, str(seed))))
            plan = msgspec.structs.replace(plan, tasks=[chosen])
    if len(plan.tasks) != 1:
        raise UsageError(f"{task} names {len(plan.tasks)} tasks, and a recording is of one: name a family, or a task's id")
    return plan
