# SPDX-License-Identifier: Apache-2.0
"""SmolLM2 behind llama.cpp's own OpenAI-compatible server, in this process and on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def llama_server(grammar: str | None = None, most_tokens: int = 48) -> Iterator[str]:
    """Gives its URL, ``http://127.0.0.1:PORT/v1``. It samples greedily.

    Args:
        grammar: GBNF that every answer is held to.
        most_tokens: of an answer.
    """
    import xllamacpp

    from agentgym.policies import modelfiles

    p = xllamacpp.CommonParams()
    p.model.path = str(modelfiles.find("smollm2") or modelfiles.fetch("smollm2"))
    p.hostnames = ["127.0.0.1"]
    p.port = 0
    p.n_parallel = 1
    p.n_ctx = 8192
    p.n_predict = most_tokens
    # one thread: two wait for each other, spinning, and get nowhere where something else wants the cores
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 1
    p.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    p.warmup = False
    p.cache_ram_mib = 0
    p.verbosity = 0
    p.sampling.temp = 0.0
    if grammar is not None:
        p.sampling.grammar = xllamacpp.CommonGrammar(xllamacpp.common_grammar_type.COMMON_GRAMMAR_TYPE_USER, grammar)
    server = xllamacpp.Server(p)
    # one that is freed before its loop has begun waits for ever
    server.handle_chat_completions({"messages": [{"role": "user", "content": "."}], "max_tokens": 1})
    yield f"{server.listening_address}/v1"
    del server
