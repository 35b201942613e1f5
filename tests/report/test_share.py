# SPDX-License-Identifier: Apache-2.0
"""An episode given to others: nothing in it runs, loads, links or pings, whatever a model said."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import agentgym
from agentgym.chat import assistant, call, submit
from agentgym.cli.main import main
from agentgym.policies.oracle import ScriptedPolicy
from agentgym.records.run import Episode, Run
from agentgym.report import share
from tests.envs import Bank

EVIL = (
    "<script>alert(1)</script><img src=x onerror=alert(2)> </pre></details> ```\n````\n![p](http://evil.example/x.png)"
    " @maintainers \x1b[2J \u202e &amp; [link](javascript:alert(3)) #1"
)


@pytest.fixture(scope="module")
def episode(tmp_path_factory: pytest.TempPathFactory) -> Episode:
    def plan(context: object) -> list[object]:
        first = assistant(EVIL, call("fly").tool_calls[0], reasoning=EVIL)
        return [first, call("cook", row=3), call("transfer", cents=100), submit()]

    root = tmp_path_factory.mktemp("runs")
    policy = ScriptedPolicy(plan, EVIL)  # type: ignore[arg-type]
    run = agentgym.evaluate(Bank, policy, limit=1, variants=["tempt"], runs=root, seed=7)
    return next(run.episodes())


class Tags(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {(k, v or "") for k, v in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_holds_all_of_it_and_nothing_that_runs_or_loads(episode: Episode) -> None:
    page = share.page(episode)
    seen = Tags(page)
    assert not seen.tags & {"script", "img", "iframe", "link", "object", "form", "base"}
    assert not [k for k, _ in seen.attributes if k.startswith("on")]
    assert all(v.startswith("#p") for k, v in seen.attributes if k in ("href", "src"))
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in seen.attributes
    assert "prefers-color-scheme: dark" in page
    assert "<script>alert(1)</script>" in seen.text, "it is there to be read"
    assert "\x1b" not in page
    assert "\u202e" not in page
    for what in ("Move ", 'cook({"row":3})', "no_cooking", "honest_books", "turn 3", "transfer", "agentgym eval"):
        assert what in seen.text
    assert str(episode.run_path.parent) not in page, "where the run lies is nobody's business"


def test_markdown_keeps_what_was_said_inside_of_code(episode: Episode) -> None:
    text = share.markdown(episode)
    outside, fence = [], ""
    for line in text.split("\n"):
        opening = re.match(r"(`{3,})", line)
        if not fence and opening:
            fence = opening[1]
        elif fence and line.strip() == fence:
            fence = ""
        elif not fence:
            outside.append(re.sub(r"`[^`]*`", "", line))
    assert not fence, "every fence is closed by its own"
    words = "\n".join(outside)
    for danger in ("@maintainers", "evil.example", "script", "javascript"):
        assert danger not in words
        assert danger in text
    assert text.count("<details") == text.count("</details>") - text.count("</pre></details>") == 6
    assert re.search("<details open><summary><code>end [^\n]*rule broken", text), "where a rule was broken it is open"


def test_rows_and_the_command_say_the_same_as_the_record(episode: Episode) -> None:
    rows = [json.loads(json.dumps(r)) for r in share.rows(episode)]
    assert [r.get("turn") for r in rows] == [None, None, 0, 1, 2, 3]
    assert (rows[0]["task_id"], rows[0]["gold"]) == (episode.task_id, episode.gold)
    assert rows[2]["message"]["tool_calls"][0]["name"] == "fly"
    command = share.command(episode)
    assert command.startswith("agentgym eval ")
    assert f"-k {episode.task_id}" in command
    assert "--seed 7" in command
    assert "\x1b" not in command


def test_show_writes_the_files_for_pipes(episode: Episode, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "e.html"
    assert main(["show", episode.address, "--html", str(out), "--markdown", "-"]) == 0
    assert out.read_text() == share.page(episode)
    assert capsys.readouterr().out == share.markdown(episode)
    assert main(["show", str(episode.run_path), "--html", str(out)]) == 2
    assert "one episode" in capsys.readouterr().err
    assert main(["show", episode.address, "--html", str(tmp_path / "no" / "e.html")]) == 12


def test_a_registered_task_is_played_again_by_name(tmp_path: Path) -> None:
    run: Run = agentgym.evaluate("math.add", "oracle:random", limit=1, trials=2, params={"level": 3}, runs=tmp_path)
    assert share.command(run.episode("math.add:level=3/control/0", 1)) == (
        "agentgym eval math.add:level=3/control/0 --model oracle:random --trials 2"
    )
