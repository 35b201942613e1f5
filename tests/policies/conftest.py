# SPDX-License-Identifier: Apache-2.0
"""The default model's file, fetched once a test run through the real pip, also where several workers run."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from agentgym.policies import modelfiles


class Fetched(NamedTuple):
    cache: Path
    path: Path
    said: str


@pytest.fixture(scope="session")
def fetched(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Fetched:
    base = tmp_path_factory.getbasetemp()
    cache = (base if worker_id == "master" else base.parent) / "agentgym-cache"
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGENTGYM_CACHE", str(cache))
        path = modelfiles.fetch("smollm2", said.append)
    return Fetched(cache, path, "".join(said))


@pytest.fixture
def model_cache(fetched: Fetched, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder with the model in it; not to be changed."""
    monkeypatch.setenv("AGENTGYM_CACHE", str(fetched.cache))
    return fetched.cache
