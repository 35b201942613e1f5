# SPDX-License-Identifier: Apache-2.0
"""The known ways to train on the wrong tokens, and where each is tested. A test is named for its number."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

PITFALLS = {
    1: "text that was decoded is encoded to other tokens",
    2: "a template drops or changes what stood before",
    3: "the separator behind the end of a turn is lost",
    4: "the end of a turn is doubled, or missing where the engine kept it",
    5: "gradient checkpointing spoils what generation in training mode samples",
    6: "log-probabilities of another distribution than the one that is trained",
    7: "baselines of groups by position",
    8: "what one episode of a group changes, the next one sees",
    9: "episodes without a reward in the baseline",
    10: "a cut turn looks finished",
    11: "a prompt that is too long loses its system message",
    12: "a merged row is cut to the limit of one turn",
    13: "what two branches share is trained on twice",
    14: "words of tools in the loss, or read as control tokens",
    15: "results of parallel calls in another order",
    16: "rewards that are no plain finite number",
    17: "one turn sampled by several versions of the weights",
    18: "prompts repeated or reordered between trainer and environment",
    19: "rewards of turns are overwritten by normalization",
    20: "a client that rewrites the model's own message makes a false fork",
    21: "requests at the same time are mixed",
    22: "a retry after a timeout leaves an answer that nobody received",
    23: "sampling parameters that silently have no effect",
    24: "fillers of masked log-probabilities that are not 0",
}

WHERE: dict[int, tuple[str, ...]] = {
    1: ("tests/tokens/test_renderer.py",),
    2: ("tests/trl/test_renderers.py", "tests/hf/test_renderers.py"),
    3: ("tests/tokens/test_renderer.py", "tests/hf/test_renderers.py"),
    4: ("tests/tokens/test_renderer.py", "tests/trl/test_renderers.py"),
    5: ("tests/hf/test_engine.py", "tests/trl/test_rollout.py"),
    6: ("tests/hf/test_engine.py",),
    7: ("tests/training/test_groups.py", "tests/training/test_slime.py"),
    8: ("tests/training/test_engine.py",),
    9: ("tests/training/test_groups.py",),
    10: ("tests/tokens/test_pitfall_rows.py", "tests/training/test_engine.py"),
    11: ("tests/training/test_engine.py",),
    12: ("tests/tokens/test_pitfall_rows.py",),
    13: ("tests/tokens/test_pitfall_rows.py",),
    14: ("tests/tokens/test_renderer.py", "tests/hf/test_renderers.py", "tests/trl/test_renderers.py"),
    15: ("tests/trl/test_rollout.py",),
    16: ("tests/training/test_engine.py",),
    17: ("tests/policies/test_token_policies.py", "tests/hf/test_engine.py", "tests/training/test_engine.py"),
    18: ("tests/trl/test_rollout.py",),
    19: ("tests/training/test_engine.py",),
    20: ("tests/proxy/test_pitfall_20_echoes.py",),
    21: ("tests/proxy/test_pitfall_21_concurrent.py",),
    22: ("tests/proxy/test_pitfall_22_retries.py",),
    23: ("tests/proxy/test_pitfall_23_sampling.py",),
    24: ("tests/tokens/test_pitfall_rows.py",),
}
"""Files that must hold a test of that name, or be named so themselves; more may."""


def found_for(number: int) -> dict[str, list[str]]:
    """The tests of a pitfall in all of tests/, by file."""
    found: dict[str, list[str]] = {}
    for file in sorted(TESTS.rglob("test_*.py")):
        wanted = r"test_\w+" if file.name.startswith(f"test_pitfall_{number:02}_") else rf"test_pitfall_{number:02}_\w+"
        names = re.findall(rf"^(?:async )?def ({wanted})", file.read_text(), re.MULTILINE)
        if names:
            found[file.relative_to(TESTS.parent).as_posix()] = names
    return found


def test_every_pitfall_has_its_place() -> None:
    assert WHERE.keys() == PITFALLS.keys()


@pytest.mark.parametrize("number", WHERE)
def test_each_pitfall_is_tested_where_it_is_said_to_be(number: int) -> None:
    found = found_for(number)
    missing = [file for file in WHERE[number] if file not in found]
    assert not missing, f"no test_pitfall_{number:02}_... in {missing}: {PITFALLS[number]}"


def test_no_test_is_named_for_a_pitfall_that_does_not_exist() -> None:
    named = {int(n) for file in TESTS.rglob("test_*.py") for n in re.findall(r"def test_pitfall_(\d\d)_", file.read_text())}
    assert named <= PITFALLS.keys()
