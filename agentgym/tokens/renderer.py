# SPDX-License-Identifier: Apache-2.0
"""Renderers: from messages to the exact tokens of a prompt, from a turn to the next prompt, from tokens to a message.

What was sampled is never decoded and encoded again: the next prompt begins with the very tokens of the last one and of its
answer (`Renderer.bridge`), or the renderer says that it cannot prove that the model's template would go on like that (None),
and the next prompt is rendered from the messages, as a row of its own.

Words of users, tools and models are never control tokens. ``<|im_end|>`` in the answer of a tool is encoded as the
characters that it is made of, so nothing that an agent reads can end its turn or speak in another's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec

from agentgym.chat import ImagePart, Message, clean_message
from agentgym.errors import InfrastructureError
from agentgym.protocols import FinishReason
from agentgym.toolspec import ToolSpec


class Parsed(msgspec.Struct, frozen=True):
    """What the sampled tokens of one turn say."""

    message: Message
    """Reasoning is a part of its own; calls are read out of what is not reasoning."""
    finish_reason: FinishReason
    stop_token_in_output: bool
    """Whether the last token is one that ends a turn."""


class Renderer(Protocol):
    """How one model's conversations become tokens. Stateless: one object serves any number of episodes."""

    name: str
    """The family, e.g. ``chatml``."""
    stop_ids: tuple[int, ...]
    """Tokens that end a turn; what an engine is told to stop at."""

    def initial(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[int]:
        """The whole prompt; it ends where the model has to go on.

        Raises:
            InfrastructureError: a message holds an image.
        """
        ...

    def bridge(
        self, prompt_ids: Sequence[int], output_ids: Sequence[int], new: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> list[int] | None:
        """The prompt after a turn, made of the turn's own tokens.

        Args:
            prompt_ids: what the engine saw in that turn.
            output_ids: what it sampled, with the token that ended the turn or without. A missing end is put in; it is part
                of the new prompt, so nobody trains on it.
            new: the messages since, none of them the model's own.
            tools: the same as in the first prompt.

        Returns:
            A prompt that begins with ``prompt_ids + output_ids``; None where it cannot be proved that the model's template
            gives such a one: then `initial` renders the whole conversation.

        Raises:
            InfrastructureError: a message holds an image.
        """
        ...

    def parse(self, output_ids: Sequence[int], length_limit: bool = False) -> Parsed:
        """The message that sampled tokens spell, however malformed; raises nothing.

        Args:
            output_ids: of one turn.
            length_limit: whether the engine stopped for want of room; else a missing end means that it kept it to itself.
        """
        ...


@runtime_checkable
class TextTokenizer(Protocol):
    """All that renderers need of a tokenizer. One of transformers is wrapped by `agentgym.tokens.hf.HFTokenizer`."""

    def encode_ordinary(self, text: str) -> list[int]:
        """The tokens of a text, none of them special, whatever it spells; nothing put before or behind."""
        ...

    def special(self, name: str) -> int | None:
        """The id of the one token that is written like that, e.g. ``<|im_end|>``; None where there is none."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens; special ones by their names."""
        ...


class Control(str):
    """Text of a template, in which names of special tokens are those tokens. Everything else in a prompt is ordinary text."""

    __slots__ = ()


class Encoder:
    """Turns pieces of a prompt into tokens, given the names that are special in them.

    Neighbouring pieces are encoded as one text, since a tokenizer may join the end of one with the beginning of the next.
    """

    def __init__(self, tokenizer: TextTokenizer, names: Iterable[str]) -> None:
        self.tokenizer = tokenizer
        self.ids = {name: id for name in names if (id := tokenizer.special(name)) is not None}
        self.names = {id: name for name, id in self.ids.items()}
        longest_first = sorted(self.ids, key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(map(re.escape, longest_first))})") if longest_first else None

    def encode(self, pieces: Iterable[str]) -> list[int]:
        """The tokens of pieces in order."""
        result: list[int] = []
        text: list[str] = []
        for piece in pieces:
            if not isinstance(piece, Control) or self._split is None:
                text.append(piece)
                continue
            for at, part in enumerate(self._split.split(piece)):
                if at % 2:
                    self._flush(text, result)
                    result.append(self.ids[part])
                elif part:
                    text.append(part)
        self._flush(text, result)
        return result

    def _flush(self, text: list[str], result: list[int]) -> None:
        if text:
            joined = "".join(text)
            if joined:
                result += self.tokenizer.encode_ordinary(joined)
            text.clear()

    def runs(self, ids: Sequence[int]) -> Iterator[str]:
        """What tokens spell: special ones as `Control`, ordinary text between them."""
        begun = 0
        for at, id in enumerate(ids):
            name = self.names.get(id)
            if name is None:
                continue
            if at > begun:
                yield self.tokenizer.decode(ids[begun:at])
            yield Control(name)
            begun = at + 1
        if begun < len(ids):
            yield self.tokenizer.decode(ids[begun:])


def readable(messages: Sequence[Message]) -> list[Message]:
    """``messages`` as a tokenizer can take them.

    Raises:
        InfrastructureError: one holds an image.
    """
    for m in messages:
        if not isinstance(m.content, str) and any(isinstance(p, ImagePart) for p in m.content):
            raise InfrastructureError("this renderer is for text only, and the conversation holds an image", retryable=False)
    return [clean_message(m) for m in messages]


def as_ids(ids: Sequence[int]) -> list[int]:
    """Plain Python integers, whatever array they come in."""
    tolist = getattr(ids, "tolist", None)
    return tolist() if tolist is not None else list(ids)


def renderer_for(tokenizer: Any, name: str | None = None, *, template_args: Mapping[str, Any] | None = None) -> Renderer:
    """The renderer of a tokenizer.

    Args:
        tokenizer: one of transformers, or any `TextTokenizer`.
        name: ``smollm2`` or ``chatml``, which need no chat template; ``template``: what the tokenizer's own gives; None: what
            is proved with that template.
        template_args: further arguments of the chat template, e.g. ``{"enable_thinking": False}``.

    Raises:
        UsageError: the family is unknown, or cannot be proved to be the one of this tokenizer; the text says what to do.
    """
    from agentgym.tokens.families import find

    return find(tokenizer, name, template_args)
