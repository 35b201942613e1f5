# SPDX-License-Identifier: Apache-2.0
"""TRL's AsyncGRPOTrainer with our worker: which rows it gets, under which version, how far ahead; how it hears of failure."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from trl.experimental.async_grpo import AsyncGRPOConfig, AsyncGRPOTrainer, async_grpo_trainer, packing

from agentgym.errors import InfrastructureError, UsageError
from agentgym.policies.hf_model import HFPolicy
from agentgym.policies.token_player import Generated
from agentgym.protocols import Sampling
from agentgym.training.trl_async import Worker, kit
from tests.trl.test_rollout import Scripted, honest

GROUP = 4


class Plain:
    """The attention kernel that TRL takes from a hub for GPUs, written out: each segment sees the path that leads to it."""

    @staticmethod
    def flash_attn_varlen_func(
        q: Any, k: Any, v: Any, starts_q: Any, starts_k: Any, *_: Any, softmax_scale: float, **__: Any
    ) -> torch.Tensor:
        heads = q.size(1) // k.size(1)
        out = []
        for i in range(len(starts_q) - 1):
            query = q[starts_q[i] : starts_q[i + 1]].transpose(0, 1)
            key, value = (x[starts_k[i] : starts_k[i + 1]].transpose(0, 1).repeat_interleave(heads, 0) for x in (k, v))
            n, m = query.size(1), key.size(1)
            seen = torch.ones(n, m, dtype=torch.bool).tril(m - n)
            out.append(torch.nn.functional.scaled_dot_product_attention(query, key, value, seen, scale=softmax_scale))
        return torch.cat(out, 1).transpose(0, 1)


@pytest.fixture
def folder(model: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(packing, "_flash_attn", lambda: Plain)
    monkeypatch.setattr(async_grpo_trainer, "get_peak_flops_per_device", lambda *_: None)  # it asks CUDA, there or not
    model.save_pretrained(tmp_path / "weights")
    tokenizer.save_pretrained(tmp_path / "weights")
    return tmp_path / "weights"


@pytest.fixture
def playing() -> Iterator[Callable[..., Worker]]:
    """Starts a worker for `tools.lookup`, and stops it whatever happens."""
    started: list[Worker] = []

    def start(policy: Any, family: str = "tools.lookup", **options: Any) -> Worker:
        worker = Worker(family, policy, **{"group": GROUP, "lead": GROUP, "tasks": 4, **options})
        worker.update_model_version(1)
        worker.start()
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.stop()


def taken(worker: Worker, count: int) -> list[Any]:
    return [worker.rollout_buffer.get(timeout=60) for _ in range(count)]


def failing(worker: Worker) -> str:
    """What the trainer is told once it has nothing to wait for."""
    for _ in range(600):
        try:
            worker.check_health(300)
        except InfrastructureError as e:
            return str(e)
        with pytest.raises(queue.Empty):
            worker.rollout_buffer.get(timeout=0.1)
    raise AssertionError("it says that it is well")


def config(folder: Path, **options: Any) -> AsyncGRPOConfig:
    return AsyncGRPOConfig(
        output_dir=str(folder), num_generations=GROUP, per_device_train_batch_size=GROUP, max_steps=2, logging_steps=1,
        report_to=[], use_cpu=True, bf16=False, save_strategy="no", learning_rate=1e-2, gradient_checkpointing=False,
        token_budget=0, max_completion_length=8, max_staleness=2, disable_tqdm=True, **options,
    )  # fmt: skip


def test_the_real_trainer_learns_from_our_rows_under_rising_versions_and_leaves_no_thread(
    folder: Path, model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    args = config(tmp_path / "out")
    policy = HFPolicy.of(model, tokenizer)
    made = kit("math.add", policy, args, pay=lambda result: float(result.trajectory.trial % 2), tasks=8)
    assert len(made["train_dataset"]) == 8
    rows: list[Any] = []
    worker = made["rollout_worker"]
    put = worker.rollout_buffer.put_nowait
    worker.rollout_buffer.put_nowait = lambda row: (rows.append(row), put(row))
    before = set(threading.enumerate())
    trainer = AsyncGRPOTrainer(str(folder), args=args, processing_class=tokenizer, **made)
    old = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    assert trainer.state.global_step == 2
    assert worker.version == trainer.model_version == 3, "the first sync, and one after each step"
    versions = [row.model_version for row in rows]
    assert min(versions) == 1
    assert set(versions) <= {1, 2, 3}
    assert len(rows) >= 2 * GROUP
    # what was sampled has the log-probabilities that the trainer computes: the first batch is of its very weights
    first = next(log for log in trainer.state.log_history if "ratio" in log)
    assert first["ratio"] == pytest.approx(1.0, abs=1e-4)
    assert first["agentgym/reward"] == 0.5
    assert first["agentgym/excluded_total"] == 0
    # it has learnt, and the policy has what it learnt
    new = dict(trainer.model.named_parameters())
    assert any(not torch.equal(old[name], new[name]) for name in old)
    for name, p in model.named_parameters():
        assert torch.equal(p, new[name])
    left = {t.name for t in set(threading.enumerate()) - before if not t.name.startswith(("agentgym-step", "rollout-trace"))}
    assert not [name for name in left if name.startswith(("agentgym", "asyncio"))], left


def test_the_trainer_ends_with_the_error_that_ended_the_rollouts(
    folder: Path, model: Any, tokenizer: Any, tmp_path: Path
) -> None:
    def broken(result: Any) -> float:
        raise ZeroDivisionError("in a payment")

    args = config(tmp_path / "out")
    made = kit("math.add", HFPolicy.of(model, tokenizer), args, pay=broken, tasks=2)
    with pytest.raises(InfrastructureError, match="the rollouts have ended: ZeroDivisionError: in a payment"):
        AsyncGRPOTrainer(str(folder), args=args, processing_class=tokenizer, **made).train()
    assert not [t for t in threading.enumerate() if t.name in ("agentgym-rollouts", "agentgym-hf")]


def test_masks_hold_what_the_model_said_and_nothing_else_and_an_episode_has_one_advantage(
    model: Any, tokenizer: Any, playing: Callable[..., Worker]
) -> None:
    seen: list[Any] = []
    worker = playing(Scripted(model, tokenizer, honest), pay=lambda result: seen.append(result) or result.reward)
    rows = taken(worker, GROUP)
    assert len({row.group_id for row in rows}) == 1
    for row, result in zip(rows, seen[:GROUP], strict=True):
        assert (row.input_ids.dtype, row.completion_mask.dtype, row.old_log_probs.dtype) == ("int64", "int64", "float32")
        assert len(row.input_ids) == len(row.completion_mask) == len(row.old_log_probs)
        model_said = row.completion_mask == 1
        said, told = tokenizer.decode(row.input_ids[model_said]), tokenizer.decode(row.input_ids[~model_said])
        assert row.input_ids[model_said].tolist() == [int(t) for turn in result.trajectory.tokens for t in turn.output_ids]
        if row.metrics["reward"]:
            assert said.count("<tool_call>") == said.count("<|im_end|>") == 3
            assert told.count("<tool_response>") == 2
            assert [m["role"] for m in row.completion][:2] == ["assistant", "tool"]
        else:
            assert said == "I give up.<|im_end|>"
        assert not row.old_log_probs[~model_said].any()
        ids = torch.tensor(row.input_ids[None])
        with torch.no_grad():
            computed = torch.log_softmax(model(input_ids=ids).logits[0, :-1], -1).gather(1, ids[0, 1:, None])[:, 0]
        mask = torch.tensor(model_said[1:])
        assert float((computed - torch.tensor(row.old_log_probs[1:]))[mask].abs().max()) <= 1e-4
    assert sorted(row.metrics["reward"] for row in rows) == [0.0, 1.0, 1.0, 1.0]
    assert sum(row.advantage for row in rows) == pytest.approx(0, abs=1e-6)
    assert [row.advantage > 0 for row in rows] == [row.metrics["reward"] == 1.0 for row in rows]


class Versioned(Scripted):
    """Tells a version of each token, a new one with each call."""

    async def generate(self, key: object, prompt_ids: Sequence[int], stop_ids: frozenset[int], sampling: Sampling) -> Generated:
        made = await super().generate(key, prompt_ids, stop_ids, sampling)
        turn = self.tokenizer.decode(prompt_ids).count("</tool_response>")
        made.versions = [5 + turn] * len(made.output_ids)
        return made


def test_a_row_is_as_old_as_the_oldest_token_of_its_episode(model: Any, tokenizer: Any, playing: Callable[..., Worker]) -> None:
    worker = playing(Versioned(model, tokenizer, honest))
    assert {row.model_version for row in taken(worker, GROUP)} == {5}
    assert worker.counts["spanning"] >= 3, "whose tokens are of versions 5, 6 and 7"
    silent = playing(Scripted(model, tokenizer, honest))
    assert {row.model_version for row in taken(silent, GROUP)} == {1}, "a policy that tells none: when the episode began"


class Anew:
    """Renders every prompt anew and no two alike, so that each turn is a row of its own."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.stop_ids, self.parse = inner, inner.stop_ids, inner.parse

    def initial(self, messages: Sequence[Any], tools: Sequence[Any]) -> list[int]:
        return [len(messages), *self.inner.initial(messages, tools)]

    def bridge(self, *_: Any) -> None:
        return None


def test_rows_of_an_episode_share_its_advantage_and_its_version_and_a_baseline_is_of_episodes(
    model: Any, tokenizer: Any, playing: Callable[..., Worker]
) -> None:
    policy = Versioned(model, tokenizer, honest)
    policy.renderer = Anew(policy.renderer)
    worker = playing(policy, baseline="dr_grpo")
    rows = taken(worker, 3 * 3 + 1)
    assert [(round(row.advantage, 4), row.model_version, row.metrics["reward"]) for row in rows] == [
        *[(0.25, 5, 1.0)] * 9,
        (-0.75, 5, 0.0),
    ], "three rows each of three episodes, and one of the fourth: the mean is 3/4, not 9/10"
    assert worker.counts["forked"] >= 3


def test_it_is_no_further_ahead_than_it_may_be(model: Any, tokenizer: Any, playing: Callable[..., Worker]) -> None:
    worker = playing(Scripted(model, tokenizer, lambda prompt, trial: str(trial)), "math.add", lead=2 * GROUP)
    most = 0
    for _ in range(4):
        taken(worker, GROUP)
        time.sleep(0.1)  # as long as a step of the trainer: time to run ahead
        most = max(most, worker.rollout_buffer.qsize() + worker._under_way)
    assert GROUP <= most <= 2 * GROUP


def test_what_could_not_be_scored_is_in_no_row_and_in_no_baseline(
    model: Any, tokenizer: Any, playing: Callable[..., Worker]
) -> None:
    unknown = lambda result: None if result.trajectory.trial % GROUP == 1 else result.reward  # noqa: E731
    worker = playing(Scripted(model, tokenizer, honest), pay=unknown, baseline="dr_grpo")
    rows = taken(worker, 3)
    assert sorted(round(row.advantage, 4) for row in rows) == [-0.6667, 0.3333, 0.3333], "means of three"
    worker.stop()
    assert worker.counts["excluded"] == worker.counts["groups"] == worker.counts["shrunk"]
    told = [worker.metrics_queue.get_nowait() for _ in range(worker.metrics_queue.qsize())]
    assert sum(line.get("agentgym/excluded_total", 0) for line in told) == worker.counts["excluded"]


def test_groups_that_teach_nothing_are_told(model: Any, tokenizer: Any, playing: Callable[..., Worker]) -> None:
    worker = playing(Scripted(model, tokenizer, lambda *_: "4"), "math.add", pay=lambda result: 1.0)
    assert {row.advantage for row in taken(worker, GROUP)} == {0.0}
    assert worker.counts["flat"] >= 1


def test_a_worker_that_fails_is_told_by_check_health(model: Any, tokenizer: Any, playing: Callable[..., Worker]) -> None:
    class Down(Scripted):
        async def generate(self, *_: Any) -> Generated:
            raise InfrastructureError("no server at that address", retryable=False)

    worker = playing(Down(model, tokenizer, honest))
    assert "20 episodes in a row could not be scored" in (said := failing(worker))
    assert "no server at that address" in said

    class Hanging(Scripted):
        async def generate(self, *_: Any) -> Generated:
            await asyncio.Event().wait()
            raise AssertionError

    worker = playing(Hanging(model, tokenizer, honest))
    worker.check_health(300)
    while not worker._under_way:
        worker.check_health(300)
    with pytest.raises(InfrastructureError, match="no turn of any episode was answered"):
        worker.check_health(-1)
    worker.stop()
    assert not [t for t in threading.enumerate() if t.name == "agentgym-rollouts"]


def test_log_probs_of_another_distribution_are_refused(model: Any, tokenizer: Any, playing: Callable[..., Worker]) -> None:
    worker = playing(Scripted(model, tokenizer, honest), sampling=Sampling(temperature=0.5))
    assert "another distribution" in failing(worker)
    worker = playing("oracle:honest")
    assert "no exact tokens" in failing(worker)


def test_numbers_that_do_not_go_together_are_refused(model: Any, tokenizer: Any) -> None:
    with pytest.raises(UsageError, match="at least 2 episodes"):
        Worker("tools.lookup", Scripted(model, tokenizer, honest), group=1)
    with pytest.raises(UsageError, match="at least one family"):
        Worker([], Scripted(model, tokenizer, honest))
    with pytest.raises(UsageError, match="another model"):
        HFPolicy.of(model, tokenizer).load_weights([("lm_head.bias", torch.zeros(3))])
