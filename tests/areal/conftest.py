# SPDX-License-Identifier: Apache-2.0
"""A real model of a few thousand random weights behind a stand-in for AReaL's inference engine."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable
from typing import Any

import pytest

if importlib.util.find_spec("areal") is None:
    collect_ignore_glob = ["test_*"]
    warnings.warn("tests/areal is not run here: see tests/areal/requirements.txt", stacklevel=1)

os.environ.update(HF_HUB_OFFLINE="1", WANDB_DISABLED="true", CUDA_VISIBLE_DEVICES="")


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    from tests.token_engine import hf_tokenizer

    return hf_tokenizer()


@pytest.fixture(scope="session")
def model() -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=259, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=8192,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


class Engine:
    """All that workflows use of AReaL's engine. What it says is scripted, its log-probabilities are the model's own.

    Args:
        abort_after: tokens after which every answer is aborted once, while the weights become newer.
    """

    def __init__(self, model: Any, say: Callable[[str, int], Any] | None = None, abort_after: int | None = None) -> None:
        from tests.token_engine import solves

        self.model, self.say, self.abort_after = model, say or solves, abort_after
        self.version = 3
        self.asked: list[Any] = []
        self.members: dict[str, int] = {}
        self.rest: dict[str, list[int]] = {}

    def get_version(self) -> int:
        return self.version

    async def agenerate(self, request: Any) -> Any:
        import torch
        from areal.api import ModelResponse

        from tests.token_engine import Bytes, ids_of

        self.asked.append(request)
        prompt = list(request.input_ids)
        member = self.members.setdefault(request.rid, len(self.members))
        ids, stop, version = self.rest.pop(request.rid, None), "stop", self.version
        if ids is None:
            said = self.say(Bytes().decode(prompt), member)
            ids = ids_of(said) if isinstance(said, str) else list(said)
            if self.abort_after is not None:
                self.rest[request.rid] = ids[self.abort_after :]
                ids, stop = ids[: self.abort_after], "abort"
                self.version += 1
        if len(ids) > request.gconfig.max_new_tokens:
            ids, stop = ids[: request.gconfig.max_new_tokens], "length"
        with torch.no_grad():
            logits = self.model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].float()
        logprobs = torch.log_softmax(logits, -1).gather(1, torch.tensor(ids)[:, None])[:, 0].tolist()
        return ModelResponse(
            input_tokens=prompt, output_tokens=ids, output_logprobs=logprobs, output_versions=[version] * len(ids),
            stop_reason=stop, tokenizer=request.tokenizer,
        )  # fmt: skip
