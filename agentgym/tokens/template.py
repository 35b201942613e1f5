# SPDX-License-Identifier: Apache-2.0
"""The renderer for any model whose tokenizer brings a chat template (transformers): nothing about a family is guessed.

The template itself writes every prompt. What it cannot say is proved with it when the renderer is made, and again for each
kind of turn: how calls and reasoning are written (an answer that the template wrote must be read back as it was), that prompts
are what ``apply_chat_template`` gives, and, for `bridge`, that the template leaves everything in place that stood before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from agentgym.chat import Message, Role, ToolCall, assistant, user
from agentgym.errors import InfrastructureError, UsageError
from agentgym.protocols import FinishReason
from agentgym.tokens.formats import FORMATS, PLAIN, Format, types_of
from agentgym.tokens.hf import HFTokenizer
from agentgym.tokens.renderer import Control, Encoder, Parsed, as_ids, readable
from agentgym.tool_text import to_text_conversation
from agentgym.toolspec import ToolSpec

_SPLIT = "\ue0fe"
"""Put into each name of a token in words that are not the template's, and taken out again before they are encoded."""

_ASK, _ANSWER, _THOUGHT, _VALUE, _SEEN = "zqask", "zqanswer", "zqthought", "zqvalue", "zqseen"
"""Words that stand for others in proofs: no template has them, and none changes them."""

_TAIL = 32
"""Tokens in which the end of a prompt is looked for."""

_PROBE_TOOL = ToolSpec(
    "zqtool", "Tool of a proof.", {"type": "object", "properties": {"key": {"type": "string"}, "number": {"type": "integer"}}}
)


class _Refused(Exception):
    """The template raised on a conversation."""


class _Shape(msgspec.Struct, frozen=True):
    """What kind of turn a prompt goes on after."""

    reasoned_before: bool
    reasoned: bool
    spoke: bool
    calls: tuple[str, ...]
    new: tuple[Role, ...]
    """Roles of the messages since."""


class TemplateRenderer:
    """The renderer.

    Args:
        tokenizer: a fast tokenizer of transformers with a chat template.
        template_args: further arguments of the template, e.g. ``{"enable_thinking": False}``.
        name: how it is shown.

    Raises:
        UsageError: something cannot be proved; the text says what.
    """

    def __init__(self, tokenizer: Any, *, template_args: Mapping[str, Any] | None = None, name: str | None = None) -> None:
        self.tokenizer = tokenizer
        if not getattr(tokenizer, "chat_template", None):
            raise UsageError(
                "the tokenizer has no chat template, so nothing says how its model's prompts look: set"
                " tokenizer.chat_template, or name the family: renderer_for(tokenizer, 'chatml')"
            )
        self._template_args = dict(template_args or {})
        self._text = HFTokenizer(tokenizer)
        self._encoder = Encoder(self._text, self._text.added)
        names = sorted((n for n in self._text.added if len(n) > 1), key=len, reverse=True)
        self._names = re.compile("|".join(map(re.escape, names))) if names else None
        self._proved: dict[_Shape, str | None] = {}
        self._native = self._can_show_tools()
        self._string_arguments = self._native and self._embeds_argument_text()
        self.stop_ids: tuple[int, ...] = ()
        self._openings = self._prove_openings()
        self._opened = self._openings[0].rstrip().endswith("<think>")
        self.format = self._prove_format()
        self._prove_prompts()
        self.name = name or f"template:{self.format.name}"

    # -- the protocol ----------------------------------------------------------------------------------------------------

    def initial(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[int]:
        """See `Renderer.initial`.

        Raises:
            InfrastructureError: also where the template refuses the conversation.
        """
        try:
            return self._encode(self._render(messages, tools, True))
        except _Refused as e:
            raise InfrastructureError(f"the chat template refuses this conversation: {e}", retryable=False) from e

    def bridge(
        self, prompt_ids: Sequence[int], output_ids: Sequence[int], new: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> list[int] | None:
        """See `Renderer.bridge`. None also where the template drops or changes what came before, as many do with reasoning."""
        held, output = as_ids(prompt_ids), as_ids(output_ids)
        if not new or any(m.role == "assistant" for m in new):
            return None
        readable(new)
        ended = bool(output) and output[-1] in self.stop_ids
        if any(id in self.stop_ids for id in (output[:-1] if ended else output)):
            return None
        if not self._text.decode(held[-_TAIL:]).endswith(self._openings):
            return None
        said = self.parse(output, prompt_ids=held[-_TAIL:], tools=tools).message
        shape = _Shape(
            self._shows_reasoning(held),
            bool(said.reasoning),
            bool(said.text.strip()),
            tuple(c.name for c in said.tool_calls),
            tuple(m.role for m in new),
        )
        if shape not in self._proved:
            if len(self._proved) >= 4096:  # a model may make up a name of a tool in every turn
                self._proved.clear()
            self._proved[shape] = self._prove_continuation(shape)
        section = self._proved[shape]
        # reasoning that is there and empty, or that the template would write although there was none
        if section is None or self._shows_reasoning(output) != (self._thought_mark in section):
            return None
        try:
            head = self._render(_history(0, shape), tools, True)
            whole = self._render([*_history(0, shape), _stand_in(shape), *_joined(new, shape)], tools, True)
        except _Refused:
            return None
        if not whole.startswith(head + section):
            return None
        end = self._last_special(section)
        if ended and output[-1] != end:
            return None
        return held + (output if ended else [*output, end]) + self._encode(whole[len(head) + len(section) :])

    def parse(
        self,
        output_ids: Sequence[int],
        length_limit: bool = False,
        *,
        prompt_ids: Sequence[int] | None = None,
        tools: Sequence[ToolSpec] = (),
    ) -> Parsed:
        """See `Renderer.parse`.

        Args:
            output_ids: of one turn.
            length_limit: whether the engine stopped for want of room.
            prompt_ids: what it saw, or the end of it, which tells whether it had begun the reasoning; None: as after a user.
            tools: for formats that write numbers and texts alike (GLM, Qwen3-Coder): tells which is meant.
        """
        output = as_ids(output_ids)
        end = next((at for at, id in enumerate(output) if id in self.stop_ids), len(output))
        opened = self._opened
        if prompt_ids is not None:
            opened = self._text.decode(as_ids(prompt_ids[-_TAIL:])).rstrip().endswith("<think>")
        ended = end < len(output)
        runs = list(self._encoder.runs(output[:end]))
        message = self.format.read(runs, opened, ended or not length_limit, types_of(tools))
        finish: FinishReason = "tool_calls" if message.tool_calls else "stop"
        if length_limit and not ended:
            finish = "length"
        return Parsed(message, finish, bool(output) and output[-1] in self.stop_ids)

    # -- rendering -------------------------------------------------------------------------------------------------------

    def _render(self, messages: Sequence[Message], tools: Sequence[ToolSpec], prompt: bool) -> str:
        """The template's text, names in foreign words split.

        Raises:
            _Refused: the template raised.
        """
        messages = readable(messages)
        if not self._native:
            messages, tools = to_text_conversation(messages, tools, "hermes"), ()
        rows = [self._row(m) for m in messages]
        told = [self._guarded(t.to_openai()) for t in tools] or None
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    rows, tools=told, tokenize=False, add_generation_prompt=prompt, **self._template_args
                )
            )
        except Exception as e:  # jinja's own, and whatever its expressions raise
            raise _Refused(f"{type(e).__name__}: {e}") from e

    def _row(self, m: Message) -> dict[str, Any]:
        text = self._guarded(m.text)
        row: dict[str, Any] = {"role": m.role, "content": text}
        if m.tool_calls:
            calls = []
            for c in m.tool_calls:
                arguments: Any = c.arguments
                if not self._string_arguments:
                    try:
                        arguments = json.loads(c.arguments)
                    except (ValueError, RecursionError):
                        arguments = {"arguments": c.arguments}
                    if not isinstance(arguments, dict):
                        arguments = {"arguments": c.arguments}
                called = {"name": self._guarded(c.name), "arguments": self._guarded(arguments)}
                calls.append({"id": c.id, "type": "function", "function": called})
            row["tool_calls"] = calls
        if m.reasoning:
            reasoning = self._guarded(m.reasoning)
            harmony = getattr(self, "format", None) is None or self.format.name == "harmony"
            if harmony and m.tool_calls and text:  # it has one place for both
                row |= {"content": "", "thinking": f"{reasoning}\n{text}"}
            else:
                row["thinking"] = reasoning
            row["reasoning_content"] = reasoning
        if m.tool_call_id is not None:
            row["tool_call_id"] = m.tool_call_id
        if m.name is not None:
            row["name"] = self._guarded(m.name)
        return row

    def _guarded(self, value: Any) -> Any:
        if isinstance(value, str):
            value = value.replace(_SPLIT, "\ufffd")
            return value if self._names is None else self._names.sub(lambda m: f"{m[0][0]}{_SPLIT}{m[0][1:]}", value)
        if isinstance(value, dict):
            return {self._guarded(k): self._guarded(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self._guarded(v) for v in value]
        return value

    def _encode(self, text: str) -> list[int]:
        """The tokens of a rendered text: names are special except those that were split."""
        if _SPLIT not in text:
            return self._encoder.encode([Control(text)])
        pieces: list[str] = []
        first, *others = text.split(_SPLIT)
        pieces.append(Control(first))
        for other in others:
            # the rest of a name may hold a shorter name; it is ordinary up to where the split one ends
            held = pieces[-1][-1:] + other
            match = self._names.match(held) if self._names else None
            size = match.end() - 1 if match else 0
            pieces += [other[:size], Control(other[size:])]
        return self._encoder.encode(pieces)

    @property
    def _thought_mark(self) -> str:
        return "<|channel|>analysis" if self.format.name == "harmony" else "</think>"

    def _shows_reasoning(self, prompt: list[int]) -> bool:
        """Whether tokens hold reasoning; yes where that is not certain."""
        id = self._text.added.get(self._thought_mark)
        if id is None or self.format.name == "harmony":
            return self._thought_mark in self._text.decode(prompt)
        return id in prompt

    def _last_special(self, text: str) -> int:
        """The token that a text ends with."""
        return self._encoder.encode([Control(text)])[-1]

    # -- proofs ----------------------------------------------------------------------------------------------------------

    def _can_show_tools(self) -> bool:
        self._native = self._string_arguments = True
        try:
            return "zqtool" in self._render([user(_ASK)], [_PROBE_TOOL], True)
        except _Refused:
            return False

    def _embeds_argument_text(self) -> bool:
        """Whether the template writes arguments as it gets them; else it wants them as an object."""
        written = '{"key":  "zqvalue"}'
        turn = assistant("", ToolCall("zqtool", written, "zq0"))
        try:
            return written in self._render([user(_ASK), turn, Message("tool", _SEEN, (), "zq0")], [_PROBE_TOOL], True)
        except _Refused:
            return False

    def _prove_format(self) -> Format:
        """The format that reads back what the template wrote; sets `stop_ids`.

        Raises:
            UsageError: none does.
        """
        for form in FORMATS if self._native else (PLAIN,):
            self.format = form
            self.stop_ids = self._stops(form)
            if self.stop_ids and all(self._reads_back(m) for m in _probes(self._native)):
                return form
        raise UsageError(
            "the chat template writes answers in a way that no format here reads back (there are:"
            f" {', '.join(f.name for f in FORMATS)}), so calls would be misread: write an agentgym.tokens.Renderer for it, or"
            " use a model server that parses calls itself (openai:MODEL@URL)"
        )

    def _stops(self, form: Format) -> tuple[int, ...]:
        names = [n for n in form.stops if n in self._text.added]
        if form.stops and not names:
            return () if form.name == "harmony" else self._stops(msgspec.structs.replace(form, stops=()))
        if form.ends_turn:
            eos = getattr(self.tokenizer, "eos_token", None)
            names += [eos] if eos in self._text.added else []
            for more in ((), (user(_SEEN),)):
                try:
                    text = self._render([user(_ASK), assistant(_ANSWER), *more], (), False)
                except _Refused:
                    continue
                behind = text.rpartition(_ANSWER)[2]
                found = self._names.search(behind) if self._names else None
                names += [found[0]] if found else []
        return tuple(dict.fromkeys(self._text.added[n] for n in names))

    def _reads_back(self, message: Message) -> bool:
        tools = [_PROBE_TOOL] if self._native else ()
        try:
            head = self._render([user(_ASK)], tools, True)
            whole = self._render([user(_ASK), message], tools, False)
        except _Refused:
            return True  # what cannot be written need not be read
        if any(c.arguments.split('"')[3] not in whole for c in message.tool_calls):
            return True  # one call a turn is all that gpt-oss writes
        opened = head.rstrip().endswith("<think>")
        if not whole.startswith(head):  # the answer of a past turn stands without the reasoning that prompts begin
            opened, head = False, re.sub(r"<think>\s*(?:</think>\s*)?$", "", head)
            head = head if whole.startswith(head) else head.rstrip()
            if not whole.startswith(head):
                return False
        read = self.parse(self._encode(whole[len(head) :]), prompt_ids=self._encode(head if opened else "")).message
        shows = message.reasoning and message.reasoning in whole
        same_calls = [(c.name, json.loads(c.arguments)) for c in message.tool_calls] == [
            (c.name, _loaded(c.arguments)) for c in read.tool_calls
        ]
        wanted = "" if message.tool_calls and message.text and message.text not in whole[len(head) :] else message.text
        text = read.text.strip()
        return same_calls and text == wanted and (read.reasoning.strip() == message.reasoning if shows else True)

    def _prove_prompts(self) -> None:
        """Our tokens of prompts are the tokenizer's own.

        Raises:
            UsageError: they differ.
        """
        for messages in (
            [user("Hello,  world!\n\n  a  ")],
            [Message("system", "Be brief. "), user("1 + 1?"), assistant("2\n"), user(" und ß 漢字 🙂\n")],
        ):
            try:
                text = self._render(messages, (), True)
            except _Refused:
                continue  # some take no system message
            theirs = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            if messages[-1].text.strip() not in text:
                raise UsageError("the chat template does not show words that are plain text, so it cannot be used here")
            if self._encode(text) != theirs:
                raise UsageError(
                    "prompts cannot be kept apart from control tokens with this tokenizer: text around its special tokens is"
                    " encoded otherwise than by itself (tokens that swallow white space, or a prefix space). Write an"
                    " agentgym.tokens.Renderer for it"
                )

    def _prove_openings(self) -> tuple[str, ...]:
        """What prompts end with: after a user, and after a tool where that is something else.

        Raises:
            UsageError: the template does not put it there.
        """
        call = assistant("", ToolCall("zqtool", '{"key": "zqvalue"}', "zq0"))
        result: list[str] = []
        for messages in ([user(_ASK)], [user(_ASK), call, Message("tool", _SEEN, (), "zq0", "zqtool")]):
            tools = [_PROBE_TOOL] if self._native else ()
            try:
                shut, opened = self._render(messages, tools, False), self._render(messages, tools, True)
            except _Refused:
                continue
            eos = getattr(self.tokenizer, "eos_token", None)
            if eos and not opened.startswith(shut):  # Phi ends a finished conversation with a token of its own
                shut = shut.removesuffix(eos)
            if not opened.startswith(shut):
                raise UsageError(
                    "the chat template changes the conversation when it asks for an answer; it cannot be used here"
                )
            text = opened[len(shut) :]
            if not text and len(messages) > 1 and self._native and result:  # DeepSeek's go on behind the results, unasked
                text = opened.rpartition(_SEEN)[2]
            if text and text not in result:
                result.append(text)
        if not result:
            raise UsageError("the chat template does not heed add_generation_prompt, so a prompt would not ask for an answer")
        return tuple(result)

    def _prove_continuation(self, shape: _Shape) -> str | None:
        """What the template writes for a turn of that kind, up to and with the token that ends it; None: not proved.

        Proved is: for different histories, the template leaves in place what stood there when the turn was asked for and all
        that the turn said, and puts the same behind it, whatever came before.
        """
        behind: set[str] = set()
        section = ""
        tools = [_PROBE_TOOL]
        wanted = [_THOUGHT] * shape.reasoned + [_ANSWER] * shape.spoke
        wanted += [f"{_VALUE}{i}" for i in range(len(shape.calls))]
        for variant in range(4):
            history, turn = _history(variant, shape), _stand_in(shape)
            new = _joined([Message(role, f"{_SEEN}{i}") for i, role in enumerate(shape.new)], shape)
            try:
                head = self._render(history, tools, True)
                whole = self._render([*history, turn, *new], tools, True)
            except _Refused:
                if variant == 1:  # takes no system message
                    continue
                return None
            if not whole.startswith(head):
                return None
            rest = whole[len(head) :]
            at = 0
            for said in (
                [_THOUGHT] * shape.reasoned + [_ANSWER] * shape.spoke + [f"{_VALUE}{i}" for i in range(len(shape.calls))]
            ):
                found = rest.find(said, at)
                if found < 0:
                    return None
                at = found + len(said)
            end = next((m.end() for m in self._names.finditer(rest, at) if self._text.added[m[0]] in self.stop_ids), None)  # type: ignore[union-attr]
            if end is None or f"{_SEEN}0" in rest[:end]:
                return None
            if section and rest[:end] != section:
                return None
            section = rest[:end]
            behind.add(rest[end:])
        return section if len(behind) == 1 else None


def _probes(native: bool) -> list[Message]:
    call = ToolCall("zqtool", '{"key": "zq value", "number": 3}', "zq0")
    other = ToolCall("zqtool", '{"key": "zqsecond", "number": 4}', "zq1")
    plain = [assistant(_ANSWER), assistant(_ANSWER, reasoning=_THOUGHT)]
    if not native:
        return plain[:1]
    return [*plain, assistant("", call), assistant("", call, other), assistant("", call, reasoning=_THOUGHT)]


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _history(variant: int, shape: _Shape) -> list[Message]:
    """Conversations of different kinds that a turn may come after."""
    call = assistant(
        "", ToolCall("zqtool", '{"key": "zqbefore"}', "zqb"), reasoning="zqearlier" if shape.reasoned_before else ""
    )
    before = [call, Message("tool", "zqresult", (), "zqb", "zqtool")]
    first: list[Message] = [Message("system", "zqsystem")] if variant == 1 else []
    first.append(user(_ASK))
    if variant == 2:
        first += [assistant("zqother"), user("zqagain")]
    return first + (before if shape.reasoned_before or variant == 3 else [])


def _stand_in(shape: _Shape) -> Message:
    """A turn of that kind."""
    calls = (ToolCall(name, f'{{"key": "{_VALUE}{i}"}}', f"zq{i}") for i, name in enumerate(shape.calls))
    return assistant(_ANSWER if shape.spoke else "", *calls, reasoning=_THOUGHT if shape.reasoned else "")


def _joined(new: Sequence[Message], shape: _Shape) -> list[Message]:
    """The messages since, results given to the calls of the stand-in in order."""
    result, at = [], 0
    for m in new:
        if m.role == "tool" and at < len(shape.calls):
            m = msgspec.structs.replace(m, tool_call_id=f"zq{at}", name=shape.calls[at])
            at += 1
        result.append(m)
    return result
