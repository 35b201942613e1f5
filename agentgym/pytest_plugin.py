# SPDX-License-Identifier: Apache-2.0
"""The pytest plugin: ``@pytest.mark.agentgym``, the fixture ``agentgym_run``, and suite files collected as tests.

It is loaded by every pytest in an environment that has agentgym, so nothing that costs is imported here: what plays and
what judges is imported when the first marked test or suite file needs it.
"""

from __future__ import annotations

import contextlib
import fnmatch
import io
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agentgym.pytest_play import (
    BOARD,
    OF_MARK,
    REPORTER,
    RESULTS,
    RUN,
    SESSION,
    SETTINGS,
    UNDECIDED,
    as_typed,
    choice_of,
    explained,
    ini_name,
    options_of,
    play,
    refusals,
    see,
    wish_of,
)

if TYPE_CHECKING:
    from agentgym.report.results import Results

_MARKER = (
    "agentgym(*tasks, model=None, trials=None, limit=None, variant=None, params=None, ...): what the fixture agentgym_run"
    " plays: tasks as `agentgym eval` names them (families, suites, task ids, ./file.py:Class), or environment classes."
    " Marks of class and module give what the test's own does not say. See docs/pytest.md of agentgym."
)

# -- options and collection -------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declares the command line options and their ini twins."""
    group = parser.getgroup("agentgym", "agentgym: tests that let a model or an agent play")
    for name, (kind, metavar, text) in SETTINGS.items():
        group.addoption(f"--agentgym-{name}", type=kind, metavar=metavar, default=None, help=text)
        parser.addini(ini_name(name), f"as --agentgym-{name}")
    group.addoption(
        "--agentgym-variant", action="append", metavar="NAME", help="variant to play where a mark names none; may be repeated"
    )
    parser.addini("agentgym_suites", "suite files to collect as tests: patterns like suites/*.toml, from rootdir", type="args")


def pytest_configure(config: pytest.Config) -> None:
    """Declares the mark."""
    config.addinivalue_line("markers", _MARKER)
    config.pluginmanager.register(_Reporter(config), REPORTER)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Suite files: those named on the command line, and those that ``agentgym_suites`` fits."""
    if file_path.suffix != ".toml":
        return None
    if not _named(parent.config, file_path):
        where = Path(os.path.relpath(file_path, parent.config.rootpath)).as_posix()
        if not any(fnmatch.fnmatchcase(where, p) for p in parent.config.getini("agentgym_suites")):
            return None
    from agentgym.pytest_suite import SuiteFile

    return SuiteFile.from_parent(parent, path=file_path)


def _named(config: pytest.Config, path: Path) -> bool:
    """Whether a file stands on the command line; pytest itself forgets one that lies in a folder that does, too."""
    start = config.invocation_params.dir
    return any(os.path.abspath(start / arg.partition("::")[0]) == str(path) for arg in config.args)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Warns of marks that do nothing, and refuses to play again what failed until it passes."""
    reruns = getattr(config.option, "reruns", None)
    for item in items:
        names = getattr(item, "fixturenames", None)
        ours = item.path.suffix == ".toml" or "agentgym_run" in (names or ())
        if ours and (reruns or item.get_closest_marker("flaky") is not None):
            raise pytest.UsageError(
                f"{item.nodeid} must not be rerun: to play an agent again until it passes hides what it does every other time."
                " Raise its trials, which measures that, and let a bar or a baseline decide; infrastructure errors are"
                " retried anyway (--agentgym-retries). Give --reruns to a pytest of its own for your other tests"
            )
        if names is not None and "agentgym_run" not in names and any(m.name == "agentgym" for m in item.own_markers):
            text = f"{item.nodeid} is marked agentgym and does not use the fixture agentgym_run: nothing is played for it"
            item.warn(pytest.PytestWarning(text))


# -- playing ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def agentgym_run(request: pytest.FixtureRequest) -> Iterator[Results]:
    """The results of the tasks that the test's mark ``agentgym`` names, played and saved; see docs/pytest.md of agentgym."""
    item: pytest.Item = request.node
    with refusals():
        selectors, wishes = _marked(item)
        with contextlib.chdir(item.config.rootpath):
            from agentgym.rollout.evaluate import prepare

            plan, options = prepare(selectors, choice_of(item.config, wishes), options_of(item.config, wishes))
            results = play(item, plan, options, wish_of(item.config, wishes, "model"), wishes)
    yield results
    results.close()


def _marked(item: pytest.Item) -> tuple[list[Any], dict[str, Any]]:
    """What the marks of a test ask for: selectors of the nearest that has any, and options, the nearest first."""
    from agentgym.errors import UsageError, did_you_mean

    marks = list(item.iter_markers("agentgym"))
    if not marks:
        raise UsageError('agentgym_run plays what a mark names; put @pytest.mark.agentgym("math.add") on the test')
    wishes: dict[str, Any] = {}
    for mark in reversed(marks):
        wishes |= mark.kwargs
    for name in wishes:
        if name not in OF_MARK:
            raise UsageError(f"the mark agentgym takes no {name!r}.{did_you_mean(name, OF_MARK)}")
    selectors = next((list(m.args) for m in marks if m.args), [])
    if not selectors:
        raise UsageError('the mark agentgym names no task, as in @pytest.mark.agentgym("math.add")')
    for selector in selectors:
        if not isinstance(selector, (str, type)):
            raise UsageError(f"the mark agentgym takes names of tasks and environment classes, not {selector!r}")
    return selectors, wishes


# -- reporting --------------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Adds to a failure what was played and where to look."""
    results = item.stash.get(RESULTS, None)
    if results is not None and call.when == "call":
        for check in results.checks:
            if check.verdict == "too few" or (check.verdict == "undecided" and check.doubtful):
                item.user_properties.append((UNDECIDED, repr(check)))
        error = call.excinfo.value if call.excinfo is not None else None
        if error is not None and not isinstance(error, (pytest.skip.Exception, KeyboardInterrupt)):
            # what an exception's notes say goes wherever pytest prints the exception: terminal, short summary, junit XML
            # (the command first: junit XML keeps a few lines in the attribute that dashboards show)
            explanation = explained(results)
            error.add_note(see(results, explanation))
            if f"{results.address}::" not in str(error):
                error.add_note(explanation)
    return (yield)


class _Reporter:
    """Collects which runs the tests made, from workers too, and tells in the end."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.runs: dict[str, None] = {}
        self.undecided: list[tuple[str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notes what a test says it made; under xdist this runs where the summary is printed."""
        for name, value in report.user_properties:
            if name == RUN:
                self.runs[str(value)] = None
            elif name == UNDECIDED and report.when == "call":
                self.undecided.append((report.nodeid, str(value)))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Prints the runs with their scores, and what could not be told."""
        if not self.runs:
            return
        terminalreporter.ensure_newline()
        terminalreporter.section("agentgym")
        for shown in self.runs:
            for line in self._scores(shown):
                terminalreporter.write_line(line)
        for test, text in self.undecided:
            terminalreporter.write_line(f"not sure: {test}: {text}", yellow=True)

    def _scores(self, shown: str) -> list[str]:
        from rich.console import Console

        from agentgym.errors import AgentGymError
        from agentgym.records.run import Run
        from agentgym.report.console import print_summary
        from agentgym.report.summary import summarize

        screen = Console(file=io.StringIO(), highlight=False, markup=False, emoji=False, soft_wrap=True, no_color=True)
        try:
            with Run(self.config.invocation_params.dir / shown) as run:
                summary = summarize(run)
        except AgentGymError as e:
            return [str(e)]
        summary.path = shown
        print_summary(screen, summary)
        return screen.file.getvalue().rstrip().splitlines()  # type: ignore[attr-defined, no-any-return]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Closes the models."""
    config = session.config
    board = config.stash.get(BOARD, None)
    if board is not None:
        del config.stash[BOARD]
        board.close()
    ours = config.stash.get(SESSION, None)
    if ours is None:
        return
    del config.stash[SESSION]
    reporter = config.pluginmanager.get_plugin(REPORTER)
    if reporter is not None:
        reporter.runs |= dict.fromkeys(as_typed(config, path) for path in ours.runs)  # Ctrl-C leaves a test without a report
    ours.close()
