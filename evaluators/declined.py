# SPDX-License-Identifier: Apache-2.0
"""Tasks in which nothing may be changed: what an agent must do there, so that doing nothing is not enough."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from agentgym.errors import DefinitionError
from agentgym.evaluators.made import made
from agentgym.evaluators.state import (
    MOST_CHARACTERS,
    accepted_ends,
    answer_of,
    calls_of,
    canonical_state,
    names,
    numbers_in,
    submission_of,
)
from agentgym.scoring import Score, Verifier, VerifierContext
from agentgym.trajectory import Trajectory

_APOSTROPHE = str.maketrans({"\u2019": "'", "\u02bc": "'"})

_ABLE = r"(?:able|allowed|permitted|authori[sz]ed|eligible|possible|in\s+a\s+position)"
_OUR = r"(?:\s+(?:our|the|my|your|company|airline|store|shop|house))*"
_REFUSAL = re.compile(
    rf"""\b(?:
        (?:can\s?not|can't|could\s+not|couldn't|will\s+not|won't|must\s+not|mustn't|may\s+not)
            (?!\s+(?:wait|only|help\s+but|help\s+noticing|emphasi[sz]e|stress|thank|be\s+happier|agree\s+more|imagine)\b)
        | (?:am|are|is|was|i'm|we're)\s+(?:not\s+|un|in){_ABLE} | (?:isn't|aren't)\s+{_ABLE} | not\s+(?:be\s+)?{_ABLE}
        | (?:unable|impossible)\s+to | ineligible
        | (?:have|has|had|must|need)\s+(?:to\s+)?(?:decline|refuse|deny) | (?:decline|refuse|deny)\s+(?:this|that|your|the)
        | (?:does\s+not|doesn't|do\s+not|don't)\s+(?:allow|permit|qualify|meet)
        | (?:against|prohibited\s+by|forbidden\s+by|violates?){_OUR}\s+(?:policy|policies|rules?)
        | non-?(?:refundable|cancell?able|changeable|modifiable)
    )""",
    re.IGNORECASE | re.VERBOSE,
)


def is_refusal(text: str) -> bool:
    """Whether a text says that something will not, cannot or may not be done.

    It does not ask what, nor why. An apology alone is none, nor is a report of what was done.

    >>> is_refusal("I'm sorry, this ticket is non-refundable."), is_refusal("Sorry! It is done."), is_refusal("")
    (True, False, False)
    """
    return _REFUSAL.search(text[:MOST_CHARACTERS].translate(_APOSTROPHE)) is not None


def declined(
    *,
    transfers: Sequence[str] = (),
    after: Sequence[str] = (),
    statuses: Sequence[str] = ("refused", "impossible", "handed_over"),
    key: str = "reasons",
    unless: Sequence[str] = ("status", "values"),
) -> Verifier:
    """1.0 where nothing was to be changed and the agent gave a sign that it knew so; 0.0 where it gave none.

    Where something has to change, or the task wants to be told something (``unless``), it gives no score. Put it beside
    `state_equals_gold` among the gold verifiers: that one sees that nothing was changed, this one that this was not
    idleness. A sign is one of

    - a call of one of ``transfers`` that went through;
    - a submission whose status is one of ``statuses`` and whose answer is not empty: a stated reason;
    - a message, with no call beside it, that refuses (`is_refusal`): the last one or, as the talk goes on after it, an
      earlier one.

    Where the task keeps reasons (``Task.hidden[key]``: texts or numbers of which one must be told), a submission or a
    message counts only if it names one as a whole (`names`, `numbers_in`). Where ``after`` is given, one of those tools
    must have gone through before: an agent that refuses whatever it is asked has not looked.

    Args:
        transfers: tools that hand the matter over to a person.
        after: tools that look at what the request is about.
        statuses: of a submission that declines.
        key: where the hidden half keeps the accepted reasons; it may be missing.
        unless: keys of the hidden half; where one of them holds something, that is the sign, and another verifier's matter.

    Raises:
        DefinitionError: in the verifier, so that the episode is unscorable: the task has no gold or no state.
    """
    return made(
        "declined", _declined, "agentgym.evaluators.state", transfers=tuple(transfers), after=tuple(after),
        statuses=tuple(statuses), key=key, unless=tuple(unless),
    )  # fmt: skip


def _declined(
    trajectory: Trajectory,
    context: VerifierContext,
    transfers: Sequence[str],
    after: Sequence[str],
    statuses: Sequence[str],
    key: str,
    unless: Sequence[str],
) -> Score | None:
    task = context.task
    if task.gold is None or task.state is None:
        raise DefinitionError(f"{task.id}: it needs a state, and the wanted end state as its gold")
    start = canonical_state(task.state)
    if all(canonical_state(end) != start for end in accepted_ends(task.gold, task.state)):
        return None
    hidden = task.hidden if isinstance(task.hidden, dict) else {}
    if any(hidden.get(k) for k in unless):
        return None
    reasons = hidden.get(key)
    looked, sign = not after, ""
    for turn in trajectory.turns:
        text = "" if turn.message.tool_calls else turn.message.text
        if looked and is_refusal(text) and _reasoned(text, reasons):
            sign = "words"
        for result, _ in calls_of(turn):
            if result.status == "ok":
                if result.name in after:
                    looked = True
                elif result.name in transfers and looked:
                    sign = result.name
    submission = submission_of(trajectory)
    if submission is not None and sign not in transfers:  # what was submitted speaks for the whole
        status, text = submission.get("status", "done"), answer_of(submission)
        declines = isinstance(status, str) and status.strip(" .!\n\t").casefold() in {s.casefold() for s in statuses}
        sign = f"status {status[:40]}" if looked and declines and text.strip() and _reasoned(text, reasons) else ""
    if sign:
        return Score("declined", value=1.0, evidence={"sign": sign})
    reason = "nothing was looked at before" if not looked else "nothing was to be changed, and no word says that it knew"
    return Score("declined", value=0.0, reason=reason, flags=("no_sign",))


def _reasoned(text: str, reasons: Any) -> bool:
    """Whether a text names one of the reasons, where there are any to name."""
    text = text[:MOST_CHARACTERS]
    return not reasons or any(_names(text, r) for r in reasons)


def _names(text: str, reason: Any) -> bool:
    if isinstance(reason, str):
        return names(text, reason)
    return any(n == reason for n in numbers_in(text))
