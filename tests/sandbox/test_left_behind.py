# SPDX-License-Identifier: Apache-2.0
"""Nothing is left of sandboxes: processes, zombies, mounts, control groups, files, shared memory, descriptors, loop devices."""

from __future__ import annotations

import pytest

from tests.sandbox.conftest import NEEDS
from tests.sandbox.soak import soak


@pytest.mark.slow
@pytest.mark.parametrize(("name", "executions"), [("namespace", 500), ("bwrap", 30), ("docker", 10)])
def test_nothing_is_left_after_many_executions(name: str, executions: int, request: pytest.FixtureRequest) -> None:
    """In fresh sandboxes and in a lasting one, ended in every way there is; `soak` does the same by the ten thousand."""
    request.getfixturevalue("alone")
    if name in NEEDS:
        request.getfixturevalue(NEEDS[name])
    line = soak(name, executions)
    assert line["failures"] == {}
    assert line["after"] == line["before"]
    assert line["after_all"] == line["before_all"]
    assert line["groups_left"] == []
