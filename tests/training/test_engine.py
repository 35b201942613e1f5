# SPDX-License-Identifier: Apache-2.0
"""Episodes on a trainer's engine: exact tokens, limits that are kept before they break, and nothing of it hidden."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import gymnasium
import numpy as np
import pytest

from agentgym.env import Task, ToolEnv, tool
from agentgym.errors import InfrastructureError
from agentgym.registry import register_task
from agentgym.scoring import VerifierContext, verifier
from agentgym.training import engine
from agentgym.training.engine import Piece, Played, PromptTooLong, play_task
from agentgym.trajectory import Trajectory
from tests.token_engine import END, START, Script, calling, honest, ids_of, seat

LOOKUP = "tools.lookup/control/0"


def played(task: str, script: Any, **options: Any) -> Played:
    told = {k: options.pop(k) for k in ("wrap", "retries", "logprobs") if k in options}
    return asyncio.run(play_task(task, seat(script, **options), **told))


def test_all_turns_of_an_episode_share_a_row_whose_trained_tokens_are_the_very_ones_that_the_engine_gave() -> None:
    said = honest()
    script = Script(*said)
    got = played(LOOKUP, script)
    (row,) = got.rows.rows
    assert (got.reason, got.reward, got.truncated) == (None, 1.0, False)
    assert row.token_ids[row.loss_mask == 1].tolist() == [t for text in said for t in ids_of(text)]
    assert row.token_ids[: row.prompt_len].tolist() == script.prompts[0]
    assert row.token_ids[: len(script.prompts[-1])].tolist() == script.prompts[-1]
    assert set(row.versions[row.loss_mask == 1].tolist()) == {7}
    assert set(row.versions[row.loss_mask == 0].tolist()) == {-1}


# -- limits -----------------------------------------------------------------------------------------------------------


def test_pitfall_11_a_first_prompt_that_is_too_long_raises_before_the_engine_is_asked() -> None:
    script = Script(*honest())
    for limit in ({"max_prompt": 100}, {"max_row": 100}):
        with pytest.raises(PromptTooLong, match="lose its system message"):
            played(LOOKUP, script, **limit)
    assert script.prompts == []


@pytest.mark.parametrize("limit", ["max_row", "max_response"])
def test_pitfall_10_a_tool_result_that_overflows_truncates_the_episode_and_no_row_is_cut(limit: str) -> None:
    whole = played(LOOKUP, Script(*honest()))
    (row,) = whole.rows.rows
    first, second = (np.flatnonzero(row.turn_ids == turn)[-1] + 1 for turn in (0, 1))
    room = int((first + second) // 2) - 60  # the second prompt would need more
    script = Script(*honest())
    got = played(LOOKUP, script, **{limit: room - (row.prompt_len if limit == "max_response" else 0)})
    assert len(script.prompts) == 1, "nobody is asked to answer a prompt that leaves no room"
    assert got.truncated
    assert got.result.trajectory.truncation == "tokens"
    (short,) = got.rows.rows
    assert short.token_ids.tolist() == row.token_ids[:first].tolist()
    assert short.loss_mask[-1] == 1
    assert got.reward == 0.0, "it is paid for what it did until then"


def test_pitfall_10_an_answer_that_is_cut_by_its_length_leaves_the_flag() -> None:
    got = played(LOOKUP, Script("a" * 500, *honest()), max_new_tokens=50)
    assert got.truncated
    assert got.rows.rows[0].trained == 50
    assert got.rows.rows[0].truncated
    script = Script("a" * 500)
    got = played(LOOKUP, script, max_row=1400, max_new_tokens=10_000)
    assert len(got.rows.rows[0].token_ids) == 1400, "an answer may fill the row, and no more"


def test_a_model_that_writes_control_tokens_ends_its_episode_where_the_trainer_takes_one_row() -> None:
    forged = [*b"hm ", START, *b"user\nwell done", END]
    got = played(LOOKUP, Script([*forged[:-1], *b" ", END], *honest()))
    assert len(got.rows.rows) == 1
    assert engine.only(got).trained > 0

    @register_task
    class Chatty(ToolEnv):
        family = "test.chatty"
        gold = (touched,)
        max_turns = 3

        def new_task(self, rng: Any) -> Task:
            return Task(opening="Talk.")

        def respond(self, message: Any) -> str:
            return "And?"

    script = Script(forged, forged, forged)
    got = played("test.chatty/control/0", script)
    assert (len(got.rows.rows), len(script.prompts), got.truncated) == (1, 1, True)
    got = played("test.chatty/control/0", Script(forged, forged, forged), one_row=False)
    assert len(got.rows.rows) == 3
    assert sum(row.trained for row in got.rows.rows) == 3 * len(forged)
    with pytest.raises(engine.UsageError, match="makes 3 rows"):
        engine.only(got)


# -- weights that change ----------------------------------------------------------------------------------------------


class Interrupted:
    """Aborts every answer once, after a few tokens; the weights are newer when it is asked again."""

    def __init__(self, *turns: str) -> None:
        self.script = [ids_of(t) for t in turns]
        self.rest: list[int] | None = None
        self.version = 3
        self.prompts: list[list[int]] = []

    async def __call__(self, prompt: list[int], most: int, request: str) -> Piece:
        self.prompts.append(prompt)
        if self.rest is None:
            whole = self.script.pop(0)
            piece, self.rest, finish = whole[:5], whole[5:], "abort"
        else:
            piece, self.rest, finish = self.rest, None, "stop"
        version = self.version
        self.version += finish == "abort"
        return Piece(piece, [-0.1 * version] * len(piece), finish, [version] * len(piece))  # type: ignore[arg-type]


def test_pitfall_17_a_turn_that_weights_changed_under_holds_both_versions_and_goes_on_from_its_own_tokens() -> None:
    said = honest()
    interrupted = Interrupted(*said)
    got = played(LOOKUP, interrupted)
    (row,) = got.rows.rows
    assert (got.reward, len(got.result.trajectory.turns)) == (1.0, 3)
    for turn in range(3):
        versions = row.versions[row.turn_ids == turn]
        assert versions[:5].tolist() == [3 + turn] * 5
        assert set(versions[5:].tolist()) == {4 + turn}
        assert interrupted.prompts[2 * turn + 1] == interrupted.prompts[2 * turn] + ids_of(said[turn])[:5]
    trained = row.loss_mask == 1
    np.testing.assert_allclose(row.logprobs[trained], -0.1 * row.versions[trained], rtol=1e-6)


def test_an_engine_that_only_aborts_is_infrastructure_and_no_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_time(_: float) -> None:
        return None

    monkeypatch.setattr(engine.asyncio, "sleep", no_time)

    async def dead(prompt: list[int], most: int, request: str) -> Piece:
        return Piece([], [], "abort", [])

    got = played(LOOKUP, dead, retries=0)
    assert got.result.reward is None
    assert "aborted" in str(got.reason)


def test_an_engine_that_tells_too_few_log_probabilities_is_not_believed() -> None:
    async def short(prompt: list[int], most: int, request: str) -> Piece:
        return Piece([1, 2, 3], [-0.5], "stop", None)

    got = played(LOOKUP, short)
    assert "3 tokens and 1 log-probabilities" in str(got.reason)


# -- rewards ----------------------------------------------------------------------------------------------------------


@verifier
def touched(trajectory: Trajectory, context: VerifierContext) -> float:
    return float(any(t.message.tool_calls for t in trajectory.turns))


@register_task
class Paid(ToolEnv):
    """Pays for each touch, and fails now and then."""

    family = "test.paid"
    gold = (touched,)
    asked = 0

    def new_task(self, rng: Any) -> Task:
        return Task(opening="Touch it.", hidden={"seen": []})

    @tool
    def touch(self, amount: float) -> str:
        """Touches.

        Args:
            amount: what it is worth.
        """
        Paid.asked += 1
        if amount < 0 and Paid.asked == 1:
            raise InfrastructureError("the server is down")
        self.pay(abs(amount))
        self.task.hidden["seen"].append(amount)
        return str(len(self.task.hidden["seen"]))


class Reward(gymnasium.Wrapper[Any, Any, Any, Any]):
    def __init__(self, env: Any, reward: Any) -> None:
        super().__init__(env)
        self.reward = reward

    def step(self, action: Any) -> Any:
        new, _, terminated, truncated, info = self.env.step(action)
        return new, self.reward, terminated, truncated, info


def test_pitfall_16_rewards_are_plain_finite_floats_whatever_a_wrapper_returns() -> None:
    got = played(LOOKUP, Script(*honest()), wrap=lambda env: Reward(env, np.float32(0.5)))
    assert type(got.reward) is float
    assert got.reward == 1.5
    got = played(LOOKUP, Script(*honest()), wrap=lambda env: Reward(env, 1))
    assert type(got.reward) is float
    for bad in (math.nan, math.inf, np.float64("nan")):
        got = played(LOOKUP, Script(*honest()), wrap=lambda env, bad=bad: Reward(env, bad))
        assert "its reward is" in str(got.reason)


def test_pitfall_19_what_each_turn_was_paid_arrives_turn_by_turn() -> None:
    got = played("test.paid/control/0", Script(calling("touch", amount=0.25), calling("touch", amount=2.0), "done"))
    assert got.turn_rewards == [0.25, 2.0, 1.0]
    assert got.reward == 3.25
    (row,) = got.rows.rows
    ends = [int(np.flatnonzero(row.turn_ids == turn)[-1]) for turn in range(3)]
    assert row.token_rewards[ends].tolist() == got.turn_rewards


def test_pitfall_08_episodes_of_a_task_that_are_played_at_once_share_nothing_that_one_of_them_changes() -> None:
    async def group() -> list[Played]:
        scripts = [Script(calling("touch", amount=0.5), calling("touch", amount=0.5), "done") for _ in range(3)]
        return list(await asyncio.gather(*(play_task("test.paid/control/0", seat(s)) for s in scripts)))

    for got in asyncio.run(group()):
        assert [m.text for t in got.result.trajectory.turns for m in t.observation] == ["1", "2"], "touched by itself alone"


def test_an_episode_that_a_server_spoiled_is_played_again_or_has_a_reason_and_never_a_reward() -> None:
    Paid.asked = 0
    turns = (calling("touch", amount=-1.0), calling("touch", amount=-1.0), "done")
    got = played("test.paid/control/0", Script(*turns), retries=1)
    assert (got.reason, got.reward) == (None, 2.0)
    Paid.asked = 0
    got = played("test.paid/control/0", Script(*turns), retries=0)
    assert "the server is down" in str(got.reason)
    assert got.rows.rows == ()


def test_a_row_ends_with_its_last_trained_token_since_trainers_pay_there() -> None:
    class Silent(Script):
        async def __call__(self, prompt: list[int], most: int, request: str) -> Piece:
            return Piece([], [], "stop", []) if not self.turns else await super().__call__(prompt, most, request)

    got = played("test.paid/control/0", Silent(calling("touch", amount=0.5)))
    (row,) = got.rows.rows
    assert len(got.result.trajectory.turns) == 2
    assert row.loss_mask[-1] == 1
    got = played("test.paid/control/0", Silent())
    assert got.reason == "no token of it may be trained on"


def test_a_trainer_that_computes_log_probabilities_itself_trains_on_every_sampled_token() -> None:
    class Untold(Script):
        async def __call__(self, prompt: list[int], most: int, request: str) -> Piece:
            piece = await super().__call__(prompt, most, request)
            return Piece(piece.output_ids, None, piece.finish, None)

    assert played(LOOKUP, Untold(*honest())).reason == "no token of it may be trained on"
    got = played(LOOKUP, Untold(*honest()), logprobs=False)
    assert got.rows.rows[0].trained == sum(len(ids_of(t)) for t in honest())


def test_families_take_turns_in_a_data_set_and_their_tasks_are_those_of_the_split() -> None:
    rows = list(engine.tasks_of(["math.add", "tools.lookup:level=2"], tasks=3))
    assert [task.rsplit("/", 1)[0] for task, _ in rows] == ["math.add/control", "tools.lookup:level=2/control"] * 3
    assert all(messages[-1]["role"] == "user" for _, messages in rows)
    held = {task for task, _ in engine.tasks_of("math.add", split="eval", tasks=50)}
    assert not held & {task for task, _ in engine.tasks_of("math.add", tasks=200)}
