# SPDX-License-Identifier: Apache-2.0
"""What environments promise: the same task everywhere, a full record, and no action that breaks them or shows the answer."""

from __future__ import annotations

import copy
import json
import math
import pickle
import time
from typing import Any

import gymnasium
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgym.chat import (
    MAX_ARGUMENT_BYTES,
    ImagePart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCall,
    assistant,
    call,
    is_unicode,
    submit,
)
from agentgym.env import MAX_CALLS_PER_TURN, ChatEnv, Task, ToolEnv, in_split, tool
from agentgym.errors import DefinitionError, InfrastructureError, NotFoundError, UsageError
from agentgym.scoring import Score, VerifierContext, verifier
from agentgym.task import TaskId, decode_task
from agentgym.trajectory import Trajectory, decode_trajectory, encode_trajectory
from tests.envs import CANARY, Bank, BankState, Guess


def play(env: ChatEnv, *actions: Any, item: str = "0") -> Trajectory:
    """Resets, plays the actions, and returns the record."""
    env.reset(options={"item": item})
    for action in actions:
        env.step(action)
    return env.trajectory


def calls(*them: ToolCall) -> Message:
    return Message("assistant", "", them)


# -- tasks ------------------------------------------------------------------------------------------------------------


def test_a_task_id_is_the_same_task_byte_for_byte_in_every_process(fresh_python: Any) -> None:
    code = """
from agentgym.chat import call
from tests.envs import Bank, Guess
for cls in (Bank, Guess):
    for variant in cls.variants:
        env = cls(variant=variant)
        for item in env.items(3):
            print(env.freeze(env.make_task(item)).encode().hex())
env = Bank()
env.reset(seed=1)
for name in ("sneak", "cook", "crash", "transfer", "submit"):
    env.step(call(name, **{"cook": {"row": 1}, "transfer": {"cents": 5}}.get(name, {})))
print(env.trajectory.canonical().hex())
"""
    assert fresh_python(code, hash_seed="1") == fresh_python(code, hash_seed="2")


class Dice(Guess):
    """Keeps the generator that its task was drawn with."""

    family = "test.dice"

    def new_task(self, rng: np.random.Generator) -> Task:
        self.drawn = copy.deepcopy(rng)
        return super().new_task(rng)


def test_a_tasks_generator_spawns_copies_and_pickles_like_any_other() -> None:
    env = Dice()
    env.make_task("3")
    again = Dice()
    again.make_task("3")
    first, twin = env.drawn, pickle.loads(pickle.dumps(again.drawn))
    assert [c.random() for c in first.spawn(3)] == [c.random() for c in twin.spawn(3)]
    assert first.random() == twin.random()
    env.make_task("4")
    assert env.drawn.random() != again.drawn.random()


@pytest.mark.parametrize("seed", [0, 1, 77, 2**31, 2**63 - 1])
def test_a_task_is_its_seed(seed: int) -> None:
    env = Bank()
    _, info = env.reset(seed=seed)
    assert info["task_id"] == f"test.bank/control/{seed}"
    again = Bank()
    again.reset(options={"item": str(seed)})
    assert env.frozen_task.encode() == again.frozen_task.encode()
    assert decode_task(env.frozen_task.encode()) == env.frozen_task


@pytest.mark.parametrize("item", ["", "-1", "01", "1.0", "x", " 1", "1_0", "٣", str(2**63), "9" * 5000, "0x1"])
def test_what_is_no_seed_is_no_task(item: str) -> None:
    with pytest.raises(NotFoundError, match="numbered by seed"):
        Bank().make_task(item)


def test_twins_share_their_instance() -> None:
    seen: list[bytes] = []

    class Watched(Bank):
        family = "test.watched"

        def new_task(self, rng: np.random.Generator) -> Task:
            seen.append(rng.bytes(8))
            return super().new_task(rng)

    for variant in Watched.variants:
        Watched(variant=variant).make_task("5")
    assert len(set(seen)) == 1
    control, tempted = (Bank(variant=v).make_task("5") for v in Bank.variants)
    assert control.state.limit is None
    assert tempted.state.limit is not None
    tempted.state.limit = None
    assert control.state == tempted.state
    assert control.gold == tempted.gold
    assert (control.variant, tempted.variant) == ("control", "tempt")


def test_a_variant_without_apply_variant_is_a_definition_error() -> None:
    class Forgot(Guess):
        variants = ("control", "tempt")

    with pytest.raises(DefinitionError, match="apply_variant"):
        Forgot(variant="tempt").make_task("0")


def test_an_unknown_variant_names_near_ones() -> None:
    with pytest.raises(UsageError, match=r"no variant 'tempted'; it has: control, tempt. Did you mean: tempt\?"):
        Bank(variant="tempted")


def test_the_splits_are_disjoint_exhaustive_and_one_to_four() -> None:
    train, held_out = Bank(split="train").items(400), Bank(split="eval").items(100)
    assert not set(train) & set(held_out)
    upto = 300
    found = sorted(int(i) for i in [*train, *held_out] if int(i) < upto)
    assert found == list(range(upto))
    assert 0.15 < sum(in_split(s, "eval") for s in range(10_000)) / 10_000 < 0.25
    assert Bank().items(3) == ["0", "1", "2"]
    with pytest.raises(UsageError, match="'test'"):
        Bank(split="test")


@given(st.integers(0, 2**62))
def test_every_seed_lies_in_exactly_one_half(seed: int) -> None:
    assert in_split(seed, "train") != in_split(seed, "eval")
    assert in_split(seed, None)


@pytest.mark.parametrize("split", ["train", "eval"])
def test_reset_stays_within_the_split(split: str) -> None:
    env = Bank(split=split)
    for seed in range(50):
        _, info = env.reset(seed=seed)
        assert in_split(int(TaskId.parse(info["task_id"]).item), split)
    for _ in range(50):
        _, info = env.reset()
        assert in_split(int(TaskId.parse(info["task_id"]).item), split)


def test_numbers_of_numpy_in_a_task_become_plain_ones() -> None:
    class Sloppy(ToolEnv):
        def new_task(self, rng: np.random.Generator) -> Task:
            return Task(
                opening="x",
                state=BankState({}, extra={"n": rng.integers(5)}),
                gold=rng.random(),
                hidden=rng.integers(3, size=2),
            )

    env = Sloppy()
    env.reset(seed=0)
    assert type(env.frozen_task.gold) is float
    assert type(env.frozen_task.hidden[0]) is int
    assert decode_task(env.frozen_task.encode()) == env.frozen_task


def test_what_cannot_be_kept_in_a_task_is_refused_at_reset_with_its_type() -> None:
    class Hopeless(ToolEnv):
        def new_task(self, rng: np.random.Generator) -> Task:
            return Task(opening="x", state=BankState({}, extra={"n": object()}))

    with pytest.raises(TypeError, match="object has no plain form"):
        Hopeless().reset(seed=0)


def test_equal_tasks_are_byte_equal_even_where_their_values_are_other_objects() -> None:
    def opening(arguments: str) -> tuple[Message, ...]:
        return (Message("assistant", "", (ToolCall("f", arguments),)), Message("user", (TextPart("x"), ImagePart(b"\xff"))))

    env = Bank()
    task = env.make_task("0")
    task.opening = opening("{}")
    frozen = env.freeze(task)
    task.opening = opening("".join(["{", "}"]))
    assert env.freeze(task).encode() == frozen.encode()
    assert decode_task(frozen.encode()) == frozen


def test_integer_keys_and_wide_integers_in_a_task_can_be_kept() -> None:
    class Grid(ToolEnv):
        def new_task(self, rng: np.random.Generator) -> Task:
            return Task(opening="x", state=BankState({}, extra={"g": {2: "b", 10: "a"}}), gold=10**30)

    env = Grid()
    env.reset(seed=0)
    assert env.state.extra == {"g": {2: "b", 10: "a"}}
    assert decode_task(env.frozen_task.encode()).gold == 10**30


# -- parameters -------------------------------------------------------------------------------------------------------


def test_parameters_are_attributes_and_stand_in_the_task_id() -> None:
    env = Guess(level="3", loud="yes", scale=2)
    assert (env.level, env.loud, env.scale, env.tone) == (3, True, 2.0, "dry")
    assert env.params == {"level": 3, "loud": True, "scale": 2.0}
    assert env.make_task("0").id == "test.guess:level=3,loud=true,scale=2.0/control/0"
    assert Guess(level=1).label == "test.guess"
    assert type(Guess(scale=1).scale) is float


def test_the_order_in_which_parameters_are_given_does_not_matter() -> None:
    one, other = Guess(level=2, loud=True), Guess(loud=True, level=2)
    assert one.freeze(one.make_task("0")).encode() == other.freeze(other.make_task("0")).encode()


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({"level": "x"}, "'level' must be int, e.g. 1, not 'x'"),
        ({"level": 1.0}, "must be int"),
        ({"level": True}, "must be int"),
        ({"level": "1.5"}, "must be int"),
        ({"level": "9" * 5000}, "must be int"),
        ({"level": None}, "must be int"),
        ({"loud": 1}, "must be bool"),
        ({"loud": "maybe"}, "must be bool"),
        ({"scale": "nan"}, "must be float"),
        ({"scale": math.inf}, "finite"),
        ({"tone": 3}, "must be str"),
        ({"tone": "a/b"}, "part of task ids"),
        ({"tone": "a,level=3"}, "part of task ids"),
        ({"lvel": 3}, r"no parameter 'lvel'; it has: level, scale, loud, tone. Did you mean: level\?"),
    ],
    ids=str,
)
def test_a_wrong_parameter_is_refused_with_what_would_be_right(given_: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Guess(**given_)


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=20))
def test_every_task_id_can_be_taken_apart_again(tone: str) -> None:
    try:
        env = Guess(tone=tone)
    except UsageError:
        return
    task = env.make_task("3")
    assert TaskId.parse(task.id) == (env.label, "control", "3")


# -- state ------------------------------------------------------------------------------------------------------------


def test_an_episode_is_played_on_a_copy_of_the_state_untyped_containers_included() -> None:
    env = Bank()
    env.reset(seed=3)
    before = msgspec.to_builtins(env.task.state)
    record = copy.deepcopy(env.trajectory.state_before)
    for action in (call("transfer", cents=3), call("cook", row=9), call("sneak"), submit()):
        env.step(action)
    assert env.state.extra["log"]["rows"] == [1, 2, 9]
    assert msgspec.to_builtins(env.task.state) == before
    assert env.trajectory.state_before == record == before
    assert env.trajectory.state_after == msgspec.to_builtins(env.state)


def test_each_call_is_charged_with_its_own_changes() -> None:
    message = calls(
        ToolCall("transfer", '{"cents": 5}', "one"),
        ToolCall("balance", '{"account": "a"}', "two"),
        ToolCall("cook", '{"row": 7}', "three"),
    )
    turn = play(Bank(), message).turns[0]
    assert [(c.call_id, c.operation, c.path, c.before, c.after) for c in turn.changes] == [
        ("one", "replace", "/accounts/a/cents", 1000, 995),
        ("one", "replace", "/accounts/b/cents", 0, 5),
        ("one", "add", "/ledger/0", None, "a>b:5"),
        ("three", "add", "/extra/log/rows/2", None, 7),
    ]
    assert [(r.call_id, r.status, r.writes) for r in turn.results] == [
        ("one", "ok", True),
        ("two", "ok", False),
        ("three", "ok", True),
    ]
    assert not turn.events


def test_an_undeclared_write_is_noticed_at_the_end() -> None:
    last = play(Bank(), call("sneak"), submit()).turns[-1]
    assert [e.kind for e in last.events] == ["state.undeclared_write"]
    assert [(c.path, c.call_id) for c in last.changes] == [("/extra/sneaked", "")]


@pytest.mark.parametrize("apart", [True, False], ids=["next turn", "same turn"])
def test_an_undeclared_write_is_not_blamed_on_the_next_writing_tool(apart: bool) -> None:
    sneak, cook = ToolCall("sneak", "{}", "s"), ToolCall("cook", '{"row": 1}', "c")
    trajectory = play(Bank(), *([calls(sneak), calls(cook)] if apart else [calls(sneak, cook)]), submit())
    turn = trajectory.turns[1 if apart else 0]
    assert [(c.path, c.call_id) for c in turn.changes] == [("/extra/sneaked", ""), ("/extra/log/rows/2", "c")]
    assert [(e.kind, e.turn) for e in turn.events] == [("state.undeclared_write", turn.index)]
    assert not trajectory.turns[-1].events


def test_what_the_environment_itself_changes_is_recorded_without_a_call() -> None:
    class Talking(Bank):
        family = "test.talking"

        def respond(self, message: Message) -> str:
            self.state.ledger.append("talked")
            return "go on"

    trajectory = play(Talking(), "hello", call("cook", row=1), submit())
    assert [(c.path, c.call_id) for c in trajectory.turns[0].changes] == [("/ledger/0", "")]
    assert [c.call_id for c in trajectory.turns[1].changes] == ["t1c0"]
    assert not any(t.events for t in trajectory.turns)


def test_what_begin_notes_is_kept_under_turn_minus_one() -> None:
    class Noting(Guess):
        def begin(self) -> None:
            self.note("prepared", data={"n": np.int64(3)})

    event = play(Noting(), "x").turns[0].events[0]
    assert (event.kind, event.turn, event.data) == ("prepared", -1, {"n": 3})


def test_a_state_that_grows_beyond_what_a_record_can_hold_is_kept_all_the_same() -> None:
    trajectory = play(
        Bank(), call("transfer", cents=3), call("double", account="b", times=200), call("double", account="b"), submit()
    )
    assert trajectory.state_after["accounts"]["b"]["cents"] == 3 << 201
    again = decode_trajectory(encode_trajectory(trajectory))
    assert again == trajectory
    assert again.canonical() == trajectory.canonical()


# -- malformed actions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("c", "status", "says"),
    [
        (ToolCall("tranfer", "{}"), "unknown_tool", "no tool 'tranfer'. Did you mean: transfer? Tools: submit, transfer"),
        (ToolCall("", "{}"), "unknown_tool", "no tool ''"),
        (ToolCall("__init__", "{}"), "unknown_tool", "no tool '__init__'"),
        (ToolCall("reset", "{}"), "unknown_tool", "no tool 'reset'"),
        (ToolCall("\ud800", "{}"), "unknown_tool", "no tool '\ufffd'"),
        (ToolCall("transfer", ""), "bad_arguments", "not valid JSON"),
        (ToolCall("transfer", "{"), "bad_arguments", "not valid JSON"),
        (ToolCall("transfer", "[]"), "bad_arguments", "one JSON object, not list"),
        (ToolCall("transfer", '{"cents": "3"}'), "bad_arguments", "Expected `int`, got `str`"),
        (ToolCall("transfer", '{"cents": true}'), "bad_arguments", "got `bool`"),
        (ToolCall("transfer", '{"cents": 3, "cents": 4}'), "bad_arguments", "'cents' is given twice"),
        (ToolCall("transfer", '{"cents": 3, "self": 4}'), "bad_arguments", "unknown field `self`"),
        (ToolCall("transfer", '{"cents": NaN}'), "bad_arguments", "NaN is not a JSON number"),
        (ToolCall("transfer", '{"cents": 1' + "0" * 30 + "}"), "bad_arguments", "too large"),
        (ToolCall("transfer", '{"to": "b"}'), "bad_arguments", "missing required field `cents`"),
        (ToolCall("balance", '{"account": "\ud800"}'), "bad_arguments", "lone surrogate"),
        (ToolCall("balance", '{"account": "\\ud800"}'), "bad_arguments", "lone surrogate"),
        (ToolCall("balance", '{"account": ' + "[" * 10_000), "bad_arguments", "nest deeper"),
        (ToolCall("balance", "x" * 10_000_000), "bad_arguments", f"longer than {MAX_ARGUMENT_BYTES:,} bytes"),
        (ToolCall("balance", '{"account": "c"}'), "tool_error", "there is no account 'c'"),
        (ToolCall("transfer", '{"cents": 2000}'), "tool_error", "account a holds only 1000 cents"),
    ],
    ids=lambda v: repr(v)[:60],
)
def test_a_malformed_call_is_answered_in_words_and_changes_nothing(c: ToolCall, status: str, says: str) -> None:
    env = Bank()
    env.reset(seed=0)
    start = time.process_time()
    observation, reward, terminated, truncated, _ = env.step(calls(c))
    spent = time.process_time() - start
    assert [m.role for m in observation] == ["tool"]
    assert says in observation[0].text
    assert observation[0].text.startswith("error: ")
    assert len(observation[0].text) < 500
    assert (reward, terminated, truncated) == (0.0, False, False)
    turn = env.trajectory.turns[0]
    assert (turn.results[0].status, turn.changes) == (status, ())
    assert observation[0].tool_call_id == turn.message.tool_calls[0].id == turn.results[0].call_id
    assert observation in env.observation_space
    assert spent < 0.2
    assert decode_trajectory(encode_trajectory(env.trajectory)) == env.trajectory


@pytest.mark.parametrize(
    "action",
    [
        "\ud800",
        Message("user", "not mine"),
        Message("tool", "forged", (), "c1", "transfer"),
        Message("system", "obey"),
        Message("assistant", "\ud800", (), "\ud800", "\ud800"),
        Message("assistant", (ReasoningPart("\ud800"), TextPart("\udfff"))),
        Message("assistant", "", (ToolCall("transfer", "{}", "\ud800"),)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("cls", [Bank, Guess])
def test_a_message_of_any_form_is_played_as_a_clean_assistant_message(cls: type[ChatEnv], action: Any) -> None:
    env = cls()
    env.reset(seed=0)
    observation, *_ = env.step(action)
    message = env.trajectory.turns[0].message
    assert message.role == "assistant"
    assert message.tool_call_id is None
    assert message in env.action_space or message.tool_calls
    assert observation in env.observation_space
    assert decode_trajectory(encode_trajectory(env.trajectory)) == env.trajectory


@pytest.mark.parametrize("ids", [("", "", ""), ("a", "a", "b"), ("a", "", "b")])
def test_calls_without_an_id_of_their_own_are_given_one(ids: tuple[str, ...]) -> None:
    turn = play(Bank(), calls(*(ToolCall("balance", '{"account": "a"}', i) for i in ids))).turns[0]
    given_ = [c.id for c in turn.message.tool_calls]
    assert len(set(given_)) == 3
    assert all(given_)
    assert [m.tool_call_id for m in turn.observation] == given_ == [r.call_id for r in turn.results]


def test_ids_that_are_unique_are_kept() -> None:
    turn = play(Bank(), calls(ToolCall("submit", "{}", "b"), ToolCall("submit", "{}", "a"))).turns[0]
    assert [c.id for c in turn.message.tool_calls] == ["b", "a"]


def test_calls_after_submit_are_not_run() -> None:
    env = Bank()
    env.reset(seed=0)
    observation, _, terminated, *_ = env.step(
        calls(ToolCall("submit"), ToolCall("transfer", '{"cents": 5}'), ToolCall("nothing"))
    )
    assert terminated
    assert [m.text for m in observation] == ["submitted", *["error: not run, the task has ended"] * 2]
    assert env.state.accounts["b"].cents == 0
    assert env.trajectory.turns[0].reward == 0.0


def test_a_hundred_thousand_calls_in_one_message_are_bounded_work() -> None:
    env = Bank()
    env.reset(seed=0)
    message = calls(*(ToolCall("transfer", '{"cents": 1}') for _ in range(100_000)))
    start = time.process_time()
    observation, reward, *_ = env.step(message)
    assert time.process_time() - start < 5.0
    assert env.state.accounts["b"].cents == MAX_CALLS_PER_TURN
    assert reward == 0.25 * MAX_CALLS_PER_TURN
    assert len(observation) == 100_000
    assert observation[-1].text == f"error: not run, more than {MAX_CALLS_PER_TURN} calls in one message"


def test_many_large_and_wrong_calls_are_answered_shortly() -> None:
    observation = play(Bank(), calls(*(ToolCall("n" * 100_000, "{}") for _ in range(32)))).turns[0].observation
    assert all(len(m.text) < 500 for m in observation)


def test_an_environment_of_words_answers_calls_with_an_error_instead_of_leaving_them_unanswered() -> None:
    env = Guess()
    env.reset(seed=0)
    observation, _, terminated, *_ = env.step(Message("assistant", "3", (ToolCall("submit"), ToolCall("x"))))
    assert [(m.role, m.text) for m in observation] == [
        ("tool", "error: there is no tool 'submit'"),
        ("tool", "error: there is no tool 'x'"),
    ]
    assert [r.status for r in env.trajectory.turns[0].results] == ["unknown_tool"] * 2
    assert not terminated


@pytest.mark.parametrize(
    "action",
    [
        None,
        3,
        b"x",
        ["x"],
        Message("assistant", None),  # type: ignore[arg-type]
        Message("assistant", "", (ToolCall("transfer", {"cents": 3}),)),  # type: ignore[arg-type]
    ],
    ids=repr,
)
def test_what_is_no_message_at_all_is_the_callers_error_and_costs_no_turn(action: Any) -> None:
    env = Bank()
    env.reset(seed=0)
    with pytest.raises(TypeError, match="action is"):
        env.step(action)
    env.step(submit())
    assert len(env.trajectory.turns) == 1


def test_strings_of_numpy_are_strings() -> None:
    assert type(play(Bank(), np.str_("done")).turns[0].message.content) is str


# -- mishaps ----------------------------------------------------------------------------------------------------------


def test_a_crashing_tool_tells_the_agent_its_type_only_and_the_record_everything() -> None:
    turn = play(Bank(), call("crash")).turns[0]
    assert [m.text for m in turn.observation] == ["error: crash failed (KeyError)"]
    assert turn.results[0].status == "tool_error"
    event = turn.events[0]
    assert (event.kind, event.resource, event.turn) == ("tool.exception", "crash", 0)
    assert event.data["type"] == "KeyError"
    assert event.data["at"].startswith("envs.py:")
    assert [(c.path, c.after) for c in turn.changes] == [("/ledger/0", "crash")]


def test_an_infrastructure_error_passes_through_and_the_turn_is_not_recorded() -> None:
    env = Bank()
    env.reset(seed=0)
    with pytest.raises(InfrastructureError, match="server is down"):
        env.step(call("outage"))
    assert env.trajectory.turns == []
    env.step(submit())


def test_stepping_outside_of_an_episode_asks_for_a_reset() -> None:
    env = Bank()
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset first"):
        env.step("x")
    play(env, submit())
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step("x")


# -- pay --------------------------------------------------------------------------------------------------------------


def test_turns_are_paid_as_they_go_and_the_proxy_at_the_end() -> None:
    env = Bank()
    env.reset(seed=0)
    cents = env.task.gold["cents"]
    rewards = [env.step(a)[1] for a in (call("transfer", cents=cents), call("balance", account="a"), submit())]
    assert rewards == [0.25, 0.0, 1.0]
    assert [t.reward for t in env.trajectory.turns] == rewards
    assert all(type(r) is float for r in rewards)
    assert env.trajectory.total_reward == 1.25
    assert [s.name for s in env.proxy_scores] == ["moved"]


def test_the_last_turn_carries_both_its_pay_and_the_proxy() -> None:
    env = Bank()
    env.reset(seed=0)
    pay = ToolCall("transfer", json.dumps({"cents": env.task.gold["cents"]}))
    _, reward, terminated, _, info = env.step(calls(pay, ToolCall("submit")))
    assert (reward, terminated, info["proxy"]) == (1.25, True, {"moved": 1.0})


@pytest.mark.parametrize("amount", [math.nan, math.inf, -math.inf])
def test_only_finite_pay_is_accepted(amount: float) -> None:
    env = Bank()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="finite"):
        env.pay(amount)


def test_the_turn_limit_truncates_and_is_scored() -> None:
    env = Guess()
    env.reset(options={"item": "0"})
    steps = [env.step("x") for _ in range(env.max_turns)]
    assert [s[3] for s in steps] == [False] * (env.max_turns - 1) + [True]
    assert not any(s[2] for s in steps)
    assert (env.trajectory.outcome, env.trajectory.truncation) == ("truncated", "turns")
    assert steps[-1][4]["proxy"] == {"guessed": 0.0}


def test_without_proxy_verifiers_the_gold_ones_pay() -> None:
    env = Guess()
    env.reset(seed=0)
    assert env.step(env.task.gold["number"])[1:4] == (1.0, True, False)


@verifier
def quotes_the_answer(trajectory: Trajectory, context: VerifierContext) -> float:
    raise ValueError(f"expected {context.task.gold}")


@verifier
def refuses_with_the_answer(trajectory: Trajectory, context: VerifierContext) -> Score:
    return Score("refuses_with_the_answer", value=None, reason=str(context.task.hidden), evidence=context.task.gold)


@pytest.mark.parametrize("broken", [quotes_the_answer, refuses_with_the_answer])
def test_a_proxy_that_cannot_score_pays_nothing_and_says_so_without_its_reason(broken: Any) -> None:
    class Broken(Guess):
        proxy = (broken,)

    env = Broken()
    env.reset(seed=0)
    _, reward, _, _, info = env.step(env.task.gold["number"])
    assert reward == 0.0
    assert info["unscorable"] == f"no value from: {broken.name}"
    assert info["proxy"] == {broken.name: None}
    assert CANARY not in repr(info)
    assert CANARY in env.proxy_scores[0].reason


def test_only_proxy_scores_are_told() -> None:
    @verifier
    def paid(trajectory: Trajectory, context: VerifierContext) -> list[Score]:
        return [Score("paid", value=0.5), Score("distance_to_answer", value=3.0)]

    class Chatty(Guess):
        proxy = (paid,)

    env = Chatty()
    env.reset(seed=0)
    *_, info = env.step(env.task.gold["number"])
    assert info["proxy"] == {"paid": 0.5}
    assert [s.name for s in env.proxy_scores] == ["paid", "distance_to_answer"]


# -- nothing leaks ----------------------------------------------------------------------------------------------------

ODD_CALLS = [
    ToolCall("crash"),
    ToolCall("sneak"),
    ToolCall("nothing"),
    ToolCall("transfer", '{"cents": "x"}'),
    ToolCall("double", '{"account": "a", "times": 200}'),
    ToolCall("cook", '{"row": 18446744073709551615}'),
    ToolCall("balance", '{"account": "' + "9" * 2000 + '"}'),
    ToolCall("balance", '{"account": "\ud800"}'),
    ToolCall("submit", '{"answer": "\\ud800"}'),
]


def look_for_the_canary(result: Any) -> None:
    assert CANARY.encode() not in pickle.dumps(result)
    assert CANARY not in repr(result)


@pytest.mark.parametrize("cls", [Bank, Guess])
def test_gold_and_hidden_never_leave_the_environment(cls: type[ChatEnv]) -> None:
    for variant in cls.variants:
        env = cls(variant=variant, render_mode="ansi")
        env.action_space.seed(0)
        for seed in range(5):
            result: Any = env.reset(seed=seed)
            look_for_the_canary(result)
            done = False
            i = 0
            while not done:
                action = calls(ODD_CALLS[(seed + i) % len(ODD_CALLS)]) if i % 2 else env.action_space.sample()
                if action in env.action_space and "outage" in repr(action):
                    action = call("crash")
                result = env.step(action)
                look_for_the_canary(result)
                look_for_the_canary(env.render())
                done = result[2] or result[3]
                i += 1
        assert CANARY in repr(env.frozen_task)
        look_for_the_canary((env.action_space, env.observation_space, env.tool_specs))


# -- whatever is done -------------------------------------------------------------------------------------------------

wild_text = st.text(st.characters(), max_size=20)
wild_calls = st.builds(
    ToolCall,
    st.sampled_from(["transfer", "balance", "cook", "double", "sneak", "crash", "submit", "reset", "_call"]) | wild_text,
    st.sampled_from(
        ["{}", '{"cents": 18446744073709551615}', '{"row": -9223372036854775808}', '{"account": "a", "times": 200}']
    )
    | wild_text
    | st.dictionaries(wild_text, st.none() | st.booleans() | st.integers() | st.floats() | wild_text, max_size=3).map(
        json.dumps
    ),
    st.sampled_from(["", "a", "b"]) | wild_text,
)
wild_actions = (
    wild_text
    | st.builds(
        Message,
        st.sampled_from(["system", "user", "assistant", "tool"]),
        wild_text | st.lists(st.builds(TextPart, wild_text) | st.builds(ReasoningPart, wild_text), max_size=2).map(tuple),
        st.lists(wild_calls, max_size=4).map(tuple),
        st.none() | wild_text,
        st.none() | wild_text,
    )
    | st.integers(0, 2**32)
)


@settings(max_examples=150)
@given(st.sampled_from([Bank, Guess]), st.lists(wild_actions, min_size=8, max_size=8), st.integers(0, 1000))
def test_no_sequence_of_actions_raises_and_every_episode_ends(cls: type[ChatEnv], actions: list[Any], seed: int) -> None:
    env = cls()
    env.reset(seed=seed)
    for i, action in enumerate(actions):
        if isinstance(action, int):
            env.action_space.seed(action)
            action = env.action_space.sample()
            if action.tool_calls and action.tool_calls[0].name == "outage":
                action = call("crash")
        observation, reward, terminated, truncated, info = env.step(action)
        assert observation in env.observation_space
        assert type(reward) is float
        assert math.isfinite(reward)
        assert info == {**info, "task_id": env.task.id, "turn": i + 1}
        turn = env.trajectory.turns[-1]
        assert len(turn.results) == len(turn.message.tool_calls)
        if terminated or truncated:
            break
    else:
        pytest.fail("the episode outlived max_turns")
    assert len(env.trajectory.turns) <= env.max_turns
    again = decode_trajectory(encode_trajectory(env.trajectory))
    assert again.canonical() == env.trajectory.canonical()
    assert all(is_unicode(m.text) for m in env.trajectory.messages)


@pytest.mark.parametrize(("plan", "paid_in_all"), [("honest", 1.25), ("lazy", 0.0), ("cheater", 0.0)])
def test_oracles_are_paid_what_they_deserve(plan: str, paid_in_all: float) -> None:
    env = Bank()
    observation, _ = env.reset(seed=4)
    oracle = getattr(env, plan)(env.task)
    action = next(oracle)
    reward = 0.0
    while True:
        observation, paid, terminated, truncated, _ = env.step(action)
        reward += paid
        if terminated or truncated:
            break
        action = oracle.send(observation)
    assert reward == paid_in_all


def test_a_tool_that_returns_nothing_says_ok_and_plain_values_are_shown_as_json() -> None:
    class Shows(ToolEnv):
        def new_task(self, rng: np.random.Generator) -> Task:
            return Task(opening="x")

        @tool
        def nothing(self) -> None:
            """Returns nothing."""

        @tool
        def table(self) -> dict[str, Any]:
            """Returns a table."""
            return {"a": [1, None, "é"]}

        @tool
        def broken(self) -> str:
            """Returns half of a character."""
            return "\ud800"

    observation = play(Shows(), calls(ToolCall("nothing"), ToolCall("table"), ToolCall("broken"))).turns[0].observation
    assert [m.text for m in observation] == ["ok", '{"a":[1,null,"é"]}', "\ufffd"]


def test_the_words_of_an_answer_without_a_call_end_a_tool_task() -> None:
    env = Bank()
    env.reset(seed=0)
    observation, _, terminated, *_ = env.step(assistant("I am done."))
    assert (observation, terminated) == ((), True)
