# SPDX-License-Identifier: Apache-2.0
"""The spaces of chat environments behave as Gymnasium's own do."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Space
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate

from agentgym.chat import Message, Observation, TextPart, ToolCall, assistant, call, user
from agentgym.spaces import ActionSpace, ObservationSpace
from tests.envs import Bank

SPACES = [lambda: ObservationSpace(), lambda: ActionSpace(), lambda: ActionSpace(Bank().tools)]
spaces = pytest.mark.parametrize("make", SPACES, ids=["observations", "words", "tools"])


@spaces
def test_equal_seeds_draw_equal_samples(make: Any) -> None:
    a, b, c = make(), make(), make()
    a.seed(7)
    b.seed(7)
    c.seed(8)
    first = [a.sample() for _ in range(50)]
    assert first == [b.sample() for _ in range(50)]
    assert first != [c.sample() for _ in range(50)]


@spaces
def test_every_sample_lies_in_the_space(make: Any) -> None:
    space = make()
    assert isinstance(space, Space)
    space.seed(0)
    assert all(space.sample() in space for _ in range(500))


@spaces
def test_samples_survive_json(make: Any) -> None:
    space = make()
    space.seed(0)
    drawn = [space.sample() for _ in range(100)]
    back = space.from_jsonable(json.loads(json.dumps(space.to_jsonable(drawn))))
    assert back == drawn
    assert [type(x) for x in back] == [type(x) for x in drawn]


@spaces
def test_copies_and_pickles_are_equal_and_go_on_drawing_the_same(make: Any) -> None:
    space = make()
    space.seed(3)
    space.sample()
    for other in (copy.deepcopy(space), pickle.loads(pickle.dumps(space))):
        assert other == space
        mine = copy.deepcopy(space)
        assert [other.sample() for _ in range(20)] == [mine.sample() for _ in range(20)]


@spaces
def test_masks_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="mask"):
        make().sample(mask=np.ones(3))


@spaces
def test_a_space_has_no_shape_and_cannot_be_flattened(make: Any) -> None:
    space = make()
    assert (space.shape, space.dtype, space.is_np_flattenable) == (None, None, False)


def test_spaces_differ_by_their_tools() -> None:
    tools = Bank().tools
    fewer = {n: t for n, t in tools.items() if n != "crash"}
    assert ActionSpace(tools) == ActionSpace(dict(tools))
    assert ActionSpace(tools) != ActionSpace(fewer)
    assert ActionSpace() != ObservationSpace()
    assert ObservationSpace() == ObservationSpace()


@pytest.mark.parametrize(
    "action",
    ["", "words", assistant("words"), call("transfer", cents=3), call("submit"), Message("assistant", (TextPart("x"),))],
)
def test_what_step_accepts_lies_in_the_action_space(action: Any) -> None:
    assert action in ActionSpace(Bank().tools)


@pytest.mark.parametrize(
    "action",
    [
        None,
        3,
        {},
        ("a",),
        user("words"),
        "\ud800",
        assistant("\ud800"),
        call("transfer"),
        call("transfer", cents="3"),
        call("transfer", cents=0),
        call("nothing"),
        Message("assistant", "", (ToolCall("transfer", "{"),)),
        Message("assistant", None),  # type: ignore[arg-type]
        Message("assistant", 5),  # type: ignore[arg-type]
        Message("assistant", "", ({"name": "transfer"},)),  # type: ignore[arg-type]
        Message("assistant", "", (ToolCall("transfer", {"cents": 3}),)),  # type: ignore[arg-type]
        Message("robot", "x"),  # type: ignore[arg-type]
    ],
    ids=repr,
)
def test_what_is_malformed_lies_outside_and_asking_never_raises(action: Any) -> None:
    assert action not in ActionSpace(Bank().tools)


@pytest.mark.parametrize("x", [None, [user("a")], "a", (1,), ("a",), (user("\ud800"),), (Message("robot", "x"),)], ids=repr)  # type: ignore[arg-type]
def test_what_is_no_tuple_of_messages_is_no_observation(x: Any) -> None:
    assert x not in ObservationSpace()


@spaces
def test_vector_environments_can_batch_iterate_and_concatenate(make: Any) -> None:
    space = make()
    batched = batch_space(space, 3)
    batched.seed(1)
    drawn = batched.sample()
    assert drawn in batched
    assert list(iterate(batched, drawn)) == list(drawn)
    assert concatenate(space, drawn, create_empty_array(space, 3)) == drawn


def test_the_empty_observation_is_an_observation() -> None:
    assert Observation() in ObservationSpace()
