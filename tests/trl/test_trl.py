# SPDX-License-Identifier: Apache-2.0
"""TRL's real GRPOTrainer trains on our environments: what it masks, what it pays, and what it leaves out."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from trl import GRPOConfig, GRPOTrainer

from agentgym.env import Task, ToolEnv, tool
from agentgym.errors import InfrastructureError, UsageError
from agentgym.registry import register_task
from agentgym.scoring import VerifierContext, verifier
from agentgym.training import trl
from agentgym.trajectory import Trajectory

GROUP = 4


def trainer(model: Any, tokenizer: Any, folder: Path, kit: dict[str, Any], **options: Any) -> GRPOTrainer:
    config = GRPOConfig(
        output_dir=str(folder), per_device_train_batch_size=GROUP, num_generations=GROUP, max_completion_length=400,
        max_steps=1, logging_steps=1, report_to=[], use_cpu=True, save_strategy="no", learning_rate=1e-3, beta=0.0, bf16=False,
        disable_tqdm=True, shuffle_dataset=False, gradient_checkpointing=False, **options,
    )  # fmt: skip
    return GRPOTrainer(model=model, args=config, processing_class=tokenizer, **kit)


def scripted(made: GRPOTrainer, tokenizer: Any, say: Callable[[str, int], str]) -> list[dict[str, Any]]:
    """Puts a script where the random model would sample; returns what TRL makes of each batch."""

    def sample(prompt_ids: list[list[int]], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        texts = [say(tokenizer.decode(ids), row) for row, ids in enumerate(prompt_ids)]
        return [[*tokenizer.encode(t, add_special_tokens=False), tokenizer.eos_token_id] for t in texts], None

    made._generate_single_turn = sample
    batches: list[dict[str, Any]] = []
    original = made._generate_and_score_completions

    def kept(inputs: Any) -> Any:
        out = original(inputs)
        batches.append({k: v.detach().clone() if torch.is_tensor(v) else v for k, v in out.items()})
        return out

    made._generate_and_score_completions = kept
    return batches


def calling(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def honest(prompt: str, row: int) -> str:
    """Reads every key that is asked for, then submits the sum of what it was told; row 3 gives up."""
    wanted = re.findall(r"k\d", prompt.rpartition("sum of")[2].partition("?")[0])
    told = re.findall(r"<tool_response>\s*(\d+)\s*</tool_response>", prompt)
    if "submitted" in prompt:
        return "done"
    if row == 3 and len(told) == 0:
        return "I give up."
    return (
        calling("get", key=wanted[len(told)]) if len(told) < len(wanted) else calling("submit", answer=str(sum(map(int, told))))
    )


def test_a_multi_turn_tool_task_is_paid_and_masked_as_it_was_played(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    episodes: list[Any] = []
    made = trainer(model, tokenizer, tmp_path, trl.kit("tools.lookup", tasks=4, on_episode=episodes.append))
    batches = scripted(made, tokenizer, honest)
    made.train()
    (batch,) = batches
    assert [e.reward for e in episodes] == [1.0, 1.0, 1.0, 0.0]
    assert [e.gold for e in episodes] == [1.0, 1.0, 1.0, 0.0]
    assert [len(e.trajectory.turns) for e in episodes] == [3, 3, 3, 1]
    advantage = batch["advantages"].tolist()
    assert advantage[0] == advantage[1] == advantage[2] > 0 > advantage[3]
    ids, mask = batch["completion_ids"], batch["tool_mask"] * batch["completion_mask"]
    for row in range(3):
        trained = tokenizer.decode([t for t, m in zip(ids[row].tolist(), mask[row].tolist(), strict=True) if m])
        left = [t for t, m in zip(ids[row].tolist(), mask[row].tolist(), strict=True) if not m]
        masked = tokenizer.decode(left).replace("<|endoftext|>", "")
        assert trained.count("<tool_call>") == 3
        assert "<tool_response>" not in trained
        assert masked.count("<tool_response>") == 3
        assert "<tool_call>" not in masked


def test_what_tools_answer_does_not_move_the_weights(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    made = trainer(model, tokenizer, tmp_path, trl.kit("tools.lookup", tasks=4))
    scripted(made, tokenizer, honest)
    batch = made._generate_and_score_completions([made.train_dataset[0]] * GROUP)
    made.current_gradient_accumulation_steps = 1
    answered = (1 - batch["tool_mask"]) * batch["completion_mask"]
    assert answered.sum() > 0

    def gradient(mask: torch.Tensor) -> float:
        made.model.zero_grad()
        made.compute_loss(made.model, {**batch, "tool_mask": mask, "num_items_in_batch": torch.tensor(1)}).backward()
        return max(float(p.grad.abs().max()) for p in made.model.parameters() if p.grad is not None)

    assert gradient(batch["tool_mask"] * answered) == 0.0, "as TRL is told to train, tool tokens weigh nothing"
    assert gradient(answered) > 0.0, "and they would, were they not masked"


def test_a_task_without_tools_is_scored_by_the_last_message(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    episodes: list[Any] = []
    made = trainer(model, tokenizer, tmp_path, trl.kit("math.add", tasks=4, on_episode=episodes.append))

    def add(prompt: str, row: int) -> str:
        a, b = re.findall(r"Calculate (\d+) \+ (\d+)", prompt)[-1]
        return str(int(a) + int(b) + (row == 1))

    scripted(made, tokenizer, add)
    made.train()
    assert [e.reward for e in episodes] == [1.0, 0.0, 1.0, 1.0]


@verifier
def touched(trajectory: Trajectory, context: VerifierContext) -> float:
    return float(any(t.message.tool_calls for t in trajectory.turns))


@register_task
class Flaky(ToolEnv):
    """A tool whose server fails for one in four, and one that changes what it is given."""

    family = "test.flaky"
    gold = (touched,)
    asked = 0

    def new_task(self, rng: Any) -> Task:
        return Task(opening="Touch it.")

    @tool
    def touch(self, words: list[str]) -> str:
        """Touches.

        Args:
            words: any.
        """
        Flaky.asked += 1
        if Flaky.asked == 2:
            raise InfrastructureError("the server is down")
        words.append("seen")
        return " ".join(words)


def test_an_episode_that_failed_for_want_of_a_server_is_left_out_of_its_group(
    model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    made = trainer(model, tokenizer, tmp_path, trl.kit("test.flaky", tasks=1))
    batches = scripted(
        made, tokenizer, lambda p, r: "ok" if "<tool_response>" in p else calling("touch", words=["a"]) if r < 3 else "no"
    )
    Flaky.asked = 0
    made.train()
    rewards = [log["reward"] for log in made.state.log_history if "reward" in log]
    assert rewards == [pytest.approx(2 / 3)], "two of three; the fourth says nothing"
    advantage = batches[0]["advantages"].tolist()
    assert advantage[1] == 0.0
    assert advantage[0] == advantage[2] > 0 > advantage[3]


def test_seats_are_reused_and_nothing_of_one_episode_reaches_the_next() -> None:
    made = trl.kit("tools.lookup", tasks=4)
    seat = made["environment_factory"]()
    first, second = made["train_dataset"][0], made["train_dataset"][1]
    seat.reset(**first)
    assert seat.submit(answer="1") == "submitted"
    assert "not run" in seat.get(key="k1")
    seat.reset(**second)
    assert seat.get(key="k1").isdigit()
    result = seat._finish([{"role": "assistant", "content": "7"}])
    assert result is not None
    assert result.trajectory.task_id.endswith(f"/{second['task']}")
    assert len(result.trajectory.turns) == 2


def test_a_wrong_argument_is_answered_by_the_environment_in_words_for_the_agent() -> None:
    made = trl.kit("tools.lookup", tasks=1)
    seat = made["environment_factory"]()
    seat.reset(**made["train_dataset"][0])
    assert seat.get(kye="k1").startswith("error: get")
    assert "error" in seat.get(key=3)


def test_rows_name_tasks_of_the_split_and_hold_no_answer() -> None:
    made = trl.kit("tools.lookup", tasks=20)
    held_out = {row["task"] for row in trl.kit("tools.lookup", split="eval", tasks=20)["train_dataset"]}
    assert not held_out & {row["task"] for row in made["train_dataset"]}
    assert set(made["train_dataset"].column_names) == {"prompt", "environment", "task"}


def test_several_families_are_mixed_by_name() -> None:
    made = trl.kit(["tools.lookup:level=2", "tools.retail"], tasks=3)
    assert set(made["environment_factory"]) == {"tools.lookup:level=2", "tools.retail"}
    assert made["train_dataset"]["environment"][:] == ["tools.lookup:level=2"] * 3 + ["tools.retail"] * 3


def test_what_trl_cannot_play_is_refused_and_what_it_drops_is_said() -> None:
    with pytest.raises(UsageError, match="no turns of a user"):
        trl.kit("tests.envs:Guess")
    with pytest.raises(UsageError, match="cannot mix"):
        trl.kit(["tools.lookup", "math.add"])
    assert any("iterations" in s for s in trl.losses("tools.lookup"))


def test_rewards_are_plain_floats() -> None:
    made = trl.kit("tools.lookup", tasks=1)
    seat = made["environment_factory"]()
    seat.reset(**made["train_dataset"][0])
    (reward,) = made["reward_funcs"][0](completions=[[{"role": "assistant", "content": ""}]], environments=[seat])
    assert type(reward) is float
    assert not math.isnan(reward)
