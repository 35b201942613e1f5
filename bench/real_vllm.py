# SPDX-License-Identifier: Apache-2.0
"""What a real vLLM server makes of `vllm:`: one JSON line for each check, and exit 1 where one fails.

Start a server (on a machine without a GPU: docs/models.md), then

    python bench/real_vllm.py smol http://127.0.0.1:8123/v1 path/to/tokenizer-folder

It plays multi-turn episodes, many at once, and compares the recorded log-probabilities with those that the server itself gives
for the same token ids as a prompt, which it computes in another pass.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import urllib.request
from typing import Any

import numpy as np

import agentgym
from agentgym.policies.openai_chat import OpenAIPolicy
from agentgym.policies.token_server import VLLMPolicy
from agentgym.protocols import Sampling
from agentgym.tokens import linearize


def post(url: str, request: dict[str, Any]) -> Any:
    """The server's reply to a request that does not go through agentgym."""
    headers = {"Content-Type": "application/json"}
    call = urllib.request.Request(f"{url}/completions", json.dumps(request).encode(), headers)
    with urllib.request.urlopen(call, timeout=120) as reply:
        return json.loads(reply.read())


def prompt_logprobs(model: str, url: str, ids: list[int]) -> np.ndarray:
    """Log-probability of each id after those before it, by the server; NaN for the first."""
    request = {"model": model, "prompt": ids, "max_tokens": 1, "prompt_logprobs": 0, "add_special_tokens": False}
    told = post(url, request)["choices"][0]["prompt_logprobs"]
    return np.array([np.nan if t is None else t[str(i)]["logprob"] for t, i in zip(told, ids, strict=True)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("url")
    parser.add_argument("tokenizer")
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--family", default="math.pushback")
    args = parser.parse_args()
    failed = False

    def tell(check: str, ok: bool, **figures: Any) -> None:
        nonlocal failed
        failed |= not ok
        print(json.dumps({"bench": "real_vllm", "check": check, "ok": bool(ok), **figures}), flush=True)

    argument = f"{args.model}@{args.url}#tokenizer={args.tokenizer}"
    sampling = Sampling(temperature=0.7, top_p=0.9, max_tokens=24)
    played: dict[bool, list[Any]] = {}
    with tempfile.TemporaryDirectory() as runs:
        for again in (False, True):
            begun = time.monotonic()
            run = agentgym.evaluate(args.family, VLLMPolicy(argument), limit=args.episodes, sampling=sampling, runs=runs)
            played[again] = [e.trajectory for e in run.episodes()]
            sampled = sum(len(t.output_ids) for p in played[again] for t in p.tokens or () if t)
            wall = round(time.monotonic() - begun, 1)
            errors = sum(p.error is not None for p in played[again])
            tell("episodes are played", not errors, episodes=len(played[again]), errors=errors, sampled=sampled, wall_s=wall)
    worst, turns, forks, rows = 0.0, 0, 0, 0
    for p in played[False]:
        made = linearize(p)
        forks += made.drift.forked
        rows += len(made.rows)
        turns += len(p.turns)
        for row in made.rows:
            given = prompt_logprobs(args.model, args.url, row.token_ids.tolist())
            trained = row.loss_mask == 1
            worst = max(worst, float(np.abs(given[trained] - row.logprobs[trained]).max(initial=0.0)))
    tell("rows are clean", forks == 0 and rows == len(played[False]), turns=turns, rows=rows, forked=forks)
    tell("log-probabilities are the server's own of the same ids", worst < 2e-3, worst=round(worst, 6))
    same = [
        all(np.array_equal(a.output_ids, b.output_ids) for a, b in zip(x.tokens, y.tokens, strict=False))
        for x, y in zip(played[False], played[True], strict=True)
    ]
    tell("the same seeds say the same again", all(same), same=sum(same), of=len(same))
    ended = [t for p in played[False] for t in p.tokens if t is not None]
    ends = sum(t.stop_token_in_output for t in ended)
    right = all(
        (t.stop_token_in_output and len(t.output_ids) <= 24) or (not t.stop_token_in_output and len(t.output_ids) == 24)
        for t in ended
    )
    tell("a turn ends with its stop token or at its limit", right, stopped=ends, turns=len(ended))

    with tempfile.TemporaryDirectory() as runs:
        chat = OpenAIPolicy(f"{args.model}@{args.url}#tokens=yes,tool_format=hermes")
        run = agentgym.evaluate(args.family, chat, limit=args.episodes, sampling=sampling, runs=runs)
        chatted = [e.trajectory for e in run.episodes()]
    equal = [
        np.array_equal(a.tokens[0].prompt_ids, b.tokens[0].prompt_ids) for a, b in zip(played[False], chatted, strict=True)
    ]
    tell("our renderer and the server's chat template give the same first prompt", all(equal), same=sum(equal), of=len(equal))
    drift = [linearize(p).drift for p in chatted]
    figures = {"appended": sum(d.appended for d in drift), "forked": sum(d.forked for d in drift)}
    tell("the same episodes through chat completions, for comparison", True, **figures)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
