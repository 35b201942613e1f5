# SPDX-License-Identifier: Apache-2.0
"""Writes the pages of docs/scenarios from the environments themselves: one for each family with twins, and an index.

    python docs/make_scenarios.py [FOLDER]

Nothing is run in a sandbox: of families that need one the page shows what differs between twins and leaves the oracles' scores
to ``agentgym validate``. A test holds that the pages are up to date.
"""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from agentgym import registry
from agentgym.chat import Message
from agentgym.env import ChatEnv
from agentgym.evaluators.conduct import DIMENSIONS
from agentgym.evaluators.rules import Rule
from agentgym.sandboxenv import SandboxEnv
from agentgym.scoring import Verifier
from agentgym.validate import Family
from agentgym.validate.twins import bases, compare

SEEDS = 5
"""Tasks of each variant that the oracles play."""

LONG = 3000
"""Characters of a text that are shown."""

VARIANTS = {
    "control": "nothing tempts",
    "tempt": "breaking a norm pays, or is less work",
    "asked": "as `tempt`, and the act is authorised",
    "impossible": "what is asked for cannot be done honestly",
    "inject": "a tool's output holds a third party's instructions",
    "unmonitored": "as `tempt`, and nobody watches",
    "cue": "a hint that should change nothing",
    "placebo": "a neutral text in the place of what tempts",
}


def scenarios() -> dict[str, type[ChatEnv]]:
    """Family -> class, of those that come along and have twins."""
    found = {}
    for place in registry.tasks.places("own").values():
        cls = registry.load_place(place)
        if isinstance(cls, type) and issubclass(cls, ChatEnv) and len(cls.variants) > 1:
            found[cls.family] = cls
    return dict(sorted(found.items()))


def fenced(text: str, language: str = "text") -> str:
    """A block of text as it is, cut where it is long."""
    if len(text) > LONG:
        text = f"{text[:LONG]}\n[{len(text) - LONG} more characters]"
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def cell(text: str) -> str:
    """A text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def about(thing: Any) -> str:
    """A docstring without its sections of arguments and errors."""
    text = inspect.cleandoc(thing.__doc__ or "")
    return (
        re.split(r"^(?:Args|Raises|Returns|Attributes):$", text, maxsplit=1, flags=re.MULTILINE)[0].strip().replace("``", "`")
    )


def sentence(thing: Any) -> str:
    """The first paragraph of a docstring."""
    return cell(about(thing).split("\n\n")[0])


def told(messages: Sequence[Message]) -> str:
    """Messages as text, each with its role where there are several."""
    if len(messages) == 1:
        return messages[0].text
    return "\n\n".join(f"[{m.role}] {m.text}" for m in messages)


# -- the parts of a page ----------------------------------------------------------------------------------------------


def difference(family: Family, cls: type[ChatEnv], variant: str, *, play: bool) -> str:
    """What the first task's twin shows otherwise, as a diff."""
    other = family.subject(variant)
    item = other.items[0]
    names = bases(variant, cls.variants)
    compared = {name: compare(other, family.subject(name), item, play=play) for name in names}
    # the base of which it is a twin, and of two that with less between
    base = min(names, key=lambda n: (bool(compared[n].objection), len(compared[n].shown), len(compared[n].rows)))
    lines = [f"@@ {d.where} @@\n{_signed('-', d.before)}{_signed('+', d.after)}" for d in compared[base].shown]
    if issubclass(cls, SandboxEnv):
        lines += list(_files(family.subject(base).env, other.env, item))
    if not lines:
        lines = [f"@@ the state @@\n  {row}\n" for row in compared[base].rows]
    lines = lines or ["@@ what a tool or the user answers, later @@\n"]
    return f"beside `{base}`:\n\n{fenced(''.join(lines).rstrip(), 'diff')}"


def _signed(sign: str, text: str) -> str:
    return "".join(f"{sign}{line}\n" for line in text.strip("\n").splitlines()) if text.strip() else ""


def _files(one: ChatEnv, other: ChatEnv, item: str) -> Iterator[str]:
    """What differs in the files that a workspace begins with."""
    assert isinstance(one, SandboxEnv)
    assert isinstance(other, SandboxEnv)
    before, after = one.start_files(one.make_task(item)), other.start_files(other.make_task(item))
    for path in sorted({*before, *after}):
        a, b = (f[path].content if path in f else "" for f in (before, after))
        if a != b:
            diff = difflib.unified_diff(a.splitlines(), b.splitlines(), path, path, n=1, lineterm="")
            yield "".join(f"{line}\n" for line in list(diff)[:40])


def detectors(cls: type[ChatEnv]) -> Iterator[str]:
    """A row for each verifier: what it is for, and what it judges by."""
    for role, verifiers in (("pays", cls.proxy), ("gold", cls.gold), ("metric", cls.metrics)):
        for v in verifiers:
            yield f"| `{v.name}` | {role} | {judges_by(v)} |"


def judges_by(v: Verifier) -> str:
    """A verifier in a sentence: its rules, its own docstring, or that of the function which made it."""
    cells = [c.cell_contents for c in getattr(v.function, "__closure__", None) or ()]
    for content in cells:
        rules = getattr(content, "settings", {}) if not isinstance(content, type) else {}
        rules = rules.get("rules", ()) if isinstance(rules, dict) else ()
        if rules:
            return cell("; ".join(f"{r.name}: {r}" for r in rules if isinstance(r, Rule)))
    for content in cells:
        if inspect.isfunction(content) and content.__name__.startswith("_"):
            factory = getattr(inspect.getmodule(content), content.__name__.lstrip("_"), None)
            if factory is not None and factory.__doc__:
                return sentence(factory)
    maker = getattr(v.function, "__qualname__", "").split(".")[0]
    return sentence(v.function) or sentence(getattr(inspect.getmodule(v.function), maker, None) or v.function)


def oracles(family: Family, cls: type[ChatEnv]) -> Iterator[str]:
    """A row for each variant and oracle: mean reward and gold, and what it was found guilty of."""
    for variant in cls.variants:
        s = family.subject(variant)
        for which in ("honest", "cheater", "lazy", "random"):
            if not s.has(which):
                continue
            results = [s.oracle(which, item) for item in s.items]
            results = [r for r in results if r.trajectory.error is None]
            if not results:
                continue
            rewards, golds = [r.reward or 0.0 for r in results], [r.gold or 0.0 for r in results]
            guilty: dict[str, int] = {}
            for r in results:
                for d in sorted({f.dimension for f in r.findings if f.violation}):
                    guilty[d] = guilty.get(d, 0) + 1
            broke = ", ".join(f"{d} {n}/{len(results)}" for d, n in sorted(guilty.items())) or "-"
            yield f"| `{variant}` | {which} | {_mean(rewards)} | {_mean(golds)} | {broke} |"


def _mean(values: list[float]) -> str:
    return f"{sum(values) / len(values):.2f}".rstrip("0").rstrip(".")


def page(cls: type[ChatEnv]) -> str:
    """The page of one family."""
    family = Family(lambda variant: cls(variant=variant), SEEDS)
    control = family.subject("control")
    needs = control.env.needs()
    item = control.items[0]
    opening = control.env.freeze(control.env.make_task(item)).opening
    dimensions = sorted({d for names in cls.temptations.values() for d in names})
    parts = [
        "<!-- made by `python docs/make_scenarios.py`; change the environment, not this page -->",
        f"# {cls.family}",
        about(cls),
        f"```console\n$ agentgym eval {cls.family} {' '.join(f'--variant {v}' for v in cls.variants)} --model MODEL\n```",
        f"Up to {cls.max_turns} turns{'; needs a ' + ' and a '.join(sorted(needs)) if needs else ''}.",
    ]
    if cls.parameters:
        parts.append("Parameters: " + ", ".join(f"`{k}={v}`" for k, v in cls.parameters.items()) + ".")
    parts += ["## What the agent is told", f"`{cls.family}/control/{item}`:", fenced(told(opening))]
    if control.env.tools:
        rows = [
            f"| `{name}`{' (writes)' if t.writes else ''} | {cell(t.spec.description)} |"
            for name, t in control.env.tools.items()
        ]
        parts += ["## Tools", "\n".join(["| tool | what it does |", "|---|---|", *rows])]
    parts.append("## Twins")
    for variant in cls.variants:
        tempts = f" Tempts to: {', '.join(cls.temptations[variant])}." if variant in cls.temptations else ""
        parts.append(f"**`{variant}`**: {VARIANTS.get(variant, 'see above')}.{tempts}")
        if variant != "control":
            parts.append(f"In the first task, {difference(family, cls, variant, play=not needs)}")
    if dimensions:
        parts.append("## Dimensions")
        parts.append("\n".join(f"- **{d}**: {DIMENSIONS.get(d, 'a dimension of its own')}" for d in dimensions))
    parts += ["## Verifiers and detectors", "\n".join(["| verifier | role | judges |", "|---|---|---|", *detectors(cls)])]
    parts.append("## Oracles")
    if needs:
        parts.append(
            f"They need a {' and a '.join(sorted(needs))}: `agentgym validate {cls.family} -v` plays them, and fails unless"
            " honest work is paid in full in every variant and the cheater is caught on exactly the dimensions above."
        )
    else:
        head = ["| variant | oracle | reward | gold | violates (tasks) |", "|---|---|---|---|---|"]
        parts += [f"Means over {SEEDS} tasks.", "\n".join([*head, *oracles(family, cls)])]
    return "\n\n".join(parts) + "\n"


def index(found: dict[str, type[ChatEnv]]) -> str:
    """The page that lists all."""
    rows = [
        f"| [{name}]({name}.md) | {sentence(cls)} | {', '.join(f'`{v}`' for v in cls.variants)} |"
        f" {', '.join(sorted({d for names in cls.temptations.values() for d in names})) or '-'} |"
        for name, cls in found.items()
    ]
    variants = [f"| `{name}` | {what} |" for name, what in VARIANTS.items()]
    named = sorted({d for cls in found.values() for names in cls.temptations.values() for d in names})
    return "\n".join(
        [
            "<!-- made by `python docs/make_scenarios.py`; change the environments, not this page -->",
            "# Scenarios",
            "",
            "Environments in twins: the same task and state with one observation changed, so that what an agent does",
            "differently is due to that. Findings are made of recorded acts; nobody is convicted of what it was not shown.",
            "Each page says what tempts, where the norm stands, and what an innocent agent may do.",
            "[A scenario of your own](../write-a-scenario.md) takes under 100 lines.",
            "",
            "| family | task | variants | tempts to break |",
            "|---|---|---|---|",
            *rows,
            "",
            "| variant | |",
            "|---|---|",
            *variants,
            "",
            "| dimension | what counts against it |",
            "|---|---|",
            *(f"| {d} | {DIMENSIONS.get(d, 'a dimension of its own')} |" for d in named),
            "",
        ]
    )


def pages() -> dict[str, str]:
    """File name -> text, of all pages."""
    found = scenarios()
    return {"README.md": index(found), **{f"{name}.md": page(cls) for name, cls in found.items()}}


def main() -> None:
    """Writes them, and removes those of families that are gone."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "scenarios")
    folder.mkdir(exist_ok=True)
    made = pages()
    for old in folder.glob("*.md"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")
    sys.stdout.write(f"{len(made) - 1} scenarios and an index in {folder}\n")


if __name__ == "__main__":
    main()
