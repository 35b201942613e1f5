# SPDX-License-Identifier: Apache-2.0
"""What every task must stand before anybody is judged or trained by it; ours and users' alike.

Each check is a sentence that is true or false of an environment in one variant, over the tasks of some seeds. A check that
fails names the task and says what was expected.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from agentgym.chat import Message, ToolCall, assistant
from agentgym.env import ChatEnv
from agentgym.episode import EpisodeResult, play
from agentgym.errors import DefinitionError, InfrastructureError
from agentgym.policies.oracle import OraclePolicy
from agentgym.protocols import Completion, EpisodeContext, Policy, PolicyBase, Sampling
from agentgym.task import content_hash
from agentgym.toolspec import ToolSpec

CHANCE = 0.05
"""Most mean gold that acting at random may earn."""

LEAST_SECRET = 4
"""Characters below which an answer is too common to be told from chance when it stands in a text."""


class Check(msgspec.Struct):
    """One thing that was checked."""

    name: str
    ok: bool
    detail: str
    """What was seen, for a person; where it failed, what to do."""
    task: str = ""
    """The first task in which it failed."""


class Report(msgspec.Struct):
    """One environment in one variant."""

    label: str
    variant: str
    tasks: int
    checks: list[Check]

    @property
    def ok(self) -> bool:
        """Whether all of it holds."""
        return all(c.ok for c in self.checks)


class _Failed(Exception):
    """A check does not hold; the text says why."""

    def __init__(self, detail: str, task: str = "") -> None:
        super().__init__(detail)
        self.task = task


class _Subject:
    """An environment and its oracles' episodes, each played once and kept."""

    def __init__(self, make: Callable[[], ChatEnv], items: Sequence[str]) -> None:
        self.make = make
        self.env = make()
        self.items = list(items)
        self._played: dict[tuple[str, str], EpisodeResult] = {}

    def play(self, policy: Policy, item: str, env: ChatEnv | None = None) -> EpisodeResult:
        """One episode.

        Raises:
            InfrastructureError: something failed that is nobody's fault; nothing can be said of the task then.
        """
        env = env or self.env
        result = asyncio.run(play(env, env.make_task(item), policy))
        error = result.trajectory.error
        if error is not None and error.kind in ("sandbox", "internal"):  # of the policy, an oracle, it is the task's own
            raise InfrastructureError(error.message)
        return result

    def oracle(self, which: str, item: str) -> EpisodeResult:
        """The oracle's episode; played when it is first asked for."""
        key = (which, item)
        if key not in self._played:
            self._played[key] = self.play(OraclePolicy(which), item)
        return self._played[key]

    def has(self, which: str) -> bool:
        """Whether the environment brings that oracle along."""
        return getattr(type(self.env), which) is not getattr(ChatEnv, which) or which in ("lazy", "random")

    def name(self, item: str) -> str:
        """The task's id."""
        return f"{self.env.label}/{self.env.variant}/{item}"


def _dimensions(result: EpisodeResult) -> set[str]:
    return {f.dimension for f in result.findings if f.violation}


def _why(result: EpisodeResult) -> str:
    if result.trajectory.error is not None:
        return result.trajectory.error.message
    low = [f"{s.name} {s.value}: {s.reason}".rstrip(": ") for s in result.scores if s.value is None or s.value < 1]
    return "; ".join(dict.fromkeys(low)) or "no gold verifier says why"


# -- the checks -------------------------------------------------------------------------------------------------------


def _honest(s: _Subject) -> str:
    if not s.has("honest"):
        raise _Failed("there is no honest oracle: write `honest(task)`, which proves that the task can be solved")
    for item in s.items:
        result = s.oracle("honest", item)
        if result.gold != 1.0:
            raise _Failed(f"the honest oracle earns gold {result.gold}, not 1 ({_why(result)})", s.name(item))
        if _dimensions(result):
            raise _Failed(f"the honest oracle violates {', '.join(sorted(_dimensions(result)))}", s.name(item))
        if result.trajectory.outcome != "terminated":
            raise _Failed(f"the honest oracle's episode is {result.trajectory.outcome}: its plan must end it", s.name(item))
    return f"{len(s.items)}/{len(s.items)} solved, nothing violated"


def _actions(s: _Subject) -> str:
    for item in s.items:
        for turn in s.oracle("honest", item).trajectory.turns:
            if not s.env.action_space.contains(turn.message):
                raise _Failed(f"turn {turn.index} of the honest oracle is no action of the action space", s.name(item))
            bad = [r.name for r in turn.results if r.status in ("unknown_tool", "bad_arguments")]
            if bad:
                raise _Failed(f"the honest oracle calls {', '.join(bad)} in a way that the tool refuses", s.name(item))
    return "it does only what any agent may do"


def _cheater(s: _Subject) -> str:
    expected = set(s.env.temptations[s.env.variant])
    if not s.has("cheater"):
        raise _Failed(
            f"{s.env.variant} tempts to violate {', '.join(sorted(expected))}, and there is no cheater oracle that gives in"
        )
    for item in s.items:
        result = s.oracle("cheater", item)
        caught = _dimensions(result)
        if caught != expected:
            raise _Failed(
                f"the cheater violates {', '.join(sorted(caught)) or 'nothing'}, not exactly {', '.join(sorted(expected))}",
                s.name(item),
            )
        exposed = {f.dimension for f in s.oracle("honest", item).findings if f.exposure}
        if not expected <= exposed:
            raise _Failed(f"the honest oracle is not exposed to {', '.join(sorted(expected - exposed))}", s.name(item))
    return f"{len(s.items)}/{len(s.items)} caught, on exactly {', '.join(sorted(expected))}"


def _lazy(s: _Subject) -> str:
    for item in s.items:
        result = s.oracle("lazy", item)
        if result.gold is None:
            raise _Failed(f"the lazy oracle cannot be scored ({_why(result)})", s.name(item))
        if result.gold > 0:
            raise _Failed(f"doing nothing earns gold {result.gold}", s.name(item))
        if _dimensions(result):
            raise _Failed(f"doing nothing violates {', '.join(sorted(_dimensions(result)))}", s.name(item))
    return "doing nothing earns nothing"


def _random(s: _Subject) -> str:
    golds = []
    for item in s.items:
        result = s.oracle("random", item)
        if result.gold is None:
            raise _Failed(f"the random oracle cannot be scored ({_why(result)})", s.name(item))
        golds.append(result.gold)
    # with few tasks one lucky guess is above any share: so many are allowed as chance at that share would give in one of 100
    allowed = _binomial_quantile(len(golds), CHANCE, 0.99)
    if sum(golds) > max(allowed, CHANCE * len(golds)):
        raise _Failed(f"acting at random earns mean gold {sum(golds) / len(golds):.2f}; at most {CHANCE} is chance")
    return f"mean gold {sum(golds) / len(golds):.2f}"


def _binomial_quantile(n: int, p: float, at: float) -> int:
    total, k = 0.0, 0
    while True:
        total += math.comb(n, k) * p**k * (1 - p) ** (n - k)
        if total >= at or k == n:
            return k
        k += 1


class _Quoting(PolicyBase):
    """The honest oracle, that says aloud with each call what it was told: words are no acts."""

    name = "oracle:honest, quoting"
    privileged = True

    def __init__(self) -> None:
        self._player: Policy | None = None

    def begin(self, context: EpisodeContext) -> Policy:
        """One that quotes."""
        player = _Quoting()
        player._player = OraclePolicy("honest").begin(context)
        return player

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        """What the oracle does, with what it was told quoted beside it where it calls a tool."""
        assert self._player is not None
        completion = await self._player.act(conversation, tools, sampling)
        message = completion.message
        if not message.tool_calls:
            return completion
        told = "\n".join(m.text for m in conversation if m.role != "assistant")
        quoted = assistant(f"{message.text}\nI was told, and quote: {told!r}"[:20_000], *message.tool_calls)
        return msgspec.structs.replace(completion, message=quoted)


def _quotes(s: _Subject) -> str:
    for item in s.items:
        result = s.play(_Quoting(), item)
        if result.gold != 1.0 or _dimensions(result):
            what = ", ".join(sorted(_dimensions(result))) or f"gold {result.gold} ({_why(result)})"
            raise _Failed(f"honest work that quotes what it was told is judged otherwise: {what}", s.name(item))
    return "quoting what one was told changes no verdict"


def _replay(s: _Subject) -> str:
    other = s.make()
    for item in s.items:
        first, again = s.env.freeze(s.env.make_task(item)).encode(), other.freeze(other.make_task(item)).encode()
        if content_hash(first) != content_hash(again):
            raise _Failed("the same task id gives another task the second time: use no randomness but `rng`", s.name(item))
        a = s.oracle("honest", item).trajectory.canonical()
        b = s.play(OraclePolicy("honest"), item, other).trajectory.canonical()
        if a != b:
            raise _Failed(
                "the same actions give another episode the second time: clocks, order of sets or randomness?", s.name(item)
            )
    return "the same task and actions give the same episode, byte for byte"


def _secrets(value: Any) -> Iterable[str]:
    if isinstance(value, str) and len(value.strip()) >= LEAST_SECRET:
        yield value
    elif type(value) in (int, float) and len(str(value)) >= LEAST_SECRET:
        yield str(value)


def _leaks(s: _Subject) -> str:
    for item in s.items:
        task = s.env.make_task(item)
        opening, info = s.env.reset(options={"item": item})
        told = "\n".join(m.text for m in opening)
        specs = msgspec.json.encode(msgspec.to_builtins(s.env.tool_specs)).decode()
        # an answer that is one value; states and data structures share most of what is in them with the question
        for secret in _secrets(task.gold):
            if secret in told or secret in repr(info) or secret in specs:
                raise _Failed("the answer stands in what the agent is told at the start", s.name(item))
        for oracle in ("lazy", "random"):
            for turn in s.oracle(oracle, item).trajectory.turns:
                said = "\n".join(m.text for m in turn.observation)
                if any(
                    secret in said and secret not in turn.message.text + repr(turn.message) for secret in _secrets(task.gold)
                ):
                    raise _Failed(f"the {oracle} oracle is told the answer in turn {turn.index}", s.name(item))
    return "the answer is not told"


def _range(s: _Subject) -> str:
    low, high = math.inf, -math.inf
    for (oracle, item), result in s._played.items():
        for score in result.scores:
            if score.role == "gold" and score.value is not None and not 0 <= score.value <= 1:
                raise _Failed(f"gold {score.value} of {oracle} lies outside [0, 1]", s.name(item))
        if result.reward is None:
            raise _Failed(f"the {oracle} oracle's episode has no reward ({_why(result)})", s.name(item))
        low, high = min(low, result.reward), max(high, result.reward)
    honest = [s.oracle("honest", item).reward or 0.0 for item in s.items]
    lazy = [s.oracle("lazy", item).reward or 0.0 for item in s.items]
    if sum(honest) <= sum(lazy):
        raise _Failed(f"honest work is paid {sum(honest):g} and doing nothing {sum(lazy):g}: there is nothing to learn")
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


def _robust(s: _Subject) -> str:
    count = 0
    for item in s.items[:3]:
        for message in _malformed(s.env):
            s.env.reset(options={"item": item})
            try:
                _, reward, terminated, truncated, _ = s.env.step(message)
            except InfrastructureError:
                raise
            except Exception as e:
                raise _Failed(
                    f"a malformed action raises {type(e).__name__} out of step: {str(e)[:200]}", s.name(item)
                ) from None
            if reward > 0:
                raise _Failed(f"a malformed action is paid {reward:g}", s.name(item))
            if not (terminated or truncated):
                s.env.finish("environment")
            count += 1
    return f"{count} malformed actions were answered, none was paid"


CHECKS: tuple[tuple[str, Callable[[_Subject], str]], ...] = (
    ("honest", _honest),
    ("actions", _actions),
    ("cheater", _cheater),
    ("lazy", _lazy),
    ("random", _random),
    ("quotes", _quotes),
    ("replay", _replay),
    ("leaks", _leaks),
    ("rewards", _range),
    ("malformed", _robust),
)
"""Name and check, in the order in which they are made."""


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
    items = env.items(seeds)
    subject = _Subject(make, items)
    checks: list[Check] = []
    for name, check in CHECKS:
        if name == "cheater" and env.variant not in env.temptations:
            continue
        if name not in ("honest", "malformed", "lazy", "random") and checks and not checks[0].ok:
            continue  # without an honest oracle that is paid the others would only say so again
        try:
            checks.append(Check(name, True, check(subject)))
        except _Failed as e:
            checks.append(Check(name, False, str(e), e.task))
        except DefinitionError as e:
            checks.append(Check(name, False, str(e)))
    env.close()
    return Report(env.label, env.variant, len(items), checks)
