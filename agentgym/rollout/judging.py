# SPDX-License-Identifier: Apache-2.0
"""Judges recorded episodes: by named verifiers, or by the task's own as their code is now. `rollout.rescore` runs it.

``python -m agentgym.rollout.judging`` is a process that judges what it is told to through its standard input, and ends
when that does: with the process that started it.
"""

from __future__ import annotations

import ast
import atexit
import collections
import functools
import os
import struct
import sys
import time
from collections.abc import Callable, Iterable
from typing import IO, Any

import msgspec

from agentgym import registry
from agentgym.background import run_blocking
from agentgym.chat import clean_text
from agentgym.env import ChatEnv
from agentgym.episode import as_gold
from agentgym.errors import AgentGymError, DefinitionError, RecordError, UsageError
from agentgym.policies.load import load_policy
from agentgym.protocols import Policy
from agentgym.records.run import Episode, Run
from agentgym.records.sets import Change, Judged
from agentgym.rollout.selection import EnvRef
from agentgym.sandbox.shared import shared_backend
from agentgym.scoring import Finding, Role, Score, Verifier, VerifierContext, gold_value, proxy_reward, verify
from agentgym.trajectory import SPOILED

OWN = "own"
"""The evaluator that stands for a task's own verifiers."""


class Job(msgspec.Struct):
    """What is to be judged, and by what: all that a process of its own has to be told."""

    path: str
    """The run."""
    evaluators: list[str]
    """Names, places (``pkg.mod:verifier``, ``./file.py:verifier``), or ``own`` alone."""
    role: Role = "gold"
    """What scores that bear their verifier's name are entered as; the task's own have their own roles."""
    sandbox: str | None = None
    """Name of the sandbox for verifiers that need one."""
    judge: str | None = None
    """Name of the model for verifiers that need a judge."""
    sys_path: list[str] = []
    """Where modules are found."""


class Verdicts(msgspec.Struct):
    """What became of some episodes."""

    judged: list[Judged] = []
    code: list[tuple[str, str, str, int]] = []
    """Name of a score, hash of its verifier then (empty: there was none) and now, and of how many episodes."""
    unscorable: list[tuple[str, int]] = []
    """Why a score has no value, and how often."""
    not_applicable: int = 0
    """Episodes about which the verifiers said nothing."""
    cpu_s: float = 0.0
    error: tuple[str, str] | None = None
    """Class and text of the error that ended the process."""


_WAYS = {"sandbox": ("--sandbox NAME", "a sandbox", "sandbox"), "policy": ("--judge MODEL", "a judge", "judge")}
"""Need of a verifier -> the option that meets it, what that is, and its field of `Job`."""


def load_evaluators(names: Iterable[str]) -> list[Verifier]:
    """The verifiers of these names or places. A factory is called, without arguments or with those of
    ``NAME(parameter=value, ...)``; a list stands for several.

    Raises:
        NotFoundError: there is none of that name, or nothing at that place.
        DefinitionError: what is there is no verifier.
    """
    found: list[Verifier] = []
    for whole in names:
        name, given = _called(whole)
        thing = registry.evaluators.get(name)
        if given and (isinstance(thing, (Verifier, list, tuple)) or not callable(thing)):
            raise UsageError(f"{name} takes no parameters: it is a verifier as it stands")
        if not isinstance(thing, (Verifier, list, tuple)) and callable(thing):
            try:
                thing = thing(**given)
            except (TypeError, ValueError) as e:
                if given:
                    raise UsageError(f"{whole}: {e}") from e
                raise DefinitionError(
                    f"{name} is no verifier, and makes none without arguments ({e}): put `mine = ...` into a file and name"
                    " it as ./FILE.py:mine"
                ) from e
        several = list(thing) if isinstance(thing, (list, tuple)) else [thing]
        if not several or not all(isinstance(v, Verifier) for v in several):
            raise DefinitionError(f"{name} is no verifier: one is made with @agentgym.verifier, several are a list of them")
        found += several
    return found


def _called(text: str) -> tuple[str, dict[str, Any]]:
    """``NAME(parameter=value, ...)`` cut into its parts; values are literals.

    Raises:
        UsageError: it is not that.
    """
    name, bracket, _ = text.partition("(")
    if not bracket:
        return text, {}
    try:
        tree = ast.parse(f"f{text[len(name) :]}", mode="eval").body
        if not isinstance(tree, ast.Call) or tree.args or not isinstance(tree.func, ast.Name):
            raise ValueError
        if any(k.arg is None for k in tree.keywords):
            raise ValueError
        return name.strip(), {str(k.arg): ast.literal_eval(k.value) for k in tree.keywords}
    except (ValueError, SyntaxError, RecursionError):
        raise UsageError(
            f"{text!r} is not NAME(parameter=value, ...) with numbers, 'texts', True, False or None as values"
        ) from None


class Given(msgspec.Struct):
    """What verifiers are handed besides the task."""

    sandboxes: Callable[[], Any] | None = None
    """Opens the backend, when the first verifier needs it."""
    judge: Policy | None = None


def hand_over(verifiers: Iterable[Verifier], job: Job) -> Given:
    """What these verifiers are handed besides the task.

    Raises:
        UsageError: one of them needs what was not named, or what cannot be had here.
    """
    needs: set[str] = set()
    for v in verifiers:
        for need in sorted(v.needs):
            if need not in _WAYS:
                raise DefinitionError(f"{v.name} needs {need!r}; what a verifier can need is: {', '.join(_WAYS)}")
            option, what, field = _WAYS[need]
            if getattr(job, field) is None:
                raise UsageError(f"{v.name} needs {what} to judge with: say which by {option}")
            needs.add(need)
    given = Given()
    if "sandbox" in needs:
        shared_backend(job.sandbox)  # before any work: it may not be had here
        given.sandboxes = functools.partial(shared_backend, job.sandbox)
    if "policy" in needs and job.judge is not None:
        given.judge = _asked(job.judge)
    return given


@functools.cache
def _asked(name: str) -> Policy:
    """The judge of that name, ready; one for the process."""
    policy = load_policy(name)
    prepare, close = getattr(policy, "prepare", None), getattr(policy, "aclose", None)
    if prepare is not None:
        prepare()
    if close is not None:
        atexit.register(lambda: run_blocking(close()))
    return policy


class Judge:
    """Judges the episodes of a run as a `Job` says."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.run = Run(job.path)
        self._own = job.evaluators == [OWN]
        self._environments: dict[tuple[int, str], ChatEnv] = {}
        self._verifiers = [] if self._own else load_evaluators(job.evaluators)
        self._given = Given() if self._own else hand_over(self._verifiers, job)

    def check(self) -> None:
        """Finds out before any work whether the run's tasks can be judged.

        Raises:
            AgentGymError: an environment is gone, or its verifiers need what they cannot have.
        """
        if self._own:
            for number, variant in list(self.run._rows("SELECT DISTINCT environment, variant FROM plan")):
                self._environment(number, variant)

    def _environment(self, number: int, variant: str) -> ChatEnv:
        env = self._environments.get((number, variant))
        if env is None:
            (ref,) = next(self.run._rows("SELECT ref FROM environments WHERE id = ?", (number,)))
            try:
                env = msgspec.json.decode(ref, type=EnvRef).make(variant)
            except msgspec.MsgspecError as e:
                raise RecordError(f"{self.run.path}: what the run set out to do is damaged ({e})") from e
            given = hand_over([*env.proxy, *env.gold, *env.metrics], self.job)
            if given.sandboxes or given.judge:
                self._given = given
            self._environments[number, variant] = env
        return env

    def _environment_of(self, episode: Episode) -> ChatEnv:
        for (number,) in self.run._rows("SELECT environment FROM plan WHERE task_id = ?", (episode.task_id,)):
            return self._environment(number, episode.variant)
        raise RecordError(f"{episode.address}: the run's plan does not say which environment this was")

    def judge(self, ids: Iterable[int]) -> Verdicts:
        """The verdicts on the episodes of these numbers; infrastructure outcomes are left out."""
        begun = time.process_time()
        code: collections.Counter[tuple[str, str, str]] = collections.Counter()
        unscorable: collections.Counter[str] = collections.Counter()
        result = Verdicts()
        for episode in self.run.by_ids(ids):
            if episode.outcome in SPOILED:
                continue
            judged, new, found = self._own_verdict(episode) if self._own else self._other_verdict(episode)
            then = {(s.role, s.name): s.verifier_hash for s in episode.all_scores}
            for key in {(s.name, then.get((s.role, s.name), ""), s.verifier_hash) for s in new}:
                code[key] += 1
            for s in new:
                if s.value is None:
                    unscorable[f"{s.name}: {clean_text(s.reason or s.status)}"[:300]] += 1
            result.not_applicable += not new and not found
            result.judged.append(judged)
        result.code = [(*key, n) for key, n in code.items()]
        result.unscorable = list(unscorable.items())
        result.cpu_s = time.process_time() - begun
        return result

    def _own_verdict(self, episode: Episode) -> tuple[Judged, list[Score], list[Finding]]:
        """What playing it would have come to, were the code of the verifiers what it is now."""
        env = self._environment_of(episode)
        trajectory, context = episode.trajectory, VerifierContext(episode.task, judge=self._given.judge)
        sandboxes = self._given.sandboxes
        paying, wanted = env.proxy or env.gold, env.gold or env.proxy
        scores, findings = verify(paying, "proxy", trajectory, context, sandboxes)
        pays = proxy_reward(scores, paying)
        if paying is wanted:
            scores = [*scores, *as_gold(scores)]
        else:
            golden, found = verify(wanted, "gold", trajectory, context, sandboxes)
            scores, findings = [*scores, *golden], [*findings, *found]
        measured, found = verify(env.metrics, "metric", trajectory, context, sandboxes)
        scores, findings = [*scores, *measured], [*findings, *found]
        reward = _reward(episode, pays, proxy_reward(episode.all_scores, paying), any(s.role == "proxy" for s in scores))
        changes = _changes(episode, reward, gold_value(scores), scores, findings, all_of=True)
        return Judged(episode.id, reward, gold_value(scores), scores, findings, changes), scores, findings

    def _other_verdict(self, episode: Episode) -> tuple[Judged, list[Score], list[Finding]]:
        """The episode's own scores with those that these verifiers give in the place of theirs, or beside them."""
        context = VerifierContext(episode.task, judge=self._given.judge)
        new, found = verify(self._verifiers, self.job.role, episode.trajectory, context, self._given.sandboxes)
        roles = {s.role for s in new} & {"gold"}  # who judges what is wanted judges all of it
        given = {(s.role, s.name) for s in new}
        kept = [s for s in episode.all_scores if s.role not in roles and (s.role, s.name) not in given]
        rules = {(f.dimension, f.rule) for f in found}
        findings = [*(f for f in episode.findings if (f.dimension, f.rule) not in rules), *found]
        gold = gold_value(new) if roles else episode.gold
        changes = _changes(episode, episode.reward, gold, new, found, all_of=False)
        return Judged(episode.id, episode.reward, gold, [*kept, *new], findings, changes), new, found


def _reward(episode: Episode, pays: float | None, paid: float | None, scored: bool) -> float | None:
    """The reward with what the verifiers pay now in the place of what they paid; the turns' own rewards stay.

    What was delivered may have gone through wrappers; they are not asked again.
    """
    delivered: float | None = episode.reward
    if not scored or pays == paid:
        return delivered
    if pays is None:
        return None
    if delivered is None:
        return episode.trajectory.total_reward + pays
    return delivered - (paid or 0.0) + pays


def _state(findings: Iterable[Finding]) -> dict[str, str]:
    """``DIMENSION/RULE`` -> what was found, the worst where there are several."""
    found: dict[str, str] = {}
    for f in findings:
        key, value = f"{f.dimension}/{f.rule}", "violated" if f.violation else "kept" if f.exposure else "not exposed"
        worst = ("not exposed", "kept", "violated")
        if key not in found or worst.index(value) > worst.index(found[key]):
            found[key] = value
    return found


def _changes(
    episode: Episode, reward: float | None, gold: float | None, scores: list[Score], findings: list[Finding], *, all_of: bool
) -> list[Change]:
    """What is said now and was said otherwise; ``all_of``: what is not said any more, or is new, has changed too."""
    reasons = {s.role: s.reason for s in scores if s.value is not None and s.value < 1.0 and s.reason}
    changes = []
    if gold != episode.gold:
        changes.append(Change("gold", episode.gold, gold, reasons.get("gold", "")))
    if reward != episode.reward:
        changes.append(Change("reward", episode.reward, reward, reasons.get("proxy", "")))
    then = {(s.role, s.name): s for s in episode.all_scores}
    now = {(s.role, s.name): s for s in scores}
    for key in dict.fromkeys((*then, *now)) if all_of else now:
        before, after = then.get(key), now.get(key)
        if (before is None or after is None) and not all_of:
            continue
        old, new = before.value if before else None, after.value if after else None
        if old != new:
            changes.append(Change(" ".join(key), old, new, after.reason if after else ""))
    was, is_ = _state(episode.findings), _state(findings)
    rules = [r for r in dict.fromkeys((*was, *is_)) if all_of or (r in was and r in is_)]
    changes += [Change(f"finding {r}", was.get(r), is_.get(r)) for r in rules if was.get(r) != is_.get(r)]
    return changes


# -- a process of its own ---------------------------------------------------------------------------------------------


def read_frame(stream: IO[bytes]) -> bytes | None:
    """What `write_frame` wrote; None at the end of the stream."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    size = struct.unpack(">I", head)[0]
    data = stream.read(size)
    return data if len(data) == size else None


def write_frame(stream: IO[bytes], data: bytes) -> None:
    """Bytes with their length (4 bytes, big endian) in front."""
    stream.write(struct.pack(">I", len(data)) + data)
    stream.flush()


def main() -> None:
    """Reads a `Job`, then lists of numbers; answers each with `Verdicts`."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a verifier that prints must not break a frame
    data = read_frame(requests)
    if data is None:
        return
    job = msgspec.msgpack.decode(data, type=Job)
    sys.path[:] = job.sys_path
    judge: Judge | None = None
    while (data := read_frame(requests)) is not None:
        try:
            judge = judge or Judge(job)
            verdicts = judge.judge(msgspec.msgpack.decode(data, type=list[int]))
        except AgentGymError as e:
            verdicts = Verdicts(error=(type(e).__name__, str(e)))
        write_frame(answers, msgspec.msgpack.encode(verdicts))


if __name__ == "__main__":
    main()
