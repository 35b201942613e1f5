# SPDX-License-Identifier: Apache-2.0
"""verl's own instantiation, output class and postprocessing take what our agent loop hands over."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
import verl.experimental.agent_loop.agent_loop as loops
from omegaconf import OmegaConf
from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.workers.rollout.replica import TokenOutput

from agentgym.env import Task, ToolEnv, tool
from agentgym.errors import InfrastructureError
from agentgym.registry import register_task
from agentgym.scoring import VerifierContext, verifier
from agentgym.training import verl
from agentgym.training.engine import PromptTooLong
from agentgym.trajectory import Trajectory
from tests.token_engine import Bytes, calling, hf_tokenizer, ids_of, renderer, solves

PROMPT, RESPONSE = 1500, 1200


def made_renderer() -> Any:
    """What the file of agent loops would name."""
    return renderer()


class Servers:
    """What verl's client of its servers does, scripted; aborted once a turn where ``abort_after`` is given."""

    def __init__(self, say: Any = solves, abort_after: int | None = None) -> None:
        self.say, self.abort_after = say, abort_after
        self.asked: list[tuple[list[int], dict[str, Any]]] = []
        self.rest: list[int] | None = None
        self.step = 5

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any], **_: Any
    ) -> TokenOutput:
        self.asked.append((prompt_ids, dict(sampling_params)))
        ids, stop = self.rest or ids_of(self.say(Bytes().decode(prompt_ids), 0)), "completed"
        self.rest = None
        if self.abort_after and self.asked[-1][1]["max_tokens"] > len(ids) > self.abort_after and len(self.asked) % 2:
            ids, self.rest, stop = ids[: self.abort_after], ids[self.abort_after :], "aborted"
        ids = ids[: sampling_params["max_tokens"]]
        step = self.step
        self.step += stop == "aborted"
        told = [-0.25] * len(ids) if sampling_params.get("logprobs") else None
        steps = {"global_steps": step, "min_global_steps": step, "max_global_steps": step}
        return TokenOutput(token_ids=ids, log_probs=told, stop_reason=stop, extra_fields=steps)


def worker(servers: Any, prompt: int = PROMPT, response: int = RESPONSE, **options: Any) -> AgentLoopWorker:
    """A worker as verl's own tests on a CPU make it, with our loop found by the file of agent loops."""
    rollout = {"prompt_length": prompt, "response_length": response, "multi_turn": {"tool_config_path": None}}
    config = OmegaConf.create(
        {
            "actor_rollout_ref": {"rollout": rollout, "model": {"path": "none"}},
            "data": {"tool_config_path": None, "apply_chat_template_kwargs": {}},
        }
    )
    made: Any = object.__new__(AgentLoopWorker)
    made.config, made.rollout_config, made.llm_client = config, config.actor_rollout_ref.rollout, servers
    made.tokenizer, made.processor, made.hf_model_type, made.dataset_cls, made.tools = (
        hf_tokenizer(),
        None,
        None,
        RLHFDataset,
        [],
    )
    made.distillation_enabled, made.reward_loop_worker_handles, made.mm_processor_kwargs = False, None, {}
    entry = {"name": "agentgym", "_target_": "agentgym.training.verl.AgentGymLoop", "max_new_tokens": 120}
    entry["renderer"] = {"_target_": f"{__name__}.made_renderer"}
    loops._agent_loop_registry["agentgym"] = OmegaConf.create({**entry, **options})
    return made  # type: ignore[no-any-return]


def batch(made: Any, tasks: list[str], *, logprobs: bool = True) -> Any:
    async def play() -> list[Any]:
        jobs = []
        for index, task in enumerate(tasks):
            trajectory = {"step": 0, "sample_index": index, "rollout_n": 0, "validate": False}
            row = {"raw_prompt": [], "extra_info": {"task_id": task, "index": index}, "index": index}
            params = {"temperature": 1.0, "top_p": 1.0, "logprobs": logprobs}
            jobs.append(made._run_agent_loop(params, trajectory, agent_name="agentgym", trace=False, **row))
        return [await job for job in jobs]

    done = asyncio.run(play())
    names = np.array(["agentgym"] * len(tasks), dtype=object)
    return AgentLoopWorker._postprocess(made, done, {"agent_name": names})


LOOKUP = [f"tools.lookup/control/{seed}" for seed in (0, 1)]


def test_a_batch_of_ours_passes_verls_own_postprocessing_and_holds_what_was_sampled() -> None:
    got = batch(worker(Servers()), LOOKUP)
    b = got.batch
    assert b["prompts"].shape == (2, PROMPT)
    assert (
        b["responses"].shape
        == b["response_mask"].shape
        == b["rollout_log_probs"].shape
        == b["rm_scores"].shape
        == (2, RESPONSE)
    )
    for ids, mask, logprobs, scores, held in zip(
        b["responses"], b["response_mask"], b["rollout_log_probs"], b["rm_scores"], b["attention_mask"][:, PROMPT:], strict=True
    ):
        said = Bytes().decode(ids[mask.bool()].tolist())
        assert said.count("<tool_call>") == 3
        assert "<tool_response>" not in said
        assert torch.equal(logprobs != 0, mask.bool())
        last = int(held.sum()) - 1
        assert mask[last] == 1, "verl pays the last token, which must be one that is trained on"
        assert (scores[last], float(scores.sum())) == (1.0, 1.0)
    extra = got.non_tensor_batch
    assert extra["turn_scores"].tolist() == [[0.0, 0.0, 1.0]] * 2
    assert extra["__num_turns__"].tolist() == [7, 7], "a question, three calls, an answer to each"
    assert extra["min_global_steps"].tolist() == [5, 5]


def test_a_trainer_that_computes_log_probabilities_itself_gets_none_and_the_same_mask() -> None:
    told, untold = batch(worker(Servers()), LOOKUP), batch(worker(Servers()), LOOKUP, logprobs=False)
    assert "rollout_log_probs" not in untold.batch
    assert torch.equal(told.batch["response_mask"], untold.batch["response_mask"])


def test_pitfall_17_an_aborted_turn_goes_on_and_the_span_of_steps_is_told() -> None:
    servers = Servers(abort_after=9)
    got = batch(worker(servers), LOOKUP[:1])
    whole = batch(worker(Servers()), LOOKUP[:1])
    assert torch.equal(got.batch["responses"], whole.batch["responses"])
    assert len(servers.asked) == 6
    assert servers.asked[1][0] == servers.asked[0][0] + got.batch["responses"][0][:9].tolist()
    assert (got.non_tensor_batch["min_global_steps"][0], got.non_tensor_batch["max_global_steps"][0]) == (5, 8)


def test_pitfall_11_a_prompt_that_verl_would_cut_from_the_left_raises_before_the_servers_are_asked() -> None:
    servers = Servers()
    with pytest.raises(PromptTooLong, match="lose its system message"):
        batch(worker(servers, prompt=100), LOOKUP)
    assert servers.asked == []


def test_pitfall_10_what_does_not_fit_the_response_truncates_the_episode_and_is_told() -> None:
    whole = batch(worker(Servers()), LOOKUP[:1])
    used = int(whole.batch["attention_mask"][0, PROMPT:].sum())
    servers = Servers()
    got = batch(worker(servers, response=used - 100), LOOKUP[:1])
    assert got.non_tensor_batch["truncated"].tolist() == [True]
    assert whole.non_tensor_batch["truncated"].tolist() == [False]
    last = int(got.batch["attention_mask"][0, PROMPT:].sum()) - 1
    assert last < used - 100
    assert got.batch["response_mask"][0, last] == 1
    cut = batch(worker(Servers(lambda p, m: "a" * 500), max_new_tokens=30), LOOKUP[:1])
    assert cut.non_tensor_batch["truncated"].tolist() == [True]


@verifier
def touched(trajectory: Trajectory, context: VerifierContext) -> float:
    return float(any(t.message.tool_calls for t in trajectory.turns))


@register_task
class Chatty(ToolEnv):
    family = "test.verl"
    gold = (touched,)
    max_turns = 4

    def new_task(self, rng: Any) -> Task:
        return Task(opening="Touch it.", hidden={"seen": []})

    @tool
    def touch(self, amount: float) -> str:
        """Touches.

        Args:
            amount: what it is worth.
        """
        if amount < 0:
            raise InfrastructureError("the server is down", retryable=False)
        self.pay(amount)
        self.task.hidden["seen"].append(amount)
        if not amount:
            self.end()
        return f"touched {len(self.task.hidden['seen'])} times"


def test_pitfall_19_and_08_turns_keep_their_rewards_and_every_episode_its_own_task() -> None:
    def say(prompt: str, member: int) -> str:
        return calling("touch", amount=(0.25, 2.0, 0.0)[prompt.count("touched")])

    got = batch(worker(Servers(say)), ["test.verl/control/0"] * 2)
    assert got.non_tensor_batch["turn_scores"].tolist() == [[0.25, 2.0, 1.0]] * 2
    assert got.batch["rm_scores"].sum(1).tolist() == [3.25, 3.25]


class Paying(gymnasium.Wrapper[Any, Any, Any, Any]):
    reward: Any = 1

    def step(self, action: Any) -> Any:
        new, _, terminated, truncated, info = self.env.step(action)
        return new, self.reward, terminated, truncated, info


class PayingNaN(Paying):
    reward = math.nan


def test_pitfall_16_and_09_only_finite_floats_are_rewards_and_what_has_none_is_never_a_zero() -> None:
    got = batch(worker(Servers(), wrap="tests.verl.test_verl:Paying"), LOOKUP[:1])
    assert float(got.batch["rm_scores"].sum()) == 3.0
    with pytest.raises(InfrastructureError, match="its reward is nan"):
        batch(worker(Servers(), wrap="tests.verl.test_verl:PayingNaN"), LOOKUP[:1])
    with pytest.raises(InfrastructureError, match="the server is down"):
        batch(worker(Servers(lambda p, m: calling("touch", amount=-1.0))), ["test.verl/control/0"])


def test_the_loop_is_registered_by_name_and_the_data_set_asks_for_it() -> None:
    loops._agent_loop_registry.pop("agentgym", None)
    vars(verl).pop("AgentGymLoop", None)
    assert verl.AgentGymLoop.__name__ == "AgentGymLoop"
    assert loops._agent_loop_registry["agentgym"] == {"_target_": "agentgym.training.verl.AgentGymLoop"}
    rows = verl.dataset("tools.lookup", tasks=2)
    assert set(rows.column_names) == {"data_source", "agent_name", "prompt", "reward_model", "extra_info"}
    assert rows[1]["extra_info"] == {"index": 1, "task_id": rows[1]["extra_info"]["task_id"]}
    assert any("turn_scores" in s for s in verl.losses("tools.lookup"))
