# SPDX-License-Identifier: Apache-2.0
"""Finding environments by name, by place and from other distributions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import agentgym
from agentgym import registry
from agentgym.env import ChatEnv, Task
from agentgym.errors import DefinitionError, NotFoundError, UsageError
from tests.envs import Bank, Guess

SOURCE = """
from agentgym import Task, ToolEnv
from agentgym.env import ChatEnv

class Desk(ToolEnv):
    family = "mine.desk"
    version = 3

    def new_task(self, rng):
        return Task(opening="Tidy up.")

class Nameless(ToolEnv):
    pass

NOT_A_CLASS = 3
"""


@pytest.fixture
def desk(tmp_path: Path) -> str:
    (tmp_path / "desk.py").write_text(SOURCE)
    return str(tmp_path / "desk.py")


# -- names ------------------------------------------------------------------------------------------------------------


def test_a_family_is_found_with_and_without_its_version() -> None:
    assert registry.env_class("test.bank") is registry.env_class("test.bank-v1") is Bank
    assert registry.families()["test.bank"] == 1


def test_the_newest_version_is_found() -> None:
    class Second(Guess):
        family = "test.versions"
        version = 2

    class Tenth(Guess):
        family = "test.versions"
        version = 10

    registry.register_task(Tenth)
    registry.register_task(Second)
    assert registry.env_class("test.versions") is Tenth
    assert registry.env_class("test.versions-v2") is Second


@pytest.mark.parametrize(("name", "near"), [("test.bnak", "test.bank"), ("bank", "test.bank"), ("test.guess2", "test.guess")])
def test_an_unknown_name_is_an_error_that_names_near_ones(name: str, near: str) -> None:
    with pytest.raises(NotFoundError, match=rf"no task '{name}'.*Did you mean: .*{near}.*agentgym list tasks"):
        registry.env_class(name)


def test_an_unknown_version_names_those_there_are() -> None:
    with pytest.raises(NotFoundError, match=r"test\.bank-v1"):
        registry.env_class("test.bank-v7")


def test_all_that_is_declared_by_this_distribution_can_be_loaded() -> None:
    places = registry.tasks.places()
    assert places
    for name, place in places.items():
        cls = registry.env_class(name)
        assert f"{cls.family}-v{cls.version}" == name, place


# -- places -----------------------------------------------------------------------------------------------------------


def test_an_environment_is_found_in_a_file(desk: str) -> None:
    cls = registry.env_class(f"{desk}:Desk")
    assert cls.family == "mine.desk"
    assert registry.env_class(f"{desk}:Desk") is cls
    assert registry.envs_in(desk) == {f"{desk}:Desk": cls}
    env = registry.make(f"{desk}:Desk")
    assert env.reset(seed=0)[0][0].text == "Tidy up."
    assert env.spec is not None
    assert env.spec.id == "agentgym/mine.desk-v3"


def test_an_environment_is_found_in_a_relative_file(desk: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(desk).parent)
    assert registry.env_class("desk.py:Desk") is registry.env_class("./desk.py:Desk") is registry.env_class(f"{desk}:Desk")


def test_an_environment_is_found_in_a_module() -> None:
    assert registry.env_class("tests.envs:Bank") is Bank


@pytest.mark.parametrize(
    ("place", "error", "says"),
    [
        ("{file}:Nameless", DefinitionError, "`family`"),
        ("{file}:NOT_A_CLASS", DefinitionError, "subclass of agentgym.ChatEnv"),
        ("{file}:desk", NotFoundError, "Did you mean: Desk"),
        ("{file}:", UsageError, "is not a place"),
        ("no/such/file.py:Desk", NotFoundError, "there is no file"),
        ("no_such_module:Desk", NotFoundError, "there is no module 'no_such_module'"),
        ("tests.no_such:Desk", NotFoundError, "there is no module 'tests.no_such'"),
        ("tests.envs:CANARY", DefinitionError, "subclass of agentgym.ChatEnv"),
    ],
)
def test_a_place_without_an_environment_is_refused_in_words(desk: str, place: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        registry.env_class(place.format(file=desk))


def test_an_error_inside_of_a_file_is_shown_as_it_is_and_the_file_can_be_mended(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("import no_such_dependency")
    before = set(sys.modules)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        registry.load_module(str(file))
    assert set(sys.modules) == before
    file.write_text("x = 1")
    assert registry.load_module(str(file)).x == 1


def test_a_missing_dependency_of_a_module_is_not_taken_for_a_missing_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_another.py").write_text("import no_such_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        registry.load_module("needs_another")


# -- registering ------------------------------------------------------------------------------------------------------


def test_a_registered_class_is_known_to_agentgym_and_gymnasium() -> None:
    @agentgym.register_task
    class Fresh(ChatEnv):
        family = "test.fresh"

        def new_task(self, rng: np.random.Generator) -> Task:
            return Task(opening="fresh")

    assert registry.env_class("test.fresh") is Fresh
    for env in (gymnasium.make("agentgym/test.fresh-v1"), agentgym.make("test.fresh"), agentgym.make("test.fresh-v1")):
        assert isinstance(env.unwrapped, Fresh)


def test_a_class_without_a_family_cannot_be_registered() -> None:
    class Anonymous(ChatEnv):
        pass

    with pytest.raises(DefinitionError, match="Anonymous must say its `family`"):
        registry.register_task(Anonymous)


def test_registering_again_replaces() -> None:
    made = []
    for _ in range(2):

        class Edited(Guess):
            family = "test.edited"

        made.append(registry.register_task(Edited))
    assert registry.env_class("test.edited") is made[1]
    assert isinstance(gymnasium.make("agentgym/test.edited-v1").unwrapped, made[1])


def test_policies_evaluators_and_sandboxes_are_registered_by_name() -> None:
    registry.register_policy("test_policy", str)
    registry.register_evaluator("test_evaluator", 3)
    registry.register_sandbox("test_sandbox", dict)
    assert registry.policies.get("test_policy") is str
    assert registry.evaluators.get("test_evaluator") == 3
    assert registry.sandboxes.get("test_sandbox") is dict
    with pytest.raises(NotFoundError, match=r"no model 'test_polcy'.*Did you mean: test_policy"):
        registry.policies.get("test_polcy")


# -- other distributions ----------------------------------------------------------------------------------------------


def test_environments_of_an_installed_plugin_are_found_and_imported_only_when_used(tmp_path: Path, fresh_python: Any) -> None:
    (tmp_path / "desk_plugin.py").write_text(SOURCE)
    info = tmp_path / "desk_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: desk-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[agentgym.tasks]\n"
        "mine.desk-v3 = desk_plugin:Desk\nmine.gone-v1 = no_such_plugin:Gone\nmath.add-v1 = desk_plugin:Desk\n"
    )
    code = f"""
import sys
sys.path.append({str(tmp_path)!r})
import agentgym
from agentgym import registry
from agentgym.errors import NotFoundError
assert "mine.desk-v3" not in registry.tasks.places("own")
assert registry.families()["mine.desk"] == 3
assert "desk_plugin" not in sys.modules
assert registry.env_class("mine.desk").__module__ == "desk_plugin"
assert agentgym.make("mine.desk").reset(seed=0)[0][0].text == "Tidy up."
assert registry.env_class("math.add").__module__.startswith("agentgym.tasks.math"), "a plugin must not replace our own"
try:
    registry.env_class("mine.gone")
except NotFoundError as e:
    print(e)
"""
    assert "no_such_plugin" in fresh_python(code)
