# SPDX-License-Identifier: Apache-2.0
"""One episode for others: an HTML file, Markdown for a pull request, rows of JSON, the command that plays it again.

What is shared is what is on record, which holds no secrets; of this machine it tells nothing, not even where the run lies.
What a model said can neither run, load, link nor ping anything where it is read.
"""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from agentgym.chat import ImagePart, Message, ReasoningPart
from agentgym.errors import AgentGymError
from agentgym.records.run import Episode, Run
from agentgym.report.text import duration, fraction, one_line, plain
from agentgym.rollout.evaluate import read_plan

_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
"""Media types that a browser shows and that hold no script."""


class Piece(NamedTuple):
    """Something that was said or that happened."""

    label: str
    kind: str
    """``system user assistant tool thinks call state rule event``."""
    text: str
    picture: ImagePart | None = None


class Part(NamedTuple):
    """The opening, a turn, or the end."""

    title: str
    facts: str
    pieces: list[Piece]


def name_of(episode: Episode) -> str:
    """``RUN::FAMILY/VARIANT/ITEM/TRIAL`` with the run's name in place of its path."""
    return plain(f"{episode.run_path.name}::{episode.task_id}/{episode.trial}")


def parts(episode: Episode) -> list[Part]:
    """The episode, told in order; all texts are safe to show."""
    t = episode.trajectory
    findings = episode.findings
    result = [Part("opening", "", [p for m in t.opening for p in _pieces(m)])]
    for turn in t.turns:
        pieces = list(_pieces(turn.message))
        results = {r.call_id: r for r in turn.results}
        for m in turn.observation:
            r = results.get(m.tool_call_id or "") if m.role == "tool" else None
            if r is None:
                pieces += _pieces(m)
            else:
                how = "" if r.status == "ok" else f" ({r.status.replace('_', ' ')})"
                pieces.append(Piece(one_line(r.name, 60) + how, "tool", plain(m.text)))
        pieces += [
            Piece(f"{c.operation} state", "state", plain(f"{c.path}  {_json(c.before)} -> {_json(c.after)}"))
            for c in turn.changes
        ]
        pieces += [Piece("event", "event", plain(f"{e.kind} {e.resource} {_json(e.data)}")) for e in turn.events]
        pieces += [_rule(f) for f in findings if f.violation and f.turn == turn.index]
        facts = [f"reward {turn.reward:+g}"] if turn.reward else []
        if turn.usage.completion_tokens:
            facts.append(f"{turn.usage.prompt_tokens:,}+{turn.usage.completion_tokens:,} tokens")
        who = f" {one_line(turn.agent, 20)}" if turn.agent else ""
        result.append(Part(f"turn {turn.index}{who}", " · ".join(facts), pieces))
    n = len(t.turns)
    how = t.outcome + (f" by limit: {one_line(t.truncation, 40)}" if t.truncation else "")
    end = [] if t.error is None else [Piece("error", "event", plain(f"{t.error.kind}: {t.error.message}"))]
    end += [_rule(f) for f in findings if f.violation and (f.turn is None or not 0 <= f.turn < n)]
    result.append(Part("end", f"{how} after {n} turn{'s' * (n != 1)}, {duration(t.duration_s)}", end))
    return result


def _pieces(m: Message) -> Iterator[Piece]:
    role = one_line(m.name or m.role, 40)
    content: Iterable[Any] = (m.content,) if isinstance(m.content, str) else m.content
    for part in content:
        if isinstance(part, ReasoningPart):
            yield Piece("thinks", "thinks", plain(part.text))
        elif isinstance(part, ImagePart):
            yield Piece(role, m.role, f"[image {one_line(part.mime, 40)}, {len(part.data):,} bytes]", part)
        elif text := part if isinstance(part, str) else part.text:
            yield Piece(role, m.role, plain(text))
    for c in m.tool_calls:
        yield Piece("calls", "call", plain(f"{c.name}({c.arguments})"))


def _rule(f: Any) -> Piece:
    evidence = "" if f.evidence is None else f"  {_json(f.evidence)}"
    return Piece("rule broken", "rule", plain(f"{f.dimension}/{f.rule}{evidence}"))


def _json(value: Any) -> str:
    try:
        return "" if value is None else msgspec.json.encode(value).decode()
    except (UnicodeEncodeError, TypeError, ValueError):
        return repr(value)


def _number(value: float | None) -> str:
    return "-" if value is None else fraction(value) if 0 <= value <= 1 else f"{value:g}"


def _facts(episode: Episode) -> list[tuple[str, str]]:
    with Run(episode.run_path) as run:
        model = str(run.meta.get("model", "?"))
    rows = [
        ("task", f"{episode.task_id}, trial {episode.trial}"),
        ("model", model),
        ("outcome", episode.outcome + (f" ({episode.truncation})" if episode.truncation else "")),
        ("gold", _number(episode.gold)),
        ("reward", _number(episode.reward)),
        ("violations", f"{episode.violations} of {episode.exposures} rules that could be broken"),
        ("turns", f"{episode.turns} in {duration(episode.duration_s)}"),
    ]
    if episode.completion_tokens:
        rows.append(("tokens", f"{episode.prompt_tokens:,} + {episode.completion_tokens:,}"))
    return [(k, one_line(v, 300)) for k, v in rows]


def _scores(episode: Episode) -> list[tuple[str, str, str, str]]:
    return [
        (s.role, one_line(s.name, 80), _number(s.value), one_line(s.reason or ("" if s.status == "ok" else s.status), 300))
        for s in episode.all_scores
    ]


# -- the command ------------------------------------------------------------------------------------------------------


def command(episode: Episode) -> str:
    """The command line that plays the task again, by the same model with the same seed, as far as the record tells.

    Environments and data that lie in files are named by file name: whoever runs it has them elsewhere.
    """
    words = ["agentgym", "eval", episode.task_id]
    try:
        plan, options, model = read_plan(episode.run_path)
        task = next((t for t in plan.tasks if t.task_id == episode.task_id), None)
        ref = plan.environments[task.environment] if task is not None and task.environment < len(plan.environments) else None
    except AgentGymError:
        return shlex.join(words)
    if ref is not None:
        if ":" in ref.place:
            words = ["agentgym", "eval", _elsewhere(ref.place), "-k", episode.task_id]
        # a registered family's parameters are part of its tasks' names
        params = {} if ":" in episode.family else ref.params
        words += [w for k, v in params.items() for w in ("-T", f"{k}={v if isinstance(v, str) else json.dumps(v)}")]
        if ref.data is not None:
            words += ["--data", ref.data if ref.data.startswith("hf:") else _elsewhere(ref.data)]
    words += ["--model", _elsewhere(model) if ".py:" in model else model]
    if episode.trial:
        words += ["--trials", str(episode.trial + 1)]
    if options.seed:
        words += ["--seed", str(options.seed)]
    for name in ("temperature", "top_p", "max_tokens"):
        value = getattr(options.sampling, name)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", f"{value:g}"]
    if options.limits is not None and options.limits.turns is not None:
        words += ["--max-turns", str(options.limits.turns)]
    return plain(shlex.join(words))


def _elsewhere(place: str) -> str:
    return re.sub(r"(^|(?<=:)).*/", "./", place, count=1) if "/" in place else place


# -- rows -------------------------------------------------------------------------------------------------------------


def rows(episode: Episode) -> Iterator[dict[str, Any]]:
    """The episode as rows of JSON: what it came to, then a row for the opening and each turn, with all that is on record
    of it but tokens."""
    t = episode.trajectory
    yield {
        "episode": name_of(episode), "task_id": episode.task_id, "trial": episode.trial, "outcome": episode.outcome,
        "truncation": episode.truncation, "reward": episode.reward, "gold": episode.gold,
        "scores": msgspec.to_builtins(episode.all_scores), "findings": msgspec.to_builtins(episode.findings),
    }  # fmt: skip
    yield {"opening": msgspec.to_builtins(t.opening)}
    for turn in t.turns:
        yield {"turn": turn.index, **{k: v for k, v in msgspec.to_builtins(turn).items() if k != "index"}}


# -- Markdown ---------------------------------------------------------------------------------------------------------


def markdown(episode: Episode) -> str:
    """For a pull request or an issue: what it came to in the open, turns folded, all that was said in code blocks, in
    which nothing is a link, a picture or a mention."""
    lines = [f"### `{_code(name_of(episode))}`", "", "| | |", "|---|---|"]
    lines += [f"| {k} | `{_code(v)}` |" for k, v in _facts(episode)]
    scores = _scores(episode)
    if scores:
        lines += ["", "| role | score | value | why |", "|---|---|---|---|"]
        lines += ["| " + " | ".join(f"`{_code(c)}`" if c else "" for c in row) + " |" for row in scores]
    lines += ["", *_fence(command(episode), "console")]
    for part in parts(episode):
        flagged = any(p.kind == "rule" for p in part.pieces)
        title = html.escape(f"{part.title}{'   ' + part.facts if part.facts else ''}{'   rule broken' if flagged else ''}")
        # in code nobody is mentioned, whatever an agent calls itself
        lines += ["", f"<details{' open' if flagged else ''}><summary><code>{title}</code></summary>", ""]
        for piece in part.pieces:
            lines += [f"`{_code(piece.label)}`", "", *_fence(piece.text), ""]
        lines.append("</details>")
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    # a backtick would end the code, a bar the cell
    return text.replace("`", "'").replace("|", "¦").replace("\n", " ")


def _fence(text: str, language: str = "") -> list[str]:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", *text.split("\n"), fence]


# -- HTML -------------------------------------------------------------------------------------------------------------

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #57606a; --ground: #fff; --box: #f6f8fa; --line: #d0d7de;
  --bad: #b3261e; --tool: #7a4f00; --user: #116329; --agent: #0b4fb3; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9aa5b1; --ground: #0d1117; --box: #161b22;
  --line: #30363d; --bad: #ff8f87; --tool: #e0b25a; --user: #6fd48a; --agent: #85b8ff; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); max-width: 60rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.2rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; margin: 1rem 0; }
td, th { border: 1px solid var(--line); padding: .2rem .6rem; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; }
section { border-top: 1px solid var(--line); margin-top: 1.2rem; }
h2 { font-size: 1rem; margin: .5rem 0; } h2 a { color: inherit; text-decoration: none; }
h2 small { color: var(--soft); font-weight: 400; }
.piece { display: grid; grid-template-columns: 8rem 1fr; gap: .6rem; margin: .3rem 0; }
.piece b { color: var(--soft); overflow-wrap: anywhere; }
.user b { color: var(--user); } .assistant b, .call b { color: var(--agent); } .tool b { color: var(--tool); }
.rule b, .rule pre, .event b { color: var(--bad); } .thinks pre { font-style: italic; color: var(--soft); }
pre { margin: 0; padding: .3rem .6rem; background: var(--box); border-radius: 4px; white-space: pre-wrap;
  overflow-wrap: anywhere; font: 13px/1.5 ui-monospace, monospace; }
summary { cursor: pointer; color: var(--soft); } img { max-width: 100%; }
@media (max-width: 40rem) { .piece { grid-template-columns: 1fr; gap: 0; } }
"""

_LONG = 4000
"""Characters from which a text is folded."""


def page(episode: Episode) -> str:
    """One file with all of it: no script, nothing that is loaded, light or dark as the reader's system is."""
    e = html.escape
    title = name_of(episode)
    body = [f"<h1>{e(title)}</h1>", "<table>"]
    body += [f"<tr><th>{e(k)}</th><td>{e(v)}</td></tr>" for k, v in _facts(episode)]
    body.append("</table>")
    scores = _scores(episode)
    if scores:
        body.append("<table><tr><th>role</th><th>score</th><th>value</th><th>why</th></tr>")
        body += ["<tr>" + "".join(f"<td>{e(c)}</td>" for c in row) + "</tr>" for row in scores]
        body.append("</table>")
    body.append(f"<p>Play it again:</p><pre>{e(command(episode))}</pre>")
    for number, part in enumerate(parts(episode)):
        body.append(f'<section id="p{number}"><h2><a href="#p{number}">{e(part.title)}</a> <small>{e(part.facts)}</small></h2>')
        body += [_html_piece(p) for p in part.pieces]
        body.append("</section>")
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer">'
        f"<title>{e(title)}</title><style>{_STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _html_piece(p: Piece) -> str:
    text = f"<pre>{html.escape(p.text)}</pre>"
    if p.picture is not None and p.picture.mime in _PICTURES:
        data = base64.b64encode(p.picture.data).decode()
        text = f'<img alt="{html.escape(p.text)}" src="data:{p.picture.mime};base64,{data}">'
    elif len(p.text) > _LONG:
        text = f"<details><summary>{len(p.text):,} characters</summary>{text}</details>"
    return f'<div class="piece {p.kind}"><b>{html.escape(p.label)}</b><div>{text}</div></div>'
