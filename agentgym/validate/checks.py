# SPDX-License-Identifier: Apache-2.0
"""What every task must stand before anybody is judged or trained by it; ours and users' alike.

Each check is a sentence that is true or false of an environment in one variant, over the tasks of some seeds. A check that
fails names the task and says what was expected.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from agentgym.chat import Message, ToolCall, assistant
from agentgym.env import ChatEnv
from agentgym.errors import DefinitionError, InfrastructureError
from agentgym.policies.oracle import OraclePolicy
from agentgym.task import content_hash
from agentgym.validate.mutants import MutantReport, mutants
from agentgym.validate.subject import Check, Failed, Report, Subject, dimensions, why
from agentgym.validate.twins import asked, innocent, rescored, twins

CHANCE = 0.05
"""Most mean gold that acting at random may earn."""

LEAST_SECRET = 4
"""Characters below which an answer is too common to be told from chance when it stands in a text."""


# -- the checks -------------------------------------------------------------------------------------------------------


def _honest(s: Subject) -> str:
    if not s.has("honest"):
        raise Failed("there is no honest oracle: write `honest(task)`, which proves that the task can be solved")
    for item in s.items:
        result = s.oracle("honest", item)
        if result.gold != 1.0:
            raise Failed(f"the honest oracle earns gold {result.gold}, not 1 ({why(result)})", s.name(item))
        if dimensions(result):
            raise Failed(f"the honest oracle violates {', '.join(sorted(dimensions(result)))}", s.name(item))
        if result.trajectory.outcome != "terminated":
            raise Failed(f"the honest oracle's episode is {result.trajectory.outcome}: its plan must end it", s.name(item))
    return f"{len(s.items)}/{len(s.items)} solved, nothing violated"


def _actions(s: Subject) -> str:
    for item in s.items:
        for turn in s.oracle("honest", item).trajectory.turns:
            if not s.env.action_space.contains(turn.message):
                raise Failed(f"turn {turn.index} of the honest oracle is no action of the action space", s.name(item))
            bad = [r.name for r in turn.results if r.status in ("unknown_tool", "bad_arguments")]
            if bad:
                raise Failed(f"the honest oracle calls {', '.join(bad)} in a way that the tool refuses", s.name(item))
    return "it does only what any agent may do"


def _cheater(s: Subject) -> str | None:
    if s.env.variant not in s.env.temptations:
        return None
    expected = set(s.env.temptations[s.env.variant])
    if not s.has("cheater"):
        raise Failed(
            f"{s.env.variant} tempts to violate {', '.join(sorted(expected))}, and there is no cheater oracle that gives in"
        )
    for item in s.items:
        result = s.oracle("cheater", item)
        caught = dimensions(result)
        if caught != expected:
            raise Failed(
                f"the cheater violates {', '.join(sorted(caught)) or 'nothing'}, not exactly {', '.join(sorted(expected))}",
                s.name(item),
            )
        exposed = {f.dimension for f in s.oracle("honest", item).findings if f.exposure}
        if not expected <= exposed:
            raise Failed(f"the honest oracle is not exposed to {', '.join(sorted(expected - exposed))}", s.name(item))
    return f"{len(s.items)}/{len(s.items)} caught, on exactly {', '.join(sorted(expected))}"


def _lazy(s: Subject) -> str:
    for item in s.items:
        result = s.oracle("lazy", item)
        if result.gold is None:
            raise Failed(f"the lazy oracle cannot be scored ({why(result)})", s.name(item))
        if result.gold > 0:
            raise Failed(f"doing nothing earns gold {result.gold}", s.name(item))
        if dimensions(result):
            raise Failed(f"doing nothing violates {', '.join(sorted(dimensions(result)))}", s.name(item))
    return "doing nothing earns nothing"


def _random(s: Subject) -> str:
    golds = []
    for item in s.items:
        result = s.oracle("random", item)
        if result.gold is None:
            raise Failed(f"the random oracle cannot be scored ({why(result)})", s.name(item))
        golds.append(result.gold)
    # with few tasks one lucky guess is above any share: so many are allowed as chance at that share would give in one of 100
    allowed = _binomial_quantile(len(golds), CHANCE, 0.99)
    if sum(golds) > max(allowed, CHANCE * len(golds)):
        raise Failed(f"acting at random earns mean gold {sum(golds) / len(golds):.2f}; at most {CHANCE} is chance")
    return f"mean gold {sum(golds) / len(golds):.2f}"


def _binomial_quantile(n: int, p: float, at: float) -> int:
    total, k = 0.0, 0
    while True:
        total += math.comb(n, k) * p**k * (1 - p) ** (n - k)
        if total >= at or k == n:
            return k
        k += 1


def _quotes(s: Subject) -> str:
    for item in s.items:
        result = s.oracle("quoting", item)
        if result.gold != 1.0 or dimensions(result):
            what = ", ".join(sorted(dimensions(result))) or f"gold {result.gold} ({why(result)})"
            raise Failed(f"honest work that quotes what it was told is judged otherwise: {what}", s.name(item))
    return "quoting what one was told changes no verdict"


def _probes(s: Subject) -> str | None:
    count = 0
    for item in s.probed:
        for probe, result in s.probes(item):
            if result.trajectory.error is not None:
                raise Failed(f"the probe {probe.name!r} breaks off: {result.trajectory.error.message}", s.name(item))
            found = dimensions(result)
            if probe.violates is not None and found != set(probe.violates):
                is_, not_ = ", ".join(sorted(found)) or "nothing", ", ".join(sorted(probe.violates)) or "nothing"
                raise Failed(f"the probe {probe.name!r} violates {is_}, not exactly {not_}", s.name(item))
            if probe.gold is not None and result.gold != probe.gold:
                raise Failed(
                    f"the probe {probe.name!r} earns gold {result.gold}, not {probe.gold:g} ({why(result)})", s.name(item)
                )
            count += 1
    if not count:
        return None
    plays = "1 play is judged as it" if count == 1 else f"{count} plays are judged as they"
    return f"close to the lines of the detectors, {plays} must be"


def _replay(s: Subject) -> str:
    other = s.make()
    for item in s.items:
        first, again = s.env.freeze(s.env.make_task(item)).encode(), other.freeze(other.make_task(item)).encode()
        if content_hash(first) != content_hash(again):
            raise Failed("the same task id gives another task the second time: use no randomness but `rng`", s.name(item))
        a = s.oracle("honest", item).trajectory.canonical()
        b = s.play(OraclePolicy("honest"), item, other).trajectory.canonical()
        if a != b:
            raise Failed(
                "the same actions give another episode the second time: clocks, order of sets or randomness?", s.name(item)
            )
    return "the same task and actions give the same episode, byte for byte"


def _secrets(value: Any) -> Iterable[str]:
    if isinstance(value, str) and len(value.strip()) >= LEAST_SECRET:
        yield value
    elif type(value) in (int, float) and len(str(value)) >= LEAST_SECRET:
        yield str(value)


def _leaks(s: Subject) -> str:
    for item in s.items:
        task = s.env.make_task(item)
        opening, info = s.env.reset(options={"item": item})
        told = "\n".join(m.text for m in opening)
        specs = msgspec.json.encode(msgspec.to_builtins(s.env.tool_specs)).decode()
        # an answer that is one value; states and data structures share most of what is in them with the question
        for secret in _secrets(task.gold):
            if secret in told or secret in repr(info) or secret in specs:
                raise Failed("the answer stands in what the agent is told at the start", s.name(item))
        for oracle in ("lazy", "random"):
            for turn in s.oracle(oracle, item).trajectory.turns:
                said = "\n".join(m.text for m in turn.observation)
                if any(
                    secret in said and secret not in turn.message.text + repr(turn.message) for secret in _secrets(task.gold)
                ):
                    raise Failed(f"the {oracle} oracle is told the answer in turn {turn.index}", s.name(item))
    return "the answer is not told"


def _range(s: Subject) -> str:
    low, high = math.inf, -math.inf
    for (oracle, item), result in s.played.items():
        for score in result.scores:
            if score.role == "gold" and score.value is not None and not 0 <= score.value <= 1:
                raise Failed(f"gold {score.value} of {oracle} lies outside [0, 1]", s.name(item))
        if result.reward is None:
            raise Failed(f"the {oracle} oracle's episode has no reward ({why(result)})", s.name(item))
        low, high = min(low, result.reward), max(high, result.reward)
    honest = [s.oracle("honest", item).reward or 0.0 for item in s.items]
    lazy = [s.oracle("lazy", item).reward or 0.0 for item in s.items]
    if sum(honest) <= sum(lazy):
        raise Failed(f"honest work is paid {sum(honest):g} and doing nothing {sum(lazy):g}: there is nothing to learn")
    return f"rewards from {low:g} to {high:g}"


def _malformed(env: ChatEnv) -> list[Message]:
    name = next((n for n in env.tools if n != "submit"), next(iter(env.tools), "anything"))
    return [
        assistant("", ToolCall(name, "{", "a")),
        assistant("", ToolCall(name, "[1, 2]", "b")),
        assistant("", ToolCall(name, '{"\\ud800": 1}', "c")),
        assistant("", ToolCall(name, '{"x": NaN}', "d")),
        assistant("", ToolCall(name, '{"x": 1, "x": 2}', "e")),
        assistant("", ToolCall("no_such_tool", "{}", "f")),
        assistant("", ToolCall(name, '{"x": "' + "y" * 1_000_000 + '"}', "g")),
        assistant("", ToolCall(name, '{"x": ' + "[" * 5000 + "]" * 5000 + "}", "h")),
        assistant("", ToolCall(name, "{}", "same"), ToolCall(name, "{}", "same")),
        assistant("", *[ToolCall("no_such_tool", "{}", f"m{i}") for i in range(100)]),
        assistant("\x00\x1b[2J\u202e" + "z" * 100_000),
        assistant(""),
    ]


def _robust(s: Subject) -> str:
    count = 0
    for item in s.items[:3]:
        for message in _malformed(s.env):
            s.env.reset(options={"item": item})
            try:
                _, reward, terminated, truncated, _ = s.env.step(message)
            except InfrastructureError:
                raise
            except Exception as e:
                raise Failed(
                    f"a malformed action raises {type(e).__name__} out of step: {str(e)[:200]}", s.name(item)
                ) from None
            if reward > 0:
                raise Failed(f"a malformed action is paid {reward:g}", s.name(item))
            if not (terminated or truncated):
                s.env.finish("environment")
            count += 1
    return f"{count} malformed actions were answered, none was paid"


CHECKS: tuple[tuple[str, Callable[[Subject], str | None]], ...] = (
    ("honest", _honest),
    ("actions", _actions),
    ("cheater", _cheater),
    ("lazy", _lazy),
    ("random", _random),
    ("quotes", _quotes),
    ("probes", _probes),
    ("replay", _replay),
    ("leaks", _leaks),
    ("rewards", _range),
    ("malformed", _robust),
    ("twins", twins),
    ("asked", asked),
    ("innocent", innocent),
    ("rescore", rescored),
)
"""Name and check, in the order in which they are made. A check says what it saw; None: it does not apply to this variant."""


class Family:
    """An environment in all its variants. Episodes are played once, however many checks look at them.

    Args:
        make: makes it in the variant of that name, anew each time.
        seeds: how many of its first tasks.
    """

    def __init__(self, make: Callable[[str], ChatEnv], seeds: int = 3) -> None:
        self.make = make
        self.seeds = seeds
        self._subjects: dict[str, Subject] = {}

    def subject(self, variant: str) -> Subject:
        """One variant, with its oracles' episodes."""
        if variant not in self._subjects:
            make = functools.partial(self.make, variant)
            self._subjects[variant] = Subject(make, self.seeds, self.subject)
        return self._subjects[variant]

    def check(self, variant: str) -> Report:
        """All checks of one variant.

        Raises:
            InfrastructureError: something failed that is not the task's fault, such as a missing sandbox.
            UsageError: the environment cannot be made.
        """
        s = self.subject(variant)
        checks: list[Check] = []
        for name, check in CHECKS:
            if name not in ("honest", "malformed", "lazy", "random") and checks and not checks[0].ok:
                continue  # without an honest oracle that is paid the others would only say so again
            try:
                said = check(s)
            except Failed as e:
                checks.append(Check(name, False, str(e), e.task))
            except DefinitionError as e:
                checks.append(Check(name, False, str(e)))
            else:
                if said is not None:
                    checks.append(Check(name, True, said))
        s.env.close()
        return Report(s.env.label, variant, len(s.items), checks)

    def mutants(self, variants: Iterable[str]) -> MutantReport:
        """Whether small changes of the detectors are noticed on what the oracles did in these variants."""
        variants = list(variants)
        subjects = [self.subject(v) for v in variants]
        env = subjects[0].env
        for params in env.also_proved_at:

            def elsewhere(variant: str, given: Mapping[str, Any] = {**env.params, **params}) -> ChatEnv:
                return type(env)(variant=variant, split=env.split, **given)

            other = Family(elsewhere, self.seeds)
            subjects += [other.subject(v) for v in variants]
        return mutants(subjects)


def validate(make: Callable[[], ChatEnv], seeds: int = 3) -> Report:
    """Checks one environment in one variant.

    Args:
        make: makes it, anew each time.
        seeds: how many of its first tasks.

    Raises:
        InfrastructureError: something failed that is not the task's fault, such as a missing sandbox.
        UsageError: the environment cannot be made.
    """
    env = make()

    def twin(variant: str) -> ChatEnv:
        return make() if variant == env.variant else type(env)(variant=variant, split=env.split, **env.params)

    return Family(twin, seeds).check(env.variant)
