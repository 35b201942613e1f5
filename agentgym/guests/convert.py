# SPDX-License-Identifier: Apache-2.0
"""From a foreign log to a run record: which reader it wants, and the writing."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from agentgym.errors import DataError, NotFoundError, redact
from agentgym.guests import agents_json, inspect_log, readfile, verifiers_log
from agentgym.guests.model import Guest, GuestEpisode, Remark, episode_error, turns_of
from agentgym.records import schema
from agentgym.records.store import EpisodeRecord, PlannedTask, RunWriter, new_run_directory
from agentgym.scoring import Score
from agentgym.task import FrozenTask, content_hash, plain
from agentgym.trajectory import Outcome, Trajectory, checked_tokens

KNOWN = (
    "an inspect_ai log (.eval, .json), results of verifiers (the folder, results.jsonl, traces.jsonl), SWE-agent's .traj,"
    " results of tau-bench or tau2 (.json), or JSONL of messages"
)

_AT_ONCE = 256
"""Episodes to a commit."""


class Imported(msgspec.Struct):
    """A foreign log that became a run."""

    path: Path
    """The run's directory."""
    kind: str
    episodes: int
    remarks: list[str]
    """What could not be read, in sentences."""


def is_guest(path: Path) -> bool:
    """Whether a path may be a foreign log: a file that is no run, or a folder of verifiers' results."""
    if path.is_file():
        return path.name not in (schema.FILE,)
    return path.is_dir() and not (path / schema.FILE).exists() and verifiers_log.results_in(path) is not None


def open_guest(path: str | os.PathLike[str], root: Path, *, title: str | None = None) -> Imported:
    """Writes a foreign log as a run of its own.

    Args:
        path: the log.
        root: the folder of runs to write it in.
        title: of the run; None for the log's own.

    Raises:
        NotFoundError: there is no such file.
        DataError: it is no log that is known, or nothing in it can be read.
        RecordError: the run cannot be written.
    """
    path = Path(path)
    remarks: list[str] = []
    try:
        guest = _guest(path, remarks.append)
    except (TypeError, ValueError, KeyError, AttributeError) as e:
        raise DataError(f"{path} is not of the form that it seems to be: {type(e).__name__}: {e}") from e
    target = new_run_directory(root, title or guest.title)
    try:
        count = _write(target, guest, path, remarks, title)
        if not count:
            why = f": {'; '.join(remarks)}" if remarks else ""
            raise DataError(f"nothing in {path} can be shown{why}")
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return Imported(target, guest.kind, count, remarks)


def cached_guest(path: Path, cache: Path) -> Imported:
    """`open_guest`, unless the same bytes at the same place were opened before: then the run that this made.

    Args:
        path: the log.
        cache: a folder for runs made of logs.

    Raises:
        As `open_guest`.
    """
    try:
        inner = verifiers_log.results_in(path) if path.is_dir() else path
        stat = (inner or path).stat()
    except OSError as e:
        raise NotFoundError(f"{path}: {e.strerror or e}") from e
    seen = f"{(inner or path).resolve()}:{stat.st_mtime_ns}:{stat.st_size}:{schema.SCHEMA}"
    place = cache / hashlib.sha256(seen.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    note = place / "imported.json"
    try:
        kept = msgspec.json.decode(note.read_bytes(), type=Imported, dec_hook=lambda type_, value: type_(value))
        if (kept.path / schema.FILE).exists():
            return kept
    except (OSError, msgspec.DecodeError):
        pass
    made = open_guest(path, place)
    note.write_bytes(msgspec.json.encode(made, enc_hook=str))
    return made


def _guest(path: Path, remark: Remark) -> Guest:
    if path.is_dir():
        inner = verifiers_log.results_in(path)
        if inner is None:
            raise DataError(f"{path} is a folder with no log in it that is known: expected {KNOWN}")
        return verifiers_log.results(inner, remark)
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}")
    try:
        with readfile.opened(path) as file:
            head = file.read(4096)
    except (OSError, EOFError) as e:
        raise DataError(f"{path} cannot be read: {e}") from e
    if head.startswith(b"PK\x03\x04"):
        return inspect_log.archive(path, remark)
    if not head.strip():
        raise DataError(f"{path} is empty")
    if head.lstrip()[:1] not in (b"{", b"["):
        raise DataError(f"{path} is no log that can be read: expected {KNOWN}")
    name = path.name.removesuffix(".gz")
    if name.endswith(".jsonl") or name.endswith(".ndjson"):
        return _of_lines(path, remark)
    try:
        document = readfile.document(path)
    except DataError:
        if name.endswith((".json", ".traj")) and b"\n" in head and head.split(b"\n", 1)[0].rstrip().endswith((b"}", b"]")):
            return _of_lines(path, remark)  # lines under another name
        raise
    return _of_document(path, document, remark)


def _of_lines(path: Path, remark: Remark) -> Guest:
    quiet: list[str] = []
    first = next((v for _, v in readfile.lines(path, quiet.append)), None)
    if isinstance(first, dict):
        if verifiers_log.is_row(first) or verifiers_log.is_trace(first):
            return verifiers_log.results(path, remark)
        if "traj" in first:
            return agents_json.tau1(path, (v for _, v in readfile.lines(path, remark)), remark)
    return agents_json.openai_lines(path, readfile.lines(path, remark), remark)


def _of_document(path: Path, document: Any, remark: Remark) -> Guest:
    if isinstance(document, dict):
        if "simulations" in document:
            return agents_json.tau2(path, document, remark)
        if "eval" in document and ("samples" in document or "status" in document):
            return inspect_log.log(path, document, remark)
        if "trajectory" in document or ("history" in document and "info" in document):
            return agents_json.swe_agent(path, document, remark)
        if verifiers_log.is_row(document) or verifiers_log.is_trace(document):
            return verifiers_log.results(path, remark)
        if "messages" in document or "prompt" in document:
            return agents_json.openai_lines(path, iter([(1, document)]), remark)
    elif isinstance(document, list) and document:
        if isinstance(document[0], dict) and "traj" in document[0]:
            return agents_json.tau1(path, document, remark)
        rows = [document] if isinstance(document[0], dict) and "role" in document[0] else document
        return agents_json.openai_lines(path, enumerate(rows, 1), remark)
    raise DataError(f"{path} is JSON, but no log that is known: expected {KNOWN}")


def _write(target: Path, guest: Guest, source: Path, remarks: list[str], title: str | None) -> int:
    writer = RunWriter(target, create=True)
    try:
        writer.set_meta(
            {
                "title": title or guest.title,
                "model": redact(guest.model),
                "created_at": guest.created_at or time.time(),
                "guest": {"kind": guest.kind, "harness": guest.harness, "source": str(source.resolve())},
            }
        )
        writer.begin_sitting()
        count = 0
        seen: dict[tuple[str, str, str], set[int]] = {}
        planned: dict[str, PlannedTask] = {}
        for episode in _each(guest, remarks):
            record = _record(episode, guest, seen)
            try:
                writer.add(record)
            except TypeError as e:
                remarks.append(f"{episode.family}/{episode.item}: {e}")
                continue
            task = record.task
            known = planned.get(task.id)
            trials = max(record.trajectory.trial + 1, known.trials if known else 0)
            planned[task.id] = PlannedTask(0, task.variant, task.item, task.id, trials)
            count += 1
            if writer.pending >= _AT_ONCE:
                writer.flush()
        writer.flush()
        writer.set_plan([{"guest": guest.kind}], planned.values())
        short = guest.planned is not None and guest.planned > count
        if short:
            remarks.append(f"it set out to play {guest.planned} episodes; {count} are in it")
        writer.set_meta({"guest_remarks": remarks})
        writer.close("interrupted" if short or remarks else "finished")
        return count
    finally:
        writer.close("failed")


def _each(guest: Guest, remarks: list[str]) -> Iterator[GuestEpisode]:
    """Its episodes; one that a reader stumbles over costs itself and not the others."""
    episodes = guest.episodes
    while True:
        try:
            episode = next(episodes, None)
        except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as e:
            remarks.append(
                f"an episode is not of the form that is known, and what follows it is not shown: {type(e).__name__}: {e}"
            )
            return
        if episode is None:
            return
        yield episode


def _record(episode: GuestEpisode, guest: Guest, seen: dict[tuple[str, str, str], set[int]]) -> EpisodeRecord:
    broken = [e.resource for _, e in episode.events if e.kind == "tool.error"]
    opening, turns = turns_of(episode, broken)
    family, item = _name(episode.family), _item(episode.item)
    taken = seen.setdefault((family, episode.variant, item), set())
    trial = episode.trial
    while trial in taken:  # logs number their trials as they like, or not at all: none of them may hide another
        trial += 1
    taken.add(trial)
    task = FrozenTask(
        family=family, version=1, variant=episode.variant, item=item, seed=None, params={}, opening=opening, tools=(),
        state=None, gold=_plain(episode.target), hidden=_plain(episode.state), cluster=episode.cluster or f"{family}/{item}",
        tags=episode.tags,
    )  # fmt: skip
    error = None if episode.error is None else episode_error(redact(episode.error))
    outcome: Outcome = "infrastructure" if error else "truncated" if episode.truncation else "terminated"
    task_data = task.encode()
    trajectory = Trajectory(
        task_id=task.id,
        task_hash=content_hash(task_data),
        trial=trial,
        policy=guest.model,
        opening=opening,
        turns=turns,
        outcome=outcome,
        truncation=episode.truncation,
        error=error,
        started_at=episode.started_at,
        duration_s=episode.duration_s,
        tokens=None if episode.tokens is None else [t and checked_tokens(t) for t in episode.tokens],
    )
    if turns and episode.reward is not None:
        turns[-1].reward = episode.reward
    gold, scores = None, []
    for s in episode.scores:
        if gold is None and s.value is not None and 0 <= s.value <= 1 and error is None:
            gold, s = s.value, msgspec.structs.replace(s, role="gold")
        scores.append(_plain_score(s))
    reward = None if error else episode.reward
    return EpisodeRecord(trajectory, task, task_data, 0, reward, gold, scores, [])


def _plain_score(score: Score) -> Score:
    return msgspec.structs.replace(score, evidence=_plain(score.evidence))


def _plain(value: Any) -> Any:
    return None if value is None else plain(value)


def _name(text: str) -> str:
    """A family's name of theirs: without what would end it in an address."""
    return text.replace("/", ".").replace("::", ".").strip() or "task"


def _item(text: str) -> str:
    return text.replace("::", ":").replace("@", "-").replace("\n", " ").strip("/ ") or "0"
