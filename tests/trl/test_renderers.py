# SPDX-License-Identifier: Apache-2.0
"""Renderers on published chat templates, as TRL ships them: the template's own rendering is the truth."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trl

from agentgym.chat import Message, ToolCall, assistant, system, user
from agentgym.protocols import Tokens
from agentgym.tokens import linearize
from agentgym.tokens.template import TemplateRenderer
from agentgym.toolspec import ToolSpec
from agentgym.trajectory import Trajectory, Turn
from tests.toy_tokenizer import fast_tokenizer

TEMPLATES = {  # name: (format, eos, bos)
    "qwen2_5": ("hermes", "<|im_end|>", None),
    "qwen3": ("hermes", "<|im_end|>", None),
    "qwen3_training": ("hermes", "<|im_end|>", None),
    "qwen3_instruct_2507": ("hermes", "<|im_end|>", None),
    "qwen3_5_think": ("qwen_xml", "<|im_end|>", None),
    "llama3": ("text", "<|eot_id|>", "<|begin_of_text|>"),
    "llama3_1": ("bare_json", "<|eot_id|>", "<|begin_of_text|>"),
    "llama3_2": ("bare_json", "<|eot_id|>", "<|begin_of_text|>"),
    "deepseekv3": ("text", "<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>"),  # noqa: RUF001
    "glm4moe": ("glm", "<|endoftext|>", None),
    "gptoss": ("harmony", "<|return|>", None),
}
WEATHER = ToolSpec(
    "weather",
    "Tells.",
    {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city"]},
)
CALL = ToolCall("weather", '{"city": "Rome", "days": 3}', "c0")
SEEN = Message("tool", "sunny", (), "c0", "weather")
BRIEF, HI, AND = system("be brief"), user("hi"), user("and?")


@functools.cache
def renderer(name: str) -> TemplateRenderer:
    template = (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text()
    _, eos, bos = TEMPLATES[name]
    return TemplateRenderer(fast_tokenizer(template, eos=eos, bos=bos))


def says(name: str, before: list[Message], said: Message) -> list[int]:
    """What a model of that family samples to say it: what its template writes for the last turn, behind the prompt."""
    r = renderer(name)
    text = r._render(before, (WEATHER,), True)
    whole = r._render([*before, said], (WEATHER,), False)
    if not whole.startswith(text.removesuffix("<think>\n")):  # what came before is dropped by now
        text, whole = r._render([HI], (WEATHER,), True), r._render([HI, said], (WEATHER,), False)
    if not whole.startswith(text):  # the prompt has begun the reasoning, which the template forgets
        whole = f"{text}{said.reasoning}\n</think>\n\n{whole[len(text.removesuffix('<think>' + chr(10))) :]}"
    ids = r._encode(whole[len(text) :])
    end = next((i for i, token in enumerate(ids) if token in r.stop_ids), len(ids))
    if end < len(ids):
        return ids[: end + 1]
    stop = {"glm": "<|observation|>" if said.tool_calls else "<|user|>", "harmony": "<|return|>"}[r.format.name]
    return [*ids, r._text.added[stop]]


CONVERSATIONS = [
    [HI],
    [BRIEF, HI],
    [BRIEF, HI, assistant("the weather"), AND],
    [HI, assistant("", CALL), SEEN],
    [HI, assistant("", CALL, reasoning="it is"), SEEN],
    [HI, assistant("", CALL, reasoning="it is"), SEEN, assistant("sunny", reasoning="so"), AND],
]


@pytest.mark.parametrize("name", TEMPLATES)
def test_how_calls_are_written_is_found_by_proof(name: str) -> None:
    assert renderer(name).format.name == TEMPLATES[name][0]


@pytest.mark.parametrize("name", TEMPLATES)
def test_prompts_are_what_the_template_gives(name: str) -> None:
    r = renderer(name)
    for conversation in CONVERSATIONS:
        if r.format.name == "text" and any(m.tool_calls for m in conversation):
            continue  # tools are told in words there, which the template knows nothing of
        rows: list[dict[str, Any]] = []
        for m in conversation:
            row: dict[str, Any] = {"role": m.role, "content": m.text}
            if m.tool_calls:
                arguments: Any = CALL.arguments if r._string_arguments else json.loads(CALL.arguments)
                called = {"name": "weather", "arguments": arguments}
                row["tool_calls"] = [{"id": "c0", "type": "function", "function": called}]
            if m.reasoning:
                row |= {"reasoning_content": m.reasoning, "thinking": m.reasoning}
            if m.role == "tool":
                row |= {"tool_call_id": "c0", "name": "weather"}
            rows.append(row)
        tools = () if r.format.name == "text" else (WEATHER,)
        theirs = r.tokenizer.apply_chat_template(
            rows, tools=[t.to_openai() for t in tools] or None, add_generation_prompt=True, return_dict=False
        )
        assert r.initial(conversation, tools) == theirs


FORKS = {  # where the template drops or changes what stood before, so that the conversation has to be rendered anew
    "qwen3": {"text, user", "thought, user", "call, tool", "thought before, user"},
    "qwen3_5_think": {"text, user", "thought, user", "thought before, user"},
    "deepseekv3": {"text, user", "thought, user", "call, tool", "thought and call, tool", "thought before, user"},
    "glm4moe": {"thought, user", "thought before, user"},
    "gptoss": {"text, user", "thought, user", "thought before, user"},
}
TURNS = {
    "text, user": ([BRIEF, HI], assistant("the weather"), AND),
    "thought, user": ([BRIEF, HI], assistant("the weather", reasoning="it is"), AND),
    "call, tool": ([BRIEF, HI], assistant("", CALL), SEEN),
    "thought and call, tool": ([HI], assistant("", CALL, reasoning="it is"), SEEN),
    "thought before, user": ([HI, assistant("", CALL, reasoning="it is"), SEEN], assistant("sunny"), AND),
}


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_pitfall_02_a_template_that_drops_what_stood_before_forks_and_never_guesses(name: str, turn: str) -> None:
    r = renderer(name)
    before, said, new = TURNS[turn]
    prompt, output = r.initial(before, (WEATHER,)), says(name, before, said)
    then = r.bridge(prompt, output, [new], (WEATHER,))
    assert (then is None) == (turn in FORKS.get(name, ()))
    whole = r.initial([*before, said, new], (WEATHER,))
    next_prompt = whole if then is None else then
    kept = [Tokens(np.array(o, np.int32), np.full(len(o), -1, np.float32), np.array(p, np.int32))
            for p, o in ((prompt, output), (next_prompt, output))]  # fmt: skip
    rows = linearize(Trajectory(task_id="t/control/0", turns=[Turn(0, said), Turn(1, said)], tokens=list(kept)))
    assert rows.drift.forked == (then is None)
    assert sum(row.trained for row in rows.rows) == 2 * len(output)
    if then is not None:
        assert r._text.decode(then) == r._text.decode(whole)
        # where the opened answer ends with a new line and the template goes on with another, the tokenizer joins the two
        assert then == whole or whole[: len(prompt)] != prompt


@pytest.mark.parametrize("finish", ["end in ids", "end kept back"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_pitfall_04_a_missing_end_is_put_in_once(name: str, finish: str) -> None:
    r = renderer(name)
    for before, said, new in TURNS.values():
        prompt, output = r.initial(before, (WEATHER,)), says(name, before, said)
        whole = r.bridge(prompt, output, [new], (WEATHER,))
        if whole is None:
            continue
        told = output if finish == "end in ids" else output[:-1]
        assert r.bridge(prompt, told, [new], (WEATHER,)) == whole
        assert r.bridge(prompt, [*output, output[-1]], [new], (WEATHER,)) is None
        assert whole[len(prompt) + len(output) - 1] in r.stop_ids


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_the_template_writes_is_read_back(name: str) -> None:
    r = renderer(name)
    for before, said, _ in TURNS.values():
        prompt = r.initial(before, (WEATHER,))
        output = says(name, before, said)
        shown = said.reasoning in r._text.decode(output)
        for ids in (output, output[:-1]):
            parsed = r.parse(ids, prompt_ids=prompt, tools=(WEATHER,))
            assert [c.name for c in parsed.message.tool_calls] == [c.name for c in said.tool_calls]
            for mine, theirs in zip(parsed.message.tool_calls, said.tool_calls, strict=True):
                assert json.loads(mine.arguments) == json.loads(theirs.arguments)
            assert parsed.message.text.strip() == said.text
            assert parsed.message.reasoning == (said.reasoning if shown else "")
            assert parsed.finish_reason == ("tool_calls" if said.tool_calls else "stop")
            assert parsed.stop_token_in_output == (ids is output)


@pytest.mark.parametrize("name", ["qwen3", "glm4moe", "qwen3_5_think", "gptoss"])
def test_a_call_that_is_merely_thought_of_is_none(name: str) -> None:
    r = renderer(name)
    *said, _ = says(name, [HI], assistant("", CALL))
    called = r._text.decode(said).rpartition("</think>")[2]
    assert len(r.parse(r._encode(called), prompt_ids=[], tools=(WEATHER,)).message.tool_calls) == 1
    if name == "gptoss":
        called = called.replace("commentary json", "analysis")
        assert r.parse(r._encode(called)).message.reasoning
    else:
        called = f"<think>{called}"
    for more in ("", "</think>" * (name != "gptoss")):
        assert r.parse([*r._encode(called + more), r.stop_ids[0]], prompt_ids=[]).message.tool_calls == ()


@pytest.mark.parametrize("name", TEMPLATES)
def test_malformed_calls_stay_text_and_raise_nothing(name: str) -> None:
    r = renderer(name)
    whole = says(name, [HI], assistant("", CALL)) if TEMPLATES[name][0] != "text" else r._encode("{")
    rng = np.random.default_rng(0)
    for _ in range(40):  # cut, doubled, shuffled
        ids = list(whole[: rng.integers(0, len(whole) + 1)]) + list(whole[rng.integers(0, len(whole)) :])
        if rng.random() < 0.5:
            rng.shuffle(ids)
        message = r.parse(ids, bool(rng.random() < 0.5)).message
        assert all(c.name for c in message.tool_calls)
    for text in ("<tool_call>", "<tool_call>weather<arg_key>", "<think>", "</think>", '{"name": 1}', "<|message|>", "{" * 500):
        r.parse(r._encode(text))


@pytest.mark.parametrize("name", TEMPLATES)
def test_pitfall_14_published_templates_cannot_be_ended_from_within(name: str) -> None:
    r = renderer(name)
    reserved = set(r._text.added.values())
    for place in range(3):

        def control(word: str, place: int = place) -> list[int]:
            words = ["x" if i != place else word for i in range(3)]
            conversation = [user(words[0]), assistant(words[1]), user(words[2])]
            if TEMPLATES[name][0] != "text":
                conversation[1:] = [assistant("", CALL), Message("tool", words[2], (), "c0", "weather")]
            return [i for i in r.initial(conversation, (WEATHER,)) if i in reserved]

        assert control("".join(r._text.added)) == control("harmless")
