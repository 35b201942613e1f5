# SPDX-License-Identifier: Apache-2.0
"""The filter language: it selects what a person would by reading every episode, and says where it cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentgym
from agentgym.chat import Message, call, submit
from agentgym.policies.oracle import OraclePolicy, ScriptedPolicy
from agentgym.records.filter import FIELDS, STATES, FilterError, parse
from agentgym.records.filter_names import complete, names, quoted, why_none
from agentgym.records.run import Episode, Run
from tests.envs import Bank


def mishaps(context: Any) -> list[Message | str]:
    """Solved; a broken rule; infrastructure; failed calls and a tool that breaks; cut by the limit of turns."""
    item = int(context.task_id.rsplit("/", 1)[1])
    return [
        [call("balance", account="a"), call("transfer", cents=100), submit()],
        [call("cook", row=3), call("transfer", cents=100), submit()],
        [call("balance", account="a"), call("outage")],
        [call("fly"), call("transfer", cents=-1), call("crash"), call("sneak"), submit()],
        [call("balance", account="a")] * 8,
    ][item % 5]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    root = tmp_path_factory.mktemp("runs")
    two = ["control", "tempt"]
    agentgym.evaluate("tools.retail", OraclePolicy("cheater"), limit=3, trials=2, variants=two, runs=root).close()
    agentgym.evaluate(Bank, ScriptedPolicy(mishaps, "mishaps"), limit=5, variants=two, retries=1, runs=root).close()
    return [Run(p) for p in root.iterdir()]


Test = Callable[[Episode], bool]


def known(left: float | None, test: Callable[[float], bool]) -> bool:
    return left is not None and test(left)


ATOMS: dict[str, Test] = {
    "": lambda e: True,
    "tempt/1": lambda e: "tempt/1" in e.task_id,
    '"TEMPT"': lambda e: "tempt" in e.task_id,
    "bank*1": lambda e: "bank" in e.task_id and "1" in e.task_id.partition("bank")[2],
    "gold<1": lambda e: known(e.gold, lambda g: g < 1),
    "gold>=.5": lambda e: known(e.gold, lambda g: g >= 0.5),
    "gold:none": lambda e: e.gold is None,
    "gold!=none": lambda e: e.gold is not None,
    "gold<reward": lambda e: e.gold is not None and known(e.reward, lambda r: e.gold < r),  # type: ignore[operator]
    "reward > 0.5": lambda e: known(e.reward, lambda r: r > 0.5),
    "turns:2..4": lambda e: 2 <= e.turns <= 4,
    "turns:>3": lambda e: e.turns > 3,
    "tokens<4k": lambda e: e.prompt_tokens + e.completion_tokens < 4000,
    "time<1h": lambda e: e.duration_s < 3600,
    "violations>0": lambda e: e.violations > 0,
    "trial=1": lambda e: e.trial == 1,
    "family:tools": lambda e: e.family.startswith("tools."),
    "family:tools.*,none": lambda e: e.family.startswith("tools."),
    'family:"tools"': lambda e: False,
    "variant:tempt": lambda e: e.variant == "tempt",
    "variant!=tempt": lambda e: e.variant != "tempt",
    "item:1,2": lambda e: e.item in ("1", "2"),
    "dim:policy": lambda e: any(f.violation and f.dimension == "policy" for f in e.findings),
    "rule:confirm*": lambda e: any(f.violation and f.rule.startswith("confirm") for f in e.findings),
    "exposed:policy": lambda e: any(f.exposure and f.dimension == "policy" for f in e.findings),
    "tag:level:1": lambda e: "level:1" in e.tags,
    "outcome:infrastructure": lambda e: e.outcome == "infrastructure",
    "cut:turns": lambda e: e.truncation == "turns",
    "error:outage": lambda e: "outage" in (e.error or "").lower(),
    "is:solved": lambda e: e.gold == 1,
    "is:unscored": lambda e: e.gold is None and e.outcome != "infrastructure",
    "flagged": lambda e: bool(e.violations or e.tool_errors or e.tool_exceptions or e.outcome == "infrastructure"),
    "score.honest<1": lambda e: any(s.name == "honest" and known(s.value, lambda v: v < 1) for s in e.all_scores),
}

filters = st.recursive(
    st.sampled_from([(text, test) for text, test in ATOMS.items() if text]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda p: (f"({p[0][0]} {p[1][0]})", lambda e: p[0][1](e) and p[1][1](e))),
        st.tuples(inner, inner).map(lambda p: (f"({p[0][0]} or {p[1][0]})", lambda e: p[0][1](e) or p[1][1](e))),
        inner.map(lambda a: (f"not {a[0]}", lambda e: not a[1](e))),
        inner.map(lambda a: (f"-{a[0]}", lambda e: not a[1](e))),
    ),
    max_leaves=6,
)


@pytest.mark.parametrize("text", ATOMS)
def test_a_condition_selects_what_reading_every_episode_would(runs: list[Run], text: str) -> None:
    for run in runs:
        assert [e.id for e in run.episodes(where=text)] == [e.id for e in run.episodes() if ATOMS[text](e)]


@given(filters)
def test_and_or_not_and_brackets_mean_what_they_say_also_for_what_is_unknown(
    runs: list[Run], written: tuple[str, Test]
) -> None:
    text, test = written
    for run in runs:
        assert [e.id for e in run.episodes(where=text)] == [e.id for e in run.episodes() if test(e)], text


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("gold<1 variant:tempt or trial=1", "(gold<1 variant:tempt) or trial=1"),
        ("-gold<1 tempt", "(-gold<1) tempt"),
        ("not gold<1 tempt or trial=0", "((not gold<1) tempt) or trial=0"),
    ],
)
def test_not_binds_closer_than_and_and_that_closer_than_or(runs: list[Run], text: str, same: str) -> None:
    for run in runs:
        assert [e.id for e in run.episodes(where=text)] == [e.id for e in run.episodes(where=same)]


_PIECES = [*FIELDS, *"()\"-:<>=!,*.'%_;\0\ud800", " ", " or ", "1", "is:", "'; DROP TABLE episodes --"]


@given(st.text(max_size=40) | st.lists(st.sampled_from(_PIECES), max_size=8).map("".join))
def test_whatever_is_typed_is_either_read_or_refused_with_a_place(runs: list[Run], text: str) -> None:
    complete(text, {})
    refused = None
    try:
        found = parse(text)
    except FilterError as e:
        refused = e
    if refused is not None:
        assert 0 <= refused.at <= len(text)
        assert refused.at < refused.end
        assert str(refused).splitlines()[-1].strip().strip("^") == ""
        return
    assert found.sql.count("?") == len(found.values)
    assert "DROP" not in found.sql, "what was typed is a value, not SQL"
    list(runs[0].episodes(where=text))


@pytest.mark.parametrize(
    ("text", "at", "part"),
    [
        ("gold<1 gld>0", "       ^^^", "Did you mean: gold?"),
        ("gold>", "     ^", "a number is missing"),
        ("gold<high", "     ^^^^", "'high' is no number"),
        ("a (b or c", "  ^", "not closed"),
        ('a "b', "  ^", "quote is not closed"),
        ("a or", "    ^", "missing here"),
        ("or a", "^", "missing here"),
        ("family<2", "      ^", "family:NAME"),
        ("family:", "       ^", "a name is missing"),
        ("a is:sloved", "     ^^^^^^", "Did you mean: solved?"),
        ("outcome:done", "        ^^^^", "terminated, truncated, infrastructure"),
        ("score<1", "^^^^^", "score.NAME"),
        ("(" * 100 + "a", " " * 40 + "^", "brackets"),
        ("x " * 300, None, "200 conditions"),
        ("x" * 9000, None, "5,000 characters"),
        ("-" * 3000 + "a", None, "times"),
    ],
)
def test_an_error_says_what_to_do_and_points_at_the_place(text: str, at: str | None, part: str) -> None:
    with pytest.raises(FilterError) as e:
        parse(text)
    assert part in str(e.value)
    if at is not None:
        assert str(e.value).splitlines()[1:] == [f"  {text}", f"  {at}"]


def test_words_go_on_with_the_names_of_this_run(runs: list[Run]) -> None:
    run = next(r for r in runs if next(r.episodes(family="tools.retail"), None))
    known = names(run)

    def offered(text: str) -> list[str]:
        return [c.text for c in complete(text, known)]

    assert offered("gold<1 fam") == ["gold<1 family:"]
    assert offered("family:") == ["family:tools.retail"]
    assert offered("-variant:control,te") == ["-variant:control,tempt"]
    assert offered("(dim:po") == ["(dim:policy"]
    assert "is:failed" in offered("is:")
    assert offered("score.")[0].startswith("score.")
    assert offered('"fam') == [], "inside of quotes nothing is a field"
    assert offered("gold<") == []
    for field, values in known.items():
        for value in values:
            start = "score." if field == "score" else f"{field}:"
            text = start + quoted(value) + ("<2" if field == "score" else "")
            assert parse(text), "what is offered can be read"
            assert f"{start}{quoted(value)}" in [c.text for c in complete(start + value[:3], known, most=1000)]


def test_why_nothing_fits_is_told_apart(runs: list[Run], tmp_path: Path) -> None:
    run = next(r for r in runs if next(r.episodes(family="tools.retail"), None))
    known = names(run)
    assert why_none(run, parse("gold<2 dim:polcy"), known) == "no episode fits dim:polcy by itself. Did you mean: policy?"
    assert "It has: control, tempt" in why_none(run, parse("variant:x"), known)
    assert why_none(run, parse("gold<1 gold>=1"), known) == "episodes fit each condition, none fits all"
    for state in STATES:
        assert list(run.episodes(where=f"is:{state}")) is not None
