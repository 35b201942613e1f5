# SPDX-License-Identifier: Apache-2.0
"""A training from beginning to end: weights, imitation of an oracle, GRPO by TRL, held-out tasks before and after.

A training is a run's directory: ``run.sqlite`` holds every rollout (tag ``step:N``), so `agentgym view`, `show` and `report`
read it; ``curves.jsonl`` has a line for each step; ``training.json`` what was asked for and the figures; there are
``checkpoints/`` and at the end ``model/``. Held-out tasks are played greedily, in runs of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from agentgym import registry
from agentgym.episode import EpisodeResult
from agentgym.errors import InfrastructureError, UsageError
from agentgym.protocols import Sampling
from agentgym.records import control
from agentgym.records.run import Run
from agentgym.records.store import EpisodeRecord, PlannedTask, RunWriter, new_run_directory
from agentgym.rollout.evaluate import aevaluate
from agentgym.rollout.selection import EnvRef, absolute, parse_label
from agentgym.training import trl as adapter
from agentgym.training.weights import need, weights

OPTIONS, CURVES, CHECKPOINTS, MODEL = "training.json", "curves.jsonl", "checkpoints", "model"

Control = Literal["none", "random", "format"]


class Training(msgspec.Struct, frozen=True):
    """What is trained, and how."""

    families: tuple[str, ...]
    """With parameters, e.g. ``math.add:level=3,round=true``."""
    model: str
    """``local:smollm2``, ``gguf:FILE`` or ``hf:FOLDER``."""
    variant: str = "control"
    steps: int = 45
    tasks: int = 4
    """Tasks of a step."""
    group: int = 8
    """Episodes of each task in a step."""
    rate: float = 1.5e-5
    """Learning rate."""
    max_tokens: int = 8
    """Most new tokens of a turn."""
    format_share: float = 0.15
    """Where a family declares a format: what keeping it is paid, right or wrong; and a right answer that does not keep it."""
    control: Control = "none"
    """``random``: a coin is paid. ``format``: keeping the format is paid."""
    warm_start: str | None = None
    """A model whose episodes are imitated first, e.g. ``oracle:honest``."""
    warm_steps: int = 3
    warm_batch: int = 6
    warm_rate: float = 2e-5
    held_out: int = 200
    """Tasks of the half ``eval`` that are played before and after; 0: none."""
    seed: int = 0
    save_every: int = 15
    threads: int | None = None
    """Torch's; None: its own choice."""


class Measured(msgspec.Struct):
    """A run over held-out tasks."""

    path: str
    items: int
    exact: float
    """Share that is right and keeps the declared format, where there is one."""
    gold: float
    """Share that is right, however it is said."""
    format: float | None
    """Share that keeps the format; None: none is declared."""
    tokens: float
    """Mean of sampled tokens."""
    violations: int
    exposures: int
    unscored: int = 0
    """Of the items: those that infrastructure spoiled or nobody could score; they are in none of the shares."""


def scored(result: Any, name: str) -> float | None:
    """Value of a score of an episode, by its name."""
    scores = result.scores.values() if isinstance(result.scores, dict) else result.scores
    return next((s.value for s in scores if s.name == name), None)


def payment(options: Training) -> Callable[[EpisodeResult], float | None]:
    """What an episode is paid in training."""

    def pay(result: EpisodeResult) -> float | None:
        kept = scored(result, "format")
        if options.control == "random":
            t = result.trajectory
            return float(random.Random(f"{t.seed}:{t.task_id}:{t.trial}").random() < 0.5)
        if options.control == "format":
            if kept is None:
                raise UsageError(f"{result.task.family} declares no format, so it cannot be what is paid")
            return kept
        if result.reward is None or kept is None:
            return result.reward
        share = options.format_share
        return share * kept + (1 - share) * result.reward if kept else share * result.reward

    return pay


class Recorder:
    """Writes rollouts to the run and a line of curves for each step."""

    def __init__(self, folder: Path, options: Training, *, create: bool) -> None:
        self.folder, self.options = folder, options
        self.writer = RunWriter(folder, create=create)
        self.step = 0
        self._batch: list[EpisodeResult] = []
        self._attempts = {} if create else {key: attempts for key, (attempts, _) in self.writer.finished().items()}
        """Of rollouts on record: steps after the last checkpoint are played again, and the later attempt counts."""
        self._refs = [absolute(_ref(name)) for name in options.families]
        if create:
            self.writer.set_meta(
                {
                    "title": f"training {' '.join(options.families)}",
                    "model": options.model,
                    "training": msgspec.to_builtins(options),
                    "options": {"seed": options.seed},
                    "created": time.time(),
                }
            )
        control.forget(folder)
        self.writer.begin_sitting()
        self._commands = control.Commands(folder)
        self.asked: list[int] = []
        """Holds something once the training is to end: a pause does not hold it up."""

    def episode(self, result: EpisodeResult) -> None:
        """Takes a rollout of the present step."""
        t = result.trajectory
        t.trial += self.step * self.options.group
        task = msgspec.structs.replace(result.task, tags=(*result.task.tags, f"step:{self.step}"))
        place = next(i for i, name in enumerate(self.options.families) if _is(name, result.task.family))
        planned = PlannedTask(place, result.task.variant, result.task.item, result.task.id, t.trial + 1)
        self.writer.set_plan(self._refs, [planned])
        attempt = self._attempts.get((result.task.id, t.trial), 0)
        self.writer.add(
            EpisodeRecord(t, task, result.task.encode(), attempt, result.reward, result.gold, result.scores, result.findings)
        )
        self._batch.append(result)

    def end_of_step(self, step: int, **more: Any) -> dict[str, Any]:
        """Commits the step's rollouts, then its line of the curves; returns that."""
        self.writer.flush()
        line = {"step": step, **curves(self._batch, payment(self.options)), **more}
        with (self.folder / CURVES).open("a") as f:
            f.write(json.dumps(line) + "\n")
        self._batch, self.step = [], step
        control.wait_while_paused(self.folder, self._commands, lambda: self.asked)
        return line

    def close(self, status: str) -> None:
        """Commits what is pending."""
        self.writer.flush()
        control.forget(self.folder)
        self.writer.close(status)


def curves(batch: list[EpisodeResult], pay: Callable[[EpisodeResult], float | None]) -> dict[str, Any]:
    """Means over the rollouts of a step, each its own curve; None where nothing could be said."""

    def mean(values: list[float | None]) -> float | None:
        known = [v for v in values if v is not None]
        return round(sum(known) / len(known), 4) if known else None

    kept = [scored(r, "format") for r in batch]
    exact = [None if r.gold is None else float(r.gold == 1.0 and k != 0.0) for r, k in zip(batch, kept, strict=True)]
    return {
        "paid": mean([pay(r) for r in batch]),
        "proxy": mean([r.reward for r in batch]),
        "gold": mean([r.gold for r in batch]),
        "exact": mean(exact),
        "format": mean(kept),
        "tokens": mean([float(r.trajectory.usage.completion_tokens) for r in batch]),
        "exposures": sum(f.exposure for r in batch for f in r.findings),
        "violations": sum(f.violation for r in batch for f in r.findings),
        "infrastructure": sum(r.trajectory.outcome == "infrastructure" for r in batch),
    }


def _ref(name: str) -> EnvRef:
    family, params = parse_label(name)
    return EnvRef(family, dict(params))


def _is(name: str, label: str) -> bool:
    family, params = parse_label(name)
    return registry.env_class(family)(**params).label == label


def held_out(options: Training) -> list[str]:
    """Ids of held-out tasks, no two of them the same question."""
    share = -(-options.held_out // len(options.families))
    ids = []
    for name in options.families:
        family, params = parse_label(name)
        env = registry.env_class(family)(variant=options.variant, split="eval", **params)
        ids += [f"{env.label}/{options.variant}/{item}" for item in adapter.distinct(env, share)]
    return ids[: options.held_out]


def measure(policy: Any, options: Training, root: Path) -> Measured:
    """Plays the held-out tasks greedily, in a run of its own.

    Raises:
        InfrastructureError: none of them could be scored.
    """
    sampling = Sampling(temperature=0.0, max_tokens=options.max_tokens)

    async def play() -> Run:
        return await aevaluate(held_out(options), policy, runs=root, sampling=sampling, concurrency=64)

    with asyncio.run(play()) as run:
        played = list(run.episodes())
        episodes = [e for e in played if e.gold is not None]
        if not episodes:
            raise InfrastructureError(
                f"none of {len(played)} held-out episodes could be scored: agentgym show {run.path}", retryable=False
            )
        kept = [scored(e, "format") for e in episodes]
        known = [k for k in kept if k is not None]
        n = len(episodes)
        return Measured(
            str(run.path),
            len(played),
            sum(e.gold == 1.0 and k != 0.0 for e, k in zip(episodes, kept, strict=True)) / n,
            sum(e.gold or 0.0 for e in episodes) / n,
            sum(known) / len(known) if known else None,
            sum(e.completion_tokens for e in episodes) / n,
            sum(e.violations for e in episodes),
            sum(e.exposures for e in episodes),
            len(played) - n,
        )


def imitate(model: Any, tokenizer: Any, options: Training, root: Path, show: Callable[[dict[str, Any]], None]) -> None:
    """Behaviour cloning on the episodes of ``options.warm_start``: likelihood of what it did, on its own tokens alone."""
    import torch

    from agentgym.training.imitation import demonstrated

    ids: list[str] = []
    wanted = options.warm_steps * options.warm_batch
    for name in options.families:
        family, params = parse_label(name)
        env = registry.env_class(family)(variant=options.variant, split="train", **params)
        ids += [f"{env.label}/{options.variant}/{i}" for i in adapter.distinct(env, -(-wanted // len(options.families)))]

    async def play() -> list[Any]:
        with await aevaluate(ids, options.warm_start, runs=root) as run:
            return [e.trajectory for e in run.episodes() if e.gold == 1.0]

    rows = [row for t in asyncio.run(play()) for row in demonstrated(t, _tools(options), tokenizer)]
    if not rows:
        raise UsageError(f"{options.warm_start} solved nothing that could be imitated")
    rng = random.Random(options.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.warm_rate, weight_decay=0.0)
    model.train()
    for step in range(options.warm_steps):
        batch = [rows[i] for i in rng.sample(range(len(rows)), min(options.warm_batch, len(rows)))]
        width = max(len(r.token_ids) for r in batch)
        tokens = torch.zeros(len(batch), width, dtype=torch.long)
        mask = torch.zeros(len(batch), width)
        for i, r in enumerate(batch):
            tokens[i, : len(r.token_ids)] = torch.from_numpy(r.token_ids).long()
            mask[i, : len(r.token_ids)] = torch.from_numpy(r.loss_mask).float()
        hidden = model.get_decoder()(input_ids=tokens.to(model.device), use_cache=False).last_hidden_state
        where = mask[:, 1:].bool()
        logits = model.get_output_embeddings()(hidden[:, :-1][where.to(model.device)]).float()
        loss = torch.nn.functional.cross_entropy(logits, tokens[:, 1:][where].to(model.device))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        show({"imitation": step + 1, "loss": round(float(loss.detach()), 4), "cpu_s": cpu_seconds()})
    optimizer.zero_grad(set_to_none=True)


def _tools(options: Training) -> dict[str, Any]:
    result = {}
    for name in options.families:
        family, params = parse_label(name)
        env = registry.env_class(family)(variant=options.variant, **params)
        result[env.label] = env.tool_specs
    return result


def cpu_seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    t = os.times()
    return round(t.user + t.system + t.children_user + t.children_system, 1)


def train(
    options: Training,
    root: Path,
    *,
    resume: Path | None = None,
    show: Callable[[dict[str, Any]], None] = lambda line: None,
    opened: Callable[[Path], None] = lambda path: None,
    measured: Callable[[str, Measured], None] = lambda when, found: None,
    before: bool = True,
) -> dict[str, Any]:
    """Trains, and says what came of it.

    Args:
        options: what; with ``resume`` those on record.
        root: folder of runs.
        resume: a training to go on with, from its last checkpoint.
        show: called with each line of the curves.
        opened: called with the training's folder.
        measured: called with ``before``, ``warm`` or ``after``, and what held-out tasks came to.
        before: whether to play the held-out tasks before.

    Raises:
        UsageError: it is launched as one of several processes, or a package or the model is missing.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # each would write a training of its own, and resume from its own
        raise UsageError(
            "agentgym train is one process: say num_processes: 1 in accelerate's configuration. For several, put "
            "GRPOTrainer(model, **agentgym.training.trl.kit(FAMILY, how='rollout_func')) in a script of your own"
        )
    need("torch", "transformers", "trl", "datasets")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch
    import transformers
    from transformers.trainer_utils import get_last_checkpoint

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    from agentgym.policies.hf_model import HFPolicy
    from agentgym.training.grpo import made_trainer, stopping

    folder = resume or new_run_directory(root, f"train-{'-'.join(options.families)}")
    found: dict[str, Any] = {}
    if resume is None:
        _write(folder / OPTIONS, {"options": msgspec.to_builtins(options)})
    else:
        found = json.loads((folder / OPTIONS).read_text()).get("found", {})
    opened(folder)
    (folder / CHECKPOINTS).mkdir(exist_ok=True)
    checkpoint = get_last_checkpoint(str(folder / CHECKPOINTS))
    source = weights(options.model)
    torch.manual_seed(options.seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, local_files_only=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(source, local_files_only=True, dtype=torch.float32)
    policy = HFPolicy.of(model, tokenizer, max_batch=64, name=options.model)
    recorder = Recorder(folder, options, create=resume is None)
    status = "failed"

    def tell(when: str) -> None:
        if options.held_out and when not in found:
            result = measure(policy, options, root)
            found[when] = msgspec.to_builtins(result)
            _write(folder / OPTIONS, {"options": msgspec.to_builtins(options), "found": found})
            measured(when, result)

    try:
        if checkpoint is None:
            if before:
                tell("before")
            if options.warm_start is not None:
                imitate(model, tokenizer, options, root, show)
                if before:
                    tell("warm")
        trainer = made_trainer(model, tokenizer, options, folder, recorder, policy, show)
        if checkpoint is not None:
            recorder.step = _step_of(checkpoint)
        with interruptible() as asked:
            recorder.asked = asked
            trainer.add_callback(stopping(asked))
            trainer.train(resume_from_checkpoint=checkpoint)
        if asked:
            raise KeyboardInterrupt
        model.save_pretrained(folder / MODEL)
        tokenizer.save_pretrained(folder / MODEL)
        tell("after")
        found["cpu_s"] = cpu_seconds()
        _write(folder / OPTIONS, {"options": msgspec.to_builtins(options), "found": found})
        status = "finished"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        with contextlib.suppress(Exception):
            recorder.close(status)
    return found


@contextlib.contextmanager
def interruptible() -> Iterator[list[int]]:
    """Ctrl-C asks for the end after the present step; a second one does not wait.

    Yields:
        a list that holds the signal's number once it has come.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked  # signals are the main thread's
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: Any) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, handle)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def _step_of(checkpoint: str) -> int:
    return int(checkpoint.rpartition("-")[2])


def _write(path: Path, value: Any) -> None:
    """Whole or not at all."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(value, indent=1))
    os.replace(fresh, path)
