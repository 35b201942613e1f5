# SPDX-License-Identifier: Apache-2.0
"""Logs of other harnesses become runs: what was said and scored is there; damage is named and costs itself alone."""

from __future__ import annotations

import gzip
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentgym.errors import AgentGymError, DataError, NotFoundError
from agentgym.guests import is_guest, open_guest
from agentgym.guests.convert import cached_guest
from agentgym.records.run import Address, Run

DATA = Path(__file__).parent.parent / "data" / "guests"


def imported(path: Path, tmp_path: Path) -> tuple[Run, list[str]]:
    made = open_guest(path, tmp_path / "runs")
    return Run(made.path), made.remarks


# -- inspect_ai -------------------------------------------------------------------------------------------------------


def test_a_log_of_inspect_is_there_sample_by_sample(tmp_path: Path) -> None:
    run, remarks = imported(DATA / "inspect_shop.eval", tmp_path)
    assert remarks == []
    assert (run.meta["title"], run.meta["model"]) == ("shop", "mockllm/model")
    assert run.meta["guest"]["harness"] == "inspect_ai 0.3.285"
    assert (run.count(), run.planned, run.status) == (8, 8, "finished")
    e = run.episode("shop/plain/s0", 0)
    assert (e.gold, e.reward, e.turns, e.prompt_tokens + e.completion_tokens) == (1.0, 1.0, 2, 222 + 40)
    t = e.trajectory
    assert [m.role for m in t.opening] == ["system", "user"]
    assert t.turns[0].message.tool_calls[0].name == "price"
    assert t.turns[0].results[0].status == "ok"
    assert t.turns[0].observation[0].text.startswith("pear: 12 cents")
    assert (t.turns[1].message.reasoning, t.turns[1].message.text) == ("it was told", "The answer is 12")
    assert {s.name: s.value for s in e.all_scores} == {"match": 1.0, "includes": 1.0}
    assert e.task.gold == "12"
    assert e.task.cluster == "c0"


def test_texts_that_inspect_keeps_apart_are_put_back(tmp_path: Path) -> None:
    run, _ = imported(DATA / "inspect_shop.eval", tmp_path)
    opening = run.episode("shop/plain/long/with slash", 1).trajectory.opening
    assert opening[-1].text == ("long " * 3000)


def test_a_failed_call_is_shown_as_one(tmp_path: Path) -> None:
    run, _ = imported(DATA / "inspect_shop.eval", tmp_path)
    failed = [r for e in run.episodes() for t in e.trajectory.turns for r in t.results if r.status != "ok"]
    assert {r.status for r in failed} == {"tool_error"}
    assert len(failed) == 2


def test_an_eval_that_was_killed_is_shown_as_far_as_it_came(tmp_path: Path) -> None:
    whole = (DATA / "inspect_shop.eval").read_bytes()
    cut = tmp_path / "cut.eval"
    cut.write_bytes(whole[: len(whole) // 2])
    run, remarks = imported(cut, tmp_path)
    assert 1 <= run.count() < 8
    assert any("cut off" in r for r in remarks)
    assert any("did not end" in r for r in remarks)
    assert run.status == "interrupted"


def test_what_unpacks_to_more_than_memory_should_hold_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentgym.guests.readfile.MOST", 1000)
    with pytest.raises(DataError, match="damaged"):
        open_guest(DATA / "inspect_shop.eval", tmp_path / "runs")  # its header alone is longer
    small = json.dumps([{"role": "user", "content": "q"}, {"role": "assistant", "content": "x"}]).encode()
    large = json.dumps({"messages": [{"role": "assistant", "content": "x" * 2000}]}).encode()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(small + b"\n" + large + b"\n" + small + b"\n"))
    run, remarks = imported(tmp_path / "a.jsonl.gz", tmp_path)
    assert run.count() == 1
    assert any("line 2 is longer" in r for r in remarks)
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(large))
    with pytest.raises(DataError, match="too large"):
        open_guest(tmp_path / "b.json.gz", tmp_path / "runs")


def test_a_damaged_sample_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "bad.eval"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("header.json", json.dumps({"eval": {"task": "t", "model": "m"}}))
        z.writestr("samples/a_epoch_1.json", '{"id": "a", "messages": [')
        z.writestr(
            "samples/b_epoch_1.json", json.dumps({"id": "b", "epoch": 1, "messages": [], "scores": {"s": {"value": "P"}}})
        )
    run, remarks = imported(path, tmp_path)
    assert [(e.item, e.gold) for e in run.episodes()] == [("b", 0.5)]
    assert any("samples/a_epoch_1.json is damaged" in r for r in remarks)


def test_a_sample_that_broke_is_infrastructure_and_not_a_zero(tmp_path: Path) -> None:
    sample = {
        "id": 1,
        "messages": [],
        "scores": {"s": {"value": "I"}},
        "error": {"message": "server down sk-abcdefghijklmnopqrstuv"},
    }
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"status": "error", "eval": {"task": "t"}, "samples": [sample]}))
    run, _ = imported(path, tmp_path)
    e = run.episode("t/plain/1", 0)
    assert (e.outcome, e.gold, e.reward) == ("infrastructure", None, None)
    assert "server down" in (e.error or "")
    assert "sk-abc" not in (e.error or "")


# -- verifiers --------------------------------------------------------------------------------------------------------


def test_results_of_verifiers_0_1_are_there(tmp_path: Path) -> None:
    run, remarks = imported(DATA / "verifiers01", tmp_path)
    assert remarks == []
    assert run.meta["guest"]["harness"] == "verifiers 0.1.14"
    assert (run.meta["model"], run.count(), run.planned) == ("scripted", 6, 6)
    golds = sorted(e.gold for e in run.episodes())  # type: ignore[type-var]
    assert golds == [0.0] * 3 + [1.0] * 3
    e = run.episode("shop/plain/0", 0)
    assert [s.name for s in e.all_scores][:3] == ["reward", "right", "short"]
    call = e.trajectory.turns[0].message.tool_calls[0]
    assert (call.name, json.loads(call.arguments)) == ("price", {"item": "pear"})
    assert e.trajectory.turns[0].observation[0].text == "pear: 12 cents"
    assert e.trajectory.turns[1].message.reasoning == "it was told"
    assert e.task.gold == "12"


def test_a_line_that_is_still_being_written_is_waited_for(tmp_path: Path) -> None:
    text = (DATA / "verifiers01" / "results.jsonl").read_text()
    path = tmp_path / "results.jsonl"
    path.write_text(text[:-40])
    run, remarks = imported(path, tmp_path)
    assert run.count() == 5
    assert any("line 6 was cut off" in r for r in remarks)
    assert any("no metadata.json" in r for r in remarks)


def node(role: str, parent: int | None, ids: list[int], mask: list[int] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "parent": parent,
        "message": {"role": role, **({"tool_call_id": "c1"} if role == "tool" else {}), "content": role},
        "token_ids": ids,
        "mask": [bool(m) for m in mask or [0] * len(ids)],
        "sampled": role == "assistant",
        **more,
    }


def test_traces_of_verifiers_0_4_keep_their_exact_tokens(tmp_path: Path) -> None:
    nodes = [
        node("user", None, [1, 2, 3]),
        node("assistant", 0, [4, 5, 6], [0, 1, 1], logprobs=[-0.5, -0.25]),
        node("tool", 1, [7]),
        node("assistant", 2, [8, 9], [0, 1], logprobs=[-1.0]),
    ]
    trace = {
        "agent": {"config": {"model": "m"}, "name": "solver"}, "nodes": nodes,
        "rewards": {"right": {"score": 1.0, "weight": 0.5}},
        "metrics": {"n": 2.0}, "ok": True, "verifiers": {"version": "0.4.0"},
        "calls": [{"node": 1, "usage": {"input_tokens": 3, "output_tokens": 2}}],
    }  # fmt: skip
    episode = {"env": {"id": "shop"}, "task": {"type": "T", "data": {"name": "a/b"}}, "traces": [trace], "ok": True}
    (tmp_path / "traces.jsonl").write_text(json.dumps(episode) + "\n")
    run, _ = imported(tmp_path, tmp_path)
    e = run.episode("shop/plain/a/b", 0)
    tokens = e.trajectory.tokens
    assert tokens is not None
    assert [(list(t.prompt_ids), list(t.output_ids)) for t in tokens if t] == [  # type: ignore[arg-type]
        ([1, 2, 3, 4], [5, 6]),
        ([1, 2, 3, 4, 5, 6, 7, 8], [9]),
    ]
    assert (e.reward, e.gold) == (0.5, 0.5)
    assert run.meta["guest"]["harness"] == "verifiers 0.4.0"


def test_traces_that_verifiers_0_4_wrote_are_there(tmp_path: Path) -> None:
    run, remarks = imported(DATA / "verifiers04", tmp_path)
    assert (remarks, run.count(), run.meta["model"]) == ([], 5, "scripted")
    e = run.episode("shop/plain/item 1", 1)
    assert (e.gold, e.trajectory.turns[1].message.reasoning) == (1.0, "it was told")
    assert [list(t.output_ids) for t in e.trajectory.tokens or () if t] == [[7, 8], [12]]
    broken = run.episode("shop/plain/broken", 0)
    assert (broken.outcome, broken.error, broken.gold) == ("infrastructure", "SandboxError: no box", None)


def test_an_eval_that_verifiers_0_4_played_is_there(tmp_path: Path) -> None:
    run, remarks = imported(DATA / "verifiers04-eval", tmp_path)
    assert (remarks, run.count(), run.meta["model"]) == ([], 4, "scripted")
    assert run.meta["guest"]["harness"] == "verifiers 0.4.0"
    assert {(e.item, e.trial): e.gold for e in run.episodes()} == {
        ("plum", 0): 0.0, ("pear", 0): 1.0, ("pear", 1): 1.0, ("fig", 0): 1.0,
    }  # fmt: skip
    e = run.episode("shop_desk/plain/pear", 1)
    first, second = e.trajectory.turns
    assert [(c.name, c.arguments) for c in first.message.tool_calls] == [("price", '{"item": "pear"}')]
    assert ([m.text for m in first.observation], second.message.text) == (["pear: 12 cents"], "It costs 12 cents.")
    assert (e.prompt_tokens, e.completion_tokens, e.scores["turns"].value) == (40, 16, 2.0)
    assert e.trajectory.tokens is None, "its client asked for none"


# -- others -----------------------------------------------------------------------------------------------------------


def test_a_trajectory_of_swe_agent_is_there(tmp_path: Path) -> None:
    document = {
        "environment": "swe_main",
        "trajectory": [{"action": "ls", "observation": "a.py", "response": "look", "thought": "look", "execution_time": 0.5}],
        "history": [
            {"role": "system", "content": "You mend."},
            {"role": "user", "content": "Issue"},
            {"role": "assistant", "content": "look", "thought": "look", "action": "ls"},
            {"role": "user", "content": "a.py"},
        ],
        "info": {
            "exit_status": "exit_cost", "submission": None,
            "model_stats": {"instance_cost": 0.25, "tokens_sent": 10, "tokens_received": 4},
        },
    }  # fmt: skip
    path = tmp_path / "django__django-1.traj"
    path.write_text(json.dumps(document))
    run, _ = imported(path, tmp_path)
    e = run.episode("swe_agent/plain/django__django-1", 0)
    assert (e.outcome, e.truncation, e.cost_usd, e.turns, e.gold) == ("truncated", "cost", 0.25, 1, 0.0)


def test_results_of_tau2_are_there(tmp_path: Path) -> None:
    calls = [{"id": "t1", "name": "get_user", "arguments": {"id": "u"}, "requestor": "assistant"}]
    document = {
        "timestamp": "2026-01-02T03:04:05",
        "info": {"num_trials": 1, "agent_info": {"llm": "m"}, "environment_info": {"domain_name": "retail"}},
        "tasks": [{"id": "7", "evaluation_criteria": {"actions": []}}],
        "simulations": [{
            "id": "s", "task_id": "7", "trial": 0, "termination_reason": "user_stop",
            "reward_info": {"reward": 1.0, "reward_breakdown": {"DB": 1.0}},
            "messages": [
                {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Help"},
                {"role": "assistant", "content": None, "tool_calls": calls, "cost": 0.5, "usage": {"prompt_tokens": 9}},
                {"role": "tool", "id": "t1", "content": "{}", "requestor": "assistant", "error": True},
                {"role": "assistant", "content": "Done"},
            ],
        }],
    }  # fmt: skip
    path = tmp_path / "results.json"
    path.write_text(json.dumps(document))
    run, _ = imported(path, tmp_path)
    e = run.episode("tau2.retail/plain/7", 0)
    assert (e.gold, e.cost_usd, e.tool_calls, e.tool_errors, run.meta["model"]) == (1.0, 0.5, 1, 1, "m")
    assert e.trajectory.turns[1].observation[0].tool_call_id == "t1"


def test_lines_of_messages_are_episodes(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl.gz"
    q = {"role": "user", "content": "q"}
    rows = [
        {"id": "a", "reward": 0.5, "messages": [q, {"role": "assistant", "content": [{"type": "text", "text": "x"}]}]},
        [{"role": "user", "content": "q2"}, {"role": "assistant", "content": "y"}],
        {"prompt": "q3", "completion": "z"},
        {"nothing": 1},
    ]  # fmt: skip
    path.write_bytes(gzip.compress(b"".join(json.dumps(r).encode() + b"\n" for r in rows) + b"{not json\n"))
    run, remarks = imported(path, tmp_path)
    assert [(e.item, e.reward, e.trajectory.final_text) for e in run.episodes()] == [
        ("a", 0.5, "x"),
        ("2", None, "y"),
        ("3", None, "z"),
    ]
    assert remarks == ["line 4 holds no messages", "line 5 is not JSON"]


def test_the_published_airline_runs_solve_what_is_published(tmp_path: Path) -> None:
    rows = json.loads(gzip.decompress((DATA.parent / "tau1_extract.json.gz").read_bytes()))["episodes"]
    path = tmp_path / "airline.json"
    path.write_text(json.dumps(rows))
    run, _ = imported(path, tmp_path)
    assert run.count() == len(rows)
    assert sum(e.gold or 0.0 for e in run.episodes()) == sum(r["reward"] for r in rows)


# -- all of them ------------------------------------------------------------------------------------------------------


def test_episodes_that_bear_the_same_number_are_all_there(tmp_path: Path) -> None:
    path = tmp_path / "same.jsonl"
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x"}]
    path.write_text("".join(json.dumps({"id": "a", "reward": r, "messages": talk}) + "\n" for r in (0.0, 1.0, 0.5)))
    run, _ = imported(path, tmp_path)
    assert [(e.trial, e.reward) for e in run.episodes()] == [(0, 0.0), (1, 1.0), (2, 0.5)]


def test_an_unscored_number_is_no_score(tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    path.write_text(
        '{"id": 1, "reward": NaN, "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x"}]}\n'
    )
    run, _ = imported(path, tmp_path)
    e = run.episode("n/plain/1", 0)
    assert e.reward is None
    assert not any(s.value is not None and math.isnan(s.value) for s in e.all_scores)


def test_hostile_names_make_addresses_that_lead_back(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    message = [{"role": "user", "content": "\x1b[2J\u202e[red]"}, {"role": "assistant", "content": "\ud800"}]
    path.write_text(json.dumps({"id": "../a::b@3/4\n", "family": "f/g::h", "messages": message}) + "\n")
    run, _ = imported(path, tmp_path)
    e = next(iter(run.episodes()))
    assert run.at(Address.parse(e.address)).id == e.id


def test_the_same_file_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps([{"role": "user", "content": "q"}, {"role": "assistant", "content": "x"}]) + "\nnot json\n")
    first = cached_guest(path, tmp_path / "cache")
    again = cached_guest(path, tmp_path / "cache")
    assert (again.path, again.remarks) == (first.path, ["line 2 is not JSON"])
    path.write_text(path.read_text() * 2)
    assert cached_guest(path, tmp_path / "cache").path != first.path


@pytest.mark.parametrize(
    "text", ["", "  \n", "hello", "{", "[]", "{}", '{"a": 1}', "[1]", "PK\x03\x04 no zip", '"x"', "\x00\x01"]
)
def test_what_is_no_log_is_refused_in_a_sentence_and_leaves_nothing(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"x\.json"):
        open_guest(path, tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*"))


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no file"):
        open_guest(tmp_path / "none.eval", tmp_path / "runs")
    assert not is_guest(tmp_path / "none.eval")


KEYS = [
    "role", "content", "messages", "tool_calls", "function", "scores", "samples", "eval", "reward", "info",
    "traj", "simulations", "nodes", "agent", "message", "trajectory", "history", "example_id", "completion", "type",
    "id", "status", "traces", "task", "env", "rewards", "prompt", "metrics", "timing",
]  # fmt: skip
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(KEYS),
        inner, max_size=5),
    max_leaves=25,
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(json_values)
def test_whatever_json_there_is_it_is_shown_or_refused(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "any.json"
    path.write_text(json.dumps(value))
    try:
        made = open_guest(path, tmp_path / "runs")
    except AgentGymError:
        return
    with Run(made.path) as run:
        assert run.count() == made.episodes
        for e in run.episodes():
            assert e.trajectory.task_id
