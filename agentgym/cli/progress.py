# SPDX-License-Identifier: Apache-2.0
"""What an eval shows while it runs: a live table in a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from agentgym.report.console import bar, heading
from agentgym.report.screen import Column, Lines, Table, interactive
from agentgym.report.text import duration, fraction, one_line
from agentgym.rollout.scheduler import Progress, Scheduler, Tally


class Show:
    """Tells a person how a run goes. Its methods are what `rollout.evaluate.start` calls back."""

    def __init__(self, screen: Console, quiet: bool) -> None:
        self.screen = screen
        self.quiet = quiet
        self.path: Path | None = None
        """The run's directory, as soon as there is one."""
        self.model = ""
        self._live: Live | None = None
        self._begun = self._said = time.monotonic()

    def start(self, scheduler: Scheduler, path: Path) -> None:
        """The run is about to begin."""
        self.path = path
        self._begun = self._said = time.monotonic()
        if self.quiet:
            return
        plan, progress = scheduler.plan, scheduler.progress
        self._print(heading(plan.title, self.model, len(plan.tasks), (t.trials for t in plan.tasks)))
        if progress.resumed:
            self._print(f" {progress.resumed:,} of {progress.total.planned:,} episodes are on record; playing the rest")
        if interactive(self.screen):
            self._live = Live(self._table(progress), console=self.screen, transient=True, auto_refresh=False)
            self._live.start()

    def update(self, progress: Progress) -> None:
        """Something has happened, or a moment has passed."""
        if self.quiet:
            return
        if self._live is not None:
            self._live.update(self._table(progress), refresh=True)
            return
        now = time.monotonic()
        # a log of a long run is read from its end: lines come every ten seconds at first, every minute later
        if now - self._said >= min(max(10.0, (now - self._begun) / 6), 60.0) and progress.total.done < progress.total.planned:
            self._said = now
            self._print(status_line(progress))

    def stop(self) -> None:
        """Takes the live table off the screen; may be called again."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _print(self, what: Lines | Text | str) -> None:
        try:
            self.screen.print(what)
        except BrokenPipeError:  # `| head` has seen enough; that is no reason to stop playing
            self.quiet = True

    def _table(self, progress: Progress) -> Group:
        families = list(progress.by_family.items())
        room = max(self.screen.height - 4, 3)
        hidden = Text()
        if len(families) > room:
            # what is being played is worth a line more than what is finished or has not begun
            families.sort(key=lambda item: item[1].done >= item[1].planned or not item[1].done)
            hidden = Text(f" and {len(families) - room + 1} more", "dim")
            families = families[: room - 1]
        table = Table([Column("", least=12), Column(""), Column("", drop=1)], head=False)
        for label, tally in families:
            table.add(f" {one_line(label, 60)}", bar(tally.done, tally.planned), _gold(tally))
        return Group(table, *([hidden] if hidden else []), status_line(progress))


def _gold(tally: Tally) -> str:
    if not tally.gold_count:
        return ""
    return f"gold {fraction(tally.gold_sum / tally.gold_count)}"


def status_line(p: Progress) -> Text:
    """``112/400 episodes · 48 s · 2.3/s · 512 tokens/s · 2 min to go``."""
    parts = [f" {p.total.done:,}/{p.total.planned:,} episodes", duration(p.elapsed_s)]
    if rate := p.episodes_per_s:
        parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s" if rate >= 1 else f"{rate * 60:.1f}/min")
    if p.tokens >= p.elapsed_s > 0:
        parts.append(f"{p.tokens / p.elapsed_s:,.0f} tokens/s")
    if p.eta_s:
        parts.append(f"{duration(p.eta_s)} to go")
    if p.cost_usd:
        parts.append(f"${p.cost_usd:.4f}")
    if p.total.cancelled:
        parts.append(f"{p.total.cancelled:,} cancelled")
    text = Text(" · ".join(parts), no_wrap=True, overflow="ellipsis")
    if p.paused:
        text.append(" · paused", "yellow")
    if p.total.infrastructure:
        text.append(f" · {p.total.infrastructure:,} infrastructure: {one_line(p.last_error, 100)}", "yellow")
    return text
