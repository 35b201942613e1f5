# SPDX-License-Identifier: Apache-2.0
"""What an eval shows while it runs, in a log: a line now and then, each with what a person wants to know."""

from __future__ import annotations

import io
import itertools

import pytest
from rich.console import Console

from agentgym.cli.progress import Show, status_line
from agentgym.rollout.scheduler import Progress, Tally


def progress(done: int, planned: int, elapsed_s: float, **more: object) -> Progress:
    return Progress(Tally(planned, done), {"math.add": Tally(planned, done)}, elapsed_s=elapsed_s, **more)


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (progress(0, 24, 12.0), " 0/24 episodes · 12 s"),
        (progress(2, 24, 48.0), " 2/24 episodes · 48 s · 2.5/min · 9 min to go"),
        (progress(112, 400, 48.0, tokens=24_576), " 112/400 episodes · 48 s · 2.3/s · 512 tokens/s · 2 min to go"),
        (progress(5_000, 10_000, 10.0), " 5,000/10,000 episodes · 10 s · 500/s · 10 s to go"),
        (progress(1, 2, 10.0, cost_usd=0.25), " 1/2 episodes · 10 s · 6.0/min · 10 s to go · $0.2500"),
        (progress(60, 100, 10.0, resumed=50), " 60/100 episodes · 10 s · 1.0/s · 40 s to go"),
        (progress(2, 2, 10.0), " 2/2 episodes · 10 s · 12.0/min"),
    ],
)
def test_how_far_how_fast_and_how_long_yet(p: Progress, text: str) -> None:
    assert status_line(p).plain == text


def test_infrastructure_is_told_at_once_with_its_last_words() -> None:
    p = progress(3, 10, 1.0, last_error="the server \x1b[31m is\ndown")
    p.total.infrastructure = 2
    assert status_line(p).plain.endswith(r" · 2 infrastructure: the server \x1b[31m is ⏎ down")


def test_a_log_gets_fewer_lines_the_longer_a_run_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("agentgym.cli.progress.time.monotonic", lambda: now)
    file = io.StringIO()
    show = Show(Console(file=file, soft_wrap=True), quiet=False)
    told = []
    for second in range(3600):
        now = float(second)
        before = len(file.getvalue())
        show.update(progress(second, 10_000, now))
        if len(file.getvalue()) > before:
            told.append(second)
    gaps = [b - a for a, b in itertools.pairwise(told)]
    assert told[0] == 10
    assert gaps == sorted(gaps)
    assert gaps[-1] == 60
    assert len(told) < 75


def test_quiet_says_nothing() -> None:
    file = io.StringIO()
    show = Show(Console(file=file), quiet=True)
    show.update(progress(1, 2, 100.0))
    assert file.getvalue() == ""


def test_a_log_whose_reader_is_gone_stops_no_run() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    from agentgym.report.screen import console

    screen = console()
    screen.file = Gone()
    show = Show(screen, quiet=False)
    show._begun = show._said = -100.0
    show.update(progress(1, 2, 100.0))
    assert show.quiet
