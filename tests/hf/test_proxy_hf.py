# SPDX-License-Identifier: Apache-2.0
"""A real engine behind the proxy: the rows are what it saw and sampled, however the program writes its answers down anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import agentgym
from agentgym.protocols import Sampling
from agentgym.tokens.rows import linearize
from tests.proxy.toys import Client, Counter


def test_a_conversation_that_comes_back_stripped_goes_on_from_the_sampled_tokens(folder: Path, tmp_path: Path) -> None:
    limits: dict[str, Any] = {"sampling": Sampling(max_tokens=12), "runs": tmp_path}
    with agentgym.proxy.record(Counter, model=f"hf:{folder}", **limits) as episode:
        client = Client(episode.variables, timeout=120)
        messages: list[Any] = [{"role": "user", "content": "go"}]
        for turn in range(3):
            said = client.chat(messages)["choices"][0]["message"]["content"]
            messages += [{"role": "assistant", "content": f" {said} \n"}, {"role": "user", "content": f"more {turn}"}]
    calls = episode.result.trajectory.calls
    rows = linearize(episode.result.trajectory)
    assert (rows.drift.appended, rows.drift.forked, rows.drift.realigned) == (2, 0, 0)
    last = calls[-1].tokens
    assert rows.rows[0].token_ids.tolist() == [*last.prompt_ids.tolist(), *last.output_ids.tolist()]
    assert rows.rows[0].trained == sum(len(c.tokens.output_ids) for c in calls)
    # they are the engine's own: one pass of the model over the row gives each of them the log-probability that is on record
    logprobs = _logprobs(folder, rows.rows[0].token_ids)
    for c in calls:
        begun = len(c.tokens.prompt_ids) - 1
        np.testing.assert_allclose(logprobs[begun : begun + len(c.tokens.output_ids)], c.tokens.logprobs, atol=1e-4)


def _logprobs(folder: Path, token_ids: Any) -> Any:
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.as_tensor(np.asarray(token_ids, np.int64))
    with torch.no_grad():
        return torch.log_softmax(model(ids[None]).logits[0, :-1], -1).gather(1, ids[1:, None])[:, 0].numpy()
