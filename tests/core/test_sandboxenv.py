# SPDX-License-Identifier: Apache-2.0
"""Environments with a sandbox: one for each episode, the workspace as recorded state, and who is to blame for its death."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import gymnasium
import pytest

from agentgym.chat import Message, call, submit
from agentgym.env import Plan, Task, ToolEnv, tool
from agentgym.episode import EpisodeResult, Limits, play
from agentgym.errors import DefinitionError
from agentgym.policies.oracle import ScriptedPolicy
from agentgym.sandbox import open_backend
from agentgym.sandbox import shared as shared_module
from agentgym.sandbox.protocol import Limits as BoxLimits
from agentgym.sandbox.protocol import Sandbox, SandboxDeadError, SandboxError, SandboxSpec
from agentgym.sandbox.shared import shared_backend
from agentgym.sandboxenv import File, SandboxEnv, workspace_of
from agentgym.scoring import VerifierContext, verifier, verify
from agentgym.trajectory import Trajectory


@verifier
def greeted(trajectory: Trajectory, context: VerifierContext) -> float:
    return float(trajectory.state_after["texts"].get("out.txt") == "hello\n")


class Desk(SandboxEnv):
    """Write a greeting."""

    family = "test.desk"
    gold = (greeted,)
    sandbox_spec = SandboxSpec(limits=BoxLimits(memory=96 << 20, disk=16 << 20, wall_s=5))

    def new_task(self, rng: Any) -> Task:
        return Task(opening="Greet in out.txt.", hidden={"files": {"a.txt": File("one\n"), "run.sh": File("true\n", 0o755)}})

    def start_files(self, task: Task) -> dict[str, File]:
        return task.hidden["files"]

    def kept_files(self, task: Task) -> tuple[str, ...]:
        return ("out.txt",)

    @tool(writes=True)
    def bash(self, command: str) -> str:
        """Runs commands.

        Args:
            command: which
        """
        return self.turn("bash", command)

    @tool(writes=True)
    def python(self, code: str) -> str:
        """Runs code.

        Args:
            code: which
        """
        return self.turn("python", code)

    def honest(self, task: Task) -> Plan:
        yield call("bash", command="echo hello > out.txt")
        yield submit()


def episode(*actions: Message, env: SandboxEnv | None = None, **more: Any) -> EpisodeResult:
    env = env or Desk()
    return asyncio.run(play(env, env.make_task("0"), ScriptedPolicy(list(actions)), **more))


def told(result: EpisodeResult) -> list[str]:
    return [m.text for t in result.trajectory.turns for m in t.observation]


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Sandbox]:
    """The sandboxes that episodes get, in order."""
    boxes: list[Sandbox] = []
    backend = shared_backend()
    shared_module.witness(backend)  # not one of them
    create = backend.create

    def noted(*args: Any, **kwargs: Any) -> Sandbox:
        boxes.append(create(*args, **kwargs))
        return boxes[-1]

    monkeypatch.setattr(backend, "create", noted)
    return boxes


# -- the workspace ----------------------------------------------------------------------------------------------------


def test_the_workspace_before_and_after_is_the_recorded_state() -> None:
    result = episode(call("bash", command="echo hello > out.txt; rm a.txt; chmod 700 run.sh"), submit())
    trajectory = result.trajectory
    assert trajectory.state_before == {
        "files": {"a.txt": (sha("one\n"), 0o644), "run.sh": (sha("true\n"), 0o755)}, "texts": {}, "left_out": 0,
    }  # fmt: skip
    assert trajectory.state_after == {
        "files": {"out.txt": (sha("hello\n"), 0o644), "run.sh": (sha("true\n"), 0o700)},
        "texts": {"out.txt": "hello\n"}, "left_out": 0,
    }  # fmt: skip
    assert (result.reward, result.gold) == (1.0, 1.0)


def test_each_call_is_charged_with_what_it_changed() -> None:
    result = episode(call("bash", command="cd /tmp; echo x > y"), call("bash", command="echo 1 > /workspace/n"), submit())
    assert [[c.path for c in t.changes] for t in result.trajectory.turns] == [[], ["/files/n"], []]
    assert result.trajectory.turns[1].changes[0].call_id == "t1c0"


def test_what_a_background_job_writes_later_is_noticed_and_charged_to_nobody() -> None:
    wait = call("python", code="import time, os\nwhile not os.path.exists('late'): time.sleep(.01)")
    result = episode(call("bash", command="(sleep 0.3; echo 1 > late) &"), wait, submit())
    assert "late" in result.trajectory.state_after["files"]
    assert result.trajectory.turns[0].changes == ()


def test_sessions_are_stateful_and_each_episode_begins_anew() -> None:
    env = Desk()
    first = episode(call("python", code="x = 41"), call("python", code="print(x + 1)"), submit(), env=env)
    assert told(first)[1] == "42"
    second = episode(call("python", code="print(x)"), call("bash", command="ls"), submit(), env=env)
    assert "NameError" in told(second)[0]
    assert told(second)[1] == "a.txt\nrun.sh"


def test_an_agent_reads_how_its_code_ended() -> None:
    result = episode(
        call("bash", command="echo out; echo err >&2; exit_with() { return 3; }; exit_with"),
        call("python", code="pass"),
        call("python", code="print('x' * 100000)"),
        call("bash", command="exit 7"),
        submit(),
    )
    assert told(result)[0] == "out\n[stderr]\nerr\n[exit code 3]"
    assert told(result)[1] == "(no output)"
    assert len(told(result)[2]) < 7000
    assert "characters ...]" in told(result)[2]
    assert "the session has ended" in told(result)[3]


def test_more_files_than_are_recorded_are_counted() -> None:
    class Few(Desk):
        most_files = 10

    result = episode(call("bash", command="for i in $(seq 50); do echo > f$i; done"), submit(), env=Few())
    assert len(result.trajectory.state_after["files"]) <= 10
    assert result.trajectory.state_after["left_out"] > 0


def test_an_episode_without_a_tool_call_makes_no_sandbox(made: list[Sandbox]) -> None:
    assert episode(submit()).gold == 0.0
    assert made == []


def test_a_tool_cannot_take_the_name_of_a_part_of_the_environment() -> None:
    with pytest.raises(DefinitionError, match="cannot be called 'turn'"):

        class Bad(SandboxEnv):
            @tool
            def turn(self) -> str:
                """Turns."""
                return ""


# -- its end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["submit", "turns", "limit", "error", "close", "garbage", "reset"])
def test_the_sandbox_ends_with_the_episode_however_that_ends(how: str, made: list[Sandbox]) -> None:
    look = call("bash", command="true")
    if how == "submit":
        episode(look, submit())
    elif how == "turns":

        class Short(Desk):
            max_turns = 1

        assert episode(look, env=Short()).trajectory.truncation == "turns"
    elif how == "limit":
        assert episode(look, look, limits=Limits(turns=1)).trajectory.truncation == "turns"
    elif how == "error":
        assert episode(look).trajectory.outcome == "infrastructure"  # the script ends before the episode does
    else:
        env = Desk()
        env.reset(seed=0)
        env.step(look)
        assert made[0].alive
        if how == "close":
            env.close()
        elif how == "reset":
            env.reset(seed=1)
        else:
            del env
            gc.collect()
            shared_backend()  # whoever comes next closes what was left
    assert len(made) == 1
    assert not made[0].alive


def test_it_is_a_gymnasium_environment() -> None:
    from gymnasium.utils.env_checker import check_env

    gymnasium.register("agentgym-test/desk-v1", entry_point=lambda **k: Desk(**k))
    check_env(gymnasium.make("agentgym-test/desk-v1").unwrapped, skip_render_check=True)


# -- who is to blame --------------------------------------------------------------------------------------------------


def test_code_that_ends_its_own_sandbox_is_told_and_scored() -> None:
    bomb = "b = []\nwhile True: b.append(bytearray(1 << 20))"
    fork = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    result = episode(
        call("bash", command="echo hello > out.txt"),
        call("python", code=bomb),
        call("python", code=fork),
        call("bash", command="ls"),
        submit(),
    )
    assert result.trajectory.outcome == "terminated"
    assert result.trajectory.error is None
    assert result.gold is not None
    assert result.reward is not None


def test_a_sandbox_that_is_killed_from_inside_begins_anew_with_the_tasks_files(made: list[Sandbox]) -> None:
    class Frail(Desk):
        @tool(writes=True)
        def die(self) -> str:
            """What a memory bomb may do to the whole of it."""
            self.box.close()
            return self.turn("bash", "true")

    result = episode(
        call("bash", command="echo hello > out.txt"), call("die"), call("bash", command="ls"), submit(), env=Frail()
    )
    assert "The next call gets a new one" in told(result)[1]
    assert told(result)[2] == "a.txt\nrun.sh"
    assert [e.kind for t in result.trajectory.turns for e in t.events] == ["sandbox.lost"]
    assert (result.trajectory.outcome, result.gold) == ("terminated", 0.0)
    assert len(made) == 2


def test_a_backend_that_dies_under_an_episode_is_infrastructure_and_no_zero() -> None:
    with open_backend("namespace") as backend:

        class Struck(Desk):
            @tool(writes=True)
            def strike(self) -> str:
                """Somebody kills the helper process of all sandboxes."""
                helper = backend.launcher().process  # type: ignore[attr-defined]
                os.kill(helper.pid, signal.SIGKILL)
                helper.wait(30)  # it takes a moment to die, in which sandboxes still answer
                return self.turn("bash", "true")

        env = Struck()
        env.sandboxes = lambda: backend
        result = episode(call("bash", command="true"), call("strike"), submit(), env=env)
        assert (result.trajectory.outcome, result.reward, result.gold) == ("infrastructure", None, None)
        assert result.trajectory.error is not None
        assert result.trajectory.error.kind == "sandbox"
        assert result.retryable
        again = episode(call("bash", command="echo hello > out.txt"), submit(), env=env)
        assert again.gold == 1.0


# -- verifiers --------------------------------------------------------------------------------------------------------


@verifier(needs=("sandbox",))
def runs_two(trajectory: Trajectory, context: VerifierContext) -> float:
    assert context.sandbox is not None
    with context.sandbox.create() as box:
        return float(box.exec("print(1 + 1)").text == "2\n")


@verifier
def is_handed_none(trajectory: Trajectory, context: VerifierContext) -> float:
    return float(context.sandbox is None)


@verifier(needs=("sandbox",))
def breaks(trajectory: Trajectory, context: VerifierContext) -> float:
    raise SandboxDeadError("the engine was stopped")


class Plain(ToolEnv):
    """Says anything; judged in a sandbox."""

    family = "test.plain"
    gold = (runs_two, is_handed_none)

    def new_task(self, rng: Any) -> Task:
        return Task(opening="Say something.")


def test_only_verifiers_that_ask_for_it_are_handed_the_backend() -> None:
    assert Plain.needs() == {"sandbox"}
    assert Desk.needs() == {"sandbox"}
    env = Plain()
    result = asyncio.run(play(env, env.make_task("0"), ScriptedPolicy(["hello"])))
    assert [(s.name, s.role, s.value) for s in result.scores if s.role == "gold"] == [
        ("runs_two", "gold", 1.0),
        ("is_handed_none", "gold", 1.0),
    ]


@pytest.mark.parametrize("role", ["proxy", "gold", "metrics"])
def test_a_sandbox_that_fails_a_verifier_makes_the_episode_infrastructure(role: str) -> None:
    body: dict[str, Any] = {"__doc__": "Broken.", "family": f"test.broken_{role}", role: (breaks,)}
    if role != "gold":
        body["gold"] = (is_handed_none,)
    env = type("Broken", (Plain,), body)()
    result = asyncio.run(play(env, env.make_task("0"), ScriptedPolicy(["hello"])))
    assert (result.trajectory.outcome, result.reward, result.gold, result.scores) == ("infrastructure", None, None, [])
    assert result.trajectory.error is not None
    assert (result.trajectory.error.kind, result.trajectory.error.message) == ("sandbox", "the engine was stopped")


def test_another_error_of_such_a_verifier_is_the_verifiers_own() -> None:
    @verifier(needs=("sandbox",))
    def wrong(trajectory: Trajectory, context: VerifierContext) -> float:
        raise KeyError("x")

    env = Plain()
    env.reset(seed=0)
    scores, _ = verify([wrong], "gold", env.trajectory, VerifierContext(env.frozen_task), shared_backend)
    assert [(s.value, s.status) for s in scores] == [(None, "unscorable")]
    with pytest.raises(SandboxError):
        verify([breaks], "gold", env.trajectory, VerifierContext(env.frozen_task), shared_backend)


# -- the shared backend -----------------------------------------------------------------------------------------------


@pytest.fixture
def nothing_shared() -> Iterator[None]:
    yield
    shared_module.close_shared()


def test_all_ask_one_backend_and_a_closed_one_is_opened_anew(nothing_shared: None) -> None:
    first = shared_backend()
    assert shared_backend() is first
    assert shared_backend("auto") is first
    shared_module.close_shared()
    second = shared_backend()
    assert second is not first
    with second.create() as box:
        assert box.exec("print(1)").text == "1\n"


def test_the_manifest_of_files_is_that_of_the_workspace_they_make() -> None:
    files = {"a b": File("x"), "sub/run": File("y", 0o700), "bytes": File("\udcff\x00")}
    with shared_backend().create() as box:
        for path, file in files.items():
            box.put(path, file.data, mode=file.mode)
        assert dict(sorted(box.tree().manifest().items())) == workspace_of(files).files
