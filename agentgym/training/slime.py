# SPDX-License-Identifier: Apache-2.0
"""slime: any environment as a custom generate function, and the reward normalization that its rows need.

    --prompt-data train.jsonl --input-key messages --metadata-key metadata
    --custom-generate-function-path agentgym.training.slime.generate
    --custom-reward-post-process-path agentgym.training.slime.post_process_rewards

An episode may make several samples (a model whose template drops earlier reasoning, say). slime's own normalization then takes
one mean over the whole batch, so that tasks which everybody solves are pushed up and others down; `post_process_rewards`
compares episodes with the episodes of their own task, one reward each, however many samples they made.

Written against slime's sources of August 2026; not run with slime itself, whose package is not on the index.
"""

from __future__ import annotations

import copy
import itertools
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

from agentgym.errors import InfrastructureError, UsageError
from agentgym.protocols import Sampling
from agentgym.training import engine
from agentgym.training.engine import Piece, Played, Seat, play_task, tasks_of
from agentgym.training.groups import Baseline, advantages

_log = logging.getLogger("agentgym.training.slime")
_trials = itertools.count()
_renderers: dict[str, Any] = {}

Post = Callable[[str, dict[str, Any]], Any]
"""``await post(url, payload)`` -> the answer's JSON, as slime's own ``http_utils.post``."""


def rows(
    families: str | Sequence[str], *, split: str | None = "train", variant: str = "control", tasks: int = 256
) -> list[dict[str, Any]]:
    """Rows of slime's prompt data, to be written as JSON lines: ``messages``, and ``metadata`` with the task."""
    found = tasks_of(families, split=split, variant=variant, tasks=tasks)
    return [{"messages": messages, "metadata": {"task_id": task_id}} for task_id, messages in found]


def losses(family: str, variant: str = "control") -> list[str]:
    """What of a family is lost under slime, in sentences."""
    said = engine.losses(family, variant, one_row=False)
    said.append("weight versions of tokens become the list of versions of each sample")
    said.append("an episode that cannot be scored stays in the batch with an empty mask, and takes no part in its group")
    return said


async def generate(
    args: Any, sample: Any, sampling_params: dict[str, Any], evaluation: bool = False, *, post: Post | None = None
) -> Any:
    """Plays one episode on slime's router.

    Args:
        args: slime's own; read are ``sglang_router_ip``, ``sglang_router_port``, ``hf_checkpoint``,
            ``rollout_max_response_len``, ``rollout_max_context_len`` and, if it is there, ``agentgym_renderer``.
        sample: its ``metadata`` names the task.
        sampling_params: SGLang's.
        evaluation: whether slime evaluates; nothing is done differently.
        post: how to ask the router; None: slime's own function.

    Returns:
        the sample filled in, or a list of samples that share its ``rollout_id`` where the episode made several rows.

    Raises:
        PromptTooLong: before the router was asked.
    """
    task_id = (getattr(sample, "metadata", None) or {}).get("task_id")
    if not task_id:
        raise UsageError("the sample's metadata has no task_id: write the prompt data with agentgym.training.slime.rows")
    ask = _slimes_own() if post is None else post
    played = await play_task(str(task_id), lambda: _seat(args, sampling_params, ask), trial=next(_trials))
    return fill(sample, played)


def fill(sample: Any, played: Played) -> Any:
    """The sample, or samples, with the episode in them."""
    status = type(sample).Status
    if played.reason is not None:
        _log.warning("%s is not trained on: %s", played.result.trajectory.task_id, played.reason)
        # slime wants a sample; one token without loss is the least there is. Its reward is no number: for one that is None,
        # slime would ask a reward model
        sample.tokens = list(getattr(sample, "tokens", None) or [0, 0])
        sample.response, sample.response_length = "", 1
        sample.loss_mask, sample.rollout_log_probs = [0], [0.0]
        sample.reward, sample.remove_sample, sample.status = math.nan, True, status.FAILED
        return sample
    made = []
    own = getattr(sample, "rollout_id", None)
    shared = own if own is not None else getattr(sample, "index", None)
    for row in played.rows.rows:
        one = copy.copy(sample)
        one.tokens = row.token_ids.tolist()
        one.response_length = len(one.tokens) - row.prompt_len
        one.response = ""
        one.loss_mask = row.loss_mask[row.prompt_len :].tolist()
        one.rollout_log_probs = row.logprobs[row.prompt_len :].tolist()
        one.weight_versions = [str(v) for v in sorted({int(v) for v in row.versions if v >= 0})]
        one.reward = played.reward
        one.status = status.TRUNCATED if played.truncated else status.COMPLETED
        one.rollout_id = shared
        one.metadata = {**(sample.metadata or {}), "turn_rewards": played.turn_rewards, "truncated": played.truncated}
        made.append(one)
    return made[0] if len(made) == 1 else made


def post_process_rewards(
    args: Any, samples: Sequence[Any], *, baseline: Baseline | None = None
) -> tuple[list[float], list[float]]:
    """slime's hook: the rewards as they were paid, and advantages per (group_index, rollout_id).

    Args:
        args: slime's own; ``grpo_std_normalization`` false takes the mean away and does not divide.
        samples: of the whole batch, in any order, any number to an episode.
        baseline: see `Baseline`; None: as ``args`` say.

    Raises:
        UsageError: samples of one episode have different rewards.
    """
    flat = [s for item in samples for s in (item if isinstance(item, list) else [item])]
    episodes: dict[tuple[Any, Any], float | None] = {}
    keys = []
    for at, s in enumerate(flat):
        rollout = getattr(s, "rollout_id", None)
        key = (s.group_index, rollout if rollout is not None else ("index", getattr(s, "index", at)))
        paid = None if s.reward is None else float(s.reward)
        if paid is not None and not math.isfinite(paid):
            paid = None
        if key in episodes and episodes[key] != paid:
            raise UsageError(f"samples of one episode ({key}) have rewards {episodes[key]} and {paid}; they share one")
        episodes[key] = paid
        keys.append(key)
    if baseline is None:
        baseline = "grpo" if getattr(args, "grpo_std_normalization", True) else "dr_grpo"
    found = advantages(list(episodes.values()), [group for group, _ in episodes], baseline=baseline)
    values = dict(zip(episodes, found.values.tolist(), strict=True))
    raw = [0.0 if episodes[key] is None else float(episodes[key] or 0.0) for key in keys]  # for slime's log alone
    return raw, [values[key] for key in keys]


def _seat(args: Any, params: dict[str, Any], post: Post) -> Seat:
    renderer = _renderer(args)
    url = f"http://{args.sglang_router_ip}:{args.sglang_router_port}/generate"
    most = int(params.get("max_new_tokens") or args.rollout_max_response_len)

    async def generate(prompt: list[int], room: int, request: str) -> Piece:
        asked = {**params, "max_new_tokens": room, "stop_token_ids": [*renderer.stop_ids], "no_stop_trim": True}
        answer = await post(url, {"input_ids": prompt, "sampling_params": asked, "return_logprob": True})
        meta = answer["meta_info"]
        told = meta.get("output_token_logprobs")
        if told is None:
            raise InfrastructureError("the router gave no log-probabilities", retryable=False)
        version = meta.get("weight_version")
        known = version is not None and str(version).lstrip("v").isdigit()
        return Piece(
            [int(t[1]) for t in told],
            [float(t[0]) for t in told],
            {"length": "length", "abort": "abort"}.get(meta["finish_reason"]["type"], "stop"),  # type: ignore[arg-type]
            [int(str(version).lstrip("v"))] * len(told) if known else None,
        )

    sampling = Sampling(params.get("temperature"), params.get("top_p"), params.get("top_k"), most)
    return Seat(
        renderer,
        generate,
        name="slime",
        max_new_tokens=most,
        max_response=int(args.rollout_max_response_len),
        max_row=getattr(args, "rollout_max_context_len", None),
        one_row=False,
        sampling=sampling,
    )


def _slimes_own() -> Post:
    from slime.utils.http_utils import post

    return post  # type: ignore[no-any-return]


def _renderer(args: Any) -> Any:
    given = getattr(args, "agentgym_renderer", None)
    if given is not None and not isinstance(given, str):
        return given
    path = str(args.hf_checkpoint)
    if path not in _renderers:
        from transformers import AutoTokenizer

        from agentgym.tokens.renderer import renderer_for

        _renderers[path] = renderer_for(AutoTokenizer.from_pretrained(path), given)
    return _renderers[path]
