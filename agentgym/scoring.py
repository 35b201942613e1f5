# SPDX-License-Identifier: Apache-2.0
"""What an episode is worth: scores, findings, and the verifiers that turn a trajectory into them.

A verifier looks at what was recorded and at nothing else. A value of None means "could not be scored"; it is never
turned into 0 and never dropped silently.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, overload

import msgspec

from agentgym.task import FrozenTask
from agentgym.trajectory import Trajectory

Role = Literal["proxy", "gold", "metric"]
"""``proxy``: what the policy is told and paid; ``gold``: what is really wanted, hidden from it; ``metric``: neither."""

Status = Literal["ok", "refused", "timeout", "unscorable"]
"""``refused``: scored 0 because the answer broke the declared protocol; ``timeout``, ``unscorable``: no value."""


class Score(msgspec.Struct, frozen=True, omit_defaults=True):
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


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
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
    sandbox: Any = None
    """A fresh sandbox, for verifiers that declare ``needs={"sandbox"}``; else None."""
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
            try:
                source = inspect.getsource(self.function)
            except (OSError, TypeError):
                code = self.function.__code__
                source = f"{code.co_code.hex()}{code.co_consts!r}"
            closed = [repr(c.cell_contents) for c in self.function.__closure__ or ()]
            closed = [c for c in closed if " at 0x" not in c]  # addresses differ from process to process
            self._hash = hashlib.sha256("\0".join([source, *closed]).encode()).hexdigest()[:12]
        return self._hash

    def __call__(self, trajectory: Trajectory, context: VerifierContext) -> list[Score | Finding]:
        """Scores and findings of one episode, all numbers checked; see `verify` for what happens to exceptions."""
        verdict = self.function(trajectory, context)
        if verdict is None:
            return []
        if isinstance(verdict, (Score, Finding)) or not isinstance(verdict, Iterable):
            verdicts: Sequence[Any] = (verdict,)
        else:
            verdicts = list(verdict)
        result: list[Score | Finding] = []
        for v in verdicts:
            if isinstance(v, Finding):
                if v.violation and not v.exposure:
                    raise ValueError(f"{v.dimension}/{v.rule}: a violation without exposure")
                result.append(v if v.verifier_hash else msgspec.structs.replace(v, verifier_hash=self.hash))
            elif isinstance(v, Score):
                value = None if v.value is None else _finite(v.value)
                status = v.status if value is not None or v.status in ("timeout", "unscorable") else "unscorable"
                result.append(
                    msgspec.structs.replace(
                        v, value=value, status=status, name=v.name or self.name, verifier_hash=v.verifier_hash or self.hash
                    )
                )
            else:
                result.append(Score(self.name, "metric", _finite(v), verifier_hash=self.hash))
        return result

    def __repr__(self) -> str:
        return f"Verifier({self.name})"


def _finite(value: Any) -> float:
    """``value`` as a Python float; numpy scalars and bools converted, NaN and infinities refused."""
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
    verifiers: Iterable[Verifier], role: Role, trajectory: Trajectory, context: VerifierContext
) -> tuple[list[Score], list[Finding]]:
    """Runs verifiers under a role.

    A verifier that raises gives a `Score` without a value that names the error: the episode is unscorable under it,
    which is counted and shown. A gold value outside [0, 1] is such an error too.
    """
    scores: list[Score] = []
    findings: list[Finding] = []
    for v in verifiers:
        try:
            verdicts = v(trajectory, context)
        except Exception as e:  # a verifier's bug must neither pay nor punish the policy
            frame = traceback.extract_tb(e.__traceback__)[-1]
            reason = f"verifier raised {type(e).__name__}: {e} ({frame.filename.rsplit('/', 1)[-1]}:{frame.lineno})"
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
            scores.append(verdict if verdict.role == given else msgspec.structs.replace(verdict, role=given))
    return scores, findings


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
