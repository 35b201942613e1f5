# SPDX-License-Identifier: Apache-2.0
"""``agentgym.evaluate``: select tasks, let a model play them, keep what happened, hand back the run."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agentgym import registry
from agentgym.env import ChatEnv
from agentgym.episode import Limits
from agentgym.errors import InfrastructureError, UsageError, redact
from agentgym.policies.load import DEFAULT, load_policy
from agentgym.protocols import Policy, Sampling
from agentgym.records.run import Run, find_run, runs_root
from agentgym.records.store import PlannedTask, RunWriter, new_run_directory
from agentgym.rollout.scheduler import Options, ProgressCallback, Scheduler
from agentgym.rollout.selection import Choice, EnvRef, Plan, absolute, resolve

Selector = str | type[ChatEnv]


class Outcome(msgspec.Struct):
    """What `start` and `resume` hand back: the run, and why it ended before its plan did, if so."""

    path: Path
    stopped: str | None = None


def _code_hashes(plan: Plan) -> dict[str, Any]:
    """Per environment: hashes of its module's source and of each verifier, so that a comparison knows what changed."""
    result: dict[str, Any] = {}
    for ref in plan.environments:
        cls = registry.env_class(ref.place)
        file = getattr(sys.modules.get(cls.__module__), "__file__", None)
        source = Path(file).read_bytes() if file else b""
        verifiers = {v.name: v.hash for v in (*cls.proxy, *cls.gold, *cls.metrics)}
        result[f"{cls.family}-v{cls.version}"] = {"source": hashlib.sha256(source).hexdigest()[:12], "verifiers": verifiers}
    return result


async def start(
    plan: Plan,
    policy: Policy,
    options: Options,
    *,
    model: str,
    root: Path,
    on_start: Any = None,
    on_progress: ProgressCallback | None = None,
) -> Outcome:
    """Makes a run of a plan and plays it."""
    path = new_run_directory(root, plan.title)
    writer = RunWriter(path, create=True)
    try:
        fingerprint = getattr(policy, "fingerprint", None)
        writer.set_meta(
            {
                "title": plan.title,
                "model": redact(model),
                "fingerprint": fingerprint() if callable(fingerprint) else {"name": policy.name},
                "options": msgspec.to_builtins(options),
                "created_at": time.time(),
                "code": _code_hashes(plan),
            }
        )
        writer.set_plan([absolute(e) for e in plan.environments], plan.tasks)
        return await _play(writer, plan, policy, options, on_start, on_progress)
    finally:
        writer.close("failed")


async def resume(
    path: Path,
    policy: Policy | None = None,
    *,
    concurrency: int | None = None,
    on_start: Any = None,
    on_progress: ProgressCallback | None = None,
) -> Outcome:
    """Plays what a run's plan still lacks, with the model and options that it was started with.

    Args:
        path: the run's directory.
        policy: who plays; None for the model on record, which must then be one that a text can name.
        concurrency: episodes at once; None for what is on record.
        on_start: called with the scheduler before the first episode.
        on_progress: see `Scheduler`.
    """
    writer = RunWriter(path, create=False)
    try:
        plan, options, model = read_plan(path)
        policy = policy or load_policy(model)
        if concurrency is not None:
            options = msgspec.structs.replace(options, concurrency=concurrency)
        return await _play(writer, plan, policy, options, on_start, on_progress)
    finally:
        writer.close("failed")


def read_plan(path: Path) -> tuple[Plan, Options, str]:
    """What a run set out to do: plan, options, and the text that names its model."""
    with Run(path) as run:
        meta = run.meta
        environments = [
            msgspec.json.decode(row[0], type=EnvRef) for row in run._rows("SELECT ref FROM environments ORDER BY id")
        ]
        rows = run._rows("SELECT environment, variant, item, task_id, trials FROM plan ORDER BY position")
        tasks = [PlannedTask(*row) for row in rows]
    return Plan(meta["title"], environments, tasks), msgspec.convert(meta["options"], Options), meta["model"]


async def _play(
    writer: RunWriter, plan: Plan, policy: Policy, options: Options, on_start: Any, on_progress: ProgressCallback | None
) -> Outcome:
    writer.begin_sitting()
    scheduler = Scheduler(plan, policy, writer, options, on_progress)
    if on_start is not None:
        on_start(scheduler, writer.path)
    status = "failed"
    try:
        await scheduler.run()
        status = "interrupted" if scheduler.stopped else "finished"
    except asyncio.CancelledError:
        status = "interrupted"
        raise
    finally:
        writer.close(status)
        close = getattr(policy, "aclose", None)
        if close is not None:
            await close()
    return Outcome(writer.path, scheduler.stopped)


async def aevaluate(
    tasks: Selector | Sequence[Selector] = "quickstart",
    model: str | Policy = DEFAULT,
    *,
    trials: int | None = None,
    limit: int | None = None,
    variants: Sequence[str] | None = None,
    params: Mapping[str, Any] | None = None,
    data: str | os.PathLike[str] | None = None,
    split: str | None = None,
    keyword: str | None = None,
    seed: int = 0,
    concurrency: int | None = None,
    retries: int = 2,
    sampling: Sampling | None = None,
    limits: Limits | None = None,
    max_cost: float | None = None,
    runs: str | os.PathLike[str] | None = None,
    resume_run: str | os.PathLike[str] | None = None,
    on_progress: ProgressCallback | None = None,
) -> Run:
    """Lets a model play tasks and returns the saved run.

    Args:
        tasks: suites, families (``math.add``), prefixes (``math``), task ids, places (``file.py:Class``) or classes.
        model: ``KIND:NAME`` (``local:smollm2``, ``oracle:honest``, ``replay:RUN``), a place, or a `Policy`.
        trials: repetitions of each task; None for the suite's own number, else 1.
        limit: most tasks of each family and variant.
        variants: twins to play; None for the suite's, else ``control``.
        params: environment parameters, e.g. ``{"level": 3}``.
        data: data file or ``hf:NAME`` for environments over data sets.
        split: ``train`` or ``eval`` half of the tasks.
        keyword: only task ids that contain it.
        seed: run seed for the policy's sampling. It does not change the tasks.
        concurrency: episodes at once.
        retries: further attempts after infrastructure outcomes.
        sampling: parameters for the model.
        limits: what cuts an episode.
        max_cost: US dollars after which no new episode starts.
        runs: folder of runs; None for ``$AGENTGYM_RUNS``, else ``runs``.
        resume_run: go on with this run instead: its plan and options stand, and the arguments above are not used,
            but for ``model``, where it is not a text, ``concurrency`` and ``runs``.
        on_progress: called with a `Progress` a few times a second.

    Raises:
        UsageError: something asked for does not exist or does not fit; the text says what to do.
        InfrastructureError: nothing worked: every episode failed for reasons that are not the agent's.
        RecordError: the record cannot be written.
    """
    root = runs_root(runs)
    if resume_run is not None:
        policy = None if isinstance(model, str) else load_policy(model)
        path = find_run(resume_run, root)
        outcome = await resume(path, policy, concurrency=concurrency, on_progress=on_progress)
    else:
        plan, options = prepare(
            tasks,
            Choice(
                trials=trials,
                limit=limit,
                variants=list(variants) if variants else None,
                params=dict(params or {}),
                data=None if data is None else os.fspath(data),
                split=split,
                keyword=keyword,
            ),
            Options(concurrency, retries, seed, sampling or Sampling(), limits, max_cost),
        )
        spec = model if isinstance(model, str) else getattr(model, "name", type(model).__name__)
        outcome = await start(plan, load_policy(model), options, model=spec, root=root, on_progress=on_progress)
    run = Run(outcome.path)
    if outcome.stopped and next(run.episodes(), None) is not None and not any(e.error is None for e in run.episodes()):
        raise InfrastructureError(f"{outcome.stopped} (record: {outcome.path})")
    return run


def prepare(tasks: Selector | Sequence[Selector], choice: Choice, options: Options) -> tuple[Plan, Options]:
    """The plan of a selection, and the options with the suite's own settings where the caller has none."""
    selectors = [tasks] if isinstance(tasks, (str, type)) else list(tasks)
    if not selectors:
        raise UsageError("no task was named; try `quickstart`")
    plan = resolve(selectors, choice)
    mine = {k: v for k, v in plan.options.items() if getattr(options.sampling, k) is None}
    if mine:
        options = msgspec.structs.replace(options, sampling=msgspec.structs.replace(options.sampling, **mine))
    return plan, options


def evaluate(tasks: Selector | Sequence[Selector] = "quickstart", model: str | Policy = DEFAULT, **options: Any) -> Run:
    """`aevaluate` for code that is not async; it may also be called while an event loop runs (a notebook).

    Takes and raises what `aevaluate` does.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(aevaluate(tasks, model, **options))
    result: list[Run] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            result.append(asyncio.run(aevaluate(tasks, model, **options)))
        except BaseException as e:
            failure.append(e)

    thread = threading.Thread(target=work, name="agentgym-evaluate")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]
