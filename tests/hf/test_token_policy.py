# SPDX-License-Identifier: Apache-2.0
"""Episodes of a transformers model become rows that a trainer can trust."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import agentgym
import tests.envs
from agentgym.policies.hf_model import HFPolicy
from agentgym.protocols import Sampling
from agentgym.tokens import Row, linearize
from agentgym.trajectory import Trajectory
from tests.policies.token_bots import assert_tokens_hold

SHORT = Sampling(max_tokens=8)


def loaded(folder: Path) -> tuple[Any, Any]:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def row_of(trajectory: Trajectory) -> Row:
    (row,) = linearize(trajectory).rows
    return row


def worst(model: Any, row: Row) -> float:
    """The largest difference to the log-probabilities of one pass over the whole row."""
    ids = torch.from_numpy(row.token_ids.astype(np.int64))
    with torch.no_grad():
        logits = torch.log_softmax(model.eval()(ids[None]).logits[0, :-1].float(), -1)
    again = logits.gather(1, ids[1:, None])[:, 0].numpy()
    trained = row.loss_mask[1:] == 1
    return float(np.abs(again - row.logprobs[1:])[trained].max())


def test_a_transformers_model_holds_its_tokens_and_its_rows_agree_with_one_full_pass(folder: Path, tmp_path: Path) -> None:
    played = assert_tokens_hold(HFPolicy(str(folder)), tmp_path, limit=3, sampling=SHORT)
    model, _ = loaded(folder)
    assert max(worst(model, row_of(t)) for t in played) <= 1e-4
    # each turn but the first found all of the one before in the cache, but for its last token
    for trajectory in played:
        for before, turn in zip(trajectory.turns, trajectory.turns[1:], strict=False):
            assert turn.usage.cached_tokens >= before.usage.prompt_tokens + before.usage.completion_tokens - 1


def test_pitfall_05_a_trainers_model_plays_as_it_evaluates_and_stays_in_training(folder: Path, tmp_path: Path) -> None:
    model, tokenizer = loaded(folder)
    model.gradient_checkpointing_enable()
    model.train()
    policy = HFPolicy.of(model, tokenizer, max_batch=2)
    played = assert_tokens_hold(policy, tmp_path, limit=2, sampling=SHORT)
    assert model.training
    assert max(worst(model, row_of(t)) for t in played) <= 1e-4


def test_pitfall_17_rows_tell_which_weights_sampled_each_token(folder: Path, tmp_path: Path) -> None:
    model, tokenizer = loaded(folder)
    policy = HFPolicy.of(model, tokenizer)
    rows = []
    for version in (3, 4):
        policy.set_version(version)
        run = agentgym.evaluate(tests.envs.Guess, policy, limit=1, sampling=SHORT, runs=tmp_path / str(version))
        rows.append(row_of(next(iter(run.episodes())).trajectory))
        policy.set_version(version)  # it has been closed, and begins anew at 0
    assert [sorted(set(r.versions.tolist())) for r in rows] == [[-1, 3], [-1, 4]]


def test_pitfall_06_at_another_temperature_what_is_recorded_is_raw_unless_asked(folder: Path, tmp_path: Path) -> None:
    model, tokenizer = loaded(folder)
    apart = {}
    for kind in ("raw", "processed"):
        policy = HFPolicy.of(model, tokenizer, logprob_kind=kind)  # type: ignore[arg-type]
        sampling = Sampling(temperature=0.7, top_p=0.9, max_tokens=8)
        run = agentgym.evaluate(tests.envs.Guess, policy, limit=1, sampling=sampling, runs=tmp_path / kind)
        (episode,) = run.episodes()
        # a model of random weights may say "<|im_start|>", after which a new row begins
        apart[kind] = max(worst(model, row) for row in linearize(episode.trajectory).rows)
        assert {t.logprob_kind for t in episode.trajectory.tokens or () if t} == {kind}
    assert apart["raw"] <= 1e-4
    assert apart["processed"] > 0.01
