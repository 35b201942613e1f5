# SPDX-License-Identifier: Apache-2.0
"""Exported rows as TRL's own trainers take them: each format trains its trainer for a step."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from agentgym.cli.main import main
from agentgym.records.run import Run
from agentgym.training import export

PLAYERS = """
from agentgym import PolicyBase
from agentgym.policies.oracle import OraclePolicy

class Half(PolicyBase):
    name = "half"
    privileged = True

    def begin(self, context):
        return OraclePolicy("honest" if context.trial % 2 else "lazy").begin(context)
"""

COMMON = {
    "per_device_train_batch_size": 2, "max_steps": 1, "logging_steps": 1, "report_to": [], "use_cpu": True,
    "save_strategy": "no", "bf16": False, "disable_tqdm": True, "gradient_checkpointing": False, "learning_rate": 1e-3,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `tools.lookup`, 2 tasks and 2 trials each, of which one is done and one is not."""
    folder = tmp_path_factory.mktemp("half")
    (folder / "players.py").write_text(PLAYERS)
    command = ["eval", "tools.lookup", "--limit", "2", "--trials", "2", "-m", f"{folder}/players.py:Half"]
    assert main([*command, "--runs", str(folder / "runs"), "-q"]) == 0
    return next((folder / "runs").iterdir())


def dataset(run: Path, form: str, **wishes: Any) -> Any:
    with Run(run) as opened:
        return export.to_dataset(list(export.FORMATS[form](export.choose(opened), **wishes)))


def trained(trainer: Any) -> dict[str, float]:
    """The first step's log; the weights have moved."""
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.train()
    moved = [not torch.equal(a, b.detach()) for a, b in zip(before, trainer.model.parameters(), strict=True)]
    assert any(moved)
    log = next(entry for entry in trainer.state.log_history if "loss" in entry)
    assert torch.isfinite(torch.tensor(log["loss"]))
    return log


def test_sft(model: Any, tokenizer: Any, run: Path, tmp_path: Path) -> None:
    from trl import SFTConfig, SFTTrainer

    config = SFTConfig(output_dir=str(tmp_path), assistant_only_loss=True, max_length=2048, **COMMON)
    rows = dataset(run, "sft", at_least=1.0)
    made = SFTTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer)
    batch = next(iter(made.get_train_dataloader()))
    learnt = tokenizer.decode(batch["input_ids"][0][batch["labels"][0] != -100])
    assert learnt.count("<tool_call>") == 3, "what the policy said"
    assert "<tool_response>" not in learnt, "and not what it was told"
    assert "What is the sum" not in learnt
    trained(made)


def test_dpo(model: Any, tokenizer: Any, run: Path, tmp_path: Path) -> None:
    from trl import DPOConfig, DPOTrainer

    config = DPOConfig(output_dir=str(tmp_path), max_length=2048, **COMMON)
    rows = dataset(run, "dpo")
    assert len(rows) == 2
    made = DPOTrainer(model, ref_model=copy.deepcopy(model), args=config, train_dataset=rows, processing_class=tokenizer)
    log = trained(made)
    assert log["loss"] == pytest.approx(0.6931, abs=1e-3), "log 2: before the first step the policy is the reference"


def test_kto(model: Any, tokenizer: Any, run: Path, tmp_path: Path) -> None:
    from trl import KTOConfig, KTOTrainer

    config = KTOConfig(output_dir=str(tmp_path), max_length=2048, **COMMON)
    rows = dataset(run, "kto")
    assert sorted(rows["label"]) == [False] * 2 + [True] * 6
    trained(KTOTrainer(model, ref_model=copy.deepcopy(model), args=config, train_dataset=rows, processing_class=tokenizer))


def test_reward_model(tokenizer: Any, run: Path, tmp_path: Path) -> None:
    from transformers import Qwen3Config, Qwen3ForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    torch.manual_seed(0)
    shape = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=4096, num_labels=1, pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    config = RewardConfig(output_dir=str(tmp_path), max_length=2048, **COMMON)
    rows = dataset(run, "rm")
    assert rows["margin"][:] == [1.0, 1.0]
    made = RewardTrainer(
        model=Qwen3ForSequenceClassification(shape), args=config, train_dataset=rows, processing_class=tokenizer
    )
    trained(made)


def test_rows_of_steps_are_stepwise_supervision_as_trl_documents_it(run: Path) -> None:
    # TRL 1.16 has no trainer for them any more; the format is that of its page "Dataset formats"
    rows = dataset(run, "steps")
    for row in rows:
        assert isinstance(row["prompt"], str)
        assert len(row["completions"]) == len(row["labels"]) == len(row["values"])
        assert all(isinstance(text, str) for text in row["completions"])


def test_a_curriculum_feeds_the_trainer_and_hears_from_it(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    from trl import GRPOConfig, GRPOTrainer

    from agentgym.training import Curriculum, trl

    arms = ["tools.lookup:level=1", "tools.lookup:level=2"]
    mix = Curriculum(arms, seed=1)
    kit = trl.kit(arms, tasks=4)
    kit["train_dataset"] = mix.over(kit["train_dataset"])
    heard: list[str] = []

    def sampled(prompts: list[list[int]], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        heard.extend(tokenizer.decode(ids) for ids in prompts)
        return [[*tokenizer.encode("I give up.", add_special_tokens=False), tokenizer.eos_token_id] for _ in prompts], None

    config = GRPOConfig(
        output_dir=str(tmp_path), num_generations=2, max_completion_length=64, beta=0.0,
        **(COMMON | {"max_steps": 6}), accelerator_config={"dispatch_batches": False},
    )  # fmt: skip
    made = GRPOTrainer(model=model, args=config, processing_class=tokenizer, **kit)
    made._generate_single_turn = sampled
    made.train()
    assert len(heard) == 12
    assert all(heard[i] == heard[i + 1] for i in range(0, 12, 2)), "a group is of one task"
    assert len(set(heard)) > 1
