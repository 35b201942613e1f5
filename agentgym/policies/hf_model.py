# SPDX-License-Identifier: Apache-2.0
"""A transformers model in this process: ``--model hf:PATH`` (extra ``hf``); and ``gguf:PATH``, a model file for `local`.

For models under training and for those that no server runs: conversations that are under way at once are answered together, and
what a conversation has in the cache is kept until its next turn (`hf_engine`). Exact tokens are held from turn to turn and
recorded with their log-probabilities and weight versions (`token_player`).

    policy = HFPolicy.of(model, tokenizer)          # a model that somebody owns, such as a trainer
    with policy.updating():                         # nothing is sampled meanwhile; answers in the making go on afterwards
        optimizer.step()
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agentgym.chat import Message, to_openai
from agentgym.errors import InfrastructureError, NotFoundError, UsageError
from agentgym.policies.local import LocalPolicy
from agentgym.policies.token_player import LogprobKind, TokenPlayer
from agentgym.policies.wire import from_openai
from agentgym.protocols import Completion, EpisodeContext, Policy, PolicyBase, Sampling
from agentgym.tokens.renderer import Parsed, Renderer, renderer_for
from agentgym.tool_text import ToolFormat
from agentgym.toolspec import ToolSpec

if TYPE_CHECKING:
    from agentgym.policies.hf_engine import HFEngine

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

    The same seed gives the same answer, alone or beside others, up to rounding: sums over rows of different shapes differ in
    their last bits, by some 1e-6 in a log-probability, so once in very many tokens a draw falls to the neighbouring token.

    Args:
        argument: the folder.
        tool_format: ``native``: as the model's renderer has it; else how tool calls are written in text, see `tool_text`.
        device: torch device; None: CUDA where there is one.
        max_batch: most answers that are made at once.
        logprob_kind: of which distribution the log-probabilities are, see `Tokens`.
        cache_bytes: most bytes of keys and values kept between turns.

    Raises:
        NotFoundError: there is no such folder. A hub's name is not taken: what a run loads should be on this machine.
        UsageError: torch or transformers is missing.
    """

    def __init__(
        self,
        argument: str,
        *,
        tool_format: ToolFormat | Literal["native"] = "native",
        device: str | None = None,
        max_batch: int = 32,
        logprob_kind: LogprobKind = "raw",
        cache_bytes: int = 1 << 30,
    ) -> None:
        for package in ("torch", "transformers"):
            if importlib.util.find_spec(package) is None:
                raise UsageError(f"hf: models need the package {package}: pip install 'agentgym-harness[hf]'")
        self.path: Path | None = Path(argument).expanduser().absolute() if argument else None
        if self.path is None or not (self.path / "config.json").is_file():
            raise NotFoundError(
                f"hf:{argument}: expected a folder with config.json, weights and tokenizer in it, as save_pretrained writes it"
            )
        self._begin(f"hf:{argument}", tool_format, max_batch, logprob_kind, cache_bytes)
        self.device = device

    def _begin(
        self, name: str, tool_format: ToolFormat | Literal["native"], max_batch: int, kind: LogprobKind, cache_bytes: int
    ) -> None:
        if max_batch < 1:
            raise UsageError(f"max_batch must be at least 1, not {max_batch}")
        self.name = name
        self.slots = max_batch
        self.tool_format: ToolFormat | Literal["native"] = tool_format
        self._max_batch = max_batch
        self._logprob_kind: LogprobKind = kind
        self._cache_bytes = cache_bytes
        self._given: tuple[Any, Any] | None = None
        self._renderer: Renderer | None = None
        self._engine: HFEngine | None = None
        self._lock = threading.Lock()

    @classmethod
    def of(
        cls,
        model: Any,
        tokenizer: Any,
        *,
        renderer: Renderer | None = None,
        max_batch: int = 32,
        tool_format: ToolFormat | Literal["native"] = "native",
        logprob_kind: LogprobKind = "raw",
        cache_bytes: int = 1 << 30,
        name: str = "hf:model",
    ) -> HFPolicy:
        """A model that is loaded already and that somebody else owns, such as a trainer.

        It may be in training mode and may checkpoint gradients: it is in evaluation mode while it samples, and in its own mode
        again after each pass. Whoever changes its weights says so with `updating` or `set_version`.

        Args:
            model: a causal language model of transformers; wrapped by PEFT or not.
            tokenizer: its tokenizer.
            renderer: None: the one of the tokenizer's family.
            name: what is recorded.

        The others are those of the class.
        """
        self = cls.__new__(cls)
        self.path, self.device = None, None
        self._begin(name, tool_format, max_batch, logprob_kind, cache_bytes)
        self._given = (model, tokenizer)
        self._renderer = renderer
        return self

    replayable = True
    """The same conversation may be answered from the reply cache: what a player did not say is rendered from its words."""

    def begin(self, context: EpisodeContext) -> Policy:
        """A player that holds the tokens of its episode."""
        return _Player(self)

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        """Answers the conversation, its whole prompt rendered anew.

        Raises:
            InfrastructureError: the model cannot be loaded or run, or the conversation holds an image.
        """
        return await _Player(self).act(conversation, tools, sampling)

    @property
    def version(self) -> int:
        """Weight version of the tokens sampled from now on."""
        return self._ready().version

    def set_version(self, version: int) -> None:
        """The weights have been changed, between two turns or while turns are being answered; see `updating`.

        Better is to change them within `updating`: a pass that is under way sees the change half done.
        """
        with self.updating(version):
            pass

    def updating(self, version: int | None = None) -> contextlib.AbstractContextManager[None]:
        """While entered nothing is sampled: the time to change the weights. Answers in the making then go on under the new
        ones, from the tokens that they have.

        Args:
            version: of the new weights; None: the last one and 1.
        """
        return self._ready().updating(version)

    def load_weights(self, named: Iterable[tuple[str, Any]], version: int | None = None) -> None:
        """Copies weights into the model, such as a trainer's own into the copy that samples; nothing is sampled meanwhile.

        Args:
            named: names as `torch.nn.Module.named_parameters` has them, and tensors of the same shapes, on any device.
            version: of the new weights; None: the last one and 1.

        Raises:
            UsageError: the model has no such parameter, or one of another shape.
        """
        import torch

        own = dict(self._ready().model.named_parameters(remove_duplicate=False))
        with self.updating(version), torch.no_grad():
            for name, tensor in named:
                if name not in own or own[name].shape != tensor.shape:
                    raise UsageError(f"{self.name} has no parameter {name} of shape {tuple(tensor.shape)}: another model?")
                own[name].copy_(tensor)

    def prepare(self) -> None:
        """Loads the model.

        Raises:
            InfrastructureError: it cannot be loaded.
        """
        self._ready()

    def fingerprint(self) -> dict[str, Any]:
        """Name, hashes of configuration, tokenizer and weights, and versions."""
        from importlib.metadata import version

        files = {}
        for file in sorted(self.path.iterdir()) if self.path is not None else ():
            if file.suffix in (".json", ".safetensors", ".jinja", ".model", ".bin"):
                with file.open("rb") as f:
                    files[file.name] = hashlib.file_digest(f, "sha256").hexdigest()
        return {
            "name": self.name,
            "files": files,
            "torch": version("torch"),
            "transformers": version("transformers"),
            "tool_format": self.tool_format,
            "renderer": None if self._renderer is None else self._renderer.name,
            "logprob_kind": self._logprob_kind,
        }

    async def aclose(self) -> None:
        """Lets go of thread and cache, and of a model that it loaded itself. A later `act` begins anew."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await asyncio.to_thread(engine.close)

    def _ready(self) -> HFEngine:
        with self._lock:
            if self._engine is None:
                model, tokenizer = self._given or self._load()
                if self._renderer is None:
                    self._renderer = renderer_of(tokenizer)
                from agentgym.policies.hf_engine import HFEngine

                self._engine = HFEngine(
                    model,
                    tokenizer,
                    max_batch=self._max_batch,
                    cache_bytes=self._cache_bytes,
                    logprob_kind=self._logprob_kind,
                )
            return self._engine

    def _load(self) -> tuple[Any, Any]:
        import torch
        import transformers

        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(self.path, local_files_only=True)
            model = transformers.AutoModelForCausalLM.from_pretrained(self.path, local_files_only=True)
        except (OSError, ValueError, RuntimeError, ImportError) as e:
            raise InfrastructureError(f"{self.name} cannot be loaded: {e}", retryable=False) from e
        return model.to(device).eval(), tokenizer


class _Player(PolicyBase):
    """One episode; the model is loaded with its first turn, off the event loop."""

    def __init__(self, policy: HFPolicy) -> None:
        self.name = policy.name
        self._policy = policy
        self._player: TokenPlayer | None = None

    async def act(self, conversation: Sequence[Message], tools: Sequence[ToolSpec], sampling: Sampling) -> Completion:
        """The model's answer."""
        player = self._player
        if player is None:
            policy = self._policy
            engine = await asyncio.to_thread(policy._ready)
            assert policy._renderer is not None
            tool_format = policy.tool_format
            if tool_format == "native" and isinstance(policy._renderer, TemplateRenderer):
                tool_format = "auto"  # templates write tools in ways of their own, and nobody could read the calls
            player = self._player = TokenPlayer(self.name, policy._renderer, engine, tool_format)
        return await player.act(conversation, tools, sampling)

    async def end(self) -> None:
        """The episode is over."""
        if self._player is not None:
            await self._player.end()


class TemplateRenderer:
    """A tokenizer's own chat template, for families that no renderer is proved for.

    Every prompt is rendered whole, and nothing is promised about how it begins: turns share a row where the text happens to be
    tokenized as it was sampled, and fork where not.
    """

    name = "template"

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.stop_ids: tuple[int, ...] = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)

    def initial(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[int]:
        """The whole prompt; tools are in its text already."""
        rows = [{"role": r["role"], "content": r["content"]} for r in to_openai(messages)]
        own = self._tokenizer.chat_template
        text = self._tokenizer.apply_chat_template(
            rows, tokenize=False, add_generation_prompt=True, chat_template=own or _PLAIN
        )
        ids: list[int] = self._tokenizer(text, add_special_tokens=own is None)["input_ids"]
        return ids

    def bridge(
        self, prompt_ids: Sequence[int], output_ids: Sequence[int], new: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> list[int] | None:
        """None: nothing is known of the template."""
        return None

    def parse(self, output_ids: Sequence[int], length_limit: bool = False) -> Parsed:
        """The text without special tokens; a ``<think>`` block in front is reasoning."""
        said = self._tokenizer.decode(list(output_ids), skip_special_tokens=True)
        stopped = bool(output_ids) and output_ids[-1] in self.stop_ids
        return Parsed(from_openai({"content": said}), "length" if length_limit else "stop", stopped)


def renderer_of(tokenizer: Any) -> Renderer:
    """The renderer of a tokenizer's family, else its own template."""
    try:
        return renderer_for(tokenizer)
    except UsageError:
        return TemplateRenderer(tokenizer)
