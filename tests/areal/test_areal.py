# SPDX-License-Identifier: Apache-2.0
"""AReaL's own checks, grouping and advantages take what our workflow and our agent hand over."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import math
import pickle
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from areal.api.cli_args import GenerationHyperparameters, GRPOConfig, NormConfig, PPOActorConfig
from areal.experimental.openai import ArealOpenAI
from areal.infra.remote_inf_engine import GroupedRolloutWorkflow
from areal.infra.workflow_executor import check_trajectory_format
from areal.trainer.ppo.actor import PPOActor
from areal.utils.data import Normalization, concat_padded_tensors

from agentgym.env import Task, ToolEnv, tool
from agentgym.errors import InfrastructureError, UsageError
from agentgym.registry import register_task
from agentgym.scoring import VerifierContext, verifier
from agentgym.training import areal
from agentgym.training.engine import PromptTooLong
from agentgym.trajectory import Trajectory
from tests.areal.conftest import Engine
from tests.token_engine import END, START, Bytes, calling, ids_of, renderer, solves

EASY = {"task_id": "tools.lookup/control/0", "messages": []}
OTHER = {"task_id": "tools.lookup/control/1", "messages": []}
COLUMNS = ("input_ids", "loss_mask", "logprobs", "versions", "attention_mask", "rewards")
KEYS = set(COLUMNS)


def workflow(tokenizer: Any, *, max_new_tokens: int = 100, max_tokens: int = 8000, **options: Any) -> Any:
    gconfig = GenerationHyperparameters(max_new_tokens=max_new_tokens, max_tokens=max_tokens)
    return areal.Workflow(gconfig, tokenizer, **{"renderer": renderer(), **options})


def run(made: Any, engine: Any, data: Any = EASY) -> Any:
    return asyncio.run(made.arun_episode(engine, data))


def lazy(prompt: str, member: int) -> str:
    return calling("submit", answer="0")


def actor(**options: Any) -> PPOActor:
    config = PPOActorConfig(
        experiment_name="x", trial_name="y", path="", kl_ctl=0.0, discount=1.0, gae_lambda=1.0, use_decoupled_loss=False,
        recompute_logprob=False, **options,
    )  # fmt: skip
    return PPOActor(config, None)


# -- white box --------------------------------------------------------------------------------------------------------


def test_a_group_of_areal_passes_its_own_format_check_and_holds_what_was_sampled(tokenizer: Any, model: Any) -> None:
    engine = Engine(model)
    made = GroupedRolloutWorkflow(workflow(tokenizer), 3, logging.getLogger("x"))
    batch = concat_padded_tensors([run(made, engine), run(made, engine, OTHER)])
    assert check_trajectory_format(batch, batch_size=6, expected_keys=KEYS)
    assert set(batch) == KEYS
    for column, kind in zip(COLUMNS, ("int32", "int32", "float32", "int32", "bool", "float32"), strict=True):
        assert str(batch[column].dtype) == f"torch.{kind}", column
    assert batch["rewards"].tolist() == [1.0] * 6
    for ids, mask, logprobs, versions, held in zip(
        *(batch[k] for k in ("input_ids", "loss_mask", "logprobs", "versions", "attention_mask")), strict=True
    ):
        trained = mask.bool()
        said = Bytes().decode(ids[trained].tolist())
        assert said.count("<tool_call>") == 3
        assert said.count("<|im_end|>") == 3
        assert "<tool_response>" not in said
        assert set(versions[trained].tolist()) == {3}
        assert set(versions[held & ~trained].tolist()) == {-1}
        assert set(logprobs[~trained].tolist()) == {0.0}
        with torch.no_grad():
            logits = model(ids[held][None].long()).logits[0].float()
        again = torch.log_softmax(logits[:-1], -1).gather(1, ids[held][1:, None].long())[:, 0]
        assert float((again - logprobs[held][1:])[trained[held][1:]].abs().max()) < 1e-4, (
            "what was sampled is what is trained on"
        )


def test_pitfall_17_aborts_and_new_weights_within_a_turn_leave_both_versions_in_its_tokens(tokenizer: Any, model: Any) -> None:
    engine = Engine(model, abort_after=7)
    got = run(workflow(tokenizer), engine)
    trained = got["loss_mask"][0].bool()
    assert check_trajectory_format(got, expected_keys=KEYS)
    assert got["rewards"].tolist() == [1.0]
    spans = got["versions"][0][trained].tolist()
    said = [ids_of(solves(Bytes().decode(list(engine.asked[2 * t].input_ids)))) for t in range(3)]
    assert spans == [v for t, ids in enumerate(said) for v in [3 + t] * 7 + [4 + t] * (len(ids) - 7)]
    assert got["input_ids"][0][trained].tolist() == [id for ids in said for id in ids]
    first, again = engine.asked[0], engine.asked[1]
    assert again.input_ids == first.input_ids + said[0][:7], "the turn goes on from its own tokens"
    assert again.gconfig.max_new_tokens == first.gconfig.max_new_tokens - 7, "and within its own budget"
    assert {r.rid for r in engine.asked} == {first.rid}


@verifier
def touched(trajectory: Trajectory, context: VerifierContext) -> float:
    return float(any(t.message.tool_calls for t in trajectory.turns))


@register_task
class Chatty(ToolEnv):
    """Goes on until it is touched; pays for each touch."""

    family = "test.areal"
    gold = (touched,)
    max_turns = 4
    parameters = {"fails": False}

    def new_task(self, rng: Any) -> Task:
        return Task(opening="Touch it.", hidden={"seen": []})

    def respond(self, message: Any) -> str:
        return "Touch it!"

    @tool
    def touch(self, amount: float) -> str:
        """Touches.

        Args:
            amount: what it is worth; the task ends where it is 0.
        """
        if self.fails and amount < 0:
            raise InfrastructureError("the server is down", retryable=False)
        self.pay(amount)
        self.task.hidden["seen"].append(amount)
        if not amount:
            self.end()
        return f"touched {len(self.task.hidden['seen'])} times"


CHATTY = {"task_id": "test.areal/control/0"}


def uneven(prompt: str, member: int) -> Any:
    """Members play as many turns as their number, each of which forks, then touch."""
    if prompt.count("Touch it!") < member:
        return [*b"hm", START, *b"x", END]
    return calling("touch", amount=0.0)


def test_pitfall_07_equal_rewards_give_zero_advantages_however_uneven_the_rows_are(tokenizer: Any, model: Any) -> None:
    made = workflow(tokenizer, group=3)
    even = run(made, Engine(model, uneven), CHATTY)  # all worth 1, of 1, 2 and 3 rows
    mixed = run(made, Engine(model, lambda p, m: solves(p) if m else lazy(p, m)))  # worth 0, 1, 1
    assert even["input_ids"].shape[0] == 6
    assert mixed["input_ids"].shape[0] == 3
    batch = concat_padded_tensors([even, mixed])
    assert check_trajectory_format(batch, expected_keys=KEYS)
    (done,) = actor().compute_advantages([batch])
    advantage = done["advantages"] * done["loss_mask"]
    assert float(advantage[:6].abs().max()) == 0.0
    assert float(advantage[6].min()) < 0 < float(advantage[7].max())
    assert float(advantage[7].max()) == pytest.approx(float(advantage[8].max()))
    # what AReaL 1.0 makes of such rewards by their places: a task of which everybody was right is torn apart
    by_place = Normalization(NormConfig(mean_level="group", std_level="group", group_size=4))
    assert float(by_place(torch.tensor([1.0] * 6 + [0.0] * 3))[:6].abs().max()) > 0.1
    assert areal.teaches(mixed)
    assert not areal.teaches(even)


def test_pitfall_07_without_a_group_of_its_own_an_episode_is_one_row_and_never_none(tokenizer: Any, model: Any) -> None:
    made = GroupedRolloutWorkflow(workflow(tokenizer), 4, logging.getLogger("x"))
    batch = run(made, Engine(model, uneven), CHATTY)
    assert batch["input_ids"].shape[0] == 4
    spoiled = {"task_id": "test.areal:fails=true/control/0"}
    engine = Engine(model, lambda p, m: calling("touch", amount=-1.0 if m == 2 else 0.0))
    with pytest.raises(InfrastructureError, match=r"the server is down\); its group is rejected"):
        run(made, engine, spoiled)


def test_with_a_group_of_its_own_a_spoiled_episode_takes_no_part_and_the_others_do(tokenizer: Any, model: Any) -> None:
    spoiled = {"task_id": "test.areal:fails=true/control/0"}

    def say(prompt: str, member: int) -> Any:
        return calling("touch", amount=-1.0 if member == 2 else 0.0) if member < 3 or "touched" in prompt else "no"

    told: list[Any] = []
    made = workflow(tokenizer, group=4, on_episode=told.append)
    got = run(made, Engine(model, say), spoiled)
    assert [e.reward for e in told].count(None) == 1
    assert got["input_ids"].shape[0] == 3
    rewards = sorted(got["rewards"].tolist())
    assert sum(rewards) == pytest.approx(0.0, abs=1e-6), "the baseline is that of the three"
    assert run(workflow(tokenizer, group=2), Engine(model, lambda p, m: calling("touch", amount=-1.0)), spoiled) is None


def test_pitfall_08_episodes_of_a_group_share_nothing_though_areal_gives_them_one_object(tokenizer: Any, model: Any) -> None:
    told: list[Any] = []

    def spoil(result: Any) -> None:
        told.append(result)

    data = {**CHATTY, "extra": {"list": []}}
    before = pickle.dumps(data)
    made = GroupedRolloutWorkflow(workflow(tokenizer, on_episode=spoil), 3, logging.getLogger("x"))
    engine = Engine(model, lambda p, m: calling("touch", amount=0.0 if "touched 1" in p else 0.5))
    run(made, engine, data)
    assert pickle.dumps(data) == before
    said = [[m.text for turn in e.trajectory.turns for m in turn.observation] for e in told]
    assert said == [["touched 1 times", "touched 2 times"]] * 3, "each begins with a task that nobody has touched"


def test_pitfall_10_a_cut_episode_says_so_where_the_release_has_a_column_for_it(tokenizer: Any, model: Any) -> None:
    def long(prompt: str, member: int) -> str:
        return "a" * 90

    got = run(workflow(tokenizer, max_new_tokens=40, keys="main"), Engine(model, long), CHATTY)
    assert set(got) == KEYS | {"turn_ids", "original_rewards", "is_truncated"}
    assert check_trajectory_format(got)
    assert got["is_truncated"].tolist() == [True]
    whole = run(workflow(tokenizer, keys="main"), Engine(model))
    assert whole["is_truncated"].tolist() == [False]
    assert whole["original_rewards"].tolist() == [1.0]
    turns = whole["turn_ids"][0]
    assert sorted(set(turns.tolist())) == [-1, 0, 1, 2]
    assert torch.equal(turns >= 0, whole["loss_mask"][0] == 1)
    length = whole["input_ids"].shape[1]
    short = run(workflow(tokenizer, max_tokens=length - 5, keys="main"), Engine(model))
    assert short["is_truncated"].tolist() == [True]
    assert short["input_ids"].shape[1] < length
    assert short["loss_mask"][0, -1] == 1


def test_pitfall_11_a_prompt_that_is_too_long_raises_before_the_engine_is_asked(tokenizer: Any, model: Any) -> None:
    engine = Engine(model)
    with pytest.raises(PromptTooLong):
        run(workflow(tokenizer, max_prompt_tokens=50), engine)
    with pytest.raises(PromptTooLong):
        run(workflow(tokenizer, max_tokens=50), engine)
    assert engine.asked == []


class Paying(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Pays what it is told to, of any kind."""

    reward: Any = 1

    def step(self, action: Any) -> Any:
        new, _, terminated, truncated, info = self.env.step(action)
        return new, self.reward, terminated, truncated, info


class PayingNumpy(Paying):
    reward = np.float64(0.5)


class PayingNaN(Paying):
    reward = math.nan


def test_pitfall_16_integers_and_numpy_numbers_become_floats_and_nan_is_no_reward(tokenizer: Any, model: Any) -> None:
    for wrap, paid in ((Paying, 3.0), (PayingNumpy, 1.5)):
        got = run(workflow(tokenizer, wrap=wrap), Engine(model))
        assert (got["rewards"].tolist(), got["rewards"].dtype) == ([paid], torch.float32)
        reward = asyncio.run(areal.Agent(wrap=wrap).run(EASY, client=client(tokenizer, model)))
        assert isinstance(reward, float), "AReaL refuses an int"
        assert reward == paid
    with pytest.raises(InfrastructureError, match="its reward is nan"):
        run(workflow(tokenizer, wrap=PayingNaN), Engine(model))
    with pytest.raises(InfrastructureError):
        asyncio.run(areal.Agent(wrap=PayingNaN).run(EASY, client=client(tokenizer, model)))


# -- black box --------------------------------------------------------------------------------------------------------


def client(tokenizer: Any, model: Any, template: str = "hf", say: Any = solves) -> ArealOpenAI:
    return ArealOpenAI(
        engine=Engine(model, say), tokenizer=tokenizer, chat_template_type=template, api_key="none", engine_max_tokens=8000
    )


@pytest.mark.parametrize(("style", "template", "rows"), [("individual", "hf", 3), ("concat", "concat", 1)])
def test_the_agent_behind_areals_client_exports_in_both_styles(
    tokenizer: Any, model: Any, style: str, template: str, rows: int
) -> None:
    used = client(tokenizer, model, template)
    reward = asyncio.run(areal.Agent(max_tokens=100).run(EASY, client=used))
    assert reward == 1.0
    used.set_last_reward(reward)
    exported = used.export_interactions(style=style)
    assert len(exported) == rows
    batch = concat_padded_tensors([e.to_tensor_dict() for e in exported.values()])
    assert check_trajectory_format(batch, batch_size=rows, expected_keys=KEYS)
    assert batch["rewards"].tolist() == [0.0] * (rows - 1) + [1.0]
    said = [Bytes().decode(i[m.bool()].tolist()) for i, m in zip(batch["input_ids"], batch["loss_mask"], strict=True)]
    assert sum(s.count("<tool_call>") for s in said) == 3
    asked = used.engine.asked[0]
    assert asked.gconfig.max_new_tokens == 100, "not AReaL's 512"


def test_pitfall_19_rewards_of_turns_arrive_at_the_turns_that_earned_them(tokenizer: Any, model: Any) -> None:
    def say(prompt: str, member: int) -> str:
        return calling("touch", amount=(0.25, 2.0, 0.0)[prompt.count("touched")])

    used = client(tokenizer, model, say=say)
    rewards = asyncio.run(areal.Agent(rewards="turns").run(CHATTY, client=used))
    assert isinstance(rewards, dict)
    assert list(rewards.values()) == [0.25, 2.0, 1.0]
    for id, reward in rewards.items():
        used.set_reward(id, reward)
    exported = used.export_interactions(style="individual")
    assert [e.to_tensor_dict()["rewards"].tolist() for e in exported.values()] == [[0.25], [2.0], [1.0]]
    whole = asyncio.run(areal.Agent().run(CHATTY, client=client(tokenizer, model, say=say)))
    assert whole == sum(rewards.values())


def test_an_agent_whose_episode_infrastructure_spoiled_raises_so_that_areal_rejects_it(tokenizer: Any, model: Any) -> None:
    used = client(tokenizer, model, say=lambda p, m: calling("touch", amount=-1.0))
    with pytest.raises(InfrastructureError, match="the server is down"):
        asyncio.run(areal.Agent().run({"task_id": "test.areal:fails=true/control/0"}, client=used))


def test_what_areal_sends_to_other_processes_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(areal.Workflow)) is areal.Workflow
    agent = pickle.loads(pickle.dumps(areal.Agent(rewards="turns", wrap="tests.areal.test_areal:Paying")))
    assert agent.rewards == "turns"


# -- configuration ----------------------------------------------------------------------------------------------------


def test_a_configuration_that_would_undo_the_baseline_is_told_in_sentences() -> None:
    config = GRPOConfig(experiment_name="x", trial_name="y")
    config.gconfig = GenerationHyperparameters(n_samples=8)
    config.actor.reward_norm = NormConfig(mean_level="group", std_level="group", group_size=8)
    assert areal.problems(config) == []
    config.actor.reward_norm.group_size = 4
    assert "groups would be mixed up" in areal.problems(config)[0]
    config.actor.adv_norm = NormConfig(mean_level="batch", std_level="batch")
    config.actor.mask_no_eos_with_zero = True
    config.actor.reward_bias, config.actor.reward_scaling = -0.5, 10.0
    told = " ".join(areal.problems(config, group=8))
    for word in ("n_samples is 8", "reward_norm", "reward_bias", "adv_norm", "mask_no_eos_with_zero"):
        assert word in told
    with pytest.raises(UsageError, match=r"set gconfig\.n_samples to 1"):
        areal.Workflow(config.gconfig, None, group=8, renderer=renderer())
    config.scheduler.type = "ray"
    assert "use the Workflow there" in " ".join(areal.problems(config, agent=True))


def test_a_mean_over_the_batch_would_move_groups_that_teach_nothing(tokenizer: Any, model: Any) -> None:
    """Why `problems` names it: AReaL's own advantages of a group without differences, with and without."""
    even = {
        "input_ids": torch.zeros(3, 4),
        "loss_mask": torch.tensor([[0, 1, 1, 1]] * 3),
        "rewards": torch.tensor([0.0, 0.0, 1.0]),
    }
    even |= {"logprobs": torch.zeros(3, 4), "attention_mask": torch.ones(3, 4, dtype=torch.bool)}
    (plain,) = actor().compute_advantages([{k: v.clone() for k, v in even.items()}])
    assert float((plain["advantages"] * plain["loss_mask"])[:2].abs().max()) == 0.0
    moved = actor(adv_norm=NormConfig(mean_level="batch", std_level="batch")).adv_norm
    normalized = moved(plain["advantages"], plain["loss_mask"])
    assert float((normalized * plain["loss_mask"])[:2].abs().max()) > 0.1


def test_the_data_set_names_tasks_and_shows_their_opening() -> None:
    rows = areal.dataset(["tools.lookup", "math.add"], tasks=3)
    assert rows.column_names == ["task_id", "messages"]
    assert len(rows) == 6
    assert rows[0]["task_id"].startswith("tools.lookup/control/")
    assert rows[0]["messages"][-1]["role"] == "user"
    assert any("added up" in s for s in areal.losses("tools.lookup"))


def test_the_example_is_a_configuration_that_areal_reads_and_a_workflow_that_it_resolves(
    tokenizer: Any, model: Any, tmp_path: Path
) -> None:
    from areal.api.cli_args import parse_cli_args, to_structured_cfg
    from areal.infra.remote_inf_engine import RemoteInfEngine
    from omegaconf import OmegaConf

    place = Path(__file__).parents[2] / "examples" / "areal" / "grpo.py"
    spec = importlib.util.spec_from_file_location("examples.areal.grpo", place)
    assert spec is not None
    assert spec.loader is not None
    example = sys.modules["examples.areal.grpo"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    tokenizer.save_pretrained(tmp_path)
    given, _ = parse_cli_args(["--config", str(place.with_suffix(".yaml")), f"tokenizer_path={tmp_path}", "group=2"])
    config = OmegaConf.to_object(to_structured_cfg(given, config_cls=example.Config))
    assert areal.problems(config, group=config.group) == []
    train, evaluate = example.arguments(config)
    engine: Any = object.__new__(RemoteInfEngine)
    engine.logger = logging.getLogger("x")
    for arguments, size in ((train, config.gconfig.n_samples), (evaluate, config.eval_gconfig.n_samples)):
        made = engine._resolve_workflow("agentgym.training.areal.Workflow", {**arguments, "renderer": "chatml"}, size)
        assert type(made) is areal.Workflow
        got = run(made, Engine(model))
        assert check_trajectory_format(got, batch_size=arguments.get("group", 1), expected_keys=KEYS)
