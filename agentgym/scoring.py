# SPDX-License-Identifier: Apache-2.0
"""What an episode is worth: scores, findings, and the verifiers that turn a trajectory into them.

A verifier looks at what was recorded and at nothing else. A value of None means "could not be scored"; it is never
turned into 0 and never dropped silently.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import re
import traceback
from collections.abc import Callable, Iterable, Sequence
from types import CellType, CodeType
from typing import TYPE_CHECKING, Any, Literal, overload

import msgspec

from agentgym.chat import clean_text
from agentgym.errors import InfrastructureError, redact
from agentgym.task import FrozenTask, plain
from agentgym.trajectory import Trajectory

if TYPE_CHECKING:
    from agentgym.sandbox.protocol import Backend

Role = Literal["proxy", "gold", "metric"]
"""``proxy``: what the policy is told and paid; ``gold``: what is really wanted, hidden from it; ``metric``: neither."""

Status = Literal["ok", "refused", "timeout", "unscorable"]
"""``refused``: scored 0 because the answer broke the declared protocol; ``timeout``, ``unscorable``: no value."""


class Score(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One number about one episode."""

    name: str
    role: Role = "metric"
    value: float | None = None
    """Finite. Gold lies in [0, 1]. None: could not be scored."""
    status: Status = "ok"
    reason: str = ""
    """Why this value, for a person."""
    flags: tuple[str, ...] = ()
    """Machine-readable remarks, e.g. ``no_answer``."""
    evidence: Any = None
    """What it was judged on, as plain values (extracted answer, diff, judge's reply)."""
    verifier_hash: str = ""
    """`Verifier.hash` of the code that gave it."""


class Finding(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One fact about alignment: whether the episode was exposed to a temptation, and whether it gave in."""

    dimension: str
    """E.g. ``policy``, ``truthful``, ``side_effects``."""
    rule: str
    """Name of the rule within the dimension."""
    exposure: bool
    """Whether the rule could have been broken here. Without exposure there is nothing to conclude."""
    violation: bool = False
    """Whether it was broken; only ever true where ``exposure`` is."""
    weight: float = 1.0
    """Severity relative to other rules of the dimension."""
    turn: int | None = None
    """Turn of the act; None where there is none."""
    evidence: Any = None
    """The act itself, as plain values."""
    verifier_hash: str = ""


class VerifierContext(msgspec.Struct, frozen=True):
    """What a verifier is handed besides the trajectory."""

    task: FrozenTask
    """The task with its hidden half, as it was kept."""
    sandbox: Backend | None = None
    """What makes sandboxes, for verifiers that declare ``needs={"sandbox"}``, which close what they make; else None."""
    judge: Any = None
    """A policy to ask, for verifiers that declare ``needs={"policy"}``; else None."""


Verdict = float | bool | Score | Finding | None
VerifierFunction = Callable[[Trajectory, VerifierContext], "Verdict | Iterable[Score | Finding]"]


class Verifier:
    """A named verifier function. Made by the `verifier` decorator.

    The function returns a number (or bool), None (not applicable: no score), one `Score` or `Finding`, or several.
    """

    def __init__(
        self, function: VerifierFunction, name: str = "", needs: frozenset[str] = frozenset(), weight: float = 1.0
    ) -> None:
        self.function = function
        self.name = name or function.__name__
        self.needs = needs
        self.weight = weight
        """Share in the proxy reward, relative to the other proxy verifiers."""
        self._hash: str | None = None

    @property
    def hash(self) -> str:
        """Twelve hex digits over the function's source and the values it closes over; changes when the judging does."""
        if self._hash is None:
            self._hash = hashlib.sha256(_identity(self.function).encode("utf-8", "replace")).hexdigest()[:12]
        return self._hash

    def __call__(self, trajectory: Trajectory, context: VerifierContext) -> list[Score | Finding]:
        """Scores and findings of one episode, all numbers checked; see `verify` for what happens to exceptions."""
        verdict = self.function(trajectory, context)
        if verdict is True or verdict is False:  # what most verifiers say
            return [Score(self.name, "metric", 1.0 if verdict else 0.0, verifier_hash=self.hash)]
        if verdict is None:
            return []
        kind = type(verdict)
        if kind is Score or kind is Finding:
            verdicts: Sequence[Any] = (verdict,)
        elif kind is list:
            verdicts = verdict  # type: ignore[assignment]
        else:
            scalar = getattr(verdict, "shape", None) == ()  # numpy's and torch's are Iterable by type and not in fact
            if isinstance(verdict, (Score, Finding, str, bytes)) or not isinstance(verdict, Iterable) or scalar:
                verdicts = (verdict,)
            else:
                verdicts = list(verdict)
        hash_ = self.hash
        result: list[Score | Finding] = []
        for v in verdicts:
            if isinstance(v, Finding):
                if v.violation and not v.exposure:
                    raise ValueError(f"{v.dimension}/{v.rule}: a violation without exposure")
                result.append(
                    Finding(
                        v.dimension,
                        v.rule,
                        bool(v.exposure),
                        bool(v.violation),
                        _finite(v.weight),
                        v.turn,
                        _storable(v.evidence),
                        v.verifier_hash or hash_,
                    )
                )
            elif isinstance(v, Score):
                value = None if v.value is None else _finite(v.value)
                status = v.status if value is not None or v.status in ("timeout", "unscorable") else "unscorable"
                result.append(
                    Score(
                        v.name or self.name,
                        v.role,
                        value,
                        status,
                        clean_text(v.reason),
                        v.flags,
                        _storable(v.evidence),
                        v.verifier_hash or hash_,
                    )
                )
            else:
                result.append(Score(self.name, "metric", _finite(v), verifier_hash=self.hash))
        return result

    def __repr__(self) -> str:
        return f"Verifier({self.name})"


def _identity(thing: Any) -> str:
    """What tells one judging apart from another, equal in every process: source, and the values closed over."""
    if isinstance(thing, Verifier):
        return _identity(thing.function)
    if isinstance(thing, (set, frozenset)):  # their order differs from process to process
        return f"{{{', '.join(sorted(map(_identity, thing)))}}}"
    if isinstance(thing, (list, tuple)):
        return f"[{', '.join(map(_identity, thing))}]"
    if isinstance(thing, dict):
        return f"{{{', '.join(f'{k!r}: {_identity(v)}' for k, v in thing.items())}}}"
    if isinstance(thing, CodeType):
        return f"{thing.co_code.hex()}{_identity(thing.co_names)}{_identity(thing.co_consts)}"
    if not inspect.isfunction(thing):
        return re.sub(r" at 0x[0-9a-fA-F]+", "", _repr(thing))
    try:
        source = inspect.getsource(thing)
    except (OSError, TypeError):
        source = _identity(thing.__code__)
    own = [c for c in (_contents(c) for c in thing.__closure__ or ()) if c is not thing]
    return "\0".join([source, _identity(thing.__defaults__), *map(_identity, own)])


def _repr(thing: Any) -> str:
    try:
        return repr(thing)
    except Exception:  # a number of too many digits, or somebody's __repr__
        return f"<{type(thing).__name__}>"


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # named in the function, not yet given a value
        return None


def _storable(evidence: Any) -> Any:
    """``evidence`` as plain values, or as text where it has no such form: what is kept beside a score never decides it."""
    if evidence is None:
        return None
    try:
        kept = plain(evidence)
        msgspec.json.encode(kept)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return clean_text(_repr(evidence)[:2000])
    return kept


def _finite(value: Any) -> float:
    """``value`` as a Python float; numpy scalars and bools converted, NaN, infinities and text refused."""
    if type(value) is not float and isinstance(value, (str, bytes)):
        raise TypeError(f"a score must be a number, not the text {value[:40]!r}")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"a score must be finite, not {number}")
    return number


@overload
def verifier(function: VerifierFunction, /) -> Verifier: ...
@overload
def verifier(*, name: str = "", needs: Iterable[str] = (), weight: float = 1.0) -> Callable[[VerifierFunction], Verifier]: ...
def verifier(
    function: VerifierFunction | None = None, /, *, name: str = "", needs: Iterable[str] = (), weight: float = 1.0
) -> Any:
    """Makes a `Verifier` of a function ``(trajectory, context) -> number | Score | Finding | several | None``.

    Args:
        function: when the decorator is used bare.
        name: of the scores; the function's own name by default.
        needs: ``"sandbox"`` and ``"policy"``, where the function asks the context for them.
        weight: share in the proxy reward, relative to other proxy verifiers.
    """

    def make(f: VerifierFunction) -> Verifier:
        return Verifier(f, name, frozenset(needs), weight)

    return make if function is None else make(function)


def verify(
    verifiers: Iterable[Verifier],
    role: Role,
    trajectory: Trajectory,
    context: VerifierContext,
    sandboxes: Callable[[], Backend] | None = None,
) -> tuple[list[Score], list[Finding]]:
    """Runs verifiers under a role.

    A verifier that asks a judge gives a `Score` without a value where there is none. One that raises gives a `Score` without
    a value that names the error: the episode is unscorable under it, which is counted and shown. A gold value outside
    [0, 1] is such an error too.

    Args:
        verifiers: what judges.
        role: of their scores.
        trajectory: what is judged.
        context: what they are handed, but for the sandbox.
        sandboxes: gives the backend that those are handed that declare ``needs={"sandbox"}``, and no others.

    Raises:
        InfrastructureError: a sandbox that a verifier needs has failed, which says nothing about the episode.
    """
    scores: list[Score] = []
    findings: list[Finding] = []
    for v in verifiers:
        if "policy" in v.needs and context.judge is None:
            reason = "it asks a judge, and there is none: name one with --judge MODEL"
            scores.append(Score(v.name, role, None, "unscorable", reason, ("no_judge",), verifier_hash=v.hash))
            continue
        needs_sandbox = "sandbox" in v.needs
        handed = context
        if needs_sandbox and sandboxes is not None:
            handed = VerifierContext(context.task, sandboxes(), context.judge)
        try:
            verdicts = v(trajectory, handed)
        except Exception as e:  # a verifier's bug must neither pay nor punish the policy
            if needs_sandbox and isinstance(e, InfrastructureError):
                raise
            frame = traceback.extract_tb(e.__traceback__)[-1]
            place = f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}"
            reason = redact(clean_text(f"verifier raised {type(e).__name__}: {e} ({place})"))
            scores.append(Score(v.name, role, None, "unscorable", reason, ("verifier_error",), verifier_hash=v.hash))
            continue
        for verdict in verdicts:
            if isinstance(verdict, Finding):
                findings.append(verdict)
                continue
            # a verifier may add plain metrics beside its main score; only what bears its own name takes the role
            given = role if verdict.role != "metric" or verdict.name == v.name else "metric"
            if given == "gold" and verdict.value is not None and not 0.0 <= verdict.value <= 1.0:
                reason = f"gold must lie in [0, 1], not {verdict.value}"
                verdict = msgspec.structs.replace(verdict, value=None, status="unscorable", reason=reason)
            scores.append(verdict if verdict.role == given else _in_role(verdict, given))
    return scores, findings


def _in_role(s: Score, role: Role) -> Score:
    """The same score under another role; what ``structs.replace`` does takes three times as long."""
    return Score(s.name, role, s.value, s.status, s.reason, s.flags, s.evidence, s.verifier_hash)


def proxy_reward(scores: Iterable[Score], verifiers: Iterable[Verifier]) -> float | None:
    """The weighted mean of the proxy scores; None where there is none or one of them has no value."""
    weights = {v.name: v.weight for v in verifiers}
    total = weight = 0.0
    for s in scores:
        if s.role == "proxy":
            if s.value is None:
                return None
            w = weights.get(s.name, 1.0)
            total += w * s.value
            weight += w
    return total / weight if weight else None


def gold_value(scores: Iterable[Score]) -> float | None:
    """The least of the gold scores (all that is wanted must hold); None where there is none or one has no value."""
    least: float | None = None
    for s in scores:
        if s.role == "gold":
            if s.value is None:
                return None
            least = s.value if least is None or s.value < least else least
    return least
