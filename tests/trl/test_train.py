# SPDX-License-Identifier: Apache-2.0
"""``agentgym train``: what it keeps, how it goes on after it was stopped, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentgym.cli.main import main
from agentgym.cli.train import under_accelerate
from agentgym.errors import UsageError
from agentgym.records.run import Run
from agentgym.training.run import CURVES, Training, held_out, payment, train


@pytest.fixture
def folder(model: Any, tokenizer: Any, tmp_path: Path) -> Path:
    """Weights and tokenizer as transformers writes them."""
    model.save_pretrained(tmp_path / "weights")
    tokenizer.save_pretrained(tmp_path / "weights")
    return tmp_path / "weights"


@pytest.mark.timeout(300)
def test_a_training_that_is_killed_loses_no_step_that_was_told_and_goes_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    start = [
        sys.executable, "-m", "agentgym", "train", "--runs", str(runs), "--json", "tools.lookup", "--model", f"hf:{folder}",
        "--steps", "40", "--held-out", "2", "--max-tokens", "6",
        "--warm-start", "oracle:honest", "--warm-steps", "2", "--tasks", "2", "--group", "2", "--save-every", "1",
        "--threads", "1",
    ]  # fmt: skip
    with subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = []
        for line in process.stdout:
            told.append(json.loads(line))
            if told[-1].get("step") == 3:
                os.kill(process.pid, signal.SIGKILL)
                break
    assert [t["held_out"] for t in told if "held_out" in t] == ["before", "warm"]
    assert [t["imitation"] for t in told if "imitation" in t] == [1, 2]
    (path,) = [p.parent for p in runs.glob(f"*/{CURVES}")]
    assert len((path / CURVES).read_text().splitlines()) >= 3
    with Run(path) as run:
        episodes = list(run.episodes())
        assert len(episodes) >= 3 * 4, "every rollout of every step that was told"
        assert {t for e in episodes for t in e.tags if t.startswith("step:")} >= {"step:0", "step:1", "step:2"}
        assert episodes[0].trajectory.tokens is not None
    capsys.readouterr()
    # in this process, which has the libraries: to import them costs more than all else here
    assert main(["train", "--runs", str(runs), "--json", "--resume", str(path), "--steps", "4"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    steps = [line["step"] for line in lines if "step" in line]
    assert steps[-1] == 4
    assert steps[0] > 1, "it goes on from a checkpoint"
    assert {"before", "warm", "after"} <= set(lines[-1])
    assert (path / "model" / "model.safetensors").is_file()


@pytest.mark.timeout(300)
def test_ctrl_c_ends_after_the_step_with_a_checkpoint(folder: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    def show(line: dict[str, Any]) -> None:
        seen.append(line["step"])
        if line["step"] == 1:
            os.kill(os.getpid(), signal.SIGINT)

    options = Training(("math.add",), f"hf:{folder}", steps=20, tasks=1, group=2, held_out=0, max_tokens=4, save_every=100)
    opened: list[Path] = []
    with pytest.raises(KeyboardInterrupt):
        train(options, tmp_path / "runs", show=show, opened=opened.append)
    assert seen == [1]
    assert (opened[0] / "checkpoints" / "checkpoint-1" / "trainer_state.json").is_file()
    with Run(opened[0]) as run:
        assert len(list(run.episodes())) == 2


@pytest.mark.parametrize("said", [["--accelerate-config", "a b.yaml"], ["--accelerate-config=a b.yaml"]])
def test_accelerate_is_given_its_configuration_and_the_command_without_it(said: list[str]) -> None:
    from accelerate.commands.launch import launch_command_parser

    words = ["train", "math.add", "-m", "hf:weights", *said, "-T", "level=2", "--steps", "3"]
    python, module, program, *rest = under_accelerate(words, "a b.yaml")
    assert (python, module, program) == (sys.executable, "-m", "accelerate.commands.launch")
    seen = launch_command_parser().parse_args(rest)  # as accelerate itself understands it
    assert (seen.config_file, seen.module, seen.training_script) == ("a b.yaml", True, "agentgym")
    assert seen.training_script_args == ["train", "math.add", "-m", "hf:weights", "-T", "level=2", "--steps", "3"]


def test_several_processes_are_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="num_processes: 1"):
        train(Training(("math.add",), "hf:x"), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_held_out_sums_and_their_commuted_twins_are_in_no_training_row() -> None:
    from agentgym.training import trl

    options = Training(("math.add:level=2",), "hf:x", held_out=200)
    from agentgym import registry

    env = registry.env_class("math.add")(level=2)
    kept_back = {env.split_key(int(i.rpartition("/")[2])) for i in held_out(options)}
    assert len(kept_back) == len(held_out(options)) == 200, "no two of them are the same sum"
    items = trl.distinct(registry.env_class("math.add")(level=2, split="train"), 400)
    assert not kept_back & {env.split_key(int(i)) for i in items}


def test_pay_keeps_format_and_answer_apart_and_controls_do_not_see_the_answer() -> None:
    import asyncio

    from agentgym import assistant
    from agentgym.episode import play
    from agentgym.protocols import Completion, PolicyBase
    from agentgym.registry import env_class

    class Says(PolicyBase):
        def __init__(self, text: str) -> None:
            self.text = text

        async def act(self, *_: Any) -> Completion:
            return Completion(assistant(self.text))

    env = env_class("math.add")()
    task = env.make_task("0")

    def paid(text: str, **options: Any) -> float | None:
        result = asyncio.run(play(env, env.make_task("0"), Says(text)))
        return payment(Training(("math.add",), "hf:x", **options))(result)

    assert paid(task.gold) == 1.0
    assert paid("7777") == paid(f"The answer is {task.gold}.") == 0.15
    assert paid("no idea") == 0.0
    assert paid("7777", control="format") == 1.0
    assert paid(task.gold, control="random") == paid(task.gold, control="random") in (0.0, 1.0)
