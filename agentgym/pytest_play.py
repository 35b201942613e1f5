# SPDX-License-Identifier: Apache-2.0
"""What the plugin's tests share: settings of command line, ini file and marks; playing, and tying the results to a test.

Nothing that costs is imported before the first test of ours is set up.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from agentgym.pytest_gate import Board
    from agentgym.records.store import PlannedTask
    from agentgym.report.results import Results
    from agentgym.rollout.scheduler import Options
    from agentgym.rollout.selection import Choice, Plan
    from agentgym.rollout.session import Session

SETTINGS: dict[str, tuple[Any, str, str]] = {
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

OF_CHOICE = ("trials", "limit", "params", "data", "split", "keyword")
OF_SAMPLING = ("temperature", "top_p", "max_tokens")
OF_LIMITS = {"max_turns": "turns", "time_limit": "seconds", "token_limit": "tokens", "cost_limit": "cost_usd"}
OF_MARK = {"model", "variant", "variants", "seed", "infra_limit", *OF_CHOICE, *OF_SAMPLING, *OF_LIMITS}
"""What a mark takes by name, as ``agentgym eval`` calls it."""

SESSION: pytest.StashKey[Session] = pytest.StashKey()
BOARD: pytest.StashKey[Board] = pytest.StashKey()
RESULTS: pytest.StashKey[Results] = pytest.StashKey()
REPORTER = "agentgym-reporter"
RUN = "agentgym.run"
"""Name of the property that names the run, in reports and in junit XML."""
UNDECIDED = "agentgym.undecided"


def ini_name(name: str) -> str:
    """The ini option of a setting."""
    return f"agentgym_{name.replace('-', '_')}"


def safe(text: str) -> str:
    """A text without secrets and terminal escapes."""
    from agentgym.errors import redact
    from agentgym.report.text import plain

    return plain(redact(text))


def file_setting(config: pytest.Config, name: str) -> Path | None:
    """A file that an option names: of the command line from where pytest was started, of the ini file from where that lies."""
    given = config.getoption(f"--agentgym-{name}")
    if given is not None:
        return Path(config.invocation_params.dir, given)
    configured = str(config.getini(ini_name(name)))
    return config.rootpath / configured if configured else None


def board_of(config: pytest.Config) -> Board:
    """What the processes of this session tell each other."""
    from agentgym.pytest_gate import Board

    board = config.stash.get(BOARD, None)
    if board is None:
        worker = getattr(config, "workerinput", {})
        session = worker.get("testrunuid") or f"{os.getpid()}-{id(config)}"
        board = config.stash[BOARD] = Board(runs_folder(config) / f".gate-{session}", worker.get("workerid", "main"))
    return board


def session_of(config: pytest.Config) -> Session:
    """What plays, and keeps what it played in one run for each model."""
    from agentgym.rollout.session import Session

    session = config.stash.get(SESSION, None)
    if session is None:
        worker = getattr(config, "workerinput", {}).get("workerid")
        session = config.stash[SESSION] = Session(runs_folder(config), f"pytest-{worker}" if worker else "pytest")
    return session


def setting(config: pytest.Config, name: str) -> Any:
    """What the command line says, else the ini file; None where neither does."""
    from agentgym.errors import UsageError

    given = config.getoption(f"--agentgym-{name}")
    if given is not None:
        return given
    text = config.getini(ini_name(name))
    if text in ("", None):
        return None
    kind = SETTINGS[name][0]
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"{ini_name(name)} in {config.inipath or 'the ini file'} must be a number, not {text!r}") from None


def wish_of(config: pytest.Config, wishes: dict[str, Any], name: str) -> Any:
    """What the mark says, else `setting`."""
    wish = wishes.get(name.replace("-", "_"))
    return setting(config, name) if wish is None else wish


def choice_of(config: pytest.Config, wishes: dict[str, Any]) -> Choice:
    """What is played: what a mark says, else `setting`."""
    from agentgym.rollout.selection import Choice

    mine = {name: wishes[name] for name in OF_CHOICE if wishes.get(name) is not None}
    for name in ("trials", "limit"):
        mine[name] = wish_of(config, wishes, name)
    variants = wishes.get("variants") or wishes.get("variant") or config.getoption("--agentgym-variant")
    variants = [variants] if isinstance(variants, str) else variants
    return Choice(variants=list(variants) if variants else None, runs=str(runs_folder(config)), **mine)


def options_of(config: pytest.Config, wishes: dict[str, Any]) -> Options:
    """How it is played: what a mark says, else `setting`."""
    from agentgym.episode import Limits
    from agentgym.protocols import Sampling
    from agentgym.rollout.scheduler import Options

    sampling = {name: wishes[name] for name in OF_SAMPLING if wishes.get(name) is not None}
    limits = {mine: wishes[name] for name, mine in OF_LIMITS.items() if wishes.get(name) is not None}
    retries = setting(config, "retries")
    return Options(
        concurrency=setting(config, "concurrency"),
        retries=2 if retries is None else retries,
        seed=wish_of(config, wishes, "seed") or 0,
        sampling=Sampling(**sampling),
        limits=Limits(**limits) if limits else None,
        max_cost_usd=setting(config, "max-cost"),
        sandbox=_sandbox(config),
    )


def _sandbox(config: pytest.Config) -> str | None:
    """The sandbox's backend; a file cannot ask for the one that holds nothing in."""
    from agentgym.errors import UsageError
    from agentgym.sandbox.shared import UNSAFE

    name: str | None = setting(config, "sandbox")
    if name == UNSAFE and config.getoption("--agentgym-sandbox") is None:
        raise UsageError(f"agentgym_sandbox = {UNSAFE} does not stand in a file: say --agentgym-sandbox {UNSAFE} each time")
    return name


def runs_folder(config: pytest.Config) -> Path:
    """The folder of runs: of the command line and of the environment from where pytest was started, of the ini file from
    where that lies."""
    from agentgym.records.place import runs_root

    given, configured = config.getoption("--agentgym-runs"), str(config.getini("agentgym_runs"))
    if given is None and configured:
        return config.rootpath / configured
    return config.invocation_params.dir / runs_root(given)


def as_typed(config: pytest.Config, path: Path) -> str:
    """A run as a person would type it where pytest was started."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(config.invocation_params.dir))
    return str(path)


def infra_limit(config: pytest.Config, wishes: dict[str, Any]) -> float:
    """The share of a test's episodes that infrastructure may spoil.

    Raises:
        UsageError: it is no share.
    """
    from agentgym.errors import UsageError

    limit: float = wish_of(config, wishes, "infra-limit") or 0.0
    if not 0.0 <= limit <= 1.0:
        raise UsageError(f"the infra limit must be a share from 0 to 1, not {limit}")
    return limit


def tie(item: pytest.Item, path: Path, tasks: Sequence[PlannedTask]) -> Results:
    """Ties what was played to a test: the results, for its failure message, and the properties of its report."""
    from agentgym.report.results import Results

    shown = as_typed(item.config, path)
    results = item.stash[RESULTS] = Results(path, tasks, shown)
    gold = results.gold
    item.user_properties += [
        (RUN, shown),
        ("agentgym.model", results.model),
        ("agentgym.episodes", results.n),
        ("agentgym.gold.n", gold.n),
    ]
    if gold.n:
        item.user_properties.append(("agentgym.gold.mean", round(gold.mean, 6)))
    if gold.low is not None and gold.high is not None:
        item.user_properties += [("agentgym.gold.low", round(gold.low, 6)), ("agentgym.gold.high", round(gold.high, 6))]
    return results


def play(item: pytest.Item, plan: Plan, options: Options, model: Any, wishes: dict[str, Any]) -> Results:
    """Plays a plan for a test and ties the results to it.

    Raises:
        InfrastructureError: infrastructure spoiled more of it than it may.
    """
    limit = infra_limit(item.config, wishes)
    played = session_of(item.config).play(plan, options, model)
    results = tie(item, played.path, played.tasks)
    refuse_trouble(results, limit, played.stopped)
    return results


def refuse_trouble(results: Results, limit: float, stopped: str | None) -> None:
    """Ends a test as an error where its episodes are not the model's doing.

    Raises:
        InfrastructureError: infrastructure spoiled more than it may, or not all was played.
    """
    from agentgym.errors import InfrastructureError

    trouble = results.trouble(limit)
    if trouble is not None:
        results.close()
        raise InfrastructureError("\n".join(filter(None, [stopped, trouble])))


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Makes agentgym's own errors, which are sentences, the whole failure message, without a traceback into its code."""
    from agentgym.errors import AgentGymError, redact
    from agentgym.report.text import plain

    try:
        yield
    except AgentGymError as e:
        raise pytest.fail.Exception(plain(redact(str(e))), pytrace=False) from None


def explained(results: Results) -> str:
    """The results in words, whatever became of their record."""
    from agentgym.errors import AgentGymError

    try:
        return results.explain()
    except AgentGymError as e:  # a record that cannot be read must not hide why the test failed
        return str(e)


def see(results: Results, explanation: str) -> str:
    """The command that opens the episode which an explanation names first."""
    words = explanation.split()
    return f"see it:  agentgym view {next((w for w in words if w.startswith(f'{results.address}::')), results.address)}"
