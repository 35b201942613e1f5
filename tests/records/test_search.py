# SPDX-License-Identifier: Apache-2.0
"""Searching everything that episodes hold: nothing is overlooked, and no expression can hold up who asks."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sqlite3
import time
from pathlib import Path

import pytest

import agentgym
from agentgym.chat import assistant, call, submit
from agentgym.errors import AgentGymError, UsageError
from agentgym.policies.oracle import OraclePolicy, ScriptedPolicy
from agentgym.records.run import Run
from agentgym.records.search import END, OPENING, Found, Passage, Progress, Search, compiled, look, passages, search, stream
from tests.envs import Bank

ODD = "half \ud800 of [a+b] world"


@pytest.fixture(scope="module")
def retail(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    with agentgym.evaluate("tools.retail", OraclePolicy("cheater"), limit=3, variants=["control", "tempt"], runs=root) as run:
        return run.path


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    script = [assistant("Aaa " * 30 + ODD, reasoning="what I THINK"), call("fly", to="the moon"), submit()]
    with agentgym.evaluate(Bank, ScriptedPolicy(script, "script"), limit=30, runs=root) as run:
        return run.path


def all_of(path: Path, pattern: str, cpu_s: float = 1.0) -> tuple[list[Found], Progress]:
    news = list(search(Search(str(path), pattern, cpu_s=cpu_s)))
    last = news[-1]
    assert isinstance(last, Progress)
    return [n for n in news if isinstance(n, Found)], last


def test_whatever_a_replay_shows_is_found_where_it_stands(retail: Path, bank: Path) -> None:
    for path in (retail, bank):
        with Run(path) as run:
            e = next(run.episodes())
            t = e.trajectory
            wanted = [(OPENING, m.text) for m in t.opening if m.text]
            for turn in t.turns:
                wanted += [(turn.index, x) for x in (turn.message.text, turn.message.reasoning) if x]
                wanted += [(turn.index, c.arguments) for c in turn.message.tool_calls]
                wanted += [(turn.index, m.text) for m in turn.observation if m.text]
                wanted += [(turn.index, ev.kind) for ev in turn.events]
            wanted += [(END, s.name) for s in e.all_scores] + [(END, s.reason) for s in e.all_scores if s.reason]
            wanted += [(END if f.turn is None else f.turn, f.rule) for f in e.findings]
            assert len(wanted) > 5
            for turn_index, text in wanted:
                _, hits = look(compiled(text[:200]), passages(run, e))
                assert turn_index in {h.turn for h in hits} or len(hits) == 20, (turn_index, text)
                assert all(h.match.lower() == text[:200].lower() for h in hits)


def test_words_are_taken_as_they_are_and_slashes_make_an_expression(bank: Path) -> None:
    found, progress = all_of(bank, "of [a+b] WORLD".lower())
    assert len(found) == progress.done == progress.of == 30
    assert (found[0].count, found[0].hits[0].turn, found[0].hits[0].where) == (1, 0, "assistant")
    assert all_of(bank, "i think")[0]
    assert all_of(bank, "I Think")[0] == [], "a capital letter asks for capital letters"
    assert len(all_of(bank, r"/world|the \S+n/")[0]) == 30
    assert all_of(bank, "nowhere at all")[0] == []
    for nonsense in ("", "/(/", "/" + "(" * 2000 + "/", "/a{99999999999}/"):
        with pytest.raises(UsageError):
            compiled(nonsense)


def test_of_many_hits_the_first_are_told_and_all_are_counted_and_empty_matches_are_none() -> None:
    count, hits = look(compiled("a"), iter([Passage(0, "assistant", "a" * 50_000)]))
    assert (count, len(hits)) == (10_000, 20)
    assert look(compiled("/x*/"), iter([Passage(0, "user", "abc")])) == (0, [])
    (hit,) = look(compiled("/b.*/"), iter([Passage(0, "user", "a" * 9_000 + "b" * 9_000)]))[1]
    assert len(hit.before) + len(hit.match) + len(hit.after) < 500


def test_only_the_selection_is_searched(retail: Path) -> None:
    news = list(search(Search(str(retail), "order", "variant = ?", ["tempt"], "id DESC")))
    with Run(retail) as run:
        assert [n.episode for n in news if isinstance(n, Found)] == list(run.ids("variant = ?", ("tempt",), "id DESC"))


def test_an_expression_that_takes_years_is_given_up_and_what_is_quick_is_still_found(bank: Path) -> None:
    started = time.process_time()
    found, progress = all_of(bank, "/(a+a+ ?)+b{7}/", cpu_s=0.02)
    assert found == []
    assert (progress.slow, progress.hopeless, progress.ended) == (20, True, True)
    assert time.process_time() - started < 10


def test_a_process_of_its_own_tells_the_same_and_ends_when_it_is_no_longer_wanted(bank: Path, tmp_path: Path) -> None:
    async def whole() -> None:
        news = [n async for n in stream(Search(str(bank), "world"))]
        assert [n for n in news if isinstance(n, Found)] == all_of(bank, "world")[0]
        with pytest.raises(AgentGymError, match="not a run"):
            [n async for n in stream(Search(str(tmp_path), "x"))]

    async def left() -> None:
        searching = stream(Search(str(bank), "/(a+a+ ?)+b{7}/", cpu_s=1000))
        await anext(searching)
        (pid,) = _children()
        await searching.aclose()
        assert not Path(f"/proc/{pid}").exists(), "a process that nobody listens to any more"

    asyncio.run(whole())
    asyncio.run(left())


def _children() -> list[int]:
    mine = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
            command = (status.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and b"records.search" in command:
            mine.append(int(status.parent.name))
    return mine


def test_damaged_episodes_are_counted_and_the_others_searched(bank: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bank, tmp_path / "copy"))
    with sqlite3.connect(copy / "run.sqlite") as db:
        db.execute("UPDATE trajectories SET data = x'00' WHERE episode IN (SELECT id FROM episodes LIMIT 3)")
    db.close()
    found, progress = all_of(copy, "world")
    assert (len(found), progress.unreadable) == (27, 3)
    assert re.search("world", found[0].hits[0].match)
