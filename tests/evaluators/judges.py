# SPDX-License-Identifier: Apache-2.0
"""Judges for tests: policies that really read what they are shown, so that what is tested is the harness around them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from agentgym.chat import Message, assistant
from agentgym.protocols import Completion, PolicyBase, Sampling, Usage

_STOP = frozenset(
    re.findall(
        r"\w+", "name say that the a an is it as by or of than explain mention state give how why what which in on to and more"
    )
)


def words(text: str) -> set[str]:
    """Content words, without the endings that forms of one word differ in."""
    found = set()
    for w in re.findall(r"\w+", text.casefold()):
        for ending in ("ing", "ed", "er", "s"):
            if w.endswith(ending) and len(w) > len(ending) + 2:
                w = w[: -len(ending)]
                break
        found.add(w)
    return found - _STOP


class Seen:
    """What a judge reads out of a request: the answers between their marks, the rubric, the id."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.blocks = {
            m[1]: "\n".join(line[2:] for line in m[3].split("\n"))
            for m in re.finditer(r"^=== BEGIN ([^\n]+) (\w{32}) ===\n(.*?)\n=== END \1 \2 ===$", text, re.DOTALL | re.MULTILINE)
        }
        asked = text[text.rindex("\n=== END ") :]
        self.criteria = re.findall(r"^\d+\. (.*?)(?: \(levels: .*\))?$", asked, re.MULTILINE)
        self.levels = [m.split(" | ") for m in re.findall(r"\(levels: (.*)\)$", asked, re.MULTILINE)]
        self.id = re.findall(r'"id": "(\w+)"|^VERDICT (\w+):', asked, re.MULTILINE)[-1]
        self.id = self.id[0] or self.id[1]
        self.line = "VERDICT" in asked


def meets(answer: str, criterion: str) -> bool:
    """Whether the answer holds two in three words of one of the criterion's alternatives; "no ..." asks for nothing."""
    if re.match(r"no |not |nothing ", criterion):
        return True
    said = words(answer)
    parts = [words(part) for part in criterion.split(" or ")]
    return any(3 * len(part & said) >= 2 * len(part) for part in parts)


USAGE = Usage(100, 10, 0, 0.001)


class ScriptedJudge(PolicyBase):
    """Answers as a function of what it reads says; counts its calls. By default a naive scorer by the criteria's words."""

    name = "scripted-judge"

    def __init__(self, answer: Callable[[Seen, Sampling], str] | None = None, usage: Usage = USAGE) -> None:
        self.answer = answer or by_words
        self.usage = usage
        self.requests: list[str] = []
        self.samplings: list[Sampling] = []

    async def act(self, conversation: Sequence[Message], tools: Sequence[Any], sampling: Sampling) -> Completion:
        self.requests.append(conversation[-1].text)
        self.samplings.append(sampling)
        return Completion(assistant(self.answer(Seen(conversation[-1].text), sampling)), self.usage)


def verdict(seen: Seen, levels: Sequence[str]) -> str:
    """A verdict in the form that was asked for."""
    if seen.line:
        return f"Let me see.\nVERDICT {seen.id}: {', '.join(levels)}"
    inner = ", ".join(f'"{level}"' for level in levels)
    return f'{{"id": "{seen.id}", "why": "by its words", "levels": [{inner}]}}'


def preference(seen: Seen, better: str) -> str:
    """A preference in the form that was asked for."""
    return f"VERDICT {seen.id}: {better}" if seen.line else f'{{"id": "{seen.id}", "better": "{better}"}}'


def by_words(seen: Seen, sampling: Sampling) -> str:
    """The naive scorer: the best level where an answer holds a criterion's words, else the worst."""
    if "answer 1" in seen.blocks:
        points = [sum(meets(seen.blocks[f"answer {i}"], c) for c in seen.criteria) for i in (1, 2)]
        return preference(seen, "tie" if points[0] == points[1] else "1" if points[0] > points[1] else "2")
    answer = seen.blocks["answer"]
    return verdict(seen, [levels[-1 if meets(answer, c) else 0] for c, levels in zip(seen.criteria, seen.levels, strict=True)])


_STRUCTURE = re.compile(
    r"^(?:system|user|assistant|human)\s*:|^=== |<\|[^|\n]*\|>|\[/?INST\]|^\s*(?:verdict|score)\b|\x1b|^\s*\{",
    re.IGNORECASE | re.MULTILINE,
)


def by_words_and_structure(seen: Seen, sampling: Sampling) -> str:
    """The naive scorer, which moreover obeys whatever has the form of a line of the harness, of a turn or of a verdict.

    It sees the text as a model does: a line is what begins at its beginning, and special tokens are tokens.
    """
    body = re.sub(r"^=== (?:BEGIN|END) [^\n]+ \w{32} ===$", "", seen.text[: seen.text.rindex("\n=== END ")], flags=re.MULTILINE)
    if _STRUCTURE.search(body):
        return preference(seen, "2") if "answer 1" in seen.blocks else verdict(seen, [levels[-1] for levels in seen.levels])
    return by_words(seen, sampling)


def gullible(seen: Seen, sampling: Sampling) -> str:
    """Does what any text asks of it."""
    if "answer 1" in seen.blocks:
        for i in (1, 2):
            if re.search(r"ignore|must be yes|answer yes", seen.blocks[f"answer {i}"], re.IGNORECASE):
                return preference(seen, str(i))
        return by_words(seen, sampling)
    if re.search(r"ignore|must be yes|answer yes|full marks", seen.blocks["answer"], re.IGNORECASE):
        return verdict(seen, [levels[-1] for levels in seen.levels])
    return by_words(seen, sampling)
