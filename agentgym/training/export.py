# SPDX-License-Identifier: Apache-2.0
"""A run as rows of a data set, for training off the policy that played it: TRL's formats, and Minari's.

Messages and tool arguments are what was recorded; nothing of a task's hidden half is. Scores decide which rows there are and
how they are labelled, and no row carries the gold score itself: a model trained on the rows can be trained on nothing else.
Episodes that infrastructure spoiled and episodes without the score are left out, and counted.

The formats are those of TRL's documentation ("Dataset formats"), in their conversational form where there is one; ``tools``
is JSON text, which its trainers read, because tables of schemas cannot hold free objects.
"""

from __future__ import annotations

import collections
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from agentgym.chat import Message, to_openai
from agentgym.errors import NotFoundError, UsageError, did_you_mean
from agentgym.policies.wire import message_to_openai
from agentgym.records.labels import Labels, verdicts
from agentgym.records.run import Episode, Run
from agentgym.trajectory import SPOILED, Trajectory


class Preferred(NamedTuple):
    """One trial of a task that is better than another."""

    better: Episode
    worse: Episode
    margin: float
    """By how much."""
    about: dict[str, Any] = {}
    """What its row says besides."""


class Chosen(msgspec.Struct):
    """The episodes of a run that rows are made of."""

    episodes: list[tuple[Episode, float]]
    """Each with the score that decides."""
    spoiled: int = 0
    """Left out: infrastructure failed, or a person cancelled it."""
    unscored: int = 0
    """Left out: the score that decides is missing."""
    preferred: list[Preferred] | None = None
    """Pairs that people decided, see `labelled`; None: the scores decide."""


def choose(run: Run, by: str = "reward") -> Chosen:
    """The episodes of a run with the score that decides.

    Args:
        run: read once, from its columns where ``by`` is ``reward`` or ``gold``.
        by: ``reward`` (what was paid), ``gold``, or the name of a score.

    Raises:
        NotFoundError: no episode has a score of that name.
    """
    chosen = Chosen([])
    names: set[str] = set()
    for e in run.episodes():
        if e.outcome in SPOILED:
            chosen.spoiled += 1
            continue
        if by in ("reward", "gold"):
            value = getattr(e, by)
        else:
            scores = e.scores
            names |= set(scores)
            value = scores[by].value if by in scores else None
        if value is None:
            chosen.unscored += 1
        else:
            chosen.episodes.append((e, float(value)))
    if by not in ("reward", "gold") and by not in names:
        raise NotFoundError(
            f"no score {by!r} in {run.path}.{did_you_mean(by, names)} There are: {', '.join(sorted(names)) or 'none'}."
        )
    return chosen


def labelled(run: Run, dimension: str = "", annotator: str | None = None) -> Chosen:
    """What people prefer (`agentgym.records.labels`), for `dpo` and `rm`: the majority decides each pair.

    Pairs without a majority make no row, nor do answers that were skipped. Rows say besides which ``dimension`` was asked
    about, how many ``annotators`` answered and the ``reasons`` of those who were for it; ``margin`` is
    (votes for - votes against) / votes.

    Args:
        run: whose labels.
        dimension: the question; empty: on the whole.
        annotator: only this person's answers.

    Raises:
        NotFoundError: nobody has answered that question.
    """
    with Labels(run.path) as held:
        labels = held.labels(annotator=annotator, dimension=dimension)
        if not labels:
            everything = held.labels()
            questions = sorted({one.dimension or "on the whole" for one in everything})
            people = sorted({one.annotator for one in everything})
            has = f"asked: {', '.join(questions)}; by: {', '.join(people)}" if everything else "`agentgym label` makes them"
            raise NotFoundError(f"{run.path} has no such labels; {has}")
    decided = verdicts(labels)
    episodes = {e.id: e for e in run.by_ids({i for v in decided for i in (v.better, v.worse)})}
    return Chosen(
        [],
        preferred=[
            Preferred(
                episodes[v.better],
                episodes[v.worse],
                v.margin,
                {"dimension": dimension, "annotators": v.annotators, "reasons": v.reasons},
            )
            for v in decided
            if v.better in episodes and v.worse in episodes
        ],
    )


# -- messages ---------------------------------------------------------------------------------------------------------


def _rows_of(messages: Iterable[Message], reasoning: bool) -> list[dict[str, Any]]:
    """Messages as chat templates take them: arguments are objects."""
    rows = []
    for m in messages:
        row = message_to_openai(m, "send" if reasoning else "drop")
        for call in row.get("tool_calls", ()):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
        if row.get("content") is None:
            row["content"] = ""
        rows.append(row)
    return rows


def _tools(episode: Episode) -> dict[str, str]:
    tools = episode.task.tools
    return {"tools": json.dumps([t.to_openai() for t in tools])} if tools else {}


def _turns(trajectory: Trajectory) -> Iterator[tuple[list[Message], Message]]:
    """Each turn as (all that was said before, what the policy answered)."""
    past = list(trajectory.opening)
    for turn in trajectory.turns:
        yield list(past), turn.message
        past += [turn.message, *turn.observation]


def _continuation(trajectory: Trajectory, start: int = 0) -> list[Message]:
    """All that was said from turn ``start`` on, ending with the policy's last message."""
    said: list[Message] = []
    for turn in trajectory.turns[start:]:
        said += [turn.message, *turn.observation]
    while said and said[-1].role != "assistant":
        said.pop()
    return said


# -- formats ----------------------------------------------------------------------------------------------------------


def sft(chosen: Chosen, *, at_least: float | None = None, reasoning: bool = False) -> Iterator[dict[str, Any]]:
    """Conversations to imitate: ``messages``, ``tools``. Train with ``assistant_only_loss``.

    Args:
        chosen: see `choose`.
        at_least: least score; None takes all.
        reasoning: whether reasoning is kept (``reasoning_content``).
    """
    for e, score in chosen.episodes:
        if (at_least is None or score >= at_least) and e.trajectory.turns:
            t = e.trajectory
            said = _rows_of([*t.opening, *_continuation(t)], reasoning)
            yield {"messages": said, **_tools(e), "task_id": e.task_id, "trial": e.trial}


def _pairs(chosen: Chosen, margin: float, every: bool) -> Iterator[Preferred]:
    """Trials of one task: the best with the worst, or all that differ by the margin; or what people decided."""
    if chosen.preferred is not None:
        yield from (p for p in chosen.preferred if p.margin >= margin)
        return
    groups: dict[str, list[tuple[Episode, float]]] = collections.defaultdict(list)
    for e, score in chosen.episodes:
        groups[e.task_id].append((e, score))
    for group in groups.values():
        ranked = sorted(group, key=lambda pair: (-pair[1], pair[0].trial))
        pairs = itertools.combinations(ranked, 2) if every else [(ranked[0], ranked[-1])]
        for (a, high), (b, low) in pairs:
            if high > low and high - low >= margin:
                yield Preferred(a, b, high - low)


def dpo(chosen: Chosen, *, margin: float = 0.0, every: bool = False, reasoning: bool = False) -> Iterator[dict[str, Any]]:
    """Pairs of answers to one prompt: ``prompt``, ``chosen``, ``rejected``, each of the last two one message of the policy.

    Two trials of a task are followed to where they part: until then both were told and said the same, which is the prompt. All
    tokens of the two answers are the policy's, so nothing that a tool said is trained on. Pairs that part where what was told
    differs, or never, make no row.

    Args:
        chosen: see `choose`.
        margin: least difference of the scores, or majority of people.
        every: all pairs of a task's trials instead of the best with the worst, where scores decide.
        reasoning: whether reasoning is kept.
    """
    for a, b, _, about in _pairs(chosen, margin, every):
        for (past, good), (other, bad) in zip(_turns(a.trajectory), _turns(b.trajectory), strict=False):
            if _plain(past) != _plain(other):
                break
            if _plain([good]) != _plain([bad]):
                yield {
                    "prompt": _rows_of(past, reasoning),
                    "chosen": _rows_of([good], reasoning),
                    "rejected": _rows_of([bad], reasoning),
                    **_tools(a),
                    "task_id": a.task_id,
                    **about,
                }
                break


def _plain(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages without the ids of calls, which tell nothing."""
    rows = to_openai(messages)
    for row in rows:
        row.pop("tool_call_id", None)
        for call in row.get("tool_calls", ()):
            del call["id"]
    return rows


def rm(chosen: Chosen, *, margin: float = 0.0, every: bool = False, reasoning: bool = False) -> Iterator[dict[str, Any]]:
    """Pairs of whole episodes of one task for a reward model: ``prompt``, ``chosen``, ``rejected``, ``margin``. See `dpo`."""
    for a, b, difference, about in _pairs(chosen, margin, every):
        good, bad = (_continuation(e.trajectory) for e in (a, b))
        if good and bad and _plain(good) != _plain(bad):
            yield {
                "prompt": _rows_of(a.trajectory.opening, reasoning),
                "chosen": _rows_of(good, reasoning),
                "rejected": _rows_of(bad, reasoning),
                "margin": difference,
                **_tools(a),
                "task_id": a.task_id,
                **about,
            }


def kto(chosen: Chosen, *, at_least: float = 1.0, reasoning: bool = False) -> Iterator[dict[str, Any]]:
    """Single answers, good or bad: ``prompt``, ``completion`` (one message of the policy), ``label``.

    Every turn is a row; its label is the episode's: the score is ``at_least`` or it is not.
    """
    for e, score in chosen.episodes:
        tools = _tools(e)
        for past, answer in _turns(e.trajectory):
            prompt, completion = _rows_of(past, reasoning), _rows_of([answer], reasoning)
            yield {"prompt": prompt, "completion": completion, "label": score >= at_least, **tools, "task_id": e.task_id}


def steps(chosen: Chosen, *, at_least: float = 1.0) -> Iterator[dict[str, Any]]:
    """Stepwise supervision: ``prompt`` and ``completions`` as text, one completion a turn, ``labels``, and their ``values``.

    A turn's value is the share of the task's trials that began with the same turns and came to a score of ``at_least``
    (Math-Shepherd's estimate, arXiv 2312.08935, from the trials that there are instead of new ones); its label is whether that
    is a half or more. With one trial a task it is the outcome, for every turn.
    """
    trees: dict[str, dict[str, list[bool]]] = collections.defaultdict(lambda: collections.defaultdict(list))
    paths: list[tuple[Episode, list[str]]] = []
    for e, score in chosen.episodes:
        prefix, path = "", []
        for past, answer in _turns(e.trajectory):
            prefix = json.dumps([_plain(past), _plain([answer])])
            trees[e.task_id][prefix].append(score >= at_least)
            path.append(prefix)
        paths.append((e, path))
    for e, path in paths:
        found = [trees[e.task_id][prefix] for prefix in path]
        values = [sum(outcomes) / len(outcomes) for outcomes in found]
        if values:
            yield {
                "prompt": "\n\n".join(m.text for m in e.trajectory.opening),
                "completions": [_as_text(t.message) for t in e.trajectory.turns],
                "labels": [v >= 0.5 for v in values],
                "values": values,
                "task_id": e.task_id,
                "trial": e.trial,
            }


def _as_text(message: Message) -> str:
    calls = [json.dumps({"name": c.name, "arguments": c.arguments}) for c in message.tool_calls]
    return "\n".join(filter(None, [message.text, *calls]))


FORMATS: dict[str, Callable[..., Iterator[dict[str, Any]]]] = {"sft": sft, "dpo": dpo, "rm": rm, "kto": kto, "steps": steps}
"""Name -> what makes rows of `Chosen`."""


def to_dataset(rows: Iterable[dict[str, Any]]) -> Any:
    """Rows as a ``datasets.Dataset`` whose messages keep free objects (no keys of other rows' arguments are added).

    Raises:
        UsageError: there are no rows.
    """
    from datasets import Dataset

    held = list(rows)
    if not held:
        raise UsageError("there are no rows: no episode, or no pair of trials, is what the format needs")
    return Dataset.from_list(held, on_mixed_types="use_json")


def minari(chosen: Chosen, dataset_id: str, folder: Path | None = None) -> Any:
    """Episodes as a Minari data set: observations and actions are the JSON text of messages, rewards as they were paid.

    Args:
        chosen: see `choose`.
        dataset_id: ``NAME/PART-vN``, as Minari names data sets.
        folder: where Minari keeps data sets; None: its own place.

    Returns:
        the `minari.MinariDataset`.

    Raises:
        UsageError: there are no episodes, the library is missing, or it refuses the name.
    """
    try:
        import minari as library
        from minari.data_collector import EpisodeBuffer
    except ImportError:
        raise UsageError("the format minari needs its library: pip install 'agentgym-harness[minari]'") from None
    import os
    import string

    import gymnasium

    played = [(e, e.trajectory) for e, _ in chosen.episodes if e.trajectory.turns]
    if not played:
        raise UsageError("there are no episodes to export")

    def text(messages: Sequence[Message]) -> str:
        return json.dumps(to_openai(messages))  # ASCII, whatever was said

    buffers, longest = [], 1
    for number, (e, t) in enumerate(played):
        observations = [text(t.opening), *(text(turn.observation) for turn in t.turns)]
        actions = [text([turn.message]) for turn in t.turns]
        longest = max(longest, *map(len, observations), *map(len, actions))
        last = len(t.turns) - 1
        buffers.append(
            EpisodeBuffer(
                id=number,
                seed=None if t.seed is None else int(t.seed),
                options={"task_id": e.task_id, "trial": e.trial},
                observations=observations,
                actions=actions,
                rewards=[turn.reward for turn in t.turns],
                terminations=[t.outcome == "terminated" and i == last for i in range(last + 1)],
                truncations=[t.outcome == "truncated" and i == last for i in range(last + 1)],
            )
        )
    space = gymnasium.spaces.Text(longest, min_length=0, charset=string.printable)
    before = os.environ.get("MINARI_DATASETS_PATH")
    if folder is not None:
        os.environ["MINARI_DATASETS_PATH"] = str(folder)
    try:
        return library.create_dataset_from_buffers(
            dataset_id,
            buffers,
            observation_space=space,
            action_space=space,
            description="Episodes of language agents: observations and actions are JSON lists of chat messages.",
        )
    except ValueError as e:
        raise UsageError(f"Minari refuses {dataset_id!r}: {e}") from e
    finally:
        if folder is not None:
            os.environ.pop("MINARI_DATASETS_PATH") if before is None else os.environ.update(MINARI_DATASETS_PATH=before)
