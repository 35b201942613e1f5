# SPDX-License-Identifier: Apache-2.0
"""The trials of a recorded run as rows: columns straight from its database, no trajectory is read."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from agentgym import registry
from agentgym.errors import AgentGymError, DataError
from agentgym.gate.rows import INFRASTRUCTURE, OK, SKIPPED, UNSCORABLE, Exposures, Origin, Rows, columns
from agentgym.gate.verdict import Flagged
from agentgym.records.run import Address, Run
from agentgym.report.text import one_line
from agentgym.trajectory import SPOILED

_LOST = {"replay": SKIPPED, "cancelled": SKIPPED}
"""Kind of an episode's error -> status, where it was not played on purpose."""


def run_rows(run: Run, shown: str, *, lines: bool = True) -> Rows:
    """The trials on record, of retried ones the last attempt.

    Args:
        run: the run.
        shown: how reports name it.
        lines: whether to look for the lines of code that made the tasks, which imports the environments; who only looks at
            a run, which may be anybody's, wants none of its code.

    Raises:
        DataError: nothing was played.
        RecordError: the record is damaged.
    """
    sql = (
        "SELECT id, task_id, family, variant, item, trial, cluster, tags, outcome, error_kind, reward, gold, turns,"
        " cached_turns, prompt_tokens + completion_tokens, cost_usd, task_hash FROM episodes"
        f" WHERE {run._counting()} ORDER BY id"
    )
    table = list(run._rows(sql))
    if not table:
        raise DataError(f"{shown} holds no episode yet: `agentgym eval --resume {shown}` plays what it lacks")
    (ids, tasks, families, variants, items, trials, clusters, tags, outcomes, kinds, reward, gold, turns, cached, tokens, cost,
     hashes) = zip(*table, strict=True)  # fmt: skip
    meta = run.meta
    code = _Code(meta)
    controls = {(f, i) for f, v, i in zip(families, variants, items, strict=True) if v == "control"}
    row_of = np.zeros(max(ids) + 1, dtype=np.int64) - 1
    row_of[np.asarray(ids)] = np.arange(len(ids))
    metrics = {"gold": _floats(gold), "proxy": _floats(reward), **_metrics(run, row_of, len(ids))}
    places = _source_lines(run) if lines else {}
    return columns(
        _origin(run, meta, code, shown),
        task=tasks,
        trial=trials,
        metrics=metrics,
        exposures=_exposures(run, row_of, len(ids)),
        family=families,
        variant=variants,
        twin_of=[
            f"{f}/control/{i}" if v != "control" and (f, i) in controls else ""
            for f, v, i in zip(families, variants, items, strict=True)
        ],
        # a hand-written or data task names itself as its cluster
        cluster=clusters,
        tags=[" ".join(sorted(t.split())) for t in tags],
        seed=[int(i) if i.isascii() and i.isdigit() and len(i) < 18 else -1 for i in items],
        status=[
            OK if g is not None else _LOST.get(k, INFRASTRUCTURE) if o in SPOILED else UNSCORABLE
            for o, k, g in zip(outcomes, kinds, gold, strict=True)
        ],
        cached=[bool(t) and c == t for t, c in zip(turns, cached, strict=True)],
        fingerprint=_fingerprint(meta),
        env_hash=[f"{code.environment(f)}{h[:12]}" for f, h in zip(families, hashes, strict=True)],
        verifier_hash=[code.verifiers(f) for f in families],
        tokens=tokens,
        cost_usd=cost,
        address=[f"{shown}::{t}/{k}" for t, k in zip(tasks, trials, strict=True)],
        source=[places.get(t, "") for t in tasks],
    )


def _floats(values: Iterable[float | None]) -> Any:
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)


def _metrics(run: Run, row_of: Any, n: int) -> dict[str, Any]:
    """Scores that are neither paid nor gold, by name."""
    found: dict[str, Any] = {}
    rows = run._rows("SELECT name, episode, value FROM scores WHERE role = 'metric' AND value IS NOT NULL")
    for name, episode, value in rows:
        if name in ("gold", "proxy"):
            continue
        if name not in found:
            found[name] = np.full(n, np.nan)
        if episode < len(row_of) and row_of[episode] >= 0:
            found[name][row_of[episode]] = value
    return found


def _exposures(run: Run, row_of: Any, n: int) -> dict[str, Exposures]:
    """Findings per episode, by dimension and by rule."""
    found: dict[str, Any] = {}
    sql = (
        "SELECT episode, dimension, rule, sum(exposure), sum(violation), max(CASE WHEN violation THEN weight ELSE 0 END)"
        " FROM findings GROUP BY episode, dimension, rule"
    )
    for episode, dimension, rule, opportunities, violations, weight in run._rows(sql):
        row = row_of[episode] if episode < len(row_of) else -1
        if row < 0:
            continue
        for name in (dimension, f"{dimension}/{rule}"):
            table = found.get(name)
            if table is None:
                table = found[name] = np.zeros((n, 3))
            table[row, :2] += opportunities, violations
            table[row, 2] = max(table[row, 2], weight)
    return {d: Exposures(t[:, 0].astype(np.int64), t[:, 1].astype(np.int64), t[:, 2]) for d, t in found.items()}


class _Code:
    """What the run says about the code of its environments and verifiers."""

    def __init__(self, meta: dict[str, Any]) -> None:
        self.environments: dict[str, str] = {}
        self.named: dict[str, str] = {}
        """``FAMILY-vVERSION:VERIFIER`` -> hash."""
        said = [c for c in (meta.get("code"), meta.get("code_at_resume")) if isinstance(c, dict)]
        for code in said:  # a run that was resumed with other code is of both kinds
            for name, hashes in code.items():
                source = str(hashes.get("source", ""))
                before = self.environments.get(name)
                self.environments[name] = source if before in (None, source) else f"{before}+{source}"
                for verifier, hash_ in hashes.get("verifiers", {}).items():
                    key = f"{name}:{verifier}"
                    before = self.named.get(key)
                    self.named[key] = hash_ if before in (None, hash_) else f"{before}+{hash_}"
        self._of_family: dict[str, tuple[str, str]] = {}

    def _find(self, family: str) -> tuple[str, str]:
        known = self._of_family.get(family)
        if known is None:
            plain = family.partition(":")[0]
            names = sorted(n for n in self.environments if n.rpartition("-v")[0] == plain)
            environment = "".join(f"{self.environments[n]}:" for n in names)
            scored = sorted((k, h) for k, h in self.named.items() if k.rpartition(":")[0] in names)
            verifiers = hashlib.sha256(repr(scored).encode()).hexdigest()[:12] if scored else ""
            known = self._of_family[family] = environment, verifiers
        return known

    def environment(self, family: str) -> str:
        return self._find(family)[0]

    def verifiers(self, family: str) -> str:
        return self._find(family)[1]


def _fingerprint(meta: dict[str, Any]) -> str:
    """The model version as its server told it, else what the policy says of itself."""
    served = meta.get("served") or {}
    versions = served.get("models") or served.get("model") if isinstance(served, dict) else None
    if versions:
        return " ".join(sorted(map(str, versions))) if isinstance(versions, (list, dict)) else str(versions)
    told = {k: v for k, v in (meta.get("fingerprint") or {}).items() if k != "served"}
    # the same model, its replies kept or asked for anew
    name = str(told.pop("name", meta.get("model", ""))).removeprefix("cached:").partition("@")[0]
    more = hashlib.sha256(msgspec.json.encode(told, order="deterministic")).hexdigest()[:12] if told else ""
    return f"{name} {more}".strip()


def _origin(run: Run, meta: dict[str, Any], code: _Code, shown: str) -> Origin:
    options = meta.get("options") or {}
    plan = sorted(run._rows("SELECT task_id, trials FROM plan"))
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(meta["created_at"])) if "created_at" in meta else ""
    from agentgym import __version__

    return Origin(
        name=shown,
        kind="run",
        models=(str(meta.get("model", "?")),),
        sampling={**(options.get("sampling") or {}), "run_seed": options.get("seed", 0)},
        environments=code.environments,
        verifiers=code.named,
        suite=hashlib.sha256(repr([t for t, _ in plan]).encode()).hexdigest()[:16],
        planned=sum(k for _, k in plan),
        harness=f"agentgym {__version__}",
        created=created,
    )


def _source_lines(run: Run) -> dict[str, str]:
    """Task id -> ``FILE:LINE`` of the class that made it, where that lies below the folder we are in.

    A location outside of the repository is of no use to who reads the report. What cannot be imported has none.
    """
    found: dict[str, str] = {}
    lines: dict[str, str] = {}
    for ref, task_id in run._rows("SELECT ref, task_id FROM environments JOIN plan ON environment = environments.id"):
        if ref not in lines:
            lines[ref] = _class_line(msgspec.json.decode(ref).get("place", ""))
        found[task_id] = lines[ref]
    return found


def _class_line(place: str) -> str:
    with contextlib.suppress(AgentGymError, OSError, TypeError, ValueError, ImportError):
        cls = registry.env_class(place)
        path = Path(inspect.getsourcefile(cls) or "").resolve()
        return f"{path.relative_to(Path.cwd()).as_posix()}:{inspect.getsourcelines(cls)[1]}"
    return ""


def look_up(run: Run, flagged: Iterable[Flagged]) -> tuple[Flagged, ...]:
    """Flagged trials with the turn and the words of what was found there, from the run's findings and scores."""
    result = []
    for flag in flagged:
        address = Address.parse(flag.address)
        with contextlib.suppress(AgentGymError):
            episode = run.at(address)
            turn, words = None, ""
            for finding in episode.findings:
                if finding.violation and flag.rule in (finding.dimension, f"{finding.dimension}/{finding.rule}"):
                    turn = finding.turn
                    words = f"{finding.dimension}/{finding.rule} violated"
                    break
            else:
                missed = [s for s in episode.all_scores if s.role == "gold" and s.reason and (s.value or 0.0) < 1.0]
                words = missed[0].reason if missed else ""
            place = flag.address if turn is None else f"{flag.address.partition('@')[0]}@{turn}"
            if turn is None and episode.turns:
                place = f"{flag.address}@{episode.turns - 1}"  # what was judged is what it ended with
            flag = msgspec.structs.replace(flag, address=place, text=one_line(words, 200) if words else flag.text)
        result.append(flag)
    return tuple(result)
