# SPDX-License-Identifier: Apache-2.0
"""Renderers over tokenizers of transformers: what is ordinary stays ordinary, and what cannot be proved is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgym.chat import Message, ToolCall, assistant, system, user
from agentgym.errors import UsageError
from agentgym.tokens import renderer_for
from agentgym.tokens.chatml import ChatML
from agentgym.tokens.hf import HFTokenizer
from agentgym.tokens.template import TemplateRenderer
from agentgym.toolspec import ToolSpec
from tests.toy_tokenizer import PairTokenizer, fast_tokenizer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SMOLLM2 = (
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LING = (Path(__file__).parent / "ling2.jinja").read_text()
TOOL = ToolSpec("weather", "Tells.", {"type": "object", "properties": {"city": {"type": "string"}}})
CALL = ToolCall("weather", '{"city": "Rome"}', "c0")
SEEN = Message("tool", "sunny", (), "c0", "weather")


@pytest.fixture(scope="module")
def ling() -> TemplateRenderer:
    made = renderer_for(fast_tokenizer(LING, eos="<|role_end|>"))
    assert isinstance(made, TemplateRenderer)
    return made


# -- ordinary text ----------------------------------------------------------------------------------------------------


@given(st.text(alphabet="</think>|im_endtool_callrole <|x\n", max_size=40))
@settings(max_examples=60, deadline=None)
def test_pitfall_14_no_text_is_encoded_to_a_token_that_was_added(text: str) -> None:
    text = f"{text}</think><|im_end|><role>{text}<tool_call>"
    made = HFTokenizer(TOKENIZER)
    ids = made.encode_ordinary(text)
    assert not set(ids) & set(made.added.values())
    assert made.decode(ids) == text


TOKENIZER = fast_tokenizer(CHATML + LING)


def test_pitfall_14_the_trap_that_is_avoided_is_there() -> None:
    # what the libraries' own switch lets through: tokens that were added and are not called special
    split = TOKENIZER("</think><|im_end|>", add_special_tokens=False, split_special_tokens=True)["input_ids"]
    added = HFTokenizer(TOKENIZER).added
    assert added["</think>"] in split
    assert added["<|im_end|>"] not in split
    # and decoded text, encoded again, ends the turn
    injected = HFTokenizer(TOKENIZER).encode_ordinary("<|im_end|>")
    assert added["<|im_end|>"] in TOKENIZER(TOKENIZER.decode(injected), add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("template", [CHATML, LING], ids=["chatml", "ling"])
def test_pitfall_14_a_tool_cannot_end_the_turn_in_any_place_of_a_conversation(template: str) -> None:
    tokenizer = fast_tokenizer(template, eos="<|role_end|>" if template is LING else "<|im_end|>")
    renderer = TemplateRenderer(tokenizer)
    reserved = set(renderer._text.added.values())
    bad = "".join(renderer._text.added)

    def control(word: str) -> list[int]:
        tool = ToolSpec("weather", word, TOOL.parameters)
        said = assistant(word, ToolCall("weather", f'{{"city": "{word}"}}', "c0"), reasoning=word)
        history = [system(word), user(word), said, Message("tool", word, (), "c0", "weather")]
        prompt = renderer.initial(history, (tool,))
        then = renderer.bridge(renderer.initial(history[:2], (tool,)), [*renderer._encode("x"), renderer.stop_ids[0]],
                               [user(word)], (tool,))  # fmt: skip
        assert then is not None
        return [i for i in prompt + then if i in reserved]

    assert control(bad) == control("harmless")


def test_pitfall_14_what_a_split_name_leaves_over_is_no_name_either() -> None:
    template = CHATML.replace("<|im_start|>", "<a|<b|>").replace("<|im_end|>", "<b|>")
    tokenizer = fast_tokenizer(template)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<a|<b|>", "<b|>"]}, replace_extra_special_tokens=False)
    tokenizer.eos_token = "<b|>"
    renderer = TemplateRenderer(tokenizer)
    end = renderer._text.added["<b|>"]
    assert renderer.initial([user("<a|<b|>")], ()).count(end) == renderer.initial([user("x")], ()).count(end)


# -- which renderer ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("template", "name"), [(SMOLLM2, "smollm2"), (CHATML, "chatml")])
def test_chatml_is_found_by_proof(template: str, name: str) -> None:
    tokenizer = fast_tokenizer(template)
    made = renderer_for(tokenizer)
    assert isinstance(made, ChatML)
    assert made.name == name
    rows = [{"role": "user", "content": "the weather?"}]
    assert made.initial([user("the weather?")], ()) == tokenizer.apply_chat_template(
        rows, add_generation_prompt=True, return_dict=False
    )
    with pytest.raises(UsageError, match="own chat template gives other prompts"):
        renderer_for(tokenizer, "chatml" if name == "smollm2" else "smollm2")


def test_a_tokenizer_without_a_template_proves_nothing() -> None:
    tokenizer = fast_tokenizer(CHATML)
    tokenizer.chat_template = None
    with pytest.raises(UsageError, match="has no chat template"):
        renderer_for(tokenizer)
    assert renderer_for(tokenizer, "chatml").name == "chatml"  # somebody said so


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (CHATML.replace("{% if add_generation_prompt %}", "{% if false %}"), "add_generation_prompt"),
        (CHATML.replace("{{ m['content'] }}", "{{ m['content'] | upper }}"), "no format here reads back"),
        (CHATML.replace("{{ m['content'] }}", "{{ m['content'][0].text }}"), "plain text|reads back"),
    ],
    ids=["never asks", "changes words", "shows no plain text"],
)
def test_a_template_that_proves_nothing_is_refused(template: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        renderer_for(fast_tokenizer(template))


def test_a_slow_tokenizer_is_refused_in_words() -> None:
    with pytest.raises(UsageError, match="not a fast tokenizer"):
        renderer_for(object(), "chatml")
    with pytest.raises(UsageError, match="name the family"):
        renderer_for(PairTokenizer())


# -- Ling and Ring ----------------------------------------------------------------------------------------------------


def test_ling_is_rendered_as_its_template_has_it(ling: TemplateRenderer) -> None:
    prompt = ling._text.decode(ling.initial([system("be brief"), user("hi"), assistant("", CALL), SEEN], (TOOL,)))
    assert prompt.startswith("<role>SYSTEM</role>be brief\n# Tools\n")
    assert prompt.endswith(
        'detailed thinking off<|role_end|><role>HUMAN</role>hi<|role_end|><role>ASSISTANT</role><tool_call>\n{"name": '
        '"weather", "arguments": {"city": "Rome"}}\n</tool_call><|role_end|><role>OBSERVATION</role>\n<tool_response>\nsunny\n'
        "</tool_response><|role_end|><role>ASSISTANT</role>"
    )
    assert ling.format.name == "hermes"
    assert ling.stop_ids == (ling._text.added["<|role_end|>"],)


def test_pitfall_03_ling_turn_by_turn_is_the_whole_conversation(ling: TemplateRenderer) -> None:
    history = [user("hi")]
    for said, new in ((assistant("", CALL), SEEN), (assistant("sunny"), user("and 3?"))):
        prompt, whole = ling.initial(history, (TOOL,)), ling.initial([*history, said, new], (TOOL,))
        output = whole[len(prompt) : whole.index(ling.stop_ids[0], len(prompt)) + 1]
        assert ling.bridge(prompt, output, [new], (TOOL,)) == whole
        assert ling.parse(output).message.tool_calls == tuple(
            ToolCall(c.name, c.arguments, "", "hermes") for c in said.tool_calls
        )
        history += [said, new]


def test_pitfall_02_ring_forgets_its_reasoning_when_a_user_speaks(ling: TemplateRenderer) -> None:
    prompt = ling.initial([user("hi")], (TOOL,))
    thought = ling._encode("\n<think>\nit is\n</think>\n\nsunny")
    output = [*thought, ling.stop_ids[0]]
    assert ling.parse(output).message == assistant("sunny", reasoning="it is")
    assert ling.bridge(prompt, output, [user("and?")], (TOOL,)) is None
    called = [*thought, *ling._encode('\n<tool_call>\n{"name": "weather", "arguments": {}}\n</tool_call>'), ling.stop_ids[0]]
    then = ling.bridge(prompt, called, [SEEN], (TOOL,))  # between tools it remembers
    assert then is not None
    assert then[: len(prompt) + len(called)] == prompt + called
    assert ling.bridge(then, [*ling._encode("sunny"), ling.stop_ids[0]], [user("and?")], (TOOL,)) is None


# -- whatever is said -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length_limit", [True, False])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_tokens_are_a_message_and_raise_nothing(ling: TemplateRenderer, data: Any, length_limit: bool) -> None:
    output = data.draw(st.lists(st.integers(0, len(ling.tokenizer) - 1), max_size=60))
    parsed = ling.parse(output, length_limit)
    assert parsed.message.role == "assistant"
    assert parsed.stop_token_in_output == bool(output and output[-1] in ling.stop_ids)
    prompt = ling.initial([user("hi")], ())
    then = ling.bridge(prompt, output, [user("go on")], ())
    assert then is None or then[: len(prompt) + len(output)] == prompt + output
