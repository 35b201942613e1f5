# SPDX-License-Identifier: Apache-2.0
"""TRL's GRPOTrainer as `agentgym train` runs it: whole episodes, prompts of a group computed once, every step on record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentgym.protocols import Sampling
from agentgym.training import trl as adapter
from agentgym.training.shared import shared_logprobs

_IMAGES = ("pixel_values", "image_grid_thw", "num_images", "token_type_ids", "mm_token_type_ids")


# TRL's classes are asked for when one is made and not when this file is read, which anybody may who has no trainer installed


def _trainer_class() -> Any:
    from trl import GRPOTrainer  # type: ignore[import-not-found, unused-ignore]

    class SharedPromptTrainer(GRPOTrainer):  # type: ignore[misc, unused-ignore]
        """Computes the prompt of a group once instead of once for each of its episodes, where nothing forbids it."""

        def _get_per_token_logps_and_entropies(
            self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, *args: Any, **kwargs: Any
        ) -> Any:
            plain = self.accelerator.num_processes == 1 and model is self.accelerator.unwrap_model(model) and not self.args.bf16
            if not plain or kwargs.get("compute_aux_loss") or any(kwargs.get(k) is not None for k in _IMAGES):
                return super()._get_per_token_logps_and_entropies(
                    model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
                )
            logprobs, entropies = shared_logprobs(model, input_ids, attention_mask, logits_to_keep, self.temperature)
            return logprobs, entropies if kwargs.get("compute_entropy") else None, None

    return SharedPromptTrainer


def _steps(recorder: Any, policy: Any, rollout: adapter.Rollout, show: Callable[[dict[str, Any]], None]) -> Any:
    from transformers import TrainerCallback  # type: ignore[import-not-found, unused-ignore]

    class Steps(TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            from agentgym.training.run import cpu_seconds

            more = {
                "forked": rollout.forked,
                "spoiled": rollout.spoiled,
                "idle": rollout.idle,
                "shrunk": rollout.shrunk,
                "logprob_error": float(f"{rollout.largest_error:.2g}"),
                "cpu_s": cpu_seconds(),
            }
            show(recorder.end_of_step(state.global_step, **more))

    return Steps()


def stopping(asked: list[int]) -> Any:
    """Saves a checkpoint and ends after the step in which something came to stand in the list."""
    from transformers import TrainerCallback

    class Stopping(TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if asked:
                control.should_save = control.should_training_stop = True

    return Stopping()


def made_trainer(
    model: Any,
    tokenizer: Any,
    options: Any,
    folder: Path,
    recorder: Any,
    policy: Any,
    show: Callable[[dict[str, Any]], None],
) -> Any:
    """The trainer, its checkpoints in ``folder``."""
    import torch
    from trl import GRPOConfig

    from agentgym.training.run import CHECKPOINTS, payment

    kit = adapter.kit(
        options.families,
        variant=options.variant,
        tasks=max(256, options.steps * options.tasks),
        on_episode=recorder.episode,
        how="rollout_func",
        policy=policy,
        sampling=Sampling(temperature=1.0, max_tokens=options.max_tokens),
        pay=payment(options),
        seed=options.seed,
    )
    config = GRPOConfig(
        output_dir=str(folder / CHECKPOINTS),
        per_device_train_batch_size=options.tasks * options.group,
        num_generations=options.group,
        max_completion_length=4096,
        learning_rate=options.rate,
        lr_scheduler_type="constant",
        max_steps=options.steps,
        save_strategy="steps",
        save_steps=options.save_every,
        save_total_limit=2,
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        beta=0.0,
        bf16=False,
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=False,
        seed=options.seed,
    )
    trainer = _trainer_class()(model=model, args=config, processing_class=tokenizer, **kit)
    trainer.remove_callback(_printer())
    trainer.add_callback(_steps(recorder, policy, kit["rollout_func"], show))
    return trainer


def _printer() -> Any:
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback
