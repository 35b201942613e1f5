# SPDX-License-Identifier: Apache-2.0
"""A transformers model in this process: ``--model hf:PATH`` (extra ``hf``); and ``gguf:PATH``, a model file for `local`.

For models under training and for those that no server runs. One call at a time: a server such as vLLM is faster by far.
Token ids and log-probabilities are recorded exactly, prompt included.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from agentgym.chat import ImagePart, Message, clean_message, to_openai
from agentgym.errors import InfrastructureError, NotFoundError, UsageError
from agentgym.policies.local import LocalPolicy
from agentgym.policies.wire import from_openai, turn_seed
from agentgym.protocols import Completion, FinishReason, PolicyBase, Sampling, Tokens, Usage
from agentgym.tool_text import ToolFormat, parse_tool_calls, to_text_conversation
from agentgym.toolspec import ToolSpec

DEFAULT_MAX_TOKENS = 192

_PLAIN = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
"""Chat template for tokenizers that bring none, such as those of base models."""


def gguf(argument: str) -> LocalPolicy:
    """``gguf:PATH``: the GGUF file at that path, as ``local:PATH``.

    Raises:
        NotFoundError: there is no such file.
        UsageError: it is not a GGUF file.
    """
    if not argument:
        raise UsageError("which file? Expected gguf:PATH, e.g. gguf:models/qwen.gguf")
    return LocalPolicy(argument if "/" in argument else f"./{argument}")


class HFPolicy(PolicyBase):
    """A causal language model and its tokenizer from a folder (``save_pretrained``'s), run by transformers.

    Without ``temperature`` it samples at 1.0 from the whole distribution, so that the recorded log-probabilities are those
    of the tokens' own distribution. A conversation that does not fit the model's positions gets an empty answer with
    finish reason ``length``.

    Args:
        argument: the folder.
        tool_format: how tool calls are written, see `tool_text`.
        device: torch device; None: CUDA where there is one.

    Raises:
        NotFoundError: there is no such folder. A hub's name is not taken: what a run loads should be on this machine.
        UsageError: torch or transformers is missing.
    """

    slots = 1

    def __init__(self, argument: str, *, tool_format: ToolFormat = "auto", device: str | None = None) -> None:
        for package in ("torch", "transformers"):
            if importlib.util.find_spec(package) is None:
                raise UsageError(f"hf: models need the package {package}: pip install 'agentgym-harness[hf]'")
        self.path = Path(argument).expanduser().absolute() if argument else None
        if self.path is None or not (self.path / "config.json").is_file():
            raise NotFoundError(
                f"hf:{argument}: expected a folder with config.json, weights and tokenizer in it, as save_pretrained writes it"
            )
        self.name = f"hf:{argument}"
        self.tool_format: ToolFormat = tool_format
        self.device = device
        self._model: Any = None
        self._tokenizer: Any = None
        self._executor: ThreadPoolExecutor | None = None

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        """Answers the conversation.

        Raises:
            InfrastructureError: the model cannot be loaded or run, or the conversation holds an image.
        """
        begun = time.monotonic()
        messages = [clean_message(m) for m in to_text_conversation(conversation, tools, self.tool_format)]
        if any(isinstance(p, ImagePart) for m in messages if not isinstance(m.content, str) for p in m.content):
            raise InfrastructureError("hf: models read text only, and the conversation holds an image", retryable=False)
        used = msgspec.structs.replace(
            sampling,
            temperature=1.0 if sampling.temperature is None else sampling.temperature,
            max_tokens=sampling.max_tokens or DEFAULT_MAX_TOKENS,
            seed=turn_seed(sampling, len(conversation)),
        )
        if self._executor is None:
            # one thread, as torch's random state is the process's own
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="agentgym-hf")
        loop = asyncio.get_running_loop()
        message, usage, finish, tokens = await loop.run_in_executor(self._executor, self._generate, messages, used)
        if tools:
            message = parse_tool_calls(message, self.tool_format)
            if message.tool_calls and finish == "stop":
                finish = "tool_calls"
        return Completion(message, usage, finish, tokens, used, time.monotonic() - begun)

    def fingerprint(self) -> dict[str, Any]:
        """Name, hashes of configuration, tokenizer and weights, and versions."""
        from importlib.metadata import version

        files = {}
        assert self.path is not None
        for file in sorted(self.path.iterdir()):
            if file.suffix in (".json", ".safetensors", ".jinja", ".model", ".bin"):
                with file.open("rb") as f:
                    files[file.name] = hashlib.file_digest(f, "sha256").hexdigest()
        return {
            "name": self.name,
            "files": files,
            "torch": version("torch"),
            "transformers": version("transformers"),
            "tool_format": self.tool_format,
        }

    async def aclose(self) -> None:
        """Lets go of model and thread."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor = self._model = self._tokenizer = None

    # -- in the thread ----------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        import torch
        import transformers

        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(self.path, local_files_only=True)
            model = transformers.AutoModelForCausalLM.from_pretrained(self.path, local_files_only=True)
        except (OSError, ValueError, RuntimeError, ImportError) as e:
            raise InfrastructureError(f"{self.name} cannot be loaded: {e}", retryable=False) from e
        self._model = model.to(device).eval()

    def _generate(self, messages: list[Message], sampling: Sampling) -> tuple[Message, Usage, FinishReason, Tokens | None]:
        import torch

        if self._model is None:
            self._load()
        tokenizer, model = self._tokenizer, self._model
        rows = [{"role": r["role"], "content": r["content"]} for r in to_openai(messages)]
        text = tokenizer.apply_chat_template(
            rows, tokenize=False, add_generation_prompt=True, chat_template=tokenizer.chat_template or _PLAIN
        )
        prompt = tokenizer(text, return_tensors="pt", add_special_tokens=tokenizer.chat_template is None)["input_ids"]
        length = int(prompt.shape[1])
        room = getattr(model.config, "max_position_embeddings", None) or length + (sampling.max_tokens or 0)
        wanted = min(sampling.max_tokens or DEFAULT_MAX_TOKENS, room - length)
        if wanted < 1:
            return Message("assistant"), Usage(length), "length", None
        if sampling.seed is not None:
            torch.manual_seed(sampling.seed)
        greedy = sampling.temperature == 0
        how: dict[str, Any] = {"do_sample": not greedy}
        if not greedy:
            how |= {"temperature": sampling.temperature, "top_p": sampling.top_p or 1.0, "top_k": sampling.top_k or 0}
        if sampling.stop:
            how |= {"stop_strings": list(sampling.stop), "tokenizer": tokenizer}
        ends = model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id}
        ends.discard(None)
        with torch.inference_mode():
            made = model.generate(
                prompt.to(model.device),
                attention_mask=torch.ones_like(prompt).to(model.device),
                max_new_tokens=wanted,
                pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(ends, default=0),
                eos_token_id=sorted(ends) or None,
                return_dict_in_generate=True,
                output_logits=True,
                **how,
            )
            ids = made.sequences[0, length:]
            # of the model's own distribution, whatever temperature and cuts were then applied to it
            logits = torch.stack([step[0] for step in made.logits]).float()
            logprobs = torch.log_softmax(logits, -1).gather(1, ids[:, None])[:, 0]
        output = ids.cpu().numpy().astype(np.int32)
        stopped = bool(len(output)) and int(output[-1]) in ends
        said = tokenizer.decode(output, skip_special_tokens=True)
        cut = [at for s in sampling.stop if (at := said.find(s)) >= 0]
        if cut:
            said = said[: min(cut)]
        finish: FinishReason = "stop" if stopped or cut else "length"
        tokens = Tokens(
            output,
            logprobs.cpu().numpy().astype(np.float32),
            prompt[0].numpy().astype(np.int32),
            logprob_kind="raw",
            stop_token_in_output=stopped,
        )
        return from_openai({"content": said}), Usage(length, len(output)), finish, tokens
