# SPDX-License-Identifier: Apache-2.0
"""What ``agentgym train`` says where it cannot train."""

from __future__ import annotations

import importlib.util

import pytest

from agentgym.cli.main import main


def test_train_names_the_command_that_installs_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("trl") is not None:
        assert main(["train"]) == 2
        assert "name what to train on" in capsys.readouterr().err
        return
    assert main(["train", "math.add"]) == 2
    assert "pip install 'agentgym-harness[trl]'" in capsys.readouterr().err


def test_train_refuses_numbers_that_make_no_sense(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "math.add", "--group", "1"]) == 2
    assert "--group must be 2 or more" in capsys.readouterr().err
    assert main(["train", "math.add", "--rate", "nan"]) == 2
    assert "--rate must be between 0 and 1" in capsys.readouterr().err
