# SPDX-License-Identifier: Apache-2.0
"""One episode: who is asked what, what cuts it, what it is worth, and what becomes of everything that goes wrong."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gymnasium
import msgspec
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit, TransformReward

from agentgym.chat import Message, ToolCall, assistant, call, submit
from agentgym.env import ChatEnv, Task, ToolEnv, tool
from agentgym.episode import EpisodeResult, Limits, play
from agentgym.errors import DefinitionError, InfrastructureError
from agentgym.policies.oracle import OraclePolicy, ScriptedPolicy, as_completion
from agentgym.protocols import Completion, EpisodeContext, Policy, PolicyBase, Sampling, Tokens, Usage
from agentgym.scoring import Score, verifier
from agentgym.trajectory import encode_tokens, encode_trajectory
from tests.envs import CANARY, Bank, Guess


class Acting(PolicyBase):
    """Answers with what a function says."""

    name = "acting"

    def __init__(self, answer: Callable[[Sequence[Message], Sampling], Awaitable[Completion]]) -> None:
        self._answer = answer

    async def act(self, conversation: Sequence[Message], tools: Sequence[Any], sampling: Sampling) -> Completion:
        return await self._answer(conversation, sampling)


def raising(error: BaseException) -> Policy:
    async def answer(conversation: Sequence[Message], sampling: Sampling) -> Completion:
        raise error

    return Acting(answer)


def answering(*completions: Any) -> Policy:
    rest = iter(completions)

    async def answer(conversation: Sequence[Message], sampling: Sampling) -> Completion:
        return next(rest)

    return Acting(answer)


def episode(policy: Policy, env: Any = None, item: str = "0", **options: Any) -> EpisodeResult:
    env = env or Guess()
    return asyncio.run(play(env, env.unwrapped.make_task(item), policy, **options))


def assert_spoiled(result: EpisodeResult, layer: str, *words: str) -> None:
    """It is an infrastructure outcome, says why, is worth nothing rather than zero, and can be kept."""
    t = result.trajectory
    assert (t.outcome, t.truncation) == ("infrastructure", None)
    assert t.error is not None
    assert t.error.kind == layer
    for word in words:
        assert word in t.error.message
    assert (result.reward, result.gold, result.scores, result.findings) == (None, None, [], [])
    encode_trajectory(t)
    (t.error.message + t.error.detail).encode()


# -- an episode -------------------------------------------------------------------------------------------------------


def test_an_episode_is_played_recorded_and_scored() -> None:
    number = Guess().make_task("3").gold["number"]
    result = episode(ScriptedPolicy(["x", "12", number], "who"), item="3", trial=2, seed=7, task_hash="h")
    t = result.trajectory
    assert (t.outcome, t.truncation, t.error, len(t.turns)) == ("terminated", None, None, 3)
    assert (t.task_id, t.trial, t.seed, t.policy, t.task_hash) == ("test.guess/control/3", 2, 7, "who", "h")
    assert [m.text for m in t.messages] == ["Guess a number below 10.", "x", "A number, please.", "12", "lower", number]
    assert (result.reward, result.gold) == (1.0, 1.0)
    assert [(s.name, s.role, s.value) for s in result.scores] == [("guessed", "proxy", 1.0), ("guessed", "gold", 1.0)]
    assert result.task.gold["number"] == number
    assert t.duration_s >= 0 < t.started_at


def test_the_policy_sees_the_whole_conversation_the_same_tools_and_its_seed() -> None:
    seen: list[tuple[list[str], Any, Sampling]] = []

    class Watching(PolicyBase):
        name = "watching"

        async def act(self, conversation: Sequence[Message], tools: Sequence[Any], sampling: Sampling) -> Completion:
            seen.append(([f"{m.role}:{m.text}" for m in conversation], tools, sampling))
            return as_completion([call("balance", account="a"), call("balance", account="x"), submit()][len(seen) - 1])

    episode(Watching(), Bank(), seed=11, sampling=Sampling(temperature=0.5, seed=99))
    (one, tools, sampling), (two, *_), (three, last_tools, _) = seen
    assert one == [f"user:{Bank().make_task('0').opening}"]
    assert two == [*one, "assistant:", 'tool:{"cents":1000}']
    assert three == [*two, "assistant:", "tool:error: there is no account 'x'"]
    assert tools is last_tools
    assert sampling == Sampling(temperature=0.5, seed=11)


def test_a_policy_that_spoils_its_copy_of_the_conversation_does_not_spoil_the_record() -> None:
    async def answer(conversation: Any, sampling: Sampling) -> Completion:
        conversation[:] = [assistant("nothing was ever said")]
        return as_completion("12")

    t = episode(Acting(answer)).trajectory
    assert [m.text for m in t.messages[:3]] == ["Guess a number below 10.", "12", "lower"]


@pytest.mark.parametrize("privileged", [False, True])
def test_only_a_privileged_policy_is_handed_the_environment(privileged: bool) -> None:
    contexts: list[EpisodeContext] = []

    def script(context: EpisodeContext) -> list[str]:
        contexts.append(context)
        return ["12"] * 6

    env = Guess()
    episode(ScriptedPolicy(script, privileged=privileged), env, item="4", trial=1, seed=5)
    (context,) = contexts
    assert (context.task_id, context.trial, context.seed) == ("test.guess/control/4", 1, 5)
    assert context.env is (env if privileged else None)


def test_the_conversation_of_a_policy_never_holds_the_gold() -> None:
    seen: list[str] = []

    async def answer(conversation: Sequence[Message], sampling: Sampling) -> Completion:
        seen.extend(repr(m) for m in conversation)
        return as_completion(call("crash") if len(conversation) < 4 else submit())

    result = episode(Acting(answer), Bank())
    assert CANARY in repr(result.task)
    assert CANARY not in "".join(seen)


def test_usage_tokens_and_sampling_of_each_turn_are_recorded() -> None:
    tokens = Tokens(np.array([5, 6], np.int32), np.array([-0.5, np.nan], np.float32))
    first = Completion(assistant("12"), Usage(10, 2, 4, 0.25), "length", tokens, Sampling(temperature=0.7), 0.5)
    result = episode(answering(first, as_completion("12"), *[as_completion("x")] * 4))
    t = result.trajectory
    assert (t.turns[0].usage, t.turns[0].finish_reason) == (Usage(10, 2, 4, 0.25), "length")
    assert (t.turns[0].sampling, t.turns[0].latency_s) == (Sampling(temperature=0.7), 0.5)
    assert t.usage == Usage(10, 2, 4, 0.25)
    assert t.tokens is not None
    assert t.tokens[0] is tokens
    assert t.tokens[1:] == [None] * 5


# -- limits -----------------------------------------------------------------------------------------------------------

RICH = Completion(call("transfer", cents=99), Usage(0, 10, 0, 0.01))


@pytest.mark.parametrize(
    ("limits", "name", "turns"),
    [
        (Limits(turns=2), "turns", 2),
        (Limits(tokens=25), "tokens", 3),
        (Limits(tokens=10), "tokens", 1),
        (Limits(cost_usd=0.02), "cost", 2),
        (Limits(turns=100, tokens=1000, cost_usd=100.0, seconds=1000.0), "turns", 8),
        (None, "turns", 8),
    ],
)
def test_a_limit_truncates_the_episode_and_what_was_done_until_then_is_scored(
    limits: Limits | None, name: str, turns: int
) -> None:
    result = episode(answering(*[RICH] * 8), Bank(), limits=limits)
    t = result.trajectory
    assert (t.outcome, t.truncation, len(t.turns), t.error) == ("truncated", name, turns, None)
    assert result.gold == 1.0
    assert result.reward == 1.0 + 0.25 * turns
    assert t.total_reward == result.reward
    assert t.state_after["accounts"]["b"]["cents"] == 99 * turns


def test_a_time_limit_cuts_a_policy_that_does_not_answer() -> None:
    calls = 0

    async def answer(conversation: Sequence[Message], sampling: Sampling) -> Completion:
        nonlocal calls
        calls += 1
        if calls == 1:
            return RICH
        await asyncio.Event().wait()
        raise AssertionError

    result = episode(Acting(answer), Bank(), limits=Limits(seconds=0.05))
    t = result.trajectory
    assert (t.outcome, t.truncation, len(t.turns)) == ("truncated", "time", 1)
    assert (result.gold, result.reward) == (1.0, 1.25)


def test_a_time_limit_before_the_first_answer_leaves_an_episode_without_turns() -> None:
    async def answer(conversation: Sequence[Message], sampling: Sampling) -> Completion:
        await asyncio.Event().wait()
        raise AssertionError

    result = episode(Acting(answer), Bank(), limits=Limits(seconds=0.01))
    assert (result.trajectory.outcome, result.trajectory.truncation, result.trajectory.turns) == ("truncated", "time", [])
    assert (result.gold, result.reward) == (0.0, 0.0)


def test_a_policy_that_ignores_its_cancellation_is_cut_once_it_answers() -> None:
    async def answer(conversation: Sequence[Message], sampling: Sampling) -> Completion:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return RICH
        raise AssertionError

    t = episode(Acting(answer), Bank(), limits=Limits(seconds=0.01)).trajectory
    assert (t.outcome, t.truncation, len(t.turns)) == ("truncated", "time", 1)


def test_a_time_out_of_the_policys_own_is_not_the_episodes_time_limit() -> None:
    result = episode(raising(TimeoutError("the server did not answer")), limits=Limits(seconds=1000.0))
    assert_spoiled(result, "policy", "TimeoutError: the server did not answer")


def test_an_episode_that_ends_at_its_limit_has_ended_by_itself() -> None:
    number = Guess().make_task("0").gold["number"]
    t = episode(ScriptedPolicy(["12", number]), limits=Limits(turns=2)).trajectory
    assert (t.outcome, t.truncation) == ("terminated", None)


class Silent(ToolEnv):
    """Its tool, which is not declared to write, puts something into the state that has no plain form."""

    family = "test.silent"
    gold = (verifier(name="never")(lambda trajectory, context: 0.0),)

    def new_task(self, rng: np.random.Generator) -> Task:
        return Task(opening="Go.", state=SilentState())

    @tool
    def stain(self) -> str:
        """Stains the state."""
        self.state.extra["x"] = object()
        return "stained"


class SilentState(msgspec.Struct):
    extra: dict[str, Any] = {}


@pytest.mark.parametrize("limits", [None, Limits(turns=1)])
def test_a_state_that_cannot_be_recorded_spoils_the_episode_and_nothing_else(limits: Limits | None) -> None:
    result = episode(ScriptedPolicy([call("stain"), submit()]), Silent(), limits=limits)
    assert_spoiled(result, "environment", "object")


# -- what is not the agent's doing ------------------------------------------------------------------------------------


def test_an_exception_of_the_policy_is_an_infrastructure_outcome() -> None:
    result = episode(raising(ZeroDivisionError("by zero")))
    assert_spoiled(result, "policy", "ZeroDivisionError: by zero")
    assert result.trajectory.error is not None
    assert "test_episode.py:" in result.trajectory.error.detail
    assert not result.retryable


@pytest.mark.parametrize("retryable", [True, False])
def test_an_infrastructure_error_says_whether_trying_again_may_help(retryable: bool) -> None:
    result = episode(raising(InfrastructureError("the server is down", retryable=retryable)))
    assert_spoiled(result, "policy", "the server is down")
    assert result.retryable is retryable


def test_what_was_played_before_the_failure_stays_on_record() -> None:
    result = episode(ScriptedPolicy([call("transfer", cents=5), call("outage")]), Bank())
    assert_spoiled(result, "environment", "the bank's server is down")
    assert result.retryable
    assert len(result.trajectory.turns) == 1


def test_a_script_that_ends_too_early_is_the_scripts_failure() -> None:
    assert_spoiled(episode(ScriptedPolicy(["12"])), "policy", "ended before the episode did")


class Broken(Guess):
    family = "test.broken"
    parameters = {**Guess.parameters, "at": "respond"}

    def begin(self) -> None:
        if self.at == "begin":
            raise OSError("no disk")

    def respond(self, message: Message) -> str | None:
        raise OSError("no disk")


@pytest.mark.parametrize("at", ["begin", "respond"])
def test_an_exception_of_the_environment_is_an_infrastructure_outcome(at: str) -> None:
    result = episode(ScriptedPolicy(["1"]), Broken(at=at))
    assert_spoiled(result, "environment", "OSError: no disk")
    assert result.task.id == f"test.broken{'' if at == 'respond' else ':at=begin'}/control/0"


def test_an_exception_where_an_episode_begins_for_the_policy_is_an_infrastructure_outcome() -> None:
    def script(context: EpisodeContext) -> list[str]:
        raise LookupError("no script")

    assert_spoiled(episode(ScriptedPolicy(script)), "policy", "no script")


def test_an_agent_that_exits_the_interpreter_spoils_its_episode_only() -> None:
    assert_spoiled(episode(raising(SystemExit(3))), "policy", "SystemExit")


def test_an_agent_that_cancels_itself_spoils_its_episode_only() -> None:
    async def answer(conversation: Sequence[Message], sampling: Sampling) -> Completion:
        inner = asyncio.create_task(asyncio.sleep(1000))
        inner.cancel()
        await inner
        raise AssertionError

    assert_spoiled(episode(Acting(answer)), "policy", "CancelledError")
    assert_spoiled(episode(Acting(answer), limits=Limits(seconds=1000.0)), "policy", "CancelledError")


def test_cancellation_from_outside_is_passed_on() -> None:
    async def work() -> None:
        started = asyncio.Event()

        async def answer(conversation: Sequence[Message], sampling: Sampling) -> Completion:
            started.set()
            await asyncio.Event().wait()
            raise AssertionError

        env = Guess()
        playing = asyncio.create_task(play(env, env.make_task("0"), Acting(answer)))
        await started.wait()
        playing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await playing

    asyncio.run(work())


def test_a_definition_error_is_raised_for_its_author_to_mend() -> None:
    with pytest.raises(DefinitionError, match="has no cheater oracle"):
        episode(OraclePolicy("cheater"))


@pytest.mark.parametrize("text", ["\ud800 and \udfff", "https://user:hunter22@host/v1 said no", "api_key=abcdef123456"])
def test_the_text_of_an_error_can_be_stored_and_holds_no_secret(text: str) -> None:
    result = episode(raising(ValueError(text)))
    assert_spoiled(result, "policy", "ValueError")
    assert "hunter22" not in repr(result.trajectory)
    assert "abcdef123456" not in repr(result.trajectory)


def test_the_recorded_name_of_a_policy_holds_no_secret() -> None:
    policy = ScriptedPolicy(["1"] * 6, "openai:m@https://user:hunter22@host/v1")
    assert episode(policy).trajectory.policy == "openai:m@https://***@host/v1"


@pytest.mark.parametrize(
    "completion",
    [
        None,
        "12",
        Message("assistant", "12"),
        Completion("12"),  # type: ignore[arg-type]
        Completion(None),  # type: ignore[arg-type]
        Completion(Message("assistant", None)),  # type: ignore[arg-type]
        Completion(Message("assistant", "", (ToolCall("f", {"a": 1}),))),  # type: ignore[arg-type]
        Completion(assistant("12"), finish_reason=None),  # type: ignore[arg-type]
        Completion(assistant("12"), finish_reason="eos"),  # type: ignore[arg-type]
        Completion(assistant("12"), usage=None),  # type: ignore[arg-type]
        Completion(assistant("12"), Usage(cost_usd=float("nan"))),
        Completion(assistant("12"), Usage(cost_usd=-1.0)),
        Completion(assistant("12"), Usage(completion_tokens="12")),  # type: ignore[arg-type]
        Completion(assistant("12"), Usage(completion_tokens=1 << 70)),
        Completion(assistant("12"), latency_s=None),  # type: ignore[arg-type]
        Completion(assistant("12"), sampling={"temperature": 1.0}),  # type: ignore[arg-type]
        Completion(assistant("12"), tokens=[1, 2, 3]),  # type: ignore[arg-type]
        Completion(assistant("12"), tokens=Tokens([1, 2], [0.0, 0.0])),  # type: ignore[arg-type]
        Completion(assistant("12"), tokens=Tokens(np.zeros(2, np.int32), np.zeros(3, np.float32))),
        Completion(assistant("12"), tokens=Tokens(np.zeros((2, 2), np.int32), np.zeros((2, 2), np.float32))),
        Completion(assistant("12"), tokens=Tokens(np.array([1 << 40]), np.zeros(1, np.float32))),
    ],
    ids=lambda c: str(c)[-60:],
)
def test_a_policy_that_returns_what_is_no_completion_spoils_its_episode_only(completion: Any) -> None:
    result = episode(answering(completion))
    t = result.trajectory
    assert t.outcome == "infrastructure"
    assert t.error is not None
    assert "acting" in t.error.message or "Message" in t.error.message
    assert not result.retryable
    encode_trajectory(t)


def test_numpys_numbers_in_a_completion_are_kept_as_numbers() -> None:
    usage = Usage(np.int64(3), np.int32(4), np.uint8(5), np.float32(0.5))  # type: ignore[arg-type]
    tokens = Tokens(np.array([1, 2]), np.array([-1.0, -2.0], np.float32), mask=np.array([True, False]))
    t = episode(answering(Completion(assistant("7"), usage, tokens=tokens, latency_s=np.float32(0.25)))).trajectory
    assert t.turns[0].usage == Usage(3, 4, 5, 0.5)
    assert [type(n) for n in msgspec.structs.astuple(t.turns[0].usage)[:4]] == [int, int, int, float]
    assert t.turns[0].latency_s == 0.25
    assert t.tokens is not None
    encode_trajectory(t)
    encode_tokens(t.tokens)


# -- what an agent can do wrong is part of the game -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "told"),
    [
        (Message("assistant", "", (ToolCall("transfer", '{"cents": "' + "9" * 10_000_000 + '"}'),)), "longer than"),
        (Message("assistant", "", (ToolCall("transfer", '{"cents": 1, "to": "\ud800"}'),)), "surrogate"),
        (Message("assistant", "", (ToolCall("trans\udcfffer"),)), "no tool"),
        (Message("assistant", "", (ToolCall("transfer", "{"),)), "not valid JSON"),
    ],
    ids=["10 MB", "surrogate argument", "surrogate name", "cut"],
)
def test_a_malformed_call_gets_an_error_as_its_observation(action: Message, told: str) -> None:
    result = episode(ScriptedPolicy([action, call("transfer", cents=99), submit()]), Bank())
    t = result.trajectory
    assert (t.outcome, result.gold) == ("terminated", 1.0)
    assert told in t.turns[0].observation[0].text
    assert t.turns[0].results[0].status in ("bad_arguments", "unknown_tool")
    encode_trajectory(t)


# -- scores -----------------------------------------------------------------------------------------------------------


@verifier
def fails(trajectory: Any, context: Any) -> float:
    raise RuntimeError("the judge at https://user:hunter22@host is out")


@verifier
def too_much(trajectory: Any, context: Any) -> float:
    return 2.0


@verifier
def fine(trajectory: Any, context: Any) -> list[Score]:
    return [Score("fine", value=0.5), Score("extra", value=3.0)]


@pytest.mark.parametrize(
    ("proxy", "gold", "reward", "value"),
    [
        ((), (fails,), None, None),
        ((fine,), (fails,), 0.5, None),
        ((fails,), (fine,), None, 0.5),
        ((), (too_much,), 2.0, None),
        ((too_much,), (fine,), 2.0, 0.5),
        ((), (), 0.0, None),
        ((fine,), (), 0.5, 0.5),
    ],
)
def test_what_cannot_be_scored_has_no_value_and_is_no_infrastructure_outcome(
    proxy: Any, gold: Any, reward: float | None, value: float | None
) -> None:
    class Judged(Guess):
        family = "test.judged"

    Judged.proxy, Judged.gold = proxy, gold
    result = episode(ScriptedPolicy(["x"] * 6), Judged())
    assert (result.trajectory.outcome, result.reward, result.gold) == ("truncated", reward, value)
    assert "hunter22" not in repr(result.scores)
    if fails in proxy or fails in gold:
        assert [s.status for s in result.scores if s.name == "fails"].count("unscorable") >= 1


# -- wrappers ---------------------------------------------------------------------------------------------------------


def test_what_a_reward_wrapper_delivers_is_what_is_recorded() -> None:
    env = TransformReward(Bank(), lambda r: 10 * r + 1)
    result = episode(ScriptedPolicy([call("transfer", cents=99), call("balance", account="a"), submit()]), env)
    assert [t.reward for t in result.trajectory.turns] == [3.5, 1.0, 11.0]
    assert result.reward == 15.5
    assert [s.value for s in result.scores if s.role == "proxy"] == [1.0]


def test_a_wrapper_that_truncates_leaves_a_truncated_and_scored_episode() -> None:
    result = episode(answering(*[RICH] * 8), TimeLimit(Bank(), 2))
    t = result.trajectory
    assert (t.outcome, t.truncation, len(t.turns)) == ("truncated", "environment", 2)
    assert (result.gold, result.reward) == (1.0, 1.5)


@pytest.mark.parametrize("outside", [False, True])
def test_the_pay_at_a_cut_goes_through_the_reward_wrappers_too(outside: bool) -> None:
    def tenfold(env: gymnasium.Env[Any, Any]) -> Any:
        return TransformReward(env, lambda r: 10 * r + 1)

    limited = tenfold(TimeLimit(Bank(), 2)) if outside else TimeLimit(tenfold(Bank()), 2)
    by_wrapper = episode(answering(*[RICH] * 8), limited)
    by_limit = episode(answering(*[RICH] * 8), tenfold(Bank()), limits=Limits(turns=2))
    for result in (by_wrapper, by_limit):
        assert [t.reward for t in result.trajectory.turns] == [3.5, 10 * 1.25 + 1]
        assert result.reward == 17.0


# -- threads ----------------------------------------------------------------------------------------------------------


class Slow(Guess):
    family = "test.slow"
    blocking = True
    meeting: threading.Barrier
    names: set[str]

    def begin(self) -> None:
        self.names.add(threading.current_thread().name)
        self.meeting.wait(30)

    def respond(self, message: Message) -> str | None:
        self.names.add(threading.current_thread().name)
        self.meeting.wait(30)  # breaks unless the others step at the same time
        return super().respond(message)


def test_environments_that_block_step_at_the_same_time_on_the_threads_they_are_given() -> None:
    Slow.meeting, Slow.names = threading.Barrier(4), set()

    async def work(threads: ThreadPoolExecutor) -> list[EpisodeResult]:
        envs = [Slow() for _ in range(4)]
        policy = ScriptedPolicy(["12", "13"] * 3)
        return await asyncio.gather(*(play(e, e.make_task("0"), policy, threads=threads) for e in envs))

    with ThreadPoolExecutor(4, thread_name_prefix="stepping") as threads:
        results = asyncio.run(work(threads))
    assert [r.trajectory.truncation for r in results] == ["turns"] * 4
    assert all(name.startswith("stepping") for name in Slow.names)
    assert len(Slow.names) == 4


def test_environments_that_do_not_block_step_in_place() -> None:
    class Here(Guess):
        family = "test.here"

        def respond(self, message: Message) -> str | None:
            assert threading.current_thread() is threading.main_thread()
            return super().respond(message)

    with ThreadPoolExecutor(1) as threads:
        result = episode(ScriptedPolicy(["12"] * 6), Here(), threads=threads)
    assert result.trajectory.error is None


def test_an_environment_under_wrappers_is_a_chat_env_within() -> None:
    env: gymnasium.Env[Any, Any] = TimeLimit(Guess(), 3)
    assert isinstance(env.unwrapped, ChatEnv)
