# SPDX-License-Identifier: Apache-2.0
"""Which renderer belongs to a tokenizer: the one that is named, or is proved with its chat template; none is guessed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agentgym.chat import Message, ToolCall, assistant, user
from agentgym.errors import UsageError, did_you_mean
from agentgym.tokens.chatml import SMOLLM2_SYSTEM, ChatML
from agentgym.tokens.renderer import Renderer, TextTokenizer
from agentgym.toolspec import ToolSpec

FAMILIES: dict[str, Callable[[TextTokenizer], ChatML]] = {
    "smollm2": lambda tokenizer: ChatML(tokenizer, default_system=SMOLLM2_SYSTEM, name="smollm2"),
    "chatml": lambda tokenizer: ChatML(tokenizer),
}
"""Renderers that need no chat template, and so no transformers."""

NAMES = (*FAMILIES, "template")


def find(tokenizer: Any, name: str | None, template_args: Mapping[str, Any] | None) -> Renderer:
    """See `renderer_for`."""
    if name is not None and name not in NAMES:
        raise UsageError(f"no renderer {name!r}; there are: {', '.join(NAMES)}.{did_you_mean(name, NAMES)}")
    if isinstance(tokenizer, TextTokenizer):
        if name is None or name not in FAMILIES:
            raise UsageError(
                "this tokenizer brings no chat template to prove a renderer with: name the family of its model:"
                f" {' or '.join(FAMILIES)}; or pass the tokenizer of transformers"
            )
        return FAMILIES[name](tokenizer)
    from agentgym.tokens.hf import HFTokenizer
    from agentgym.tokens.template import TemplateRenderer

    if name == "template":
        return TemplateRenderer(tokenizer, template_args=template_args)
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if name is not None:
        made = FAMILIES[name](HFTokenizer(tokenizer))
        if has_template and not _agrees(made, TemplateRenderer(tokenizer, template_args=template_args)):
            raise UsageError(
                f"the tokenizer's own chat template gives other prompts than {name}: leave the name out, and what the template"
                " gives is used"
            )
        return made
    proved = TemplateRenderer(tokenizer, template_args=template_args)
    for make in FAMILIES.values():  # the same prompts without a template engine in every turn
        try:
            made = make(HFTokenizer(tokenizer))
        except UsageError:
            continue
        if _agrees(made, proved):
            return made
    return proved


def _agrees(made: Renderer, truth: Renderer) -> bool:
    """Whether two renderers give the same prompts for conversations of every kind."""
    tool = ToolSpec("look", "Looks.", {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]})
    call = assistant("", ToolCall("look", '{"at": "a"}', "c0"))
    asked = [user("What is there?\n")]
    seen = [call, Message("tool", " a\n\nb", (), "c0")]
    return all(
        made.initial(messages, tools) == truth.initial(messages, tools)
        for messages in (asked, [Message("system", "Be brief."), *asked], [*asked, assistant("This."), user("And?")])
        for tools in ((), (tool,))
    ) and made.initial(asked + seen, (tool,)) == truth.initial(asked + seen, (tool,))
