# SPDX-License-Identifier: Apache-2.0
"""``agentgym eval --replies FILE`` and ``--replay-only``: what a pipeline without the model's key can and cannot say."""

from __future__ import annotations

import json
from pathlib import Path

from agentgym.records.run import open_run
from tests.cli.conftest import AgentGym

MODEL = """
import re
from agentgym import Completion, PolicyBase, assistant

class Sums(PolicyBase):
    name = "sums"

    async def act(self, conversation, tools, sampling):
        a, b = re.findall("[0-9]+", conversation[-1].text)[-2:]
        return Completion(assistant(f"Answer: {int(a) + int(b)}"))

class Asked(PolicyBase):
    name = "sums"

    async def act(self, conversation, tools, sampling):
        raise RuntimeError("the model was asked")
"""
PLAY = ("eval", "math.add", "--trials", "2", "--runs", "runs", "-q")


def recorded(agentgym: AgentGym, place: Path, tasks: int = 3) -> Path:
    (place / "model.py").write_text(MODEL)
    assert agentgym(*PLAY, "--limit", str(tasks), "-m", "model.py:Sums", "--replies", "replies.jsonl").code == 0
    return place / "replies.jsonl"


def test_kept_replies_play_a_suite_without_the_model_and_say_so(agentgym: AgentGym, place: Path) -> None:
    replies = recorded(agentgym, place)
    before = replies.read_bytes()
    ran = agentgym(*PLAY, "--limit", "3", "-m", "model.py:Asked", "--replies", "replies.jsonl", "--replay-only", "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["rows"][0]["gold"]["successes"] == 6
    assert all(e.cached_turns == e.turns for e in open_run("latest", "runs").episodes())
    assert replies.read_bytes() == before


def test_an_episode_without_a_kept_reply_is_skipped_with_a_sentence_and_is_no_infrastructure_error(
    agentgym: AgentGym, place: Path
) -> None:
    recorded(agentgym, place, tasks=2)
    ran = agentgym(*PLAY, "--limit", "40", "-m", "model.py:Asked", "--replies", "replies.jsonl", "--replay-only", "--json")
    assert ran.code == 0
    told = json.loads(ran.out)
    assert (told["skipped"], told["infrastructure"], told["done"], told["rows"][0]["gold"]["n"]) == (76, 0, 80, 4)
    assert "76 of 80 episodes were SKIPPED" in ran.err
    skipped = next(e for e in open_run("latest", "runs").episodes() if e.gold is None)
    assert (skipped.outcome, skipped.error_kind) == ("infrastructure", "replay")
    assert "no reply is kept for turn 0 of math.add/control/" in str(skipped.error)


def test_where_nothing_is_kept_everything_is_skipped_and_the_run_goes_on_to_its_end(agentgym: AgentGym, place: Path) -> None:
    recorded(agentgym, place, tasks=1)
    other = ("--seed", "7", "--limit", "20", "-x", "--json")  # replies are of one seed
    ran = agentgym(*PLAY, *other, "-m", "model.py:Asked", "--replies", "replies.jsonl", "--replay-only")
    assert ran.code == 0
    told = json.loads(ran.out)
    assert (told["done"], told["skipped"], told["stopped"]) == (40, 40, None)


def test_equal_replies_give_equal_bytes_whatever_order_they_came_in(agentgym: AgentGym, place: Path) -> None:
    first = recorded(agentgym, place).read_bytes()
    (place / "replies.jsonl").unlink()
    assert agentgym(*PLAY, "--limit", "1", "-m", "model.py:Sums", "--replies", "replies.jsonl").code == 0
    assert agentgym(*PLAY, "--limit", "3", "-m", "model.py:Sums", "--replies", "replies.jsonl", "-n", "1").code == 0
    assert (place / "replies.jsonl").read_bytes() == first


def test_what_is_wrong_with_the_file_is_said(agentgym: AgentGym, place: Path) -> None:
    (place / "model.py").write_text(MODEL)
    ran = agentgym(*PLAY, "-m", "model.py:Sums", "--replies", "none.jsonl", "--replay-only")
    assert (ran.code, "there are no replies in none.jsonl" in ran.err) == (2, True)
    (place / "bad.jsonl").write_text('\n{"key": 1}\n')
    ran = agentgym(*PLAY, "-m", "model.py:Sums", "--replies", "bad.jsonl")
    assert (ran.code, "bad.jsonl:2 is not a kept reply" in ran.err) == (2, True)
    ran = agentgym(*PLAY, "-m", "model.py:Sums", "--replies", "new.jsonl", "--processes", "2")
    assert (ran.code, "one process" in ran.err) == (2, True)
    ran = agentgym(*PLAY, "-m", "oracle:honest", "--replay-only")
    assert (ran.code, "cannot be cached" in ran.err) == (2, True)
