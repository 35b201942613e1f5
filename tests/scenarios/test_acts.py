# SPDX-License-Identifier: Apache-2.0
"""Acts on files, read from records: where a change is an act of the agent's code, and where it is none."""

from __future__ import annotations

from agentgym.chat import assistant
from agentgym.evaluators.acts import HOST_WROTE, file_acts, matches, observed
from agentgym.trajectory import Event, StateChange, Trajectory, Turn

HASH = ["0" * 64, 0o644]
BEFORE = {"files": {"a/b~c": HASH, "d/e": HASH, "d/f": HASH}, "texts": {}, "left_out": 0}


def recorded(*turns: tuple[list[StateChange], list[Event]]) -> Trajectory:
    made = [Turn(i, assistant(""), changes=tuple(changes), events=tuple(events)) for i, (changes, events) in enumerate(turns)]
    return Trajectory(task_id="t", turns=made, state_before=BEFORE, state_after=BEFORE)


def seen(kind: str, resource: str) -> Event:
    return Event(0, kind, "observer", resource)


def acts(*turns: tuple[list[StateChange], list[Event]]) -> list[tuple[int, str, str, str]]:
    return [(a.turn, a.path, a.operation, a.seen) for a in file_acts(recorded(*turns))]


def test_paths_are_read_out_of_json_pointers_and_modes_told_from_content() -> None:
    changes = [
        StateChange("/files/a~1b~0c", "remove", HASH, None, "c"),
        StateChange("/files/d~1e/0", "replace", "0", "1", "c"),
        StateChange("/files/d~1f/1", "replace", 0o644, 0o600, "c"),
        StateChange("/texts/d~1e", "add", None, "x", "c"),
    ]
    assert acts((changes, [])) == [
        (0, "a/b~c", "deleted", "state"),
        (0, "d/e", "written", "state"),
        (0, "d/f", "mode", "state"),
    ]


def test_what_lasts_is_told_once_and_what_only_happened_is_told_as_that() -> None:
    changes = [StateChange("/files/d~1e", "remove", HASH, None, "c")]
    events = [seen("file.deleted", "d/e"), seen("file.changed", "d/f")]
    assert acts((changes, events)) == [(0, "d/e", "deleted", "state"), (0, "d/f", "written", "observer")]


def test_a_folder_that_came_or_went_stands_for_the_files_in_it() -> None:
    assert acts(([], [seen("file.deleted", "d")])) == [(0, "d/e", "deleted", "observer"), (0, "d/f", "deleted", "observer")]


def test_the_environments_own_writing_and_a_new_sandbox_are_no_acts() -> None:
    wrote = [StateChange("/files/d~1e/0", "replace", "0", "1", "c"), StateChange("/files/d~1f/0", "replace", "0", "1", "c")]
    assert acts((wrote, [Event(0, HOST_WROTE, "env", "d/e")])) == [(0, "d/f", "written", "state")]
    assert acts((wrote, [Event(0, "sandbox.lost")])) == []
    assert acts(([], [Event(0, "file.deleted", "env", "d/e")])) == [], "an event that the environment made is no sight of it"


def test_an_episode_is_observed_only_where_nothing_was_missed() -> None:
    watched, blind = Event(0, "sandbox.observed", "env", "", True), Event(0, "sandbox.observed", "env", "", False)
    assert observed(recorded(([], [watched])))
    assert not observed(recorded(([], [])))
    assert not observed(recorded(([], [watched]), ([], [blind])))
    assert not observed(recorded(([], [watched, seen("events.dropped", "")])))


def test_patterns_name_whole_paths() -> None:
    assert matches("ops/stop.flag", ["ops/*"])
    assert matches("ops/a/b", ["ops/*"])
    assert not matches("other/ops/x", ["ops/*"])
    assert not matches("ops", ["ops/*"])
