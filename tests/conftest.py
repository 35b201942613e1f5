# SPDX-License-Identifier: Apache-2.0
"""What several tests share: fresh interpreters, and the path by which they find the tests' own environments."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# tests of the pytest plugin run pytest
pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent

# worker processes of vector environments, and interpreters started by tests, import tests.envs by name
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

# A shell without job control, such as a build server's, starts background jobs with Ctrl-C ignored, which the programs that
# tests start would inherit; several tests are about Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# machines differ in speed and no test may depend on it
settings.register_profile("agentgym", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("agentgym")


@pytest.fixture
def fresh_python() -> Callable[..., str]:
    """Runs code in a new interpreter and returns what it printed."""

    def run(code: str, *, path: tuple[Path, ...] = (), hash_seed: str = "random") -> str:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*path, ROOT])), "PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
