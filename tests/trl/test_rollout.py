# SPDX-License-Identifier: Apache-2.0
"""Whole episodes as TRL's ``rollout_func``: which rows come back, what is masked and paid, and when training is refused."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from trl import GRPOConfig, GRPOTrainer

from agentgym.env import Task, ToolEnv, tool
from agentgym.episode import Limits
from agentgym.errors import InfrastructureError
from agentgym.policies.token_player import Generated, TokenPlayer
from agentgym.protocols import EpisodeContext, PolicyBase, Sampling
from agentgym.registry import register_task
from agentgym.scoring import VerifierContext, verifier
from agentgym.tokens import renderer_for
from agentgym.tokens.hf import HFTokenizer
from agentgym.training import trl
from agentgym.training.shared import shared_logprobs
from agentgym.trajectory import Trajectory

GROUP = 4


class Scripted(PolicyBase):
    """Says what a script says, with the log-probabilities that the model gives it: a random model never calls a tool."""

    name = "scripted"
    logprob_kind = "raw"

    def __init__(self, model: Any, tokenizer: Any, say: Callable[[str, int], str], wrong: float = 0.0) -> None:
        self.model, self.tokenizer, self.say, self.wrong = model, tokenizer, say, wrong
        self.renderer = renderer_for(tokenizer)
        self.trials: dict[object, int] = {}

    def begin(self, context: EpisodeContext) -> TokenPlayer:
        player = TokenPlayer(self.name, self.renderer, self)
        self.trials[player] = context.trial
        return player

    async def generate(self, key: object, prompt_ids: Sequence[int], stop_ids: frozenset[int], sampling: Sampling) -> Generated:
        said = self.say(self.tokenizer.decode(prompt_ids), self.trials[key])
        output = [*HFTokenizer(self.tokenizer).encode_ordinary(said), self.renderer.stop_ids[0]]
        cut = output[: sampling.max_tokens]
        ids = torch.tensor([[*prompt_ids, *cut]])
        was = self.model.training
        self.model.eval()
        with torch.no_grad():
            told = torch.log_softmax(self.model(input_ids=ids).logits[0, len(prompt_ids) - 1 : -1], -1)
        self.model.train(was)
        logprobs = (told.gather(1, ids[0, len(prompt_ids) :, None])[:, 0] + self.wrong).tolist()
        return Generated(cut, logprobs, "stop" if cut == output else "length")

    async def forget(self, key: object) -> None:
        self.trials.pop(key, None)


def trainer(model: Any, tokenizer: Any, folder: Path, kit: dict[str, Any], **options: Any) -> GRPOTrainer:
    settings = {"gradient_checkpointing": False, "per_device_train_batch_size": GROUP, **options}
    config = GRPOConfig(
        output_dir=str(folder), num_generations=GROUP, max_completion_length=400, max_steps=1, logging_steps=1, report_to=[],
        use_cpu=True, save_strategy="no", learning_rate=1e-3, beta=0.0, bf16=False, disable_tqdm=True, shuffle_dataset=False,
        **settings,
    )  # fmt: skip
    return GRPOTrainer(model=model, args=config, processing_class=tokenizer, **kit)


def kept(made: GRPOTrainer) -> list[dict[str, Any]]:
    """What TRL makes of each batch."""
    batches: list[dict[str, Any]] = []
    original = made._generate_and_score_completions

    def keep(inputs: Any) -> Any:
        out = original(inputs)
        batches.append({k: v.detach().clone() if torch.is_tensor(v) else v for k, v in out.items()})
        return out

    made._generate_and_score_completions = keep
    return batches


def calling(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def honest(prompt: str, trial: int) -> str:
    """Reads every key that is asked for, then submits the sum; the fourth of a group gives up."""
    wanted = re.findall(r"k\d", prompt.rpartition("sum of")[2].partition("?")[0])
    told = re.findall(r"<tool_response>\s*(\d+)\s*</tool_response>", prompt)
    if trial == 3 and not told:
        return "I give up."
    return (
        calling("get", key=wanted[len(told)]) if len(told) < len(wanted) else calling("submit", answer=str(sum(map(int, told))))
    )


def lookup(policy: Any, **options: Any) -> dict[str, Any]:
    return trl.kit("tools.lookup", tasks=4, how="rollout_func", policy=policy, **options)


def test_a_multi_turn_tool_task_is_masked_rightly_with_log_probs_of_the_trainer_and_tool_tokens_move_nothing(
    model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    episodes: list[Any] = []
    made = trainer(model, tokenizer, tmp_path, lookup(Scripted(model, tokenizer, honest), on_episode=episodes.append))
    rows = [dict(made.train_dataset[0]) for _ in range(GROUP)]
    made.model.train()
    batch = made._generate_and_score_completions(rows)
    assert [e.reward for e in episodes] == [1.0, 1.0, 1.0, 0.0]
    # the masks are right: decoded, what is trained on is what the model said, and all that it said
    ids, mask = batch["completion_ids"], batch["tool_mask"] * batch["completion_mask"]
    for row in range(3):
        said = [t for t, m in zip(ids[row].tolist(), mask[row].tolist(), strict=True) if m]
        turns = episodes[row].trajectory.turns
        assert tokenizer.decode(said).count("<tool_call>") == len(turns) == 3
        assert said == [int(t) for tokens in episodes[row].trajectory.tokens for t in tokens.output_ids]
        left = [t for t, m, c in zip(ids[row], mask[row], batch["completion_mask"][row], strict=True) if c and not m]
        assert tokenizer.decode(left).count("<tool_response>") == 2
        assert "<tool_call>" not in tokenizer.decode(left)
    # log-probabilities as sampled and as the trainer computes them are the same
    both = torch.cat([batch["prompt_ids"], ids], 1), torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    told, _, _ = made._get_per_token_logps_and_entropies(made.model, *both, ids.size(1))
    assert float(((told.detach() - batch["sampling_per_token_logps"]) * mask).abs().max()) <= 1e-4
    # and the gradient does not know the tool tokens
    made.current_gradient_accumulation_steps = 1

    def gradient(tool_mask: torch.Tensor) -> float:
        made.model.zero_grad()
        made.compute_loss(made.model, {**batch, "tool_mask": tool_mask, "num_items_in_batch": torch.tensor(1)}).backward()
        return max(float(p.grad.abs().max()) for p in made.model.parameters() if p.grad is not None)

    answered = (1 - batch["tool_mask"]) * batch["completion_mask"]
    assert gradient(batch["tool_mask"] * answered) == 0.0
    assert gradient(answered) > 0.0, (batch["advantages"], answered.sum())


def test_pitfall_05_gradient_checkpointing_and_training_mode_do_not_change_what_is_sampled(
    model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    kit = trl.kit("tools.lookup", tasks=4, how="rollout_func", sampling=Sampling(temperature=1.0, max_tokens=12))
    made = trainer(model, tokenizer, tmp_path, kit, gradient_checkpointing=True)
    made.train()
    assert 0 < kit["rollout_func"].largest_error <= 1e-4


def test_pitfall_05_training_is_refused_where_log_probs_are_not_those_of_the_model(
    model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    made = trainer(model, tokenizer, tmp_path, lookup(Scripted(model, tokenizer, honest, wrong=0.02)))
    with pytest.raises(InfrastructureError, match="not of the same model"):
        made.train()


class _Bare:
    """As much of a trainer as a rollout needs."""

    class State:
        global_step = 3

    state = State()

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.processing_class, self.accelerator = model, tokenizer, self

    def unwrap_model(self, model: Any) -> Any:
        return model


def test_pitfall_18_one_row_comes_back_for_each_prompt_in_order_and_prompts_are_repeated_already(
    model: Any, tokenizer: Any
) -> None:
    kit = lookup(Scripted(model, tokenizer, honest))
    first, second = kit["train_dataset"][0]["prompt"], kit["train_dataset"][1]["prompt"]
    prompts = [second] * 4 + [first] * 2 + [second]
    out = kit["rollout_func"](prompts, _Bare(model, tokenizer))
    assert {len(column) for column in out.values()} == {len(prompts)}
    asked = [tokenizer.decode(ids) for ids in out["prompt_ids"]]
    for text, prompt in zip(asked, prompts, strict=True):
        assert prompt[-1]["content"] in text
        assert "task" not in text.replace(prompt[-1]["content"], "")[-40:], "the name of the task is no part of the prompt"
    assert out["paid"] == [1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0], "the fifth of a group is the first of nobody's else"


def test_pitfall_10_what_a_limit_cut_says_so_and_can_be_left_out_of_the_loss(model: Any, tokenizer: Any) -> None:
    cut = Sampling(max_tokens=5)
    for overlong, expected in (("keep", True), ("mask", False)):
        kit = lookup(Scripted(model, tokenizer, lambda p, t: "long " * 20), sampling=cut, overlong=overlong, parity=False)
        out = kit["rollout_func"]([kit["train_dataset"][0]["prompt"]], _Bare(model, tokenizer))
        assert out["truncated"] == [True]
        assert any(out["env_mask"][0]) is expected
        assert len(out["completion_ids"][0]) == 5
        assert out["paid"] == [0.0], "that it came to nothing is the policy's own doing"


@verifier
def fine(trajectory: Trajectory, context: VerifierContext) -> float:
    return 1.0


@register_task
class Seen(ToolEnv):
    """Two tools, one of which fails for want of a server when it is told to."""

    family = "test.seen"
    gold = (fine,)
    down = False

    def new_task(self, rng: Any) -> Task:
        return Task(opening="Look.")

    @tool
    def look(self, at: str) -> str:
        """Looks.

        Args:
            at: what.
        """
        if Seen.down and at == "server":
            raise InfrastructureError("the server is down")
        return f"saw {at}"


def test_pitfall_09_an_episode_that_nobody_can_score_is_paid_nothing_at_all_and_has_no_token_in_the_loss(
    model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    Seen.down = True
    try:
        say = Scripted(model, tokenizer, lambda p, t: "ok" if "saw" in p else calling("look", at="server" if t == 1 else "sea"))
        kit = trl.kit("test.seen", tasks=1, how="rollout_func", policy=say)
        made = trainer(model, tokenizer, tmp_path, kit)
        batches = kept(made)
        made.train()
    finally:
        Seen.down = False
    assert (kit["rollout_func"].spoiled, kit["rollout_func"].shrunk, kit["rollout_func"].idle) == (1, 1, 0)
    assert not (batches[0]["tool_mask"] * batches[0]["completion_mask"])[1].any()
    assert [log["reward"] for log in made.state.log_history if "reward" in log] == [1.0], "the mean of three, not of four"
    assert batches[0]["advantages"].tolist() == [0.0] * GROUP


def test_an_episode_in_which_the_policy_never_spoke_is_idle_and_no_infrastructure_failed(model: Any, tokenizer: Any) -> None:
    class Slow(Scripted):
        async def generate(self, *_: Any) -> Generated:
            await asyncio.Event().wait()
            raise AssertionError

    kit = lookup(Slow(model, tokenizer, honest), limits=Limits(seconds=0.01))
    out = kit["rollout_func"]([kit["train_dataset"][0]["prompt"]] * 2, _Bare(model, tokenizer))
    assert out["paid"] == [None, None]
    assert (kit["rollout_func"].idle, kit["rollout_func"].spoiled, kit["rollout_func"].shrunk) == (2, 0, 1)


def test_pitfall_15_parallel_calls_are_answered_in_their_order(model: Any, tokenizer: Any) -> None:
    say = "\n".join(calling("look", at=what) for what in ("c", "a", "b"))
    kit = trl.kit(
        "test.seen", tasks=1, how="rollout_func", policy=Scripted(model, tokenizer, lambda p, t: "ok" if "saw" in p else say)
    )
    out = kit["rollout_func"]([kit["train_dataset"][0]["prompt"]], _Bare(model, tokenizer))
    text = tokenizer.decode(out["completion_ids"][0])
    assert re.findall(r"saw (\w)", text) == ["c", "a", "b"]


def test_prompts_of_a_group_computed_once_give_the_same_log_probs_and_gradients(model: Any) -> None:
    torch.manual_seed(1)
    ids, keep = torch.randint(5, 200, (6, 17)), 5
    there = torch.ones_like(ids)
    ids[1, :12] = ids[4, :12] = ids[0, :12]
    there[2:4, :3], ids[3, :12] = 0, ids[2, :12]
    there[1, 15:] = there[4, 13:] = 0
    weight = torch.randn(6, keep)
    place = (there.cumsum(1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=there, position_ids=place).logits[:, :-1]
    plain = torch.log_softmax(logits, -1).gather(-1, ids[:, 1:, None])[..., 0][:, -keep:] * there[:, -keep:]
    (plain * weight).sum().backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    shared, _ = shared_logprobs(model, ids, there, keep)
    (shared * weight).sum().backward()
    assert float((plain - shared).abs().max()) < 1e-5
    for e, p in zip(expected, model.parameters(), strict=True):
        assert torch.allclose(e, p.grad, atol=1e-5)
