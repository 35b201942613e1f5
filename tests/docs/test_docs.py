# SPDX-License-Identifier: Apache-2.0
"""What the README and the documentation show works as it is shown."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import agentgym

ROOT = Path(__file__).parent.parent.parent


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def shell(script: str, cwd: Path) -> str:
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"}
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_what_the_readme_says_to_look_at_can_be_looked_at(tmp_path: Path) -> None:
    look = next(b for b in blocks("README.md", "console") if "oracle:honest" in b and "show latest::" in b)
    # doctor may find fault with this machine, and what a person does wants a terminal; all of them have tests of their own
    elsewhere = tuple(f"agentgym {name} " for name in ("doctor", "view", "label", "play"))
    commands = [line for line in look.splitlines() if line and not f"{line} ".startswith(elsewhere)]
    out = shell("\n".join(commands), tmp_path)
    assert "gold 8/8" in out
    assert "tools.retail" in out


def test_the_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = next(b for b in blocks("README.md", "python") if b.startswith("import agentgym"))
    scope: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), scope)
    assert len(list(scope["run"].episodes())) == 20
    assert all(e.gold == 1.0 for e in scope["run"].episodes())
    assert scope["info"]["turn"] == 1


def test_the_environment_of_the_documentation_can_be_solved_in_every_variant(tmp_path: Path) -> None:
    code = blocks("docs/environments.md", "python")[0]
    file = tmp_path / "change.py"
    file.write_text(code, encoding="utf-8")
    run = agentgym.evaluate(f"{file}:Change", "oracle:honest", limit=5, variants=["control", "asked"], runs=tmp_path)
    episodes = list(run.episodes())
    assert len(episodes) == 10
    assert all(e.gold == 1.0 for e in episodes)
    lazy = agentgym.evaluate(f"{file}:Change", "oracle:lazy", limit=5, runs=tmp_path)
    assert all(e.gold == 0.0 for e in lazy.episodes())


def test_the_sandboxed_task_of_the_documentation_runs(tmp_path: Path) -> None:
    code = blocks("docs/code.md", "python")[0]
    assert len(code.splitlines()) < 60
    (tmp_path / "leftovers.py").write_text(code, encoding="utf-8")
    out = shell(blocks("docs/code.md", "console")[1].removeprefix("$ "), tmp_path)
    assert "gold 10/10" in out
    assert "side_effects: kept 10/10" in out


def test_the_verifier_of_the_documentation_is_one() -> None:
    scope: dict[str, Any] = {}
    exec(compile(blocks("docs/environments.md", "python")[1], "environments.md", "exec"), scope)
    assert isinstance(scope["polite"], agentgym.Verifier)


def test_the_judge_of_the_documentation_judges(capsys: pytest.CaptureFixture[str]) -> None:
    code = blocks("docs/judges.md", "python")[0]
    exec(compile(code.replace("local:smollm2", f"{ROOT}/tests/evaluators/judges.py:ScriptedJudge"), "judges.md", "exec"), {})
    assert capsys.readouterr().out == "0.6666666666666666 ()\n"


def test_the_rewards_of_the_documentation_are_what_it_says(tmp_path: Path) -> None:
    turns = [agentgym.Turn(i, agentgym.assistant("hm")) for i in range(2)]
    scope: dict[str, Any] = {
        "trajectory": agentgym.Trajectory(task_id="a/b/c", turns=turns),
        "scores_of_the_batch": [[agentgym.Score("format", value=0.0)]],
        "folder": tmp_path,
    }
    for code in blocks("docs/rewards.md", "python")[:3]:  # the fourth needs torch; tests/hf is about that
        exec(compile(code, "rewards.md", "exec"), scope)
    assert (tmp_path / "constraints.json").exists()
    assert scope["paid"].multipliers == {"format": pytest.approx(0.095)}
    assert scope["best_of_n"]([0.1, 0.9, 0.4], gold=[0.0, 1.0, 0.0], n=2) == pytest.approx(2 / 3)


def test_the_readmes_test_passes(tmp_path: Path) -> None:
    code = next(b for b in blocks("README.md", "python") if b.startswith("import pytest"))
    (tmp_path / "test_readme.py").write_text(code, encoding="utf-8")
    assert "1 passed" in shell("pytest -q -p no:cacheprovider", tmp_path)


def test_the_page_about_pytest_can_be_followed_from_an_empty_folder(tmp_path: Path) -> None:
    for block in blocks("docs/pytest.md", "python") + blocks("docs/pytest.md", "toml"):
        file = tmp_path / block.splitlines()[0].removeprefix("# ")
        file.parent.mkdir(exist_ok=True)
        file.write_text(block, encoding="utf-8")
    make, first, suite = (b.removeprefix("$ ") for b in blocks("docs/pytest.md", "console"))
    shell(make, tmp_path)
    out = shell(f"{first.strip()} test_refunds.py || test $? -eq 1", tmp_path)
    assert "1 failed, 2 passed" in out
    assert "gold 0/20 is below the bar 0.8 (mean 0, 95 % interval 0 to .17)" in out
    seen = re.search(r"see it:  agentgym view (\S+)", out)
    assert seen is not None
    assert "difference from the wanted end state" in shell(f"agentgym show '{seen[1]}'", tmp_path)
    assert "1 passed" in shell(f"{first.strip()} test_more.py", tmp_path)
    out = shell(suite, tmp_path)
    assert "suites/nightly.toml::tools.retail/tempt::3 PASSED" in out
    assert "43 passed" in out
    assert "40 episodes" in shell("agentgym eval suites/nightly.toml --model oracle:honest", tmp_path)


def test_every_link_of_the_documentation_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_module_says_in_its_first_line_what_it_is_for() -> None:
    for folder in ("agentgym", "tasks", "evaluators", "bench", "tests"):
        for file in (ROOT / folder).rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            if not text.strip():
                continue
            assert re.match(r'# SPDX-License-Identifier: Apache-2\.0\n(r?"""\S.{20,}|#)', text), f"{file} has no such line"


def test_the_architecture_page_names_every_module_of_the_contract() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    contract = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    layers = re.search(r"layers = \[(.*?)\]", contract, re.DOTALL)
    assert layers is not None
    for name in re.findall(r"agentgym\.(\w+)", layers[1]):
        assert re.search(rf"`{name}(/|\.py)`", page), f"docs/architecture.md does not name {name}"
