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
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from agentgym.pytest_gate import Board, Place
    from agentgym.report.results import Results
    from agentgym.rollout.scheduler import Options
    from agentgym.rollout.selection import Choice, Part, Plan
    from agentgym.rollout.session import Session

_SETTINGS: dict[str, tuple[Any, str, str]] = {
    "model": (str, "KIND:NAME", "who plays where a mark names no model (default local:smollm2)"),
    "trials": (int, "K", "repetitions of each task where a mark does not say"),
    "limit": (int, "N", "most tasks of each family and variant where a mark does not say"),
    "seed": (int, "N", "seeds the model's sampling, not the tasks (0)"),
    "concurrency": (int, "N", "episodes at once (64)"),
    "retries": (int, "N", "further attempts after infrastructure errors (2)"),
    "infra-limit": (float, "SHARE", "share of a test's episodes that infrastructure may spoil (0)"),
    "max-cost": (float, "USD", "dollars for the run of each model: no new episode begins after"),
    "sandbox": (str, "NAME", "what holds in the code that a model writes (default $AGENTGYM_SANDBOX, else auto)"),
    "runs": (str, "DIR", "folder of runs (default $AGENTGYM_RUNS, else runs/)"),
    "baseline": (str, "FILE", "compare what suite files play with this baseline: one more test for each metric that decides"),
    "rules": (str, "FILE", "rules of that comparison (gate.toml); see docs/gate.md of agentgym"),
}
"""``--agentgym-NAME`` and the ini option ``agentgym_NAME``: type, metavariable, help."""

_OF_CHOICE = ("trials", "limit", "params", "data", "split", "keyword")
_OF_SAMPLING = ("temperature", "top_p", "max_tokens")
_OF_LIMITS = {"max_turns": "turns", "time_limit": "seconds", "token_limit": "tokens", "cost_limit": "cost_usd"}
_OF_MARK = {"model", "variant", "variants", "seed", "infra_limit", *_OF_CHOICE, *_OF_SAMPLING, *_OF_LIMITS}
"""What a mark takes by name, as ``agentgym eval`` calls it."""

_MARKER = (
    "agentgym(*tasks, model=None, trials=None, limit=None, variant=None, params=None, ...): what the fixture agentgym_run"
    " plays: tasks as `agentgym eval` names them (families, suites, task ids, ./file.py:Class), or environment classes."
    " Marks of class and module give what the test's own does not say. See docs/pytest.md of agentgym."
)

_SESSION: pytest.StashKey[Session] = pytest.StashKey()
_BOARD: pytest.StashKey[Board] = pytest.StashKey()
_RESULTS: pytest.StashKey[Results] = pytest.StashKey()
_REPORTER = "agentgym-reporter"
_RUN = "agentgym.run"
"""Name of the property that names the run, in reports and in junit XML."""
_UNDECIDED = "agentgym.undecided"


# -- options and collection -------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declares the command line options and their ini twins."""
    group = parser.getgroup("agentgym", "agentgym: tests that let a model or an agent play")
    for name, (kind, metavar, text) in _SETTINGS.items():
        group.addoption(f"--agentgym-{name}", type=kind, metavar=metavar, default=None, help=text)
        parser.addini(_ini(name), f"as --agentgym-{name}")
    group.addoption(
        "--agentgym-variant", action="append", metavar="NAME", help="variant to play where a mark names none; may be repeated"
    )
    parser.addini("agentgym_suites", "suite files to collect as tests: patterns like suites/*.toml, from rootdir", type="args")


def _ini(name: str) -> str:
    return f"agentgym_{name.replace('-', '_')}"


def pytest_configure(config: pytest.Config) -> None:
    """Declares the mark."""
    config.addinivalue_line("markers", _MARKER)
    config.pluginmanager.register(_Reporter(config), _REPORTER)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Suite files: those named on the command line, and those that ``agentgym_suites`` fits."""
    if file_path.suffix != ".toml":
        return None
    if not _named(parent.config, file_path):
        where = Path(os.path.relpath(file_path, parent.config.rootpath)).as_posix()
        if not any(fnmatch.fnmatchcase(where, p) for p in parent.config.getini("agentgym_suites")):
            return None
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
        ours = isinstance(item, (SuiteItem, GateItem)) or "agentgym_run" in (names or ())
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
    with _refusals():
        selectors, wishes = _marked(item)
        with contextlib.chdir(item.config.rootpath):
            from agentgym.rollout.evaluate import prepare

            plan, options = prepare(selectors, _choice(item.config, wishes), _options(item.config, wishes))
            results = _play(item, plan, options, _wish(item.config, wishes, "model"), wishes)
    yield results
    results.close()


class SuiteFile(pytest.File):
    """A suite file: one test for each family and variant in it."""

    def collect(self) -> Iterator[pytest.Item]:
        """Its tests, and those of the comparison with a baseline, if there is one of these tasks."""
        from agentgym.rollout.selection import suite_parts

        with _refusals(), contextlib.chdir(self.config.rootpath):
            parts = suite_parts(self.path, _choice(self.config, {}))
            baseline, rules = _file(self.config, "baseline"), _file(self.config, "rules")
            metrics: list[str] = []
            if baseline is not None:
                from agentgym.pytest_gate import metrics_of

                metrics = metrics_of(baseline, rules, parts)
        for part in parts:
            yield SuiteItem.from_parent(self, name=part.name, part=part)
        if metrics:
            for metric in (*metrics, ""):
                yield GateItem.from_parent(self, name=f"gate/{metric}" if metric else "gate", metric=metric, parts=parts)


class SuiteItem(pytest.Item):
    """One family and variant of a suite. It passes if all was played and gold is not below what the suite asks for."""

    def __init__(self, *, part: Part, **more: Any) -> None:
        super().__init__(**more)
        self.part = part

    def setup(self) -> None:
        """Plays it."""
        from agentgym.rollout.evaluate import with_suite_settings

        with _refusals(), contextlib.chdir(self.config.rootpath):
            options = with_suite_settings(self.part.plan, _options(self.config, {}))
            _play(self, self.part.plan, options, _wish(self.config, {}, "model"), {})

    def runtest(self) -> None:
        """Judges it."""
        results = self.stash[_RESULTS]
        if self.part.not_below is None and results.gold.n and not results.gold.unscorable:
            return  # nothing is asked of the scores, but that there are some
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            check = results.gold.not_below(self.part.not_below or 0.0)
        for warning in caught:  # again, in the name of the suite instead of this line
            warnings.warn_explicit(warning.message, warning.category, str(self.path), 1)
        if not check:
            pytest.fail(f"{check.text()}\n{_see(results, check.text())}", pytrace=False)

    def teardown(self) -> None:
        """Closes the record."""
        results = self.stash.get(_RESULTS, None)
        if results is not None:
            results.close()

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """File and name, for pytest's headings."""
        return self.path, None, f"{self.path.name}: {self.name}"


class GateItem(pytest.Item):
    """What the comparison with a baseline says of one metric of a suite; without a metric, of everything else."""

    def __init__(self, *, metric: str, parts: list[Part], **more: Any) -> None:
        super().__init__(**more)
        self.metric = metric
        self.parts = parts

    def setup(self) -> None:
        """Has the verdict made, unless another test has."""
        from agentgym.pytest_gate import Place, failure, make_verdict

        with _refusals(), contextlib.chdir(self.config.rootpath):
            baseline = _file(self.config, "baseline")
            assert baseline is not None

            def play(part: Part) -> Place:
                from agentgym.rollout.evaluate import with_suite_settings

                options = with_suite_settings(part.plan, _options(self.config, {}))
                played = _session(self.config).play(part.plan, options, _wish(self.config, {}, "model"))
                self.user_properties.append((_RUN, _shown(self.config, played.path)))
                return Place(str(played.path), [t.task_id for t in part.plan.tasks])

            verdict = make_verdict(
                _board(self.config),
                self.path.as_posix(),
                self.parts,
                name_of=lambda part: f"{self.parent.nodeid}::{part.name}" if self.parent else part.name,
                others={item.nodeid for item in self.session.items},
                play=play,
                baseline=baseline,
                rules=_file(self.config, "rules"),
                shown=lambda path: _shown(self.config, path),
            )
            self.outcome, self.text = failure(verdict, self.metric)
            self.user_properties += [("agentgym.gate", verdict.outcome), ("agentgym.gate.exit_code", verdict.exit_code)]
            if self.outcome == "error":
                pytest.fail(_safe(self.text), pytrace=False)

    def runtest(self) -> None:
        """Tells it."""
        if self.outcome == "skip":
            pytest.skip(_safe(self.text))
        if self.outcome == "fail":
            pytest.fail(_safe(self.text), pytrace=False)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """File and name, for pytest's headings."""
        return self.path, None, f"{self.path.name}: {self.name}"


def _safe(text: str) -> str:
    from agentgym.errors import redact
    from agentgym.report.text import plain

    return plain(redact(text))


def _file(config: pytest.Config, name: str) -> Path | None:
    """A file that an option names: of the command line from where pytest was started, of the ini file from where that lies."""
    given = config.getoption(f"--agentgym-{name}")
    if given is not None:
        return Path(config.invocation_params.dir, given)
    configured = str(config.getini(_ini(name)))
    return config.rootpath / configured if configured else None


def _board(config: pytest.Config) -> Board:
    """What the processes of this session tell each other."""
    from agentgym.pytest_gate import Board

    board = config.stash.get(_BOARD, None)
    if board is None:
        worker = getattr(config, "workerinput", {})
        session = worker.get("testrunuid") or f"{os.getpid()}-{id(config)}"
        board = config.stash[_BOARD] = Board(_root(config) / f".gate-{session}", worker.get("workerid", "main"))
    return board


def _session(config: pytest.Config) -> Session:
    """What plays, and keeps what it played in one run for each model."""
    from agentgym.rollout.session import Session

    session = config.stash.get(_SESSION, None)
    if session is None:
        worker = getattr(config, "workerinput", {}).get("workerid")
        session = config.stash[_SESSION] = Session(_root(config), f"pytest-{worker}" if worker else "pytest")
    return session


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
        if name not in _OF_MARK:
            raise UsageError(f"the mark agentgym takes no {name!r}.{did_you_mean(name, _OF_MARK)}")
    selectors = next((list(m.args) for m in marks if m.args), [])
    if not selectors:
        raise UsageError('the mark agentgym names no task, as in @pytest.mark.agentgym("math.add")')
    for selector in selectors:
        if not isinstance(selector, (str, type)):
            raise UsageError(f"the mark agentgym takes names of tasks and environment classes, not {selector!r}")
    return selectors, wishes


def _setting(config: pytest.Config, name: str) -> Any:
    """What the command line says, else the ini file; None where neither does."""
    from agentgym.errors import UsageError

    given = config.getoption(f"--agentgym-{name}")
    if given is not None:
        return given
    text = config.getini(_ini(name))
    if text in ("", None):
        return None
    kind = _SETTINGS[name][0]
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"{_ini(name)} in {config.inipath or 'the ini file'} must be a number, not {text!r}") from None


def _wish(config: pytest.Config, wishes: dict[str, Any], name: str) -> Any:
    """What the mark says, else `_setting`."""
    wish = wishes.get(name.replace("-", "_"))
    return _setting(config, name) if wish is None else wish


def _choice(config: pytest.Config, wishes: dict[str, Any]) -> Choice:
    from agentgym.rollout.selection import Choice

    mine = {name: wishes[name] for name in _OF_CHOICE if wishes.get(name) is not None}
    for name in ("trials", "limit"):
        mine[name] = _wish(config, wishes, name)
    variants = wishes.get("variants") or wishes.get("variant") or config.getoption("--agentgym-variant")
    variants = [variants] if isinstance(variants, str) else variants
    return Choice(variants=list(variants) if variants else None, runs=str(_root(config)), **mine)


def _options(config: pytest.Config, wishes: dict[str, Any]) -> Options:
    from agentgym.episode import Limits
    from agentgym.protocols import Sampling
    from agentgym.rollout.scheduler import Options

    sampling = {name: wishes[name] for name in _OF_SAMPLING if wishes.get(name) is not None}
    limits = {mine: wishes[name] for name, mine in _OF_LIMITS.items() if wishes.get(name) is not None}
    retries = _setting(config, "retries")
    return Options(
        concurrency=_setting(config, "concurrency"),
        retries=2 if retries is None else retries,
        seed=_wish(config, wishes, "seed") or 0,
        sampling=Sampling(**sampling),
        limits=Limits(**limits) if limits else None,
        max_cost_usd=_setting(config, "max-cost"),
        sandbox=_sandbox(config),
    )


def _sandbox(config: pytest.Config) -> str | None:
    """The sandbox's backend; a file cannot ask for the one that holds nothing in."""
    from agentgym.errors import UsageError
    from agentgym.sandbox.shared import UNSAFE

    name: str | None = _setting(config, "sandbox")
    if name == UNSAFE and config.getoption("--agentgym-sandbox") is None:
        raise UsageError(f"agentgym_sandbox = {UNSAFE} does not stand in a file: say --agentgym-sandbox {UNSAFE} each time")
    return name


def _root(config: pytest.Config) -> Path:
    """The folder of runs: of the command line and of the environment from where pytest was started, of the ini file from
    where that lies."""
    from agentgym.records.place import runs_root

    given, configured = config.getoption("--agentgym-runs"), str(config.getini("agentgym_runs"))
    if given is None and configured:
        return config.rootpath / configured
    return config.invocation_params.dir / runs_root(given)


def _shown(config: pytest.Config, path: Path) -> str:
    """A run as a person would type it where pytest was started."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(config.invocation_params.dir))
    return str(path)


def _play(item: pytest.Item, plan: Plan, options: Options, model: Any, wishes: dict[str, Any]) -> Results:
    """Plays a plan for a test and ties the results to it."""
    from agentgym.errors import InfrastructureError, UsageError
    from agentgym.report.results import Results

    config = item.config
    limit = _wish(config, wishes, "infra-limit") or 0.0
    if not 0.0 <= limit <= 1.0:
        raise UsageError(f"the infra limit must be a share from 0 to 1, not {limit}")
    board = _board(config) if isinstance(item, SuiteItem) and _file(config, "baseline") is not None else None
    played = _session(config).play(plan, options, model)
    if board is not None:
        from agentgym.pytest_gate import Place

        board.tell(item.nodeid, Place(str(played.path), [t.task_id for t in plan.tasks]).encode())
    shown = _shown(config, played.path)
    item.user_properties.append((_RUN, shown))
    results = item.stash[_RESULTS] = Results(played.path, played.tasks, shown)
    trouble = results.trouble(limit)
    if trouble is not None:
        results.close()
        raise InfrastructureError("\n".join(filter(None, [played.stopped, trouble])))
    gold = results.gold
    counts = (("agentgym.model", results.model), ("agentgym.episodes", results.n), ("agentgym.gold.n", gold.n))
    item.user_properties += counts
    if gold.n:
        item.user_properties.append(("agentgym.gold.mean", round(gold.mean, 6)))
    if gold.low is not None and gold.high is not None:
        item.user_properties += [("agentgym.gold.low", round(gold.low, 6)), ("agentgym.gold.high", round(gold.high, 6))]
    return results


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Makes agentgym's own errors, which are sentences, the whole failure message, without a traceback into its code."""
    from agentgym.errors import AgentGymError, redact
    from agentgym.report.text import plain

    try:
        yield
    except AgentGymError as e:
        raise pytest.fail.Exception(plain(redact(str(e))), pytrace=False) from None


# -- reporting --------------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Adds to a failure what was played and where to look."""
    results = item.stash.get(_RESULTS, None)
    if results is not None and call.when == "call":
        for check in results.checks:
            if check.verdict == "too few" or (check.verdict == "undecided" and check.doubtful):
                item.user_properties.append((_UNDECIDED, repr(check)))
        error = call.excinfo.value if call.excinfo is not None else None
        if error is not None and not isinstance(error, (pytest.skip.Exception, KeyboardInterrupt)):
            # what an exception's notes say goes wherever pytest prints the exception: terminal, short summary, junit XML
            # (the command first: junit XML keeps a few lines in the attribute that dashboards show)
            explanation = _explained(results)
            error.add_note(_see(results, explanation))
            if f"{results.address}::" not in str(error):
                error.add_note(explanation)
    return (yield)


def _explained(results: Results) -> str:
    from agentgym.errors import AgentGymError

    try:
        return results.explain()
    except AgentGymError as e:  # a record that cannot be read must not hide why the test failed
        return str(e)


def _see(results: Results, explanation: str) -> str:
    """The command that opens the episode which an explanation names first."""
    words = explanation.split()
    return f"see it:  agentgym view {next((w for w in words if w.startswith(f'{results.address}::')), results.address)}"


class _Reporter:
    """Collects which runs the tests made, from workers too, and tells in the end."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.runs: dict[str, None] = {}
        self.undecided: list[tuple[str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notes what a test says it made; under xdist this runs where the summary is printed."""
        for name, value in report.user_properties:
            if name == _RUN:
                self.runs[str(value)] = None
            elif name == _UNDECIDED and report.when == "call":
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
    board = config.stash.get(_BOARD, None)
    if board is not None:
        del config.stash[_BOARD]
        board.close()
    ours = config.stash.get(_SESSION, None)
    if ours is None:
        return
    del config.stash[_SESSION]
    reporter = config.pluginmanager.get_plugin(_REPORTER)
    if reporter is not None:
        reporter.runs |= dict.fromkeys(_shown(config, path) for path in ours.runs)  # Ctrl-C leaves a test without a report
    ours.close()
