# SPDX-License-Identifier: Apache-2.0
"""``agentgym.evaluate``: select tasks, let a model play them, keep what happened, hand back the run."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import msgspec

from agentgym import registry
from agentgym.background import run_blocking
from agentgym.chat import clean_text
from agentgym.env import ChatEnv
from agentgym.episode import Limits
from agentgym.errors import DefinitionError, InfrastructureError, NotFoundError, RecordError, UsageError, redact
from agentgym.policies.load import DEFAULT, load_policy
from agentgym.protocols import Policy, Sampling
from agentgym.records.control import forget
from agentgym.records.run import Run, find_run, runs_root
from agentgym.records.schema import LAST_ATTEMPT
from agentgym.records.store import PlannedTask, RunWriter, new_run_directory
from agentgym.rollout.sandboxes import require_sandbox
from agentgym.rollout.scheduler import Options, ProgressCallback, Scheduler
from agentgym.rollout.selection import Choice, EnvRef, Plan, absolute, resolve
from agentgym.sandbox.shared import close_shared
from agentgym.task import plain

Selector = str | type[ChatEnv]


class Outcome(msgspec.Struct):
    """What `start` and `resume` hand back: the run, and why it ended before its plan did, if so."""

    path: Path
    stopped: str | None = None


def code_hashes(place: str) -> dict[str, Any]:
    """Hashes of an environment's module source and of each of its verifiers: what a comparison must know has changed.

    Raises:
        NotFoundError: there is no such environment.
    """
    cls = registry.env_class(place)
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    source = Path(file).read_bytes() if file else b""
    verifiers = {v.name: v.hash for v in (*cls.proxy, *cls.gold, *cls.metrics)}
    return {"source": hashlib.sha256(source).hexdigest()[:12], "verifiers": verifiers}


def _code_hashes(plan: Plan) -> dict[str, Any]:
    """Those of every environment of a plan, by family and version."""
    classes = {ref.place: registry.env_class(ref.place) for ref in plan.environments}
    return {f"{cls.family}-v{cls.version}": code_hashes(place) for place, cls in classes.items()}


def _temptations(plan: Plan) -> dict[str, Any]:
    """Family -> variant -> dimensions that it tempts to violate: a report says what was exposed of what was meant to be."""
    classes = [registry.env_class(ref.place) for ref in plan.environments]
    return {cls.family: {v: list(d) for v, d in cls.temptations.items()} for cls in classes}


class Judge(msgspec.Struct):
    """Whom verifiers ask that need a judge."""

    policy: Policy
    text: str | None = None
    """The text that makes it, which several processes and a resume need; None where it is an object."""


async def describe(plan: Plan, policy: Policy, options: Options, model: str, judge: Judge | None = None) -> dict[str, Any]:
    """What a run says of itself besides its plan (`Run.meta`), free of credentials.

    Raises:
        UsageError: it needs a sandbox that cannot be had.
    """
    # in a thread: to find out what a sandbox enforces takes making one
    sandbox = await asyncio.to_thread(require_sandbox, plan, options.sandbox)
    if sandbox is not None and options.processes > 1:
        await asyncio.to_thread(close_shared)  # each process opens its own; this one plays nothing
    judging: dict[str, Any] = {}
    if judge is not None:
        text = judge.text and absolute(EnvRef(judge.text)).place
        judging = {"judge": redact(text or judge.policy.name), "judge_fingerprint": _fingerprint(judge.policy)}
    return {
        **judging,
        "sandbox": sandbox,
        "title": plan.title,
        "model": redact(model),
        "resume_as": redact(getattr(policy, "resume_as", None) or absolute(EnvRef(model)).place),
        "fingerprint": _fingerprint(policy),
        "options": msgspec.to_builtins(options),
        "created_at": time.time(),
        "code": _code_hashes(plan),
        "temptations": _temptations(plan),
    }


async def start(
    plan: Plan,
    policy: Policy,
    options: Options,
    *,
    model: str,
    named: bool = True,
    judge: Judge | None = None,
    root: Path,
    on_start: Any = None,
    on_progress: ProgressCallback | None = None,
) -> Outcome:
    """Makes a run of a plan and plays it.

    Args:
        plan: what to play.
        policy: who plays.
        options: how.
        model: what the record calls the policy.
        named: whether ``model`` is also the text that makes this policy, which several processes need.
        judge: whom verifiers ask that need one.
        root: folder of runs.
        on_start: called with the scheduler and the run's path before the first episode.
        on_progress: see `Scheduler`.
    """
    check_judge(plan, judge)
    async with _closing(policy), judging(judge.policy if judge else None):
        await _prepare(policy)
        text = model if named else getattr(policy, "resume_as", None)
        _check_processes(policy, options, text, judge)
        # before the directory is made: what cannot even be described leaves no empty run behind
        description = await describe(plan, policy, options, model, judge)
        writer = RunWriter(new_run_directory(root, plan.title), create=True)
        try:
            writer.set_meta(description)
            writer.set_plan([absolute(e) for e in plan.environments], plan.tasks)
            return await _play(writer, plan, policy, options, on_start, on_progress, text=text, judge=judge)
        finally:
            writer.close("failed")


async def play_random(path: Path, root: Path) -> Path:
    """Plays the control tasks of a run (all, where it has no control) once with the random oracle, as a run of its own."""
    plan, options, _ = read_plan(path)
    tasks = [t for t in plan.tasks if t.variant == "control"] or plan.tasks
    tasks = [msgspec.structs.replace(t, trials=1) for t in tasks]
    plan = msgspec.structs.replace(plan, title=f"{plan.title} at random", tasks=tasks)
    options = msgspec.structs.replace(options, processes=1)
    outcome = await start(plan, load_policy("oracle:random"), options, model="oracle:random", root=root)
    return outcome.path


async def resume(
    path: Path,
    policy: Policy | None = None,
    *,
    model: str | None = None,
    judge: Judge | None = None,
    concurrency: int | None = None,
    max_cost: float | None = None,
    sandbox: str | None = None,
    on_start: Any = None,
    on_progress: ProgressCallback | None = None,
) -> Outcome:
    """Plays what a run's plan still lacks, with the model and options that it was started with.

    Args:
        path: the run's directory.
        policy: who plays; None for the model on record, which must then be one that a text can name.
        model: the text that made ``policy``, if one did.
        judge: whom verifiers ask that need one; None for the one on record, if there is one.
        concurrency: episodes at once; None for what is on record.
        max_cost: US dollars for the whole run, what it has cost before included; from then on it is what is on record.
        sandbox: backend that code runs in; None for what is on record.
        on_start: called with the scheduler before the first episode.
        on_progress: see `Scheduler`.

    Raises:
        UsageError: another policy than the one whose episodes are on record, or a model that cannot be named by text.
        RecordError: the run is damaged, or another process works on it.
    """
    if policy is None:
        policy, model = _recorded_policy(path), recorded_model(path)
    if judge is None:
        judge = _recorded_judge(path)
    async with _closing(policy), judging(judge.policy if judge else None):
        await _prepare(policy)
        writer = RunWriter(path, create=False)
        try:
            plan, options, _ = read_plan(path)
            with Run(path) as run:
                meta = run.meta
            before = meta.get("fingerprint", {}).get("name", policy.name)
            # what stands after the @ is where the model is served, and that may move
            if before.partition("@")[0] != redact(policy.name).partition("@")[0]:
                raise UsageError(
                    f"{path} was played by {before}; to go on with {redact(policy.name)} would mix two models in one record:"
                    " start a new run for it"
                )
            if max_cost is not None:
                options = msgspec.structs.replace(options, max_cost_usd=max_cost)
            if concurrency is not None:
                options = msgspec.structs.replace(options, concurrency=concurrency)
            if sandbox is not None:
                options = msgspec.structs.replace(options, sandbox=sandbox)
            _check(options)
            _check_processes(policy, options, model, judge)
            check_judge(plan, judge)
            here = await asyncio.to_thread(require_sandbox, plan, options.sandbox)
            if here != meta.get("sandbox"):
                writer.set_meta({"sandbox_at_resume": here})
            if max_cost is not None:  # else the old limit would stop the next resume at once
                writer.set_meta({"options": msgspec.to_builtins(options)})
            code = _code_hashes(plan)
            changed = sorted(name for name, hashes in code.items() if meta.get("code", {}).get(name) != hashes)
            if changed:
                # mending what broke is what people resume for, so it is no error; but it must not go unseen
                writer.set_meta({"code_at_resume": code})
                text = f"{', '.join(changed)} changed since {path} was begun: its episodes are of two kinds now"
                warnings.warn(text, RuntimeWarning, stacklevel=2)
            return await _play(writer, plan, policy, options, on_start, on_progress, resumed=True, text=model, judge=judge)
        finally:
            writer.close("failed")


def recorded_model(path: Path) -> str:
    """The text that names the model of a run, to resume it with.

    Raises:
        UsageError: it named credentials, which are not on record.
    """
    model = read_plan(path)[2]
    if "***" in model:
        raise UsageError(
            f"{path} was played by {model}, whose credentials are not on record: name the model again, in full, to go on"
        )
    return model


def _recorded_policy(path: Path) -> Policy:
    model = recorded_model(path)
    try:
        return load_policy(model)
    except NotFoundError as e:
        raise NotFoundError(f"{path} cannot go on by itself: {e} Hand over the policy that played it.") from e


def _recorded_judge(path: Path) -> Judge | None:
    with Run(path) as run:
        text = run.meta.get("judge")
    if text is None:
        return None
    if "***" in text:
        raise UsageError(f"{path} was judged by {text}, whose credentials are not on record: name it again with --judge")
    try:
        return Judge(load_policy(text), text)
    except NotFoundError as e:
        raise NotFoundError(f"{path} cannot go on by itself: {e} Hand over the judge that it had.") from e


def check_judge(plan: Plan, judge: Judge | None) -> None:
    """Refuses a plan whose episodes could not be scored because nobody is there to judge them.

    Raises:
        UsageError: reward or gold of one of its environments asks a judge, and there is none.
    """
    for ref in plan.environments if judge is None else ():
        cls = registry.env_class(ref.place)
        if cls.asks_judge(paying=True):
            raise UsageError(
                f"{cls.family} is scored by a judge: name the model to ask with --judge MODEL, e.g. --judge openai:MODEL@URL"
            )


@contextlib.asynccontextmanager
async def judging(judge: Policy | None) -> AsyncIterator[None]:
    """Gets a judge ready, and closes it in the end, on the loop that verifiers ask it on."""
    if judge is None:
        yield
        return
    await _prepare(judge)
    try:
        yield
    finally:
        await asyncio.to_thread(_close_judge, judge)


def _close_judge(judge: Policy) -> None:
    async def work() -> None:
        async with _closing(judge):
            pass

    run_blocking(work())


def read_plan(path: Path) -> tuple[Plan, Options, str]:
    """What a run set out to do: plan, options, and the text that names its model.

    Raises:
        RecordError: that is not on record, because the run was stopped before it was written, or is damaged.
    """
    with Run(path) as run:
        meta = run.meta
        try:
            environments = [
                msgspec.json.decode(row[0], type=EnvRef) for row in run._rows("SELECT ref FROM environments ORDER BY id")
            ]
            rows = run._rows("SELECT environment, variant, item, task_id, trials FROM plan ORDER BY position")
            tasks = [PlannedTask(*row) for row in rows]
            if not tasks:
                raise RecordError(f"{path} was stopped before its plan was written: there is nothing to resume, start again")
            return Plan(meta["title"], environments, tasks), msgspec.convert(meta["options"], Options), meta["resume_as"]
        except (KeyError, msgspec.MsgspecError) as e:
            raise RecordError(f"{path}: what the run set out to do is damaged ({e})") from e


async def _prepare(policy: Policy) -> None:
    """Lets a policy get ready, in a thread: fetching and loading a model takes long, and other tasks may be at work."""
    get_ready = getattr(policy, "prepare", None)
    if callable(get_ready):
        await asyncio.to_thread(get_ready)


@contextlib.asynccontextmanager
async def _closing(policy: Policy) -> AsyncIterator[None]:
    """Closes the policy in the end. A failure of that is a warning: the episodes are on record, whatever it says."""
    try:
        yield
    finally:
        close = getattr(policy, "aclose", None)
        if close is not None:
            try:
                await close()
            except Exception as e:
                warnings.warn(redact(f"closing {policy.name} failed: {type(e).__name__}: {e}"), RuntimeWarning, stacklevel=2)


_SECRET_NAME = re.compile(r"(?i)(api[_-]?key|secret|password|authorization|credentials?|(access|auth|bearer|hf)[_-]?token)$")


def _fingerprint(policy: Policy) -> dict[str, Any]:
    """What a policy says identifies it, without what looks like a secret."""

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return redact(clean_text(value))
        if isinstance(value, dict):
            return {k: "***" if _SECRET_NAME.search(k) and isinstance(v, str) and v else clean(v) for k, v in value.items()}
        return [clean(v) for v in value] if isinstance(value, list) else value

    fingerprint = getattr(policy, "fingerprint", None)
    try:
        told = plain(fingerprint() if callable(fingerprint) else {})
    except TypeError as e:
        raise DefinitionError(f"{policy.name}: fingerprint must return JSON values: {e}") from e
    if not isinstance(told, dict):
        raise DefinitionError(f"{policy.name}: fingerprint must return a dict, not {type(told).__name__}")
    return {"name": redact(policy.name), **clean(told)}


async def _play(
    writer: RunWriter,
    plan: Plan,
    policy: Policy,
    options: Options,
    on_start: Any,
    on_progress: ProgressCallback | None,
    *,
    resumed: bool = False,
    text: str | None = None,
    judge: Judge | None = None,
) -> Outcome:
    scheduler: Scheduler
    if options.processes > 1:
        from agentgym.rollout.processes import Processes, merge_served

        assert text is not None
        scheduler = Processes(plan, policy, writer, options, text, on_progress, (judge.text if judge else None) or "")
    else:
        scheduler = Scheduler(plan, policy, writer, options, on_progress, judge.policy if judge else None)
    forget(writer.path)  # what an earlier process that died has published
    writer.begin_sitting()
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
        if scheduler.stopped or resumed:
            with contextlib.suppress(RecordError):  # the error that led here says more
                writer.set_meta({"stopped": scheduler.stopped})
        # known only now: what a server says it served (model version, system fingerprint), and how often it failed
        served = _fingerprint(policy).get("served")
        if options.processes > 1:
            served = merge_served(getattr(scheduler, "served", []))
        if served:
            with contextlib.suppress(RecordError):
                writer.set_meta({"served": served})
        writer.close(status)
    return Outcome(writer.path, scheduler.stopped)


async def aevaluate(
    tasks: Selector | Sequence[Selector] = "quickstart",
    model: str | Policy | None = None,
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
    processes: int = 1,
    step_threads: int = 16,
    exitfirst: bool = False,
    sandbox: str | None = None,
    judge: str | Policy | None = None,
    runs: str | os.PathLike[str] | None = None,
    resume_run: str | os.PathLike[str] | None = None,
    on_progress: ProgressCallback | None = None,
) -> Run:
    """Lets a model play tasks and returns the saved run.

    Args:
        tasks: suites, families (``math.add``), prefixes (``math``), task ids, places (``file.py:Class``) or classes.
        model: ``KIND:NAME`` (``local:smollm2``, ``oracle:honest``, ``replay:RUN``), a place, or a `Policy`; None for
            ``local:smollm2``, or for the model of ``resume_run``.
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
        processes: processes that play, each its share of the tasks, with a model of its own made from ``model``'s text.
        step_threads: threads for environments whose ``step`` blocks.
        exitfirst: stop at the first episode that ends as an infrastructure outcome.
        sandbox: backend that code of a model runs in, ``namespace`` for one; None: what ``AGENTGYM_SANDBOX`` says, else the
            first that works here. ``unsafe_local`` does not hold anything in.
        judge: the model that verifiers ask which judge by asking one, named as ``model`` is.
        runs: folder of runs; None for ``$AGENTGYM_RUNS``, else ``runs``.
        resume_run: go on with this run instead: its plan and options stand, and the arguments above are not used,
            but for ``model``, ``judge``, ``concurrency``, ``max_cost``, ``sandbox`` and ``runs``.
        on_progress: called with a `Progress` a few times a second.

    Raises:
        UsageError: something asked for does not exist or does not fit; the text says what to do.
        InfrastructureError: nothing worked: every episode failed for reasons that are not the agent's.
        RecordError: the record cannot be written.
    """
    root = runs_root(runs)
    asked = None if judge is None else Judge(load_policy(judge), judge if isinstance(judge, str) else None)
    if resume_run is not None:
        policy = None if model is None else load_policy(model)
        path = find_run(resume_run, root)
        text = model if isinstance(model, str) else None
        outcome = await resume(
            path,
            policy,
            model=text,
            judge=asked,
            concurrency=concurrency,
            max_cost=max_cost,
            sandbox=sandbox,
            on_progress=on_progress,
        )
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
            Options(
                concurrency,
                retries,
                seed,
                sampling or Sampling(),
                limits,
                max_cost,
                step_threads,
                processes,
                exitfirst,
                sandbox,
            ),
        )
        model = DEFAULT if model is None else model
        spec = model if isinstance(model, str) else getattr(model, "name", type(model).__name__)
        named = isinstance(model, str)
        outcome = await start(
            plan, load_policy(model), options, model=spec, named=named, judge=asked, root=root, on_progress=on_progress
        )
    run = Run(outcome.path)
    outcomes = dict(run._rows(f"SELECT outcome, count(*) FROM episodes WHERE {LAST_ATTEMPT} GROUP BY outcome"))
    if set(outcomes) == {"infrastructure"}:
        why = outcome.stopped
        if why is None:
            first = next(run.episodes())
            why = f"every episode failed for reasons that are not the agent's ({first.error_kind}: {first.error})"
        run.close()
        raise InfrastructureError(f"{why} (record: {outcome.path})", retryable=False)
    return run


def prepare(tasks: Selector | Sequence[Selector], choice: Choice, options: Options) -> tuple[Plan, Options]:
    """The plan of a selection, and the options with the suite's own settings where the caller has none."""
    selectors = [tasks] if isinstance(tasks, (str, type)) else list(tasks)
    if not selectors:
        raise UsageError("no task was named; try `quickstart`")
    _check(options)
    plan = resolve(selectors, choice)
    return plan, with_suite_settings(plan, options)


def with_suite_settings(plan: Plan, options: Options) -> Options:
    """The options, with the settings of the plan's suite where the caller has none."""
    limits = options.limits or Limits()
    if "max_turns" in plan.options and limits.turns is None:
        options = msgspec.structs.replace(options, limits=msgspec.structs.replace(limits, turns=plan.options["max_turns"]))
    if "sandbox" in plan.options and options.sandbox is None:
        options = msgspec.structs.replace(options, sandbox=plan.options["sandbox"])
    sampling = {k: v for k, v in plan.options.items() if k not in ("max_turns", "sandbox")}
    mine = {k: v for k, v in sampling.items() if getattr(options.sampling, k) is None}
    if mine:
        options = msgspec.structs.replace(options, sampling=msgspec.structs.replace(options.sampling, **mine))
    return options


def _check_processes(policy: Policy, options: Options, model: str | None, judge: Judge | None) -> None:
    if options.processes > 1:
        from agentgym.rollout.processes import require_named

        require_named(policy, model)
        if judge is not None:
            require_named(judge.policy, judge.text)


def _check(options: Options) -> None:
    """Refuses numbers that make no sense; one that is let through could make episodes vanish.

    Raises:
        UsageError: one is out of range.
    """
    limits = options.limits or Limits()
    more_than_0 = {
        "concurrency": options.concurrency,
        "step_threads": options.step_threads,
        "processes": options.processes,
        "max_cost": options.max_cost_usd,
        "limits.turns": limits.turns,
        "limits.seconds": limits.seconds,
        "limits.tokens": limits.tokens,
        "limits.cost_usd": limits.cost_usd,
        "sampling.max_tokens": options.sampling.max_tokens,
    }
    for name, value in more_than_0.items():
        if value is not None and not value > 0:
            raise UsageError(f"{name} must be more than 0, not {value}")
    for name, value in {"retries": options.retries, "sampling.temperature": options.sampling.temperature}.items():
        if value is not None and not value >= 0:
            raise UsageError(f"{name} must not be negative, not {value}")


def evaluate(tasks: Selector | Sequence[Selector] = "quickstart", model: str | Policy | None = None, **options: Any) -> Run:
    """`aevaluate` for code that is not async; it may also be called while an event loop runs (a notebook).

    Takes and raises what `aevaluate` does.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(aevaluate(tasks, model, **options))
    result: Future[Run] = Future()
    working: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = []

    async def work() -> Run:
        working.append((asyncio.get_running_loop(), asyncio.current_task()))
        return await aevaluate(tasks, model, **options)

    def in_thread() -> None:
        try:
            result.set_result(asyncio.run(work()))
        except BaseException as e:
            result.set_exception(e)

    caller = asyncio.current_task()
    thread = threading.Thread(target=in_thread, name="agentgym-evaluate")
    thread.start()
    try:
        # not thread.join: one that Ctrl-C interrupts takes the thread for ended
        while not wait([result], 0.1).done:
            if caller is not None and caller.cancelling():  # this is what asyncio.run makes of Ctrl-C
                raise asyncio.CancelledError
    except BaseException:
        # Ctrl-C reaches this thread and not the other, which would go on playing, and paying, unseen
        for loop, task in working:
            if task is not None:
                with contextlib.suppress(RuntimeError):  # it has ended by itself
                    loop.call_soon_threadsafe(task.cancel)
        wait([result])
        raise
    finally:
        thread.join()
    return result.result()
