# SPDX-License-Identifier: Apache-2.0
"""What tokens spell: by the model file that a run names, and by no other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import agentgym
from agentgym.chat import Message, assistant, submit
from agentgym.policies import modelfiles
from agentgym.policies.gguf_tokenizer import GGUFTokenizer
from agentgym.protocols import Completion, PolicyBase, Tokens
from agentgym.report.token_text import Speller, speller
from agentgym.tui.app import Viewer
from agentgym.tui.screens.tokens import TokensScreen
from tests.envs import Bank
from tests.tui.conftest import LARGE, Hands, drive

SHA256 = modelfiles.KNOWN["smollm2"].sha256


def test_every_token_has_a_text_and_a_character_of_several_stands_at_its_first(model_cache: Path) -> None:
    tokenizer = GGUFTokenizer(modelfiles.cached_path("smollm2"))
    found = speller({"fingerprint": {"name": "local:smollm2", "sha256": SHA256}})
    assert isinstance(found, Speller)
    for text in ("The answer is 4.", "世界 é 🎉\n\tx = 10", ""):
        ids = tokenizer.encode_ordinary(text)
        pieces = found.pieces(ids)
        assert len(pieces) == len(ids)
        assert "".join(pieces) == text
    assert "" in found.pieces(tokenizer.encode_ordinary("世"))
    assert found.pieces([1, 2, 10**6, -3]) == ["<|im_start|>", "<|im_end|>", "<1000000>", "<-3>"]
    half = tokenizer.encode_ordinary("世")[:1]
    assert found.pieces(half) == ["\ufffd"], "half a character is none, and no reason to fail"


def test_no_file_speaks_for_a_model_that_it_is_not(model_cache: Path) -> None:
    for meta in (
        {},
        {"fingerprint": "smollm2"},
        {"fingerprint": {"name": "local:smollm2"}},
        {"fingerprint": {"sha256": "0" * 64}},
    ):
        assert speller(meta) is None


class Quoted(PolicyBase):
    """Says one sentence with its tokens, and names the model file that they are of."""

    name = "quoted"

    def fingerprint(self) -> dict[str, Any]:
        return {"name": self.name, "sha256": SHA256}

    async def act(self, conversation: Sequence[Message], tools: Any, sampling: Any) -> Completion:
        ids = np.array(GGUFTokenizer(modelfiles.cached_path("smollm2")).encode_ordinary("Good morning"), np.int32)
        tokens = Tokens(ids, np.full(len(ids), -0.5, np.float32), ids)
        done = any(m.role == "assistant" for m in conversation)
        return Completion(submit() if done else assistant("Good morning"), tokens=tokens)


def test_the_viewer_spells_the_tokens_of_a_run_whose_model_is_here(model_cache: Path, tmp_path: Path) -> None:
    async def script(h: Hands) -> None:
        await h.pilot.pause(0.05)
        await h.press("t")
        assert isinstance(h.app.screen, TokensScreen)
        await h.sees("Good│ morning│", "··")
        await h.press("t")
        await h.sees("“ morning”")

    with agentgym.evaluate(Bank, Quoted(), limit=1, variants=["control"], runs=tmp_path) as run:
        drive(Viewer(tmp_path, run, next(run.episodes())), script, LARGE)
