# SPDX-License-Identifier: Apache-2.0
"""Length as such: the lot decides about it, gold stays, and who writes more because more has to be said is not convicted."""

from __future__ import annotations

from typing import Any

import pytest

from agentgym.chat import call, user
from agentgym.evaluators.conduct import report_of
from agentgym.evaluators.length import edited
from agentgym.scoring import Score, Verifier, VerifierContext, verify
from agentgym.stats.alignment import Edited, length_test
from agentgym.task import FrozenTask
from agentgym.trajectory import ToolResult, Trajectory, Turn

CONTEXT = VerifierContext(
    FrozenTask(
        family="test.x", version=1, variant="control", item="0", seed=None, params={}, opening=(user("?"),), tools=(),
        state=None, gold=None, hidden=None, cluster="x", tags=(),
    )
)  # fmt: skip
FACTS = ("The hall is blue.", "The door is red.", "The roof is grey.")


def text_of(trajectory: Trajectory) -> str:
    report = report_of(trajectory)
    return report.answer if report is not None else trajectory.final_text


def facts(trajectory: Trajectory, context: VerifierContext) -> float:
    return sum(f in text_of(trajectory) for f in FACTS) / len(FACTS)


def words(trajectory: Trajectory, context: VerifierContext) -> float:
    return len(text_of(trajectory).split()) / 100


def both(trajectory: Trajectory, context: VerifierContext) -> float:
    return facts(trajectory, context) + 0.1 * (text_of(trajectory).count(".") > 3)


gold = Verifier(facts, "facts")


def episode(text: str, item: int, said: bool = False) -> Trajectory:
    message = user(text) if said else call("submit", answer=text, claims={"n": 1})
    results = () if said else (ToolResult(message.tool_calls[0].id, "submit", "ok"),)
    return Trajectory(task_id=f"test.x/control/{item}", opening=(user("?"),), turns=[Turn(0, message, results=results)])


def judged(proxy: Any, texts: list[str], said: bool = False) -> Any:
    metric = edited(Verifier(proxy, "paid"), gold)
    rows = []
    for i, text in enumerate(texts):
        scores, _ = verify([metric], "metric", episode(text, i, said), CONTEXT)
        rows += [Edited(**s.evidence) for s in scores if isinstance(s, Score)]
    return length_test(rows)


polite = [" ".join(FACTS[: 1 + i % 3]) + " I hope that this is of help." for i in range(40)]


@pytest.mark.parametrize("said", [False, True])
def test_guilty_a_reward_that_counts_words_pays_for_length(said: bool) -> None:
    found = judged(words, polite, said)
    assert found.padded >= 10
    assert found.trimmed >= 10
    assert found.left_out == 0
    assert (found.effect, found.p) == (pytest.approx(0.06, abs=0.015), pytest.approx(0, abs=0.001))


def test_innocent_longer_answers_that_are_paid_for_what_they_say() -> None:
    """Over these answers reward rises with length, as they say more."""
    found = judged(facts, polite)
    assert found.effect == 0.0
    assert found.p == 1.0


def test_who_says_nothing_that_can_be_spared_is_in_neither_arm() -> None:
    assert judged(words, [" ".join(FACTS)] * 10).why
    assert judged(words, ["", "One sentence."] * 5).padded == 0


def test_the_same_episode_draws_the_same_lot_and_the_parts_are_in_the_hash() -> None:
    one, other = edited(Verifier(words, "paid"), gold), edited(Verifier(both, "paid"), gold)
    assert one.hash != other.hash
    first, again = (verify([one], "metric", episode(polite[0], 3), CONTEXT)[0] for _ in range(2))
    assert first == again


def test_the_rest_of_the_report_stays_as_it_was() -> None:
    seen = []

    def look(trajectory: Trajectory, context: VerifierContext) -> float:
        report = report_of(trajectory)
        assert report is not None
        seen.append(dict(report.claims))
        return 0.0

    judged(look, polite[:3])
    assert len(seen) > 3
    assert all(claims == {"n": 1} for claims in seen)
