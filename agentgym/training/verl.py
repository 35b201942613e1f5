# SPDX-License-Identifier: Apache-2.0
"""verl: any environment as an agent loop, `AgentGymLoop`, registered as ``agentgym``.

    agentgym.training.verl.dataset("tools.lookup").to_parquet("train.parquet")

and, in a file that ``actor_rollout_ref.rollout.agent.agent_loop_config_path`` names:

    - name: agentgym
      _target_: agentgym.training.verl.AgentGymLoop

verl keeps one row of fixed width an episode: a first prompt of ``rollout.prompt_length`` and all that follows, tools included,
in ``rollout.response_length``. Both limits are kept before verl would cut. Written against verl 0.9.1.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agentgym import registry
from agentgym.errors import InfrastructureError, UsageError
from agentgym.protocols import Sampling
from agentgym.training import engine
from agentgym.training.engine import OnEpisode, Piece, Played, Seat, Wrap, dataset_of, only, play_task, tasks_of

if TYPE_CHECKING:
    AgentGymLoop: Any

NAME = "agentgym"
"""What rows of the data set name as ``agent_name``."""

_trials = itertools.count()


def dataset(families: str | Sequence[str], *, split: str | None = "train", variant: str = "control", tasks: int = 256) -> Any:
    """A ``datasets.Dataset`` with the columns of verl's data sets; ``to_parquet(path)`` writes what verl reads.

    Args:
        families: one family, with parameters if need be (``tools.lookup:level=2``), or several, which take turns.
        split: which half of the tasks; None for any.
        variant: which twin.
        tasks: of each family.
    """
    found = tasks_of(families, split=split, variant=variant, tasks=tasks)
    return dataset_of(
        {
            "data_source": NAME,
            "agent_name": NAME,
            "prompt": messages,
            "reward_model": {"style": "rule", "ground_truth": ""},
            "extra_info": {"index": index, "task_id": task_id},
        }
        for index, (task_id, messages) in enumerate(found)
    )


def losses(family: str, variant: str = "control") -> list[str]:
    """What of a family is lost under verl, in sentences."""
    said = engine.losses(family, variant)
    said.append("what single turns were paid stands in extra_fields (turn_scores) and moves nothing")
    said.append("weight versions of tokens become one least and one greatest step of the episode")
    said.append("an episode that cannot be scored stops the step, after it was played again: verl has no reward that is none")
    said.append("a cut episode is paid for what it did; extra_fields (truncated) says which")
    return said


def output(played: Played, *, logprobs: bool, steps: tuple[int | None, int | None] = (None, None)) -> dict[str, Any]:
    """The fields of an ``AgentLoopOutput``.

    Args:
        played: to be trained on.
        logprobs: whether all rows of the batch have log-probabilities; one without, beside others with, breaks the batch.
        steps: least and greatest training step whose weights sampled it.
    """
    row = only(played)
    t = played.result.trajectory
    start = row.prompt_len
    extra: dict[str, Any] = {
        "turn_scores": played.turn_rewards,
        "tool_rewards": [],
        "truncated": played.truncated,
        "min_global_steps": steps[0],
        "max_global_steps": steps[1],
        "reward_extra_info": {"agentgym_truncated": float(played.truncated), "agentgym_turns": float(len(t.turns))},
    }
    return {
        "prompt_ids": row.token_ids[:start].tolist(),
        "response_ids": row.token_ids[start:].tolist(),
        "response_mask": row.loss_mask[start:].tolist(),
        "response_logprobs": row.logprobs[start:].tolist() if logprobs else None,
        "reward_score": played.reward,
        "num_turns": sum(1 + len(turn.observation) for turn in t.turns) + len(t.opening),
        "extra_fields": extra,
    }


class _Loop:
    """Plays the environment on verl's servers. `AgentGymLoop` is this class on top of verl's ``AgentLoopBase``.

    Its options stand beside ``_target_`` in verl's file of agent loops.

    Args:
        renderer: name of the model's family, where the tokenizer's template does not tell; or a renderer.
        max_new_tokens: of one turn; None: as many as the response has room for.
        wrap: place of a function that puts wrappers around the environment (``pkg.module:function``), or the function.
        on_episode: place of a function that is told of every episode, or the function.
        retries: how often an episode that infrastructure spoiled is played again.
        **verl: what verl hands over.
    """

    rollout_config: Any
    server_manager: Any
    tokenizer: Any

    def __init__(
        self,
        *args: Any,
        renderer: Any = None,
        max_new_tokens: int | None = None,
        wrap: Wrap | str | None = None,
        on_episode: OnEpisode | str | None = None,
        retries: int = 2,
        **verl: Any,
    ) -> None:
        super().__init__(*args, **verl)
        if renderer is None or isinstance(renderer, str):
            from agentgym.tokens.renderer import renderer_for

            renderer = renderer_for(self.tokenizer, renderer)
        self.renderer = renderer
        self.max_new_tokens = max_new_tokens
        self.wrap: Wrap | None = registry.load_place(wrap) if isinstance(wrap, str) else wrap
        self.on_episode: OnEpisode | None = registry.load_place(on_episode) if isinstance(on_episode, str) else on_episode
        self.retries = retries

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> Any:
        """One episode.

        Raises:
            PromptTooLong: before the servers are asked; verl would cut the prompt from the left.
            InfrastructureError: the episode could not be scored. verl has no word for that, and a 0 would be a lie.
        """
        from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics, AgentLoopOutput

        info = copy.deepcopy(kwargs.get("extra_info") or {})
        task_id = info.get("task_id")
        if not task_id:
            raise UsageError("a row's extra_info has no task_id; make the data set with agentgym.training.verl.dataset")
        told = bool(sampling_params.get("logprobs"))
        steps: list[int] = []
        c = self.rollout_config
        played = await play_task(
            str(task_id),
            lambda: self._seat(sampling_params, told, steps, c),
            trial=next(_trials),
            wrap=self.wrap,
            retries=self.retries,
            logprobs=told,
            on_episode=self.on_episode,
        )
        if played.reason is not None:
            raise InfrastructureError(f"{task_id}: {played.reason}")
        fields = output(played, logprobs=told, steps=(min(steps, default=None), max(steps, default=None)))
        return AgentLoopOutput(metrics=AgentLoopMetrics(), **fields)

    def _seat(self, params: dict[str, Any], told: bool, steps: list[int], config: Any) -> Seat:
        most = min(self.max_new_tokens or config.response_length, config.response_length)
        temperature, top_p = params.get("temperature"), params.get("top_p")

        async def generate(prompt: list[int], room: int, request: str) -> Piece:
            asked = {**params, "max_tokens": room}
            answer = await self.server_manager.generate(request_id=request, prompt_ids=prompt, sampling_params=asked)
            ids = list(answer.token_ids)
            found = [answer.extra_fields.get(name) for name in ("min_global_steps", "max_global_steps", "global_steps")]
            known = [int(step) for step in found if step is not None]
            steps.extend(known)
            # which token came from which weights is known where all came from the same
            versions = [known[0]] * len(ids) if known and len(set(known)) == 1 else None
            if answer.stop_reason == "aborted":
                finish = "abort"
            else:
                finish = "length" if len(ids) >= room and ids[-1] not in self.renderer.stop_ids else "stop"
            if told and answer.log_probs is None:
                raise InfrastructureError("the server was asked for log-probabilities and gave none", retryable=False)
            return Piece(ids, answer.log_probs if told else None, finish, versions)  # type: ignore[arg-type]

        return Seat(
            self.renderer,
            generate,
            name="verl",
            max_new_tokens=most,
            max_prompt=config.prompt_length,
            max_response=config.response_length,
            sampling=Sampling(temperature=temperature, top_p=top_p, max_tokens=most),
        )


def __getattr__(name: str) -> Any:
    if name == "AgentGymLoop":  # made when it is asked for: its base is verl's
        from verl.experimental.agent_loop.agent_loop import AgentLoopBase, register

        made = type("AgentGymLoop", (_Loop, AgentLoopBase), {"__module__": __name__, "__doc__": _Loop.__doc__})
        globals()[name] = register(NAME)(made)
        return made
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
