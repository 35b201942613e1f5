# SPDX-License-Identifier: Apache-2.0
"""ChatML, as SmolLM2 has it: ``<|im_start|>``, the role, a new line, the words, ``<|im_end|>``; tools as Hermes writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agentgym.chat import Message
from agentgym.errors import UsageError
from agentgym.protocols import FinishReason
from agentgym.tokens.renderer import Control, Encoder, Parsed, TextTokenizer, as_ids, readable
from agentgym.tool_text import parse_tool_calls, to_text_conversation
from agentgym.toolspec import ToolSpec

START, END = "<|im_start|>", "<|im_end|>"

SMOLLM2_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


class ChatML:
    """The renderer.

    Args:
        tokenizer: has the tokens ``<|im_start|>`` and ``<|im_end|>``.
        default_system: the system message where a conversation begins without one; None: none is put there.

    Raises:
        UsageError: a token is missing.
    """

    def __init__(self, tokenizer: TextTokenizer, *, default_system: str | None = None, name: str = "chatml") -> None:
        self.name = name
        self.stop_ids: tuple[int, ...]
        self.default_system = default_system
        self._encoder = Encoder(tokenizer, (START, END, "<|endoftext|>"))
        missing = [s for s in (START, END) if s not in self._encoder.ids]
        if missing:
            raise UsageError(f"{name} needs the special tokens {' and '.join(missing)}, which this tokenizer does not have")
        self._start, self._end = self._encoder.ids[START], self._encoder.ids[END]
        also = self._encoder.ids.get("<|endoftext|>")
        self.stop_ids = (self._end,) if also is None else (self._end, also)
        self._open = self._encoder.encode([Control(f"{START}assistant\n")])

    def initial(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[int]:
        """See `Renderer.initial`."""
        told = to_text_conversation(readable(messages), tools, "hermes")
        if self.default_system is not None and not (told and told[0].role == "system"):
            told.insert(0, Message("system", self.default_system))
        return self._encoder.encode(self._pieces(told))

    def bridge(
        self, prompt_ids: Sequence[int], output_ids: Sequence[int], new: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> list[int] | None:
        """See `Renderer.bridge`. None for a prompt that is not one of ChatML's, and where the output ends in the middle."""
        held, output = as_ids(prompt_ids), as_ids(output_ids)
        if held[-len(self._open) :] != self._open or any(m.role == "assistant" for m in new):
            return None
        ended = bool(output) and output[-1] == self._end
        body = output[:-1] if ended else output
        if any(id in self.stop_ids or id == self._start for id in body):
            return None
        told = to_text_conversation(readable(new), ())
        held += output if ended else [*output, self._end]
        return held + self._encoder.encode([Control("\n"), *self._pieces(told)])

    def parse(self, output_ids: Sequence[int], length_limit: bool = False) -> Parsed:
        """See `Renderer.parse`."""
        output = as_ids(output_ids)
        end = next((at for at, id in enumerate(output) if id in self.stop_ids), len(output))
        text = "".join(self._encoder.runs(output[:end]))
        message = parse_tool_calls(Message("assistant", text))
        finish: FinishReason = "tool_calls" if message.tool_calls else "stop"
        if length_limit and end == len(output):
            finish = "length"
        return Parsed(message, finish, bool(output) and output[-1] in self.stop_ids)

    @staticmethod
    def _pieces(messages: Sequence[Message]) -> Iterator[str]:
        for m in messages:
            yield Control(f"{START}{m.role}\n")
            yield m.text
            yield Control(f"{END}\n")
        yield Control(f"{START}assistant\n")
