# SPDX-License-Identifier: Apache-2.0
"""GRPO with AReaL on any environment of agentgym.

    python examples/areal/grpo.py --config examples/areal/grpo.yaml scheduler.type=local
    python examples/areal/grpo.py --config examples/areal/grpo.yaml scheduler.type=local family=math.chain:level=2 group=16

The workflow plays all episodes of a task itself and hands AReaL advantages, so that the baseline is exact however many rows an
episode makes. Evaluation plays each held-out task once and logs what it was paid.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from areal.api.cli_args import GRPOConfig, load_expr_config

from agentgym.episode import EpisodeResult
from agentgym.training import areal


@dataclass
class Config(GRPOConfig):
    """AReaL's configuration, and what is trained on."""

    family: str = field(default="tools.lookup", metadata={"help": "an environment, with parameters: tools.lookup:level=2"})
    group: int = field(default=8, metadata={"help": "episodes of one task that are compared"})
    tasks: int = field(default=2048, metadata={"help": "tasks to train on"})
    held_out: int = field(default=128, metadata={"help": "tasks to evaluate on, none of them trained on"})


def watch(result: EpisodeResult) -> None:
    """Sees every episode, scored: what AReaL's log of rewards cannot show."""
    broken = [f.rule for f in result.findings if f.violation]
    if broken:
        print(f"{result.trajectory.task_id}: paid {result.reward}, wanted {result.gold}, broke {', '.join(broken)}")


def arguments(config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the workflow is made with: to train, and to evaluate."""
    common = {"tokenizer": config.tokenizer_path, "on_episode": f"{Path(__file__).resolve()}:watch"}
    train = {**common, "gconfig": config.gconfig, "group": config.group}
    return train, {**common, "gconfig": config.eval_gconfig}


def main(argv: list[str]) -> None:
    config, _ = load_expr_config(argv, Config)
    wrong = areal.problems(config, group=config.group)
    if wrong:
        sys.exit("\n".join(wrong))
    for lost in areal.losses(config.family):
        print(f"under AReaL: {lost}")
    train_on = areal.dataset(config.family, split="train", tasks=config.tasks)
    held_out = areal.dataset(config.family, split="eval", tasks=config.held_out)
    train, evaluate = arguments(config)
    from areal import PPOTrainer

    with PPOTrainer(config, train_dataset=train_on, valid_dataset=held_out) as trainer:
        trainer.train(
            workflow="agentgym.training.areal.Workflow",
            workflow_kwargs=train,
            eval_workflow="agentgym.training.areal.Workflow",
            eval_workflow_kwargs=evaluate,
            # a group in which nobody did better than anybody teaches nothing: another task is played instead
            dynamic_filter_fn="agentgym.training.areal.teaches",
        )


if __name__ == "__main__":
    main(sys.argv[1:])
