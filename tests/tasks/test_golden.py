# SPDX-License-Identifier: Apache-2.0
"""The same task id is the same task, byte for byte, today and in every process; a change is a new version."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from agentgym import registry
from agentgym.env import ChatEnv
from tests.tasks import golden
from tests.tasks.families import environments, families, freeze

every_environment = pytest.mark.parametrize("env", list(environments()), ids=lambda env: f"{env.label}/{env.variant}")


@every_environment
def test_the_tasks_and_episodes_of_a_version_are_what_they_were(env: ChatEnv) -> None:
    name = f"{env.family}-v{env.version}"
    known = golden.read().get(name, {}).get(env.label, {}).get(env.variant)
    assert known, f"{name} ({env.label}/{env.variant}) is not in the table: run `python -m tests.tasks.golden` and commit it"
    now = golden.entry(env)
    assert now["tasks"] == known["tasks"], (
        f"the tasks of {env.label}/{env.variant} have changed. If this is meant, raise `version` of {type(env).__name__} and"
        " the -vN of its entry point, and rerun `python -m tests.tasks.golden`"
    )
    assert now["honest"] == known["honest"], (
        f"the tasks of {env.label}/{env.variant} are the same, but the honest oracle's episodes are not: what tools answer,"
        " what is paid or what the oracle does has changed. If this is meant and changes the rules of the game, raise"
        f" `version` of {type(env).__name__} and the -vN of its entry point; rerun `python -m tests.tasks.golden`"
    )


def test_the_table_holds_what_there_is_and_nothing_else() -> None:
    present: dict[str, dict[str, set[str]]] = {}
    for env in environments():
        present.setdefault(f"{env.family}-v{env.version}", {}).setdefault(env.label, set()).add(env.variant)
    kept = {name: {label: set(variants) for label, variants in labels.items()} for name, labels in golden.read().items()}
    assert kept == present


def test_no_two_tasks_of_the_table_are_one() -> None:
    hashes = [
        h for labels in golden.read().values() for variants in labels.values() for e in variants.values() for h in e["tasks"]
    ]
    assert len(set(hashes)) == len(hashes)


def test_families_and_versions_are_those_of_their_entry_points() -> None:
    assert {f"{name}-v{cls.version}" for name, cls in families().items()} <= set(registry.tasks.places("own"))
    for name, cls in families().items():
        assert cls.family == name


ALL = """
import hashlib
from tests.tasks.families import environments, freeze
whole = hashlib.sha256()
for env in environments():
    for item in env.items(8):
        whole.update(freeze(env, item).encode())
print(whole.hexdigest())
"""


@pytest.mark.slow
def test_another_process_with_another_hash_seed_makes_the_same_bytes(fresh_python: Callable[..., str]) -> None:
    whole = hashlib.sha256()
    for env in environments():
        for item in env.items(8):
            whole.update(freeze(env, item).encode())
    assert [fresh_python(ALL, hash_seed=seed).strip() for seed in ("1", "77")] == [whole.hexdigest()] * 2
