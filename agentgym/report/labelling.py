# SPDX-License-Identifier: Apache-2.0
"""What people's labels of a run come to: how many, how far they agree, and whether they read with a habit."""

from __future__ import annotations

import collections
from collections.abc import Hashable, Iterable
from typing import Any

import msgspec

from agentgym.records.labels import Label, verdicts
from agentgym.report.text import fraction, one_line
from agentgym.stats.agreement import krippendorff
from agentgym.stats.intervals import clopper_pearson


class Question(msgspec.Struct):
    """All answers to one question."""

    dimension: str
    """What was asked about; empty: on the whole."""
    labels: int
    """Answers, those that were skipped left out."""
    skipped: int
    ties: int
    annotators: dict[str, int]
    """Name -> answers, in order of names."""
    pairs: int
    """Different pairs that were answered."""
    decided: int
    """Pairs with a majority for one of the two: the rows that an export has at most."""
    alpha: float | None
    """Krippendorff's, see `agentgym.stats.agreement`; the interval's clusters are tasks."""
    alpha_low: float | None
    alpha_high: float | None
    judged_twice: int
    """Pairs that two or more annotators answered: what alpha is made of."""
    first_chosen: int
    """Answers for the one that was shown first, ..."""
    first_of: int
    """... of those that were for one of the two."""
    first_low: float | None
    """Exact 95 % interval of that share; it should hold .5."""
    first_high: float | None
    reasons: dict[str, int]
    """Word -> times given, the most frequent first."""


def summarize_labels(labels: Iterable[Label], *, intervals: bool = True) -> list[Question]:
    """One row a question, the whole first, then in order of names; without alpha's interval it takes no time to speak of."""
    by_dimension: dict[str, list[Label]] = collections.defaultdict(list)
    for label in labels:
        by_dimension[label.dimension].append(label)
    return [_question(dimension, by_dimension[dimension], intervals) for dimension in sorted(by_dimension)]


def _question(dimension: str, labels: list[Label], intervals: bool) -> Question:
    given = [label for label in labels if label.choice != "skip"]
    tasks: dict[Hashable, Hashable] = {(label.a, label.b): label.task_id for label in given}
    answers = (((one.a, one.b), one.annotator, one.choice) for one in given)
    agreement = krippendorff(answers, tasks, 0.95 if intervals else None)
    chosen = [label.better == label.first for label in given if label.better is not None]
    bounds = clopper_pearson(sum(chosen), len(chosen)) if chosen else (None, None)
    who = collections.Counter(label.annotator for label in given)
    return Question(
        dimension=dimension,
        labels=len(given),
        skipped=len(labels) - len(given),
        ties=sum(label.choice == "tie" for label in given),
        annotators={name: who[name] for name in sorted(who)},
        pairs=len(tasks),
        decided=len(verdicts(given)),
        alpha=agreement.alpha,
        alpha_low=agreement.low,
        alpha_high=agreement.high,
        judged_twice=agreement.units,
        first_chosen=sum(chosen),
        first_of=len(chosen),
        first_low=bounds[0],
        first_high=bounds[1],
        reasons=dict(collections.Counter(word for label in given for word in label.reasons).most_common()),
    )


def label_lines(questions: Iterable[Question]) -> Iterable[tuple[str, str]]:
    """The summary as lines (text, style), safe to print."""
    for q in questions:
        name = one_line(q.dimension, 60) or "on the whole"
        people = ", ".join(f"{one_line(who, 40)} {n}" for who, n in q.annotators.items())
        yield f"{name}: {q.labels} answers about {q.pairs} pairs ({people or 'nobody'})", "bold"
        yield f"  {q.decided} pairs with a majority, {q.ties} times “equal”, {q.skipped} skipped", ""
        yield f"  {agreement_words(q)}", ""
        if q.first_of and q.first_low is not None and q.first_high is not None:
            habit = not q.first_low <= 0.5 <= q.first_high
            interval = f"{fraction(q.first_low)}-{fraction(q.first_high)}"
            text = f"  the one shown first was chosen {q.first_chosen} of {q.first_of} times ({interval})"
            yield text + (": a habit of reading, not a judgement" if habit else ""), "yellow" if habit else ""
        if q.reasons:
            yield "  reasons: " + ", ".join(f"{one_line(word, 30)} {n}" for word, n in list(q.reasons.items())[:12]), ""


def agreement_words(q: Question) -> str:
    """Alpha in words: ``alpha .71 (.42-.89) on 24 pairs that two or more answered``."""
    on = f"on {q.judged_twice} pairs that two or more answered"
    if not q.judged_twice:
        return "agreement: not known, no pair was answered by two people"
    if q.alpha is None:
        return f"agreement: not defined, all answers are the same {on}"
    interval = "" if q.alpha_low is None or q.alpha_high is None else f" ({_signed(q.alpha_low)} to {_signed(q.alpha_high)})"
    return f"agreement: Krippendorff's alpha {_signed(q.alpha)}{interval} {on}"


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.0f}"


def label_rows(labels: Iterable[Label]) -> Iterable[dict[str, Any]]:
    """Labels as plain rows, for other programs."""
    for label in labels:
        yield {**msgspec.to_builtins(label), "better": label.better}
