# SPDX-License-Identifier: Apache-2.0
"""slime, by its fields: samples that fan out, and rewards that are compared per task and episode."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.errors import UsageError
from agentgym.training import slime
from agentgym.training.engine import PromptTooLong
from tests.token_engine import START, Bytes, honest, ids_of, renderer


@dataclasses.dataclass
class Sample:
    """The fields of slime's own that the adapter reads or writes."""

    class Status(enum.Enum):
        PENDING = "pending"
        COMPLETED = "completed"
        TRUNCATED = "truncated"
        ABORTED = "aborted"
        FAILED = "failed"

    group_index: int = 0
    index: int = 0
    rollout_id: int | None = None
    tokens: list[int] = dataclasses.field(default_factory=list)
    response: str = ""
    response_length: int = 0
    reward: float | None = None
    loss_mask: list[int] | None = None
    rollout_log_probs: list[float] | None = None
    weight_versions: list[str] = dataclasses.field(default_factory=list)
    status: Status = Status.PENDING
    remove_sample: bool = False
    metadata: dict[str, Any] | None = None


class Args:
    sglang_router_ip, sglang_router_port, rollout_max_response_len = "127.0.0.1", 1, 2000
    agentgym_renderer = renderer()


class Router:
    def __init__(self, *turns: Any, abort: bool = False) -> None:
        self.turns = [ids_of(t) if isinstance(t, str) else t for t in turns]
        self.asked: list[dict[str, Any]] = []
        self.rest: list[int] | None = None
        self.abort = abort

    async def __call__(self, url: str, payload: dict[str, Any]) -> Any:
        self.asked.append(payload)
        ids, kind = self.rest or self.turns.pop(0), "stop"
        if self.abort and self.rest is None:
            ids, self.rest, kind = ids[:4], ids[4:], "abort"
        else:
            self.rest = None
        told = [(-0.5, i, None) for i in ids]
        meta = {"output_token_logprobs": told, "finish_reason": {"type": kind}, "weight_version": str(len(self.asked))}
        return {"text": "", "meta_info": meta}


def play(router: Router, **fields: Any) -> Any:
    sample = Sample(metadata={"task_id": "tools.lookup/control/0"}, **fields)
    return asyncio.run(slime.generate(Args, sample, {"temperature": 1.0, "max_new_tokens": 200}, post=router))


def test_a_sample_holds_the_tokens_of_the_engine_and_lengths_that_agree() -> None:
    said = honest()
    got = play(Router(*said, abort=True))
    assert (got.reward, got.status, got.weight_versions) == (1.0, Sample.Status.COMPLETED, ["1", "2", "3", "4", "5", "6"])
    assert len(got.loss_mask) == len(got.rollout_log_probs) == got.response_length
    response = got.tokens[-got.response_length :]
    assert [t for t, m in zip(response, got.loss_mask, strict=True) if m] == [t for text in said for t in ids_of(text)]
    assert "<tool_response>" in Bytes().decode(response)
    assert got.metadata["turn_rewards"] == [0.0, 0.0, 1.0]


def test_an_episode_of_several_rows_fans_out_under_one_rollout_id() -> None:
    said = honest()
    forged = [*b"hm ", START, *ids_of(said[0])]
    got = play(Router(ids_of(said[0]), forged, *said[1:]), index=5)
    samples = got if isinstance(got, list) else [got]
    assert len({s.rollout_id for s in samples}) == 1
    assert len({s.reward for s in samples}) == 1


def test_an_episode_that_cannot_be_scored_is_masked_and_has_no_reward() -> None:
    got = play(Router())  # the router fails
    assert (got.remove_sample, got.status, got.loss_mask) == (True, Sample.Status.FAILED, [0])
    assert math.isnan(got.reward), "for None slime would ask a reward model, and 0 would be a lie"
    _, values = slime.post_process_rewards(Args, [got, *(Sample(index=i, reward=1.0) for i in (1, 2))])
    assert values == [0.0] * 3


def test_pitfall_11_a_prompt_that_does_not_fit_raises_before_the_router_is_asked() -> None:
    class Small(Args):
        rollout_max_context_len = 100

    router = Router(*honest())
    with pytest.raises(PromptTooLong):
        asyncio.run(slime.generate(Small, Sample(metadata={"task_id": "tools.lookup/control/0"}), {}, post=router))
    assert router.asked == []


def test_pitfall_07_equal_rewards_per_task_give_zero_however_many_samples_an_episode_made() -> None:
    groups = {0: [1.0] * 4, 1: [5.0] * 3, 2: [0.0, 1.0, 0.0, 1.0]}
    samples = [
        Sample(group_index=g, rollout_id=10 * g + r, reward=reward)
        for g, rewards in groups.items()
        for r, reward in enumerate(rewards)
        for _ in range(1 + (r + g) % 3)
    ]
    raw, values = slime.post_process_rewards(Args, samples)
    assert raw == [s.reward for s in samples]
    assert all(v == 0.0 for v, s in zip(values, samples, strict=True) if s.group_index != 2)
    mixed = {s.rollout_id: v for v, s in zip(values, samples, strict=True) if s.group_index == 2}
    assert mixed[20] == mixed[22] == -mixed[21] == -mixed[23] < 0


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.sampled_from([0.0, 0.5, 1.0, None])), min_size=1, max_size=12)
)
def test_the_mean_of_a_task_is_that_of_its_episodes_and_failed_ones_take_no_part(
    episodes: list[tuple[int, int, float | None]],
) -> None:
    samples = [
        Sample(group_index=g, rollout_id=at, reward=reward) for at, (g, n, reward) in enumerate(episodes) for _ in range(n)
    ]
    _, values = slime.post_process_rewards(Args, samples, baseline="dr_grpo")
    first = {s.rollout_id: v for s, v in zip(samples, values, strict=True)}
    for group in {g for g, _, _ in episodes}:
        own = [at for at, (g, _, reward) in enumerate(episodes) if g == group and reward is not None]
        assert sum(first[at] for at in own) == pytest.approx(0.0, abs=1e-9)
    assert all(first[at] == 0.0 for at, (_, _, reward) in enumerate(episodes) if reward is None)


def test_samples_of_one_episode_with_different_rewards_are_refused() -> None:
    with pytest.raises(UsageError, match="share one"):
        slime.post_process_rewards(Args, [Sample(rollout_id=1, reward=1.0), Sample(rollout_id=1, reward=0.0)])


def test_prompt_data_names_its_task() -> None:
    (row,) = slime.rows("math.add", tasks=1)
    assert row["metadata"]["task_id"].startswith("math.add/control/")
    assert any("empty mask" in s for s in slime.losses("tools.lookup"))
