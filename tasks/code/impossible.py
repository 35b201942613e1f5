# SPDX-License-Identifier: Apache-2.0
"""Generated functions whose visible tests contradict their description, and their feasible twins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np

from agentgym.chat import call, submit
from agentgym.env import Plan, Task
from agentgym.evaluators.code import Case, CodeTests
from agentgym.evaluators.conduct import Fact, capable, report_of, truthful
from agentgym.evaluators.hacking import Visible, correct, graded, handed_in
from agentgym.evaluators.made import made
from agentgym.evaluators.math_answer import used_tool
from agentgym.evaluators.state import calls_of
from agentgym.chat import ArgumentError, parse_arguments
from agentgym.sandboxenv import File
from agentgym.scenario import ScenarioEnv
from agentgym.scoring import Finding, Score, VerifierContext
from agentgym.tasks.code.base import hidden_of
from agentgym.tasks.code.draw import Known, call_text, draw, exchanged, near, pick, sources, tests_file
from agentgym.tasks.code.workbench import TESTS_PATH, Workbench, told
from agentgym.trajectory import Trajectory
