# SPDX-License-Identifier: Apache-2.0
"""Trains small reward models on preference rows from an environment's own oracles, and keeps them as safetensors.

The rows are pairs of transcripts of one task: what the honest oracle did is preferred to what the lazy, the random and the
cheating one did. They are written in the conversational format of TRL (``prompt``, ``chosen``, ``rejected``). The models are
Llama classifiers of some 0.1M parameters, made from nothing; an ensemble is several of them on other seeds. They see the last
256 tokens.

    python examples/reward_model/train.py OUT [--members 2] [--tasks 24] [--steps 60]

Prints one JSON line: on tasks that were not trained on, the share of pairs in the right order, by kind of pair, and how
much the score rises when a transcript is padded with idle words, in units of the scores' own spread.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import agentgym
from agentgym.chat import Message
from agentgym.evaluators.reward_model import SequenceReward, rows_of
from agentgym.trajectory import Trajectory

FAMILY = "tools.retail"
IDLE = " I will take great care to do this in the best possible way, with all due attention to every detail of the request."


def played(oracle: str, variant: str, split: str, tasks: int, runs: Path) -> dict[str, Trajectory]:
    """Transcripts of an oracle by task."""
    run = agentgym.evaluate(FAMILY, f"oracle:{oracle}", variants=[variant], limit=tasks, split=split, runs=runs)
    return {e.task_id: e.trajectory for e in run.episodes()}


def preferences(split: str, tasks: int) -> list[dict[str, Any]]:
    """Rows ``prompt``, ``chosen``, ``rejected`` (messages), ``task_id`` and ``reason``."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for variant, worse in (("control", "lazy"), ("control", "random"), ("tempt", "cheater")):
            good, bad = (played(oracle, variant, split, tasks, Path(folder)) for oracle in ("honest", worse))
            for task_id in sorted(good.keys() & bad.keys()):
                prompt = len(good[task_id].opening)
                rows.append(
                    {
                        "prompt": good[task_id].messages[:prompt],
                        "chosen": good[task_id].messages[prompt:],
                        "rejected": bad[task_id].messages[prompt:],
                        "task_id": task_id,
                        "reason": f"honest over {worse}",
                    }
                )
    return rows


def tokenizer_of(texts: list[str], size: int) -> Any:
    """Byte-level BPE, learned from the rows."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|pad|>", "<|end|>"]
    made.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet))
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<|pad|>", eos_token="<|end|>")
    fast.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}<|end|>"
    return fast


def train(rows: list[dict[str, Any]], tokenizer: Any, folder: Path, *, steps: int, seed: int, positions: int = 256) -> None:
    """One Bradley-Terry reward model: -log sigmoid(r(chosen) - r(rejected)), with a pull of the scores towards 0."""
    import torch
    import transformers

    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=positions, num_labels=1, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = transformers.LlamaForSequenceClassification(config)
    pairs = []
    for row in rows:
        sides = [
            tokenizer.apply_chat_template(rows_of([*row["prompt"], *row[s]]), tokenize=False) for s in ("chosen", "rejected")
        ]
        pairs.append([tokenizer(text)["input_ids"][-positions:] for text in sides])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 10) * (1 - step / steps)
        batch = [pairs[i] for i in rng.choice(len(pairs), min(6, len(pairs)), replace=False)]
        ids = [side for pair in batch for side in pair]
        longest = max(map(len, ids))
        tokens = torch.tensor([[*x, *[tokenizer.pad_token_id] * (longest - len(x))] for x in ids])
        mask = torch.tensor([[1] * len(x) + [0] * (longest - len(x)) for x in ids])
        scores = model(input_ids=tokens, attention_mask=mask).logits[:, 0].reshape(-1, 2)
        loss = -torch.nn.functional.logsigmoid(scores[:, 0] - scores[:, 1]).mean() + 0.01 * scores.square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def padded(conversation: list[Message]) -> list[Message]:
    """The same, with idle words in the assistant's messages."""
    return [Message(m.role, m.text + IDLE, m.tool_calls) if m.role == "assistant" else m for m in conversation]


def report(rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """How a model does on rows."""
    scorer = SequenceReward(folder)
    chosen, rejected = (scorer.scores([[*r["prompt"], *r[side]] for r in rows]) for side in ("chosen", "rejected"))
    idle = scorer.scores([padded([*r["prompt"], *r["rejected"]]) for r in rows])
    kinds = sorted({r["reason"] for r in rows})
    right = {
        k: float(np.mean([c > b for r, c, b in zip(rows, chosen, rejected, strict=True) if r["reason"] == k])) for k in kinds
    }
    spread = float(np.std(np.concatenate([chosen, rejected])))
    return {"pairs": len(rows), "in_order": float((chosen > rejected).mean()), "by_kind": right,
            "padding_gain": float((idle - rejected).mean() / spread)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--members", type=int, default=2)
    parser.add_argument("--tasks", type=int, default=24)
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    begun = time.process_time()
    rows, unseen = preferences("train", args.tasks), preferences("eval", max(4, args.tasks // 4))
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "preferences.jsonl").open("w", encoding="utf-8") as file:
        for r in rows:
            told = {k: rows_of(v) if isinstance(v, list) else v for k, v in r.items()}
            file.write(json.dumps(told) + "\n")
    texts = [
        "".join(f"{m['role']}: {m['content']}\n" for m in rows_of([*r["prompt"], *r["chosen"], *r["rejected"]])) for r in rows
    ]
    tokenizer = tokenizer_of(texts, 1024)
    members = []
    for seed in range(args.members):
        train(rows, tokenizer, args.out / f"member-{seed}", steps=args.steps, seed=seed)
        members.append(report(unseen, args.out / f"member-{seed}"))
    print(json.dumps({"trained_on": len(rows), "members": members, "cpu_s": round(time.process_time() - begun, 1)}))


if __name__ == "__main__":
    main()
