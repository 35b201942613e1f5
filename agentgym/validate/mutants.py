# SPDX-License-Identifier: Apache-2.0
"""Whether a broken detector would be noticed: each small change of it must change a verdict on some oracle's episode.

Nothing is played for a change: the recorded episodes of the oracles (honest, cheater, lazy, random, and honest work that
quotes) and of the environment's probes, in all variants, are judged again. A change that gives the same verdicts on all of
them survives: nothing proves that line of the detector. A verdict is a score's value and status, and a finding's exposure,
violation, weight and turn.
"""

from __future__ import annotations

import functools
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FunctionType
from typing import Any, NamedTuple

import msgspec

from agentgym.env import ChatEnv
from agentgym.episode import EpisodeResult
from agentgym.evaluators.rules import follows
from agentgym.scoring import Role, Verifier, VerifierContext, verify
from agentgym.task import decode_task
from agentgym.trajectory import Trajectory, decode_trajectory, encode_trajectory
from agentgym.validate.mutate import Change, Place, Reached, changed, changes, own_files, reached, rule_changes
from agentgym.validate.subject import Subject

MOST = 500
"""Changes of one environment that are tried; of more an even selection is."""

MOST_COSTLY = 200
"""As `MOST`, of detectors that need a sandbox: for each change they run in it again."""

MOST_CPU_S = 240.0
"""CPU seconds for one environment; what is left then is told."""

ORACLES = ("cheater", "honest", "lazy", "random", "quoting")


class Survivor(msgspec.Struct, frozen=True):
    """A change that no oracle notices."""

    place: str
    """``file.py:line``, or the verifier."""
    change: str
    """What is changed, and into what: the key of `ChatEnv.tolerated_mutants`."""
    tolerated: str = ""
    """Why it may live, in the author's words."""


class MutantReport(msgspec.Struct):
    """What became of the changes of one environment's detectors."""

    label: str
    tried: int = 0
    killed: int = 0
    left: int = 0
    """Not tried, for want of time or because they are too many."""
    survivors: list[Survivor] = []
    notes: list[str] = []
    """What was not looked at, and tolerances that nothing needs any more."""

    @property
    def ok(self) -> bool:
        """Whether all that survive may."""
        return all(s.tolerated for s in self.survivors)


class _Run(NamedTuple):
    trajectory: Trajectory
    context: VerifierContext


class _Detector(NamedTuple):
    verifier: Verifier
    role: Role
    reached: Reached
    runs: list[_Run]
    verdicts: list[Any]
    """Of each run."""
    cpu_s: float
    """For the costliest of the runs."""


class _Hung(BaseException):
    """A change made a detector run for much longer than it did."""


class Mutant(NamedTuple):
    """A change and how to tell whether it is noticed."""

    place: str
    change: str
    killed: Callable[[], bool]
    costly: bool = False


def mutants(subjects: Sequence[Subject]) -> MutantReport:
    """Tries changes of the detectors in ``gold`` and ``metrics`` of one environment.

    Args:
        subjects: it in each of its variants.

    Raises:
        InfrastructureError: a sandbox that a detector needs has failed.
    """
    env = subjects[0].env
    report = MutantReport(env.label)
    runs = list(_runs(subjects, ORACLES, None))
    few = list(_runs(subjects, ORACLES[:2], 1))
    detectors = []
    wanted: tuple[tuple[Role, Sequence[Verifier]], ...] = (("gold", env.gold or env.proxy), ("metric", env.metrics))
    for role, verifiers in wanted:
        for v in verifiers:
            if "policy" in v.needs:
                report.notes.append(f"{v.name} asks a judge and is not looked at")
                continue
            detectors.append(_detector(v, role, env, few if v.needs else runs))
    found = list(_mutants(detectors))
    begun = time.process_time()
    alive: dict[str, Survivor] = {}
    tolerated = env.tolerated_mutants
    chosen = [*_evenly([m for m in found if not m.costly], MOST), *_evenly([m for m in found if m.costly], MOST_COSTLY)]
    for mutant in chosen:
        if time.process_time() - begun > MOST_CPU_S:
            break
        report.tried += 1
        if mutant.killed():
            report.killed += 1
        else:
            alive[mutant.change] = Survivor(mutant.place, mutant.change, tolerated.get(mutant.change, ""))
    report.left = len(found) - report.tried
    report.survivors = list(alive.values())
    if not report.left:
        report.notes += [f"tolerated and not alive: {c}" for c in tolerated if c not in alive]
    return report


def _runs(subjects: Sequence[Subject], oracles: Sequence[str], most: int | None) -> Iterator[_Run]:
    """What the oracles did, as it is read back from a record; cheaters first, whom most changes let go."""
    for which in oracles:
        for s in subjects:
            for item in s.items[:most]:
                if which != "quoting" and not s.has(which):
                    continue
                result = s.oracle(which, item)
                if result.trajectory.error is None:
                    yield _read_back(result)
    for s in subjects:
        for item in s.probed[:most]:
            yield from (_read_back(result) for _, result in s.probes(item) if result.trajectory.error is None)


def _read_back(result: EpisodeResult) -> _Run:
    record = decode_trajectory(encode_trajectory(result.trajectory))
    return _Run(record, VerifierContext(decode_task(result.task.encode())))


def _detector(v: Verifier, role: Role, env: ChatEnv, runs: list[_Run]) -> _Detector:
    verdicts, slowest = [], 0.0
    v = _Handed(v, env)
    for run in runs:
        begun = time.process_time()
        verdicts.append(_verdict(v, role, run))
        slowest = max(slowest, time.process_time() - begun)
    return _Detector(v, role, reached(v, own_files(type(env))), runs, verdicts, slowest)


class _Handed(Verifier):
    """A verifier with the environment's sandboxes beside it."""

    def __init__(self, v: Verifier, env: ChatEnv) -> None:
        super().__init__(v.function, v.name, v.needs, v.weight)
        self.sandboxes = env.sandboxes


def _verdict(v: Verifier, role: Role, run: _Run) -> Any:
    scores, findings = verify([v], role, run.trajectory, run.context, getattr(v, "sandboxes", None))
    return (
        sorted((s.name, s.role, -1.0 if s.value is None else s.value, s.status) for s in scores),
        sorted((f.dimension, f.rule, f.exposure, f.violation, f.weight, -2 if f.turn is None else f.turn) for f in findings),
    )


def _evenly(found: list[Mutant], most: int) -> list[Mutant]:
    return found if len(found) <= most else [found[i * len(found) // most] for i in range(most)]


# -- how changes are judged -------------------------------------------------------------------------------------------


def _mutants(detectors: Sequence[_Detector]) -> Iterator[Mutant]:
    functions: dict[Place, list[FunctionType]] = {}
    for d in detectors:
        for place, live in d.reached.functions.items():
            known = functions.setdefault(place, [])
            known += [f for f in live if not any(f is k for k in known)]
    for change in changes(functions):
        using = [d for d in detectors if change.place in d.reached.functions]
        where = f"{change.place.file.rsplit('/', 1)[-1]}:{change.line}"
        costly = any(d.verifier.needs for d in using)
        yield Mutant(where, change.text, functools.partial(_notices, change, functions, using), costly)
    for d in detectors:
        for rule in _watched(d.verifier):
            for what, other in rule_changes(rule):
                rules = [other if r is rule else r for r in _watched(d.verifier)]
                broken = d._replace(verifier=follows(*rules, name=d.verifier.name))
                yield Mutant(d.verifier.name, f"rule {rule.name}: {what}", functools.partial(_noticed, [broken]))
        if not _own(d):
            yield from _blunt(d)


def _notices(change: Change, functions: Mapping[Place, Sequence[FunctionType]], using: Sequence[_Detector]) -> bool:
    with changed(change, functions) as any_changed:
        return not any_changed or _noticed(using)


def _own(d: _Detector) -> bool:
    """Whether the verifier's own function is the environment's, not the library's."""
    code = getattr(d.verifier.function, "__code__", None)
    return code is not None and (code.co_filename, code.co_qualname, code.co_firstlineno) in d.reached.functions


def _watched(v: Verifier) -> list[Any]:
    """The rules of `follows`."""
    for cell in getattr(v.function, "__closure__", None) or ():
        settings = getattr(cell.cell_contents, "settings", None)
        if isinstance(settings, Mapping) and "rules" in settings:
            return list(settings["rules"])
    return []


def _blunt(d: _Detector) -> Iterator[Mutant]:
    """Changes of a library verifier's verdicts: it never or always convicts, is never exposed, always scores the same."""
    name = d.verifier.name
    found = [f for _, findings in d.verdicts for f in findings]
    for dimension in sorted({f[0] for f in found}):
        mine = [f for f in found if f[0] == dimension]
        for what, seen in (
            ("never violated", any(f[3] for f in mine)),
            ("always violated", any(f[2] and not f[3] for f in mine)),
            ("never exposed", any(f[2] for f in mine)),
        ):
            yield Mutant(name, f"{name}: {dimension} {what}", functools.partial(bool, seen))
    scores = [s for scores, _ in d.verdicts for s in scores]
    for which in sorted({s[0] for s in scores}):
        values = {s[2] for s in scores if s[0] == which}
        for value in (0.0, 1.0):
            yield Mutant(name, f"{name}: {which} always {value:g}", functools.partial(bool, values != {value}))


def _noticed(detectors: Sequence[_Detector]) -> bool:
    """Whether one of them now judges a run otherwise, or does not end."""
    for d in detectors:
        seconds = max(0.25, 20 * d.cpu_s)
        for cache in d.reached.caches:
            cache.cache_clear()
        try:
            for run, verdict in zip(d.runs, d.verdicts, strict=True):
                if _in_time(seconds, functools.partial(_verdict, d.verifier, d.role, run)) != verdict:
                    return True
        finally:
            for cache in d.reached.caches:
                cache.cache_clear()
    return False


def _in_time(seconds: float, function: Callable[[], Any]) -> Any:
    """What the function returns, or None where it takes more CPU time. For the main thread: Python delivers signals there.

    A change may make a loop endless. Its CPU time is what counts, so that a busy machine kills nobody.
    """

    def stop(*_: Any) -> None:
        raise _Hung

    before = signal.signal(signal.SIGPROF, stop)
    try:
        signal.setitimer(signal.ITIMER_PROF, seconds, 0.05)
        try:
            return function()
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except _Hung:
        return None
    finally:
        signal.signal(signal.SIGPROF, before)
