# SPDX-License-Identifier: Apache-2.0
"""A real model of a few thousand random weights behind a stand-in for AReaL's inference engine."""

from __future__ import annotations

import importlib.util
import os
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest

if importlib.util.find_spec("areal") is None:
    collect_ignore_glob = ["test_*"]
    warnings.warn("tests/areal is not run here: see tests/areal/requirements.txt", stacklevel=1)

os.environ.update(HF_HUB_OFFLINE="1", WANDB_DISABLED="true", CUDA_VISIBLE_DEVICES="")

TEMPLATE = (
    "{% if tools %}<|im_start|>system\nTools: {{ tools | length }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] or '' }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """One of transformers, a token a byte, with the ids of `tests.token_engine.Bytes`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from tests.token_engine import SPECIAL

    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]  # the byte-level alphabet of GPT-2
    letters = {b: chr(b) for b in shown}
    letters |= {b: chr(256 + at) for at, b in enumerate(b for b in range(256) if b not in shown)}
    inner = Tokenizer(models.BPE({letters[b]: b for b in range(256)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    made.chat_template = TEMPLATE
    return made


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


def solves(prompt: str, member: int = 0) -> str:
    """What an agent that can add says next in ``tools.lookup``, by what stands in its prompt."""
    from tests.token_engine import calling

    wanted = re.findall(r"k\d", prompt.rpartition("sum of")[2].partition("?")[0])
    told = re.findall(r"<tool_response>\s*(\d+)\s*</tool_response>", prompt) or re.findall(
        r"<\|im_start\|>tool\n(\d+)<", prompt
    )
    if len(told) < len(wanted):
        return calling("get", key=wanted[len(told)])
    return calling("submit", answer=str(sum(map(int, told))))


class Engine:
    """All that workflows use of AReaL's engine. What it says is scripted, its log-probabilities are the model's own.

    Args:
        abort_after: tokens after which every answer is aborted once, while the weights become newer.
    """

    def __init__(self, model: Any, say: Callable[[str, int], Any] = solves, abort_after: int | None = None) -> None:
        self.model, self.say, self.abort_after = model, say, abort_after
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
