# SPDX-License-Identifier: Apache-2.0
"""docs/gate.md followed from an empty folder, and examples/ci/github.yml played there step by step, as GitHub would."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest
import yaml

from tests.cli.conftest import ROOT

PAGE = (ROOT / "docs/gate.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def bash(script: str, cwd: Path, env: dict[str, str]) -> tuple[int, str]:
    """As a step of GitHub's runs: ``bash -e -o pipefail``."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script],
        cwd=cwd, env={**os.environ, "PATH": path, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.fixture
def repository(place: Path) -> Path:
    """A repository as the page says it is made: its files, its commands, nothing else."""
    for block in blocks("python") + blocks("toml"):
        file = place / block.splitlines()[0].removeprefix("# ")
        file.parent.mkdir(exist_ok=True)
        file.write_text(block, encoding="utf-8")
    commands = [b for b in blocks("console") if "baseline create" in b]
    assert len(commands) == 1
    code, out = bash(commands[0].replace("$ ", ""), place, {})
    assert code == 0, out
    assert "pass: exit 0" in out
    assert "holds" in out  # the self-test
    return place


class Ended(NamedTuple):
    """A workflow that was played: what each job came to, what its steps printed, and the step summary."""

    jobs: dict[str, str]
    log: str
    summary: str


def play(repository: Path, secrets: dict[str, str]) -> Ended:
    """The jobs of the example; what ``uses`` an action is left out, and so is the installation of what is installed."""
    workflow = yaml.safe_load((ROOT / "examples/ci/github.yml").read_text(encoding="utf-8"))
    summary = repository / "summary.md"
    summary.write_text("# what other steps said\n")
    jobs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    log = ""
    for name, job in workflow["jobs"].items():
        condition = str(job.get("if", "true"))
        # a condition that asks for the state of the workflow is looked at whatever became of the jobs before
        if "needs" in job and jobs[job["needs"]] != "success" and "cancelled()" not in condition:
            jobs[name] = "skipped"
            continue
        wanted = re.search(r"needs\.play\.outputs\.code != '(\d+)'", condition)
        if wanted and outputs["needs.play.outputs.code"] == wanted[1]:
            jobs[name] = "skipped"
            continue

        def known(match: re.Match[str]) -> str:
            kind, _, secret = match[1].partition(".")
            return secrets.get(secret, "") if kind == "secrets" else outputs.get(match[1], "")

        def fill(text: Any, known: Any = known) -> str:
            return re.sub(r"\$\{\{\s*([\w.]+)\s*\}\}", known, str(text))

        jobs[name] = "success"
        for step in job["steps"]:
            if "run" not in step or step.get("name") == "install":
                continue
            if jobs[name] == "failure" and "cancelled" not in str(step.get("if", "")):
                continue
            out_file = repository / "output"
            out_file.write_text("")
            env = {**job.get("env", {}), **step.get("env", {})}
            special = {"GITHUB_OUTPUT": str(out_file), "GITHUB_STEP_SUMMARY": str(summary), "CI": "true"}
            code, out = bash(fill(step["run"]), repository, {k: fill(v) for k, v in env.items()} | special)
            log += f"--- {step['name']} ({code})\n{out}"
            if code:
                jobs[name] = "failure"
            for line in out_file.read_text().splitlines():
                key, _, value = line.partition("=")
                outputs[f"steps.{step['id']}.outputs.{key}"] = value
        for key, value in job.get("outputs", {}).items():
            outputs[f"needs.{name}.outputs.{key}"] = fill(value)
    return Ended(jobs, log, summary.read_text())


@pytest.mark.slow
def test_the_page_and_the_workflow_from_an_empty_folder(repository: Path) -> None:
    (block,) = [b for b in blocks("console") if "$ pytest" in b]
    code, out = bash(block.replace("$ ", ""), repository, {})
    assert (code, "62 passed" in out) == (0, True), out

    key = {"MODEL_KEY": "k"}
    good = play(repository, key)
    assert good.jobs == {"play": "success", "verdict": "success"}, good.log
    assert good.summary.startswith("# what other steps said\n## ✅ agentgym gate: PASS")
    reports = repository / "reports"
    assert json.loads((reports / "gate.json").read_text())["exit_code"] == 0
    assert ElementTree.parse(reports / "gate.xml").getroot().get("failures") == "0"
    assert json.loads((reports / "gate.sarif").read_text())["version"] == "2.1.0"

    # a fork: no key, the replies in git, and a task more, of which nobody has a reply: grey, neither red nor green
    suite = repository / "suites/pr.toml"
    suite.write_text(suite.read_text().replace("items = 10", "items = 12", 1))
    more = play(repository, {})
    assert more.jobs == {"play": "success", "verdict": "skipped"}, more.log
    assert "INCONCLUSIVE: exit 10" in more.log
    assert "8 of 248 episodes were SKIPPED" in more.log
    assert "8 of 248 trials were SKIPPED" in more.summary

    # a change for the worse
    model = repository / "my_model.py"
    model.write_text(model.read_text().replace("% 20 == 0", "% 3 == 0"))
    bad = play(repository, key)
    assert bad.jobs == {"play": "success", "verdict": "failure"}, bad.log
    assert "exit code 1:" in bad.log
    assert "## ❌ agentgym gate: REGRESSION: gold" in bad.summary

    # the server is down
    model.write_text(model.read_text().replace("a, b =", "raise OSError('down')\n        a, b ="))
    down = play(repository, key)
    assert down.jobs == {"play": "failure", "verdict": "failure"}, down.log
    assert "exit code 12:" in down.log


def test_the_pages_rules_are_rules_and_its_table_can_be_gated(place: Path) -> None:
    from agentgym.gate.rules import read_rules

    for block in blocks("toml"):
        if "[metrics" in block:
            (place / "rules.toml").write_text(block)
            read_rules(place / "rules.toml")
    (block,) = [b for b in blocks("console") if "old.csv" in b]
    code, out = bash(block.replace("$ ", ""), place, {})
    assert (code, "pass: exit 0" in out) == (0, True), out


def test_the_pages_table_of_exit_codes_is_that_of_the_program() -> None:
    from agentgym.cli.gate_options import GATE_EXIT_CODES
    from agentgym.gate.verdict import EXIT_CODES

    table = {int(n) for n in re.findall(r"^\| [\w ]*\| (\d+) \|", PAGE, re.MULTILINE)}
    assert table == {int(n) for n in re.findall(r"^  (\d+) ", GATE_EXIT_CODES, re.MULTILINE)} == {*EXIT_CODES.values(), 2, 70}
