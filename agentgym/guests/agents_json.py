# SPDX-License-Identifier: Apache-2.0
"""Trajectories of agent programs in JSON: SWE-agent's ``.traj``, results of tau-bench and tau2, lines of messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from agentgym.chat import Message, assistant, user
from agentgym.guests.model import Guest, GuestEpisode, Remark, as_text, message, number, usage, when, whole
from agentgym.protocols import NO_USAGE, Usage
from agentgym.scoring import Score
from agentgym.trajectory import Event


def _messages(rows: Any) -> list[Message]:
    return [m for m in map(message, rows if isinstance(rows, list) else ()) if m is not None]


# -- SWE-agent --------------------------------------------------------------------------------------------------------


def swe_agent(path: Path, document: dict[str, Any], remark: Remark) -> Guest:
    """One ``.traj``: the file's name is the task's."""
    return Guest(
        kind="SWE-agent", title=path.stem, model=_swe_model(document), planned=1, episodes=iter([_swe_episode(path, document)])
    )


def _swe_model(document: dict[str, Any]) -> str:
    config = document.get("replay_config")
    if isinstance(config, str):
        from agentgym.guests.readfile import parse

        try:
            config = parse(config.encode())
        except ValueError:
            config = None
    agent = config.get("agent") if isinstance(config, dict) else None
    model = agent.get("model") if isinstance(agent, dict) else None
    return str(model.get("name") or "?") if isinstance(model, dict) else "?"


def _swe_episode(path: Path, document: dict[str, Any]) -> GuestEpisode:
    info = document.get("info") or {}
    stats = info.get("model_stats") or {}
    steps = [s for s in document.get("trajectory") or () if isinstance(s, dict)]
    messages = _messages(document.get("history"))
    if not any(m.role == "assistant" for m in messages):  # old files keep no history: the steps tell it
        messages = [m for m in messages if m.role != "assistant"]
        for s in steps:
            messages.append(assistant(as_text(s.get("response") or s.get("action") or ""), reasoning=""))
            messages.append(user(as_text(s.get("observation") or "")))
    turns = sum(m.role == "assistant" for m in messages)
    usages = [NO_USAGE] * turns
    if usages:  # told for the whole alone; it stands at the last turn, so that the sum is right
        usages[-1] = Usage(
            whole(stats.get("tokens_sent")), whole(stats.get("tokens_received")), 0, number(stats.get("instance_cost")) or 0.0
        )
    status = str(info.get("exit_status") or "")
    limit = next((ours for word, ours in (("cost", "cost"), ("context", "tokens"), ("timeout", "time"), ("total_time", "time"))
                  if status.startswith("exit_") and word in status), None)  # fmt: skip
    submission = info.get("submission")
    events = (
        [(turns - 1, Event(max(turns - 1, -1), "swe_agent.exit", "env", status, {"submission": submission}))] if status else []
    )
    return GuestEpisode(
        family="swe_agent",
        item=path.stem,
        messages=messages,
        usages=usages,
        events=events,
        truncation=limit,
        scores=[Score("submitted", "metric", float(bool(submission)), reason=f"exit status {status or 'not told'}")],
        state={"environment": document.get("environment"), "info": {k: v for k, v in info.items() if k != "submission"}},
        duration_s=sum(number(s.get("execution_time")) or 0.0 for s in steps),
    )


# -- tau-bench and tau2 -----------------------------------------------------------------------------------------------


def tau2(path: Path, document: dict[str, Any], remark: Remark) -> Guest:
    """Results of tau2: simulations beside tasks and a description."""
    info = document.get("info") or {}
    agent, environment = info.get("agent_info") or {}, info.get("environment_info") or {}
    domain = str(environment.get("domain_name") or "tau2")
    tasks = {str(t.get("id")): t for t in document.get("tasks") or () if isinstance(t, dict)}
    simulations = [s for s in document.get("simulations") or () if isinstance(s, dict)]
    trials = whole(info.get("num_trials")) or 1
    return Guest(
        kind="tau2",
        title=f"tau2 {domain}",
        model=str(agent.get("llm") or "?"),
        harness=f"tau2 {info.get('git_commit') or ''}"[:20].strip(),
        created_at=when(document.get("timestamp")),
        planned=len(tasks) * trials or None,
        episodes=(_tau2_episode(f"tau2.{domain}", s, tasks.get(str(s.get("task_id")))) for s in simulations),
    )


_TAU2_LIMITS = {"max_steps": "turns", "too_many_errors": "environment", "timeout": "time"}


def _tau2_episode(family: str, row: dict[str, Any], task: Any) -> GuestEpisode:
    rows = [r for r in row.get("messages") or () if isinstance(r, dict)]
    rows = [inner for r in rows for inner in (r.get("tool_messages") or [r])]  # several results in one message
    # what a user's own tools answer goes to the user and not to the agent
    mine = [r for r in rows if r.get("requestor", "assistant") == "assistant" or r.get("role") != "tool"]
    messages = _messages(mine)
    replies = [r for r in mine if r.get("role") == "assistant"]
    usages = []
    for r in replies:
        told = usage(r.get("usage"))
        usages.append(Usage(told.prompt_tokens, told.completion_tokens, told.cached_tokens, number(r.get("cost")) or 0.0))
    judged = row.get("reward_info") or {}
    reward = number(judged.get("reward"))
    scores = [
        Score("reward", "metric", reward, "ok" if reward is not None else "unscorable", as_text(judged.get("info") or ""))
    ]
    for name, value in (judged.get("reward_breakdown") or {}).items():
        scores.append(Score(str(name), "metric", number(value)))
    for kind in ("action_checks", "nl_assertions", "env_assertions", "communicate_checks"):
        for i, check in enumerate(judged.get(kind) or ()):
            if isinstance(check, dict):
                met = check.get("action_match", check.get("met"))
                scores.append(Score(f"{kind}.{i}", "metric", number(met), evidence=check))
    why = str(row.get("termination_reason") or "")
    broken = [r for r in mine if r.get("role") == "tool" and r.get("error")]
    return GuestEpisode(
        family=family,
        item=str(row.get("task_id")),
        trial=whole(row.get("trial")),
        messages=messages,
        usages=usages,
        events=[
            (_before(mine, r), Event(_before(mine, r), "tool.error", "env", str(r.get("id") or r.get("tool_call_id") or "")))
            for r in broken
        ],
        reward=reward,
        scores=scores,
        truncation=_TAU2_LIMITS.get(why),
        error=why if why in ("agent_error", "user_error", "infrastructure_error") else None,
        target=(task or {}).get("evaluation_criteria"),
        state={"scenario": (task or {}).get("user_scenario"), "initial_state": (task or {}).get("initial_state")},
        started_at=when(row.get("start_time")),
        duration_s=number(row.get("duration")) or 0.0,
    )


def _before(rows: list[dict[str, Any]], row: dict[str, Any]) -> int:
    place = next(i for i, r in enumerate(rows) if r is row)
    return len([r for r in rows[:place] if r.get("role") == "assistant"]) - 1


def tau1(path: Path, rows: Iterable[Any], remark: Remark) -> Guest:
    """Results of tau-bench: one object an episode, with ``traj``."""

    def episodes() -> Iterator[GuestEpisode]:
        for row in rows:
            if not isinstance(row, dict) or "traj" not in row:
                continue
            info = row.get("info") or {}
            reward = number(row.get("reward"))
            task = info.get("task") or {} if isinstance(info, dict) else {}
            yield GuestEpisode(
                family="tau_bench",
                item=str(row.get("task_id")),
                trial=whole(row.get("trial")),
                messages=_messages(row["traj"]),
                reward=reward,
                scores=[
                    Score(
                        "reward",
                        "metric",
                        reward,
                        "ok" if reward is not None else "unscorable",
                        evidence=info.get("reward_info"),
                    )
                ],
                target=task.get("actions"),
                state={"instruction": task.get("instruction"), "user_id": task.get("user_id")},
                error=as_text(info["error"]) if isinstance(info, dict) and info.get("error") else None,
            )

    return Guest(kind="tau-bench", title=path.name.split(".")[0], episodes=episodes())


# -- lines of messages ------------------------------------------------------------------------------------------------


def openai_lines(path: Path, rows: Iterable[tuple[int, Any]], remark: Remark) -> Guest:
    """A line an episode: ``{"messages": [...]}``, ``{"prompt": [...], "completion": [...]}``, or the list alone.

    ``id`` (or ``task_id``), ``trial``, ``task`` (or ``family``), ``reward`` (or ``score``), ``model`` and ``metadata`` are used
    where they are there.
    """
    return Guest(kind="messages", title=path.name.split(".")[0], episodes=_lines(path, rows, remark))


def _lines(path: Path, rows: Iterable[tuple[int, Any]], remark: Remark) -> Iterator[GuestEpisode]:
    for at, row in rows:
        fields = row if isinstance(row, dict) else {}
        if isinstance(row, list):
            messages = _messages(row)
        elif isinstance(fields.get("messages"), list):
            messages = _messages(fields["messages"])
        else:
            parts = [user(p) if isinstance(p := fields.get("prompt"), str) else None]
            messages = [m for m in parts if m] or _messages(fields.get("prompt"))
            answer = fields.get("completion", fields.get("response"))
            messages += [assistant(answer)] if isinstance(answer, str) else _messages(answer)
        if not messages:
            remark(f"line {at} holds no messages")
            continue
        reward = number(fields.get("reward", fields.get("score")))
        yield GuestEpisode(
            family=str(fields.get("family") or fields.get("task") or path.name.split(".")[0]),
            item=str(fields.get("id", fields.get("task_id", at))),
            trial=whole(fields.get("trial")),
            messages=messages,
            reward=reward,
            scores=[] if reward is None else [Score("reward", "metric", reward)],
            target=fields.get("answer", fields.get("target")),
            state=fields.get("metadata"),
        )
