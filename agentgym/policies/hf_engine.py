# SPDX-License-Identifier: Apache-2.0
"""A transformers model that answers many conversations at once: continuous batching over a kept key-value cache.

One thread runs the model. Before each pass it lets waiting requests in; all that are in are advanced together by one token, and
leave as they finish. Each has a row of the cache buffers, filled from column 0, so that rows of different lengths sit beside
each other and a row is written in place, never concatenated. When a row leaves, its keys and values are kept, least recently
used out first: the next turn of its episode computes only what is new, and so does any other prompt that begins the same, such
as its siblings in a group. The random numbers of a request are its own, so it does not matter who else is in.

Why not transformers' own continuous batching: it takes no random state of a single request, forgets between requests, and
cannot be told that the weights have changed.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import inspect
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from agentgym.errors import InfrastructureError
from agentgym.policies.token_player import Generated, LogprobKind
from agentgym.protocols import FinishReason, Sampling

PREFILL_TOKENS = 2048
"""Most padded tokens of one pass over prompts: bounds its memory."""

WORTH_SHARING = 16
"""Tokens that two prompts must begin with in common before one waits for the other, or copies from it."""

KEPT_PER_ROW = 4
"""Rows that have left are kept up to this many times ``max_batch``: each is compared with every prompt that comes in."""

_ROUND = 128
"""Columns of the buffers grow to multiples of this."""


class _Request:
    """An answer in the making."""

    def __init__(self, key: object, prompt: np.ndarray, stop_ids: frozenset[int], sampling: Sampling, limit: int) -> None:
        self.key = key
        self.prompt = len(prompt)
        self.ids = np.empty(len(prompt) + limit, np.int32)
        """Prompt and output."""
        self.ids[: len(prompt)] = prompt
        self.length = len(prompt)
        self.computed = 0
        """Tokens whose keys and values are in its row."""
        self.cached = 0
        self.stop_ids = stop_ids
        self.sampling = sampling
        self.limit = limit
        self.random = np.random.default_rng(sampling.seed)
        self.logprobs: list[float] = []
        self.versions: list[int] = []
        self.finish: FinishReason | None = None
        self.cancelled = False
        self.future: concurrent.futures.Future[Generated] = concurrent.futures.Future()

    @property
    def pending(self) -> int:
        return self.length - self.computed

    def result(self, kind: LogprobKind) -> Generated:
        assert self.finish is not None
        output = self.ids[self.prompt : self.length].tolist()
        return Generated(output, self.logprobs, self.finish, self.versions, self.cached, kind)


class _Kept:
    """Keys and values of a row that has left."""

    def __init__(self, key: object, ids: np.ndarray, layers: list[tuple[Any, Any]]) -> None:
        self.key = key
        self.ids = ids
        self.layers = layers
        """For each layer keys and values, [heads, tokens, dimension]."""
        self.bytes = sum(t.numel() * t.element_size() for pair in layers for t in pair)


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """Length of the common beginning."""
    n = min(len(a), len(b))
    if not n or a[0] != b[0]:
        return 0
    different = a[:n] != b[:n]
    at = int(different.argmax())
    return at if different[at] else n


class HFEngine:
    """The engine; it starts its thread with the first request, and again after `close`.

    A model whose attention does not see all earlier tokens (sliding windows, state spaces), or whose attention takes no mask,
    is run one request at a time and computes each prompt anew.

    While the model runs it is in evaluation mode, and afterwards in the mode it was in: a model that trains with gradient
    checkpointing would otherwise sample without a cache and from wrong positions, one with dropout from another distribution.

    Args:
        model: a causal language model.
        tokenizer: to find texts that end an answer.
        max_batch: rows.
        cache_bytes: most bytes of keys and values kept of rows that have left. Beside them there are the rows' own buffers:
            ``max_batch`` times the longest conversation so far.
        logprob_kind: of which distribution log-probabilities are, see `agentgym.protocols.Tokens`.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_batch: int = 32,
        cache_bytes: int = 1 << 30,
        logprob_kind: LogprobKind = "raw",
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_batch = max_batch
        self.cache_bytes = cache_bytes
        self.logprob_kind: LogprobKind = logprob_kind
        self.version = 0
        """Weight version: of every token that is sampled from now on."""
        config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
        self.positions: int | None = getattr(config, "max_position_embeddings", None)
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        forward = inspect.signature(type(base).forward).parameters
        self._cache_name = "cache" if "cache" in forward else "past_key_values"  # renamed in transformers 5.24
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in forward else {}
        implementation = getattr(config, "_attn_implementation", None)
        self._additive = implementation == "eager"
        self.batched = implementation in ("sdpa", "eager") and _sees_all(model, config)
        if not self.batched:
            self.max_batch = 1
        ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
        ends = [*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id]
        self._ends = frozenset(e for e in ends if e is not None)

        self._rows: list[_Request] = []
        self._buffers = _buffers(self) if self.batched else None
        self._own: Any = None
        """Where requests are run one at a time: the model's own cache."""
        self._kept: collections.OrderedDict[int, _Kept] = collections.OrderedDict()
        self._kept_bytes = 0
        self._serial = 0
        self._forgotten: collections.deque[object] = collections.deque()
        self._weights = self._weights_now()

        self._waiting: collections.deque[_Request] = collections.deque()
        self._condition = threading.Condition()
        self._passing = threading.Lock()
        """Held during a pass."""
        self._updates = 0
        """Who waits for the passes to pause."""
        self._thread: threading.Thread | None = None
        self._closing = False
        self.passes = 0
        """Passes through the model so far."""
        self.computed_tokens = 0
        """Tokens that went through it, padding left out."""

    # -- from outside -----------------------------------------------------------------------------------------------------

    async def generate(self, key: object, prompt_ids: Sequence[int], stop_ids: frozenset[int], sampling: Sampling) -> Generated:
        """Samples after a prompt, beside whatever else is being answered; see `token_player.Engine`."""
        assert sampling.max_tokens is not None
        limit = sampling.max_tokens
        if self.positions is not None:
            limit = min(limit, self.positions - len(prompt_ids))
        if limit < 1:
            return Generated([], [], "length", [], prompt_too_long=True)
        request = _Request(key, np.asarray(prompt_ids, np.int32), stop_ids | self._ends, sampling, limit)
        with self._condition:
            self._waiting.append(request)
            if self._thread is None:
                self._closing = False
                self._thread = threading.Thread(target=self._run, name="agentgym-hf", daemon=True)
                self._thread.start()
            self._condition.notify_all()
        try:
            return await asyncio.wrap_future(request.future)
        except asyncio.CancelledError:
            request.cancelled = True
            raise

    async def forget(self, key: object) -> None:
        """The episode is over: what was kept of it goes first when room is needed, and serves others until then."""
        self._forgotten.append(key)  # the cache is the thread's

    @contextlib.contextmanager
    def updating(self, version: int | None = None) -> Iterator[None]:
        """While this is entered no token is sampled, so weights may be changed; afterwards they have that version.

        Answers in the making go on from the tokens they have, under the new weights, and each token tells its version. All that
        was kept is dropped: keys and values of old weights would give log-probabilities that belong to no model.

        Args:
            version: None: the last one and 1.
        """
        with self._condition:
            self._updates += 1
        try:
            with self._passing:
                try:
                    yield
                finally:
                    self._renewed(self.version + 1 if version is None else version)
        finally:
            with self._condition:
                self._updates -= 1
                self._condition.notify_all()

    def close(self) -> None:
        """Ends the thread and frees the cache; answers in the making fail."""
        with self._condition:
            self._closing = True
            thread, self._thread = self._thread, None
            self._condition.notify_all()
        if thread is not None:
            thread.join()
        self._drop()
        if self.batched:
            self._buffers = _buffers(self)

    # -- the thread -------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._closing and (self._updates or not (self._rows or self._waiting)):
                    self._condition.wait()
                if self._closing:
                    break
            try:
                with self._passing:
                    self._admit()
                    if self._rows:
                        self._pass()
            except Exception as e:  # whatever the model raises is nobody's score
                self._fail(InfrastructureError(f"the model failed: {type(e).__name__}: {e}", retryable=False))
        self._fail(InfrastructureError("the policy was closed while an answer was being made", retryable=False))

    def _fail(self, error: InfrastructureError) -> None:
        with self._condition:
            failed = [*self._rows, *self._waiting]
            self._rows.clear()
            self._waiting.clear()
        self._drop()
        for request in failed:
            if not request.future.done():
                request.future.set_exception(error)

    def _drop(self) -> None:
        self._kept.clear()
        self._kept_bytes = 0
        self._own = None
        for request in self._rows:
            request.computed = 0

    def _weights_now(self) -> int:
        """Changes whenever a parameter is written to in place, as optimizers do."""
        return sum(p._version for p in self.model.parameters())

    def _renewed(self, version: int) -> None:
        self.version = version
        self._weights = self._weights_now()
        self._drop()

    def _admit(self) -> None:
        """Lets in what waits, as long as there are rows; what begins like another that comes in now waits for its cache."""
        for request in [r for r in self._rows if r.cancelled]:
            self._leave(request)
        while self._forgotten:
            key = self._forgotten.popleft()
            for serial in [s for s, kept in self._kept.items() if kept.key is key]:
                self._kept[serial].key = None
                self._kept.move_to_end(serial, last=False)
        if not self._waiting or len(self._rows) >= self.max_batch:
            return
        if self._weights != self._weights_now():  # somebody trains this model and did not say so
            self._renewed(self.version + 1)
        with self._condition:
            candidates = [r for r in self._waiting if not r.cancelled]
            self._waiting.clear()
        fresh: list[_Request] = []
        later: list[_Request] = []
        for request in candidates:
            if len(self._rows) >= self.max_batch:
                later.append(request)
                continue
            ids = request.ids[: request.prompt]
            source, shared = self._best(request.key, ids)
            if self.batched and any(_common(f.ids[: f.prompt], ids) >= shared + WORTH_SHARING for f in fresh):
                later.append(request)
                continue
            self._rows.append(request)
            fresh.append(request)
            request.computed = request.cached = shared
            if self._buffers is not None:
                self._buffers.reserve(len(self._rows), len(request.ids))
                if shared:
                    self._copy(source, len(self._rows) - 1, shared)
        with self._condition:
            self._waiting.extendleft(reversed(later))

    def _best(self, key: object, prompt: np.ndarray) -> tuple[int | _Request | None, int]:
        """Who has the longest beginning of a prompt, and how long it is. The last token is always computed: it is what the
        model answers to."""
        best: tuple[int | _Request | None, int] = (None, 0)
        most = len(prompt) - 1
        for serial, kept in self._kept.items():
            shared = min(_common(kept.ids, prompt), most)
            if shared > best[1] and (shared >= WORTH_SHARING or kept.key is key):
                best = (serial, shared)
        for row in self._rows if self.batched else ():
            shared = min(_common(row.ids[: row.computed], prompt), most)
            if shared > best[1] and shared >= WORTH_SHARING:
                best = (row, shared)
        return best

    def _copy(self, source: int | _Request | None, row: int, shared: int) -> None:
        assert self._buffers is not None
        if isinstance(source, _Request):
            self._buffers.copy(self._rows.index(source), row, shared)
            return
        assert source is not None
        kept = self._kept[source]
        self._buffers.fill(row, kept.layers, shared)
        if kept.key is self._rows[row].key:  # its own, which it will leave again, longer
            del self._kept[source]
            self._kept_bytes -= kept.bytes
        else:
            self._kept.move_to_end(source)

    def _leave(self, request: _Request) -> None:
        """Takes a row out; what it has computed is kept, and the last row takes its place."""
        row, last = self._rows.index(request), len(self._rows) - 1
        if self._buffers is not None:
            if request.computed:
                kept = _Kept(request.key, request.ids[: request.computed].copy(), self._buffers.read(row, request.computed))
                self._serial += 1
                self._kept[self._serial] = kept
                self._kept_bytes += kept.bytes
                while self._kept_bytes > self.cache_bytes or len(self._kept) > KEPT_PER_ROW * self.max_batch:
                    self._kept_bytes -= self._kept.popitem(last=False)[1].bytes
            if row != last:
                self._buffers.copy(last, row, self._rows[last].computed)
        self._own = None
        self._rows[row] = self._rows[last]
        self._rows.pop()
        if request.finish is not None and not request.future.cancelled():
            request.future.set_result(request.result(self.logprob_kind))

    def _pass(self) -> None:
        """One pass: over prompts, where some have come in, else by one token for all."""
        rows = self._rows
        first = next((i for i, r in enumerate(rows) if r.pending > 1), None)
        if first is None:
            first, end = 0, len(rows)
        else:
            end, longest = first, 0
            while end < len(rows) and rows[end].pending > 1:
                longest = max(longest, rows[end].pending)
                if end > first and longest * (end + 1 - first) > PREFILL_TOKENS:
                    break
                end += 1
        group = rows[first:end]
        logits = self._forward(first, group)
        self.passes += 1
        chosen, logprobs = _sample(logits, group, self.logprob_kind)
        for request, token, logprob in zip(group, chosen, logprobs, strict=True):
            request.ids[request.length] = token
            request.length += 1
            request.logprobs.append(logprob)
            request.versions.append(self.version)
            if token in request.stop_ids or (request.sampling.stop and self._said_stop(request)):
                request.finish = "stop"
            elif request.length - request.prompt >= request.limit:
                request.finish = "length"
        for request in group:
            if request.finish is not None or request.cancelled:
                self._leave(request)

    def _said_stop(self, request: _Request) -> bool:
        """Whether the last token completed a text that ends the answer."""
        stops = request.sampling.stop
        most = max(len(s.encode()) for s in stops) + 4  # a token is at least a byte long
        text = self.tokenizer.decode(request.ids[max(request.prompt, request.length - most) : request.length])
        return any(s in text for s in stops if s)

    def _forward(self, first: int, group: Sequence[_Request]) -> Any:
        """Logits [rows, vocabulary] after the last token of each."""
        import torch

        model = self.model
        device = next(model.parameters()).device
        width = max(r.pending for r in group)
        # padding stands in front, so that all end in the last column; it writes where nobody looks, and sees the first token
        # alone: a query that saw nothing would be NaN
        ids = np.zeros((len(group), width), np.int64)
        places = np.zeros((len(group), width), np.int64)
        columns = np.full((len(group), width), -1, np.int64)
        for i, r in enumerate(group):
            ids[i, width - r.pending :] = r.ids[r.computed : r.length]
            places[i, width - r.pending :] = columns[i, width - r.pending :] = np.arange(r.computed, r.length)
        position_ids = torch.from_numpy(places).to(device)
        how: dict[str, Any] = {"use_cache": True, "return_dict": True, **self._last_only}
        if self._buffers is None:
            how[self._cache_name] = self._own
        else:
            seen = max(r.length for r in group)
            self._buffers.aim(first, torch.from_numpy(columns).to(device), seen)
            mask = torch.arange(seen, device=device) <= position_ids[:, None, :, None]
            if self._additive:
                dtype = next(model.parameters()).dtype
                mask = torch.zeros(mask.shape, dtype=dtype, device=device).masked_fill_(~mask, torch.finfo(dtype).min)
            how |= {"attention_mask": mask, "position_ids": position_ids, self._cache_name: self._buffers}
        training = model.training
        if training:
            model.eval()
        try:
            with torch.no_grad():  # not inference mode: what a model caches lazily must be fit for training later
                out = model(input_ids=torch.from_numpy(ids).to(device), **how)
        finally:
            if training:
                model.train()
        if self._buffers is None:
            self._own = getattr(out, self._cache_name)
        for r in group:
            self.computed_tokens += r.pending
            r.computed = r.length
        return out.logits[:, -1].float()


def _sees_all(model: Any, config: Any) -> bool:
    """Whether every layer is attention over all earlier tokens."""
    if getattr(model, "_is_stateful", False):
        return False
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return all(kind == "full_attention" for kind in kinds)
    return not getattr(config, "sliding_window", None)


def _sample(logits: Any, group: Sequence[_Request], kind: LogprobKind) -> tuple[list[int], list[float]]:
    """A token for each row, and its log-probability.

    The token is where the row's own random number falls in the cumulated distribution. top_k is applied before top_p, which
    keeps the smallest set of tokens that has at least that probability, as transformers and vLLM do.
    """
    import torch

    temperatures = [1.0 if r.sampling.temperature is None else r.sampling.temperature for r in group]
    greedy = torch.tensor([t == 0 for t in temperatures], device=logits.device)
    divisor = torch.tensor([t or 1.0 for t in temperatures], dtype=torch.float32, device=logits.device)
    scaled = torch.log_softmax(logits / divisor[:, None], -1)
    processed = scaled
    cut = [i for i, r in enumerate(group) if temperatures[i] and (r.sampling.top_k or (r.sampling.top_p or 1.0) < 1.0)]
    if cut:
        processed = scaled.clone()
        for i in cut:
            processed[i] = _cut_off(scaled[i], group[i].sampling.top_k or 0, group[i].sampling.top_p)
    chosen = logits.argmax(-1)
    if not all(t == 0 for t in temperatures):
        total = processed.double().exp_().cumsum(-1)
        draws = torch.tensor([[min(r.random.random(), 1 - 1e-12)] for r in group], dtype=torch.float64, device=logits.device)
        drawn = torch.searchsorted(total, draws * total[:, -1:], right=True)[:, 0]
        chosen = torch.where(greedy, chosen, drawn)
    source = {"raw": logits, "temperature_scaled": scaled, "processed": processed}[kind]
    at = source.gather(1, chosen[:, None])[:, 0]
    if kind == "raw":
        at = at - logits.logsumexp(-1)
    else:  # at temperature 0 all lies on one token
        at = torch.where(greedy, torch.zeros_like(at), at)
    return chosen.tolist(), at.tolist()


def _cut_off(logprobs: Any, top_k: int, top_p: float | None) -> Any:
    """The distribution of one row without what top_k and top_p leave out, normalized again."""
    import torch

    ordered, order = logprobs.sort(descending=True)
    keep = torch.ones_like(ordered, dtype=torch.bool)
    if top_k:
        keep[top_k:] = False
    if top_p is not None and top_p < 1.0:
        probabilities = torch.where(keep, ordered.double().exp(), 0.0)
        probabilities = probabilities / probabilities.sum()
        keep &= probabilities.cumsum(-1) - probabilities < top_p
        keep[0] = True
    result = torch.full_like(logprobs, -torch.inf)
    result[order[keep]] = ordered[keep]
    return torch.log_softmax(result, -1)


def _buffers(engine: HFEngine) -> Any:
    """The rows' keys and values, as a cache that the model writes to; made here because its class is transformers'."""
    import torch
    from transformers.cache_utils import Cache

    class Rows(Cache):  # type: ignore[misc, unused-ignore]
        """For each layer two buffers, [rows, heads, columns, dimension]; the last column takes what padding writes."""

        def __init__(self) -> None:
            super().__init__(layers=[])
            self.buffers: list[tuple[Any, Any]] = []
            self.size = (0, 0)
            self.first, self.columns, self.seen = 0, None, 0

        def reserve(self, rows: int, columns: int) -> None:
            """Makes room, keeping what is there."""
            have_rows, have_columns = self.size
            if rows <= have_rows and columns <= have_columns:
                return
            rows = have_rows if rows <= have_rows else min(max(rows, 2 * have_rows), max(engine.max_batch, rows))
            if columns <= have_columns:
                columns = have_columns
            else:
                columns = -(-columns // _ROUND) * _ROUND
            self.size = (rows, columns)
            for i, pair in enumerate(self.buffers):
                self.buffers[i] = (self._grown(pair[0]), self._grown(pair[1]))

        def _grown(self, old: Any) -> Any:
            rows, columns = self.size
            new = old.new_zeros(rows, old.shape[1], columns + 1, old.shape[3])
            new[: old.shape[0], :, : old.shape[2] - 1] = old[:, :, :-1]
            return new

        def aim(self, first: int, columns: Any, seen: int) -> None:
            """Says where the next pass writes, [rows, tokens], -1 for nowhere, and how many columns it sees."""
            self.first, self.columns, self.seen = first, columns, seen
            self.rows = torch.arange(first, first + columns.shape[0], device=columns.device)[:, None]

        def update(self, key_states: Any, value_states: Any, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            rows, columns = self.size
            while len(self.buffers) <= layer_idx:
                self.buffers.append(
                    tuple(s.new_zeros(rows, s.shape[1], columns + 1, s.shape[3]) for s in (key_states, value_states))
                )
            end = self.first + key_states.shape[0]
            seen = []
            for buffer, states in zip(self.buffers[layer_idx], (key_states, value_states), strict=True):
                buffer[self.rows, :, self.columns] = states.transpose(1, 2)
                seen.append(buffer[self.first : end, :, : self.seen])
            return seen[0], seen[1]

        def get_seq_length(self, layer_idx: int = 0) -> int:
            return self.seen

        def read(self, row: int, length: int) -> list[tuple[Any, Any]]:
            """A copy of a row's beginning."""
            return [(k[row, :, :length].clone(), v[row, :, :length].clone()) for k, v in self.buffers]

        def fill(self, row: int, layers: list[tuple[Any, Any]], length: int) -> None:
            """Writes the beginning of a row."""
            for pair, kept in zip(self.buffers, layers, strict=True):
                for buffer, tensor in zip(pair, kept, strict=True):
                    buffer[row, :, :length] = tensor[:, :length]

        def copy(self, source: int, row: int, length: int) -> None:
            """The beginning of one row into another."""
            for pair in self.buffers:
                for buffer in pair:
                    buffer[row, :, :length] = buffer[source, :, :length]

    return Rows()
