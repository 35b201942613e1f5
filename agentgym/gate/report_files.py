# SPDX-License-Identifier: Apache-2.0
"""A verdict in files that other programs read: Markdown, JUnit XML, SARIF, JSON; and GitHub's step summary."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from agentgym import __version__
from agentgym.errors import RecordError
from agentgym.gate.report_text import markdown, metric_name, sentence, where
from agentgym.gate.verdict import Flagged, MetricResult, TaskResult, Verdict
from agentgym.report.text import plain


def write_reports(verdict: Verdict, reports: Iterable[tuple[str, Path]]) -> None:
    """Writes each report to its file.

    Raises:
        RecordError: one cannot be written.
    """
    for kind, path in reports:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(KINDS[kind](verdict), encoding="utf-8")
        except OSError as e:
            raise RecordError(f"cannot write the report {path}: {e.strerror}") from e


def append_summary(verdict: Verdict) -> Path | None:
    """Appends the Markdown to the file that ``GITHUB_STEP_SUMMARY`` names; None where that is not set.

    Raises:
        RecordError: it cannot be written.
    """
    name = os.environ.get("GITHUB_STEP_SUMMARY")
    if not name:
        return None
    try:
        with open(name, "a", encoding="utf-8") as file:
            file.write(markdown(verdict) + "\n")
    except OSError as e:
        raise RecordError(f"cannot append to GITHUB_STEP_SUMMARY ({name}): {e.strerror}") from e
    return Path(name)


# -- JUnit ------------------------------------------------------------------------------------------------------------


def junit(verdict: Verdict) -> str:
    """JUnit XML: a test case for each task, and the suite ``gate`` with one for each thing that decides.

    Only the suite ``gate`` has failures, so that a dashboard and the exit code cannot disagree: that a task did worse
    is luck or not, and the comparison says which.
    """
    root = ElementTree.Element("testsuites", name="agentgym gate")
    families: dict[str, list[TaskResult]] = {}
    for task in verdict.tasks:
        families.setdefault(task.family or "tasks", []).append(task)
    for family in sorted(families):
        _suite(root, family, [_task_case(family, t) for t in families[family]])
    cases = [_gate_case(r) for r in (*verdict.metrics, *verdict.twins, *verdict.families)]
    for i, check in enumerate(verdict.checks):
        if check.name in ("measured", "family", "twin"):
            continue
        case = _case("gate", f"{check.name} {i + 1}" if check.outcome != "pass" else check.name)
        _tell(case, check.outcome, check.text)
        cases.append(case)
    total = _case("gate", "verdict")
    # the outcome, once more, in one place: a rule may let INCONCLUSIVE pass
    _tell(total, "pass" if verdict.exit_code == 0 else "inconclusive" if verdict.exit_code == 10 else "fail", verdict.summary)
    _suite(root, "gate", [*cases, total])
    for name in ("tests", "failures", "errors", "skipped"):
        root.set(name, str(sum(int(s.get(name, "0")) for s in root)))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _suite(root: ElementTree.Element, name: str, cases: list[ElementTree.Element]) -> None:
    suite = ElementTree.SubElement(root, "testsuite", name=plain(name), tests=str(len(cases)))
    for kind, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(kind, str(sum(c.find(tag) is not None for c in cases)))
    suite.extend(cases)


def _case(suite: str, name: str) -> ElementTree.Element:
    return ElementTree.Element("testcase", classname=plain(suite), name=plain(name))


def _tell(case: ElementTree.Element, outcome: str, text: str) -> None:
    tags = {"fail": "failure", "regression": "failure", "inconclusive": "skipped", "skipped": "skipped"}
    told = plain(text)
    if outcome in tags:
        ElementTree.SubElement(case, tags[outcome], message=told)
    else:
        ElementTree.SubElement(case, "system-out").text = told


def _gate_case(result: MetricResult) -> ElementTree.Element:
    case = _case("gate", f"{metric_name(result.metric)} ({where(result)})")
    _tell(case, result.outcome, f"{sentence(result)} {result.reason}".rstrip())
    return case


def _task_case(family: str, task: TaskResult) -> ElementTree.Element:
    case = _case(family, task.task)
    text = plain(task.text)
    if task.outcome in ("infrastructure", "unscorable"):
        ElementTree.SubElement(case, "error", message=text or task.outcome, type=task.outcome)
    elif task.outcome in ("skipped", "missing", "quarantined"):
        ElementTree.SubElement(case, "skipped", message=text or task.outcome)
    elif text or task.outcome != "ok":
        ElementTree.SubElement(case, "system-out").text = " ".join(filter(None, [task.outcome, text, plain(task.address)]))
    return case


# -- SARIF ------------------------------------------------------------------------------------------------------------

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def sarif(verdict: Verdict) -> str:
    """SARIF 2.1.0: each flagged step and each metric that got worse, at the scenario's source line.

    Results of one task and rule have one fingerprint, so that a code host tells new alerts from known ones. Where the
    scenario's code lies outside of the repository, the location is the task's line in the baseline.
    """
    rules: dict[str, dict[str, Any]] = {}
    fallback = verdict.rules or verdict.baseline.name
    results = [_finding(rules, flag, fallback) for flag in verdict.flagged]
    for m in (*verdict.metrics, *verdict.families, *verdict.twins):
        if m.outcome == "regression":
            rule = _rule(rules, m.metric, f"{metric_name(m.metric)} must not get worse than its margin allows")
            name = f"{m.family} {m.contrast}".strip() or "suite"
            results.append(_result(rule, "error", sentence(m), fallback, name, known=False))
    run = {
        "tool": {
            "driver": {
                "name": "agentgym",
                "version": __version__,
                "semanticVersion": __version__,
                "rules": [rules[r] for r in sorted(rules)],
            }
        },
        "columnKind": "unicodeCodePoints",
        "automationDetails": {"id": "agentgym-gate/"},
        "invocations": [
            {
                "executionSuccessful": verdict.outcome not in ("coverage", "incompatible"),
                "exitCode": verdict.exit_code,
                "exitCodeDescription": plain(verdict.summary),
            }
        ],
        "results": results,
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1) + "\n"


def _rule(rules: dict[str, dict[str, Any]], name: str, about: str) -> str:
    id_ = plain(name)
    rules.setdefault(id_, {"id": id_, "name": id_, "shortDescription": {"text": about}})
    return id_


def _finding(rules: dict[str, dict[str, Any]], flag: Flagged, fallback: str) -> dict[str, Any]:
    rule = _rule(rules, flag.rule, f"agentgym: {plain(flag.rule)}")
    look = f" (agentgym view {flag.address})" if "::" in flag.address else f" ({flag.address})"
    return _result(rule, flag.level, f"{flag.task}: {flag.text}{look}", flag.source or fallback, flag.task, flag.known)


def _result(rule: str, level: str, text: str, source: str, task: str, known: bool) -> dict[str, Any]:
    path, _, line = source.rpartition(":")
    if not path or not line.isascii() or not line.isdigit():
        path, line = source, "1"
    fingerprint = hashlib.sha256(f"{task}\0{rule}".encode("utf-8", "replace")).hexdigest()
    return {
        "ruleId": rule,
        "level": level,
        "message": {"text": plain(text)},
        "locations": [
            {"physicalLocation": {"artifactLocation": {"uri": _uri(path)}, "region": {"startLine": max(int(line), 1)}}}
        ],
        "partialFingerprints": {"agentgymTaskRule/v1": fingerprint},
        "baselineState": "unchanged" if known else "new",
    }


def _uri(path: str) -> str:
    """A path as a relative reference from the repository's root, where it lies below the folder we are in."""
    from urllib.parse import quote

    absolute = Path(os.path.abspath(path))
    try:
        return quote(absolute.relative_to(Path.cwd()).as_posix())
    except ValueError:
        return absolute.as_uri()


def _json(verdict: Verdict) -> str:
    return verdict.encode().decode() + "\n"


KINDS: dict[str, Callable[[Verdict], str]] = {"md": markdown, "junit": junit, "sarif": sarif, "json": _json}
"""Kind of report -> what makes its text."""
