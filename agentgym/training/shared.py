# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities of many completions of few prompts, with each prompt computed once.

A group of GRPO is G completions of one prompt, and where answers are short nearly all of the work is the prompt, G times over.
Here the completions of a prompt stand behind it in one row; each sees the prompt and itself, and not its neighbours. What comes
out is the same to rounding, gradients included.
"""

from __future__ import annotations

from typing import Any


def shared_logprobs(model: Any, input_ids: Any, attention_mask: Any, keep: int, temperature: float = 1.0) -> tuple[Any, Any]:
    """Log-probabilities and entropies of the last ``keep`` columns.

    Args:
        model: a decoder of transformers that takes a mask of four dimensions, such as Llama's.
        input_ids: int64[N, T], prompts padded on the left, completions on the right; equal prompts may stand anywhere.
        attention_mask: [N, T], 0 on padding.
        keep: columns of the completions.
        temperature: logits are divided by it.

    Returns:
        float[N, keep] twice; 0.0 on padding.
    """
    import torch

    begin = input_ids.size(1) - keep
    prompts: dict[tuple[int, ...], list[int]] = {}
    for row in range(input_ids.size(0)):
        ids = input_ids[row, :begin][attention_mask[row, :begin].bool()]
        prompts.setdefault(tuple(ids.tolist()), []).append(row)
    lengths = attention_mask[:, begin:].sum(1).tolist()
    width = max(len(p) + sum(lengths[r] for r in rows) for p, rows in prompts.items())
    device = input_ids.device
    ids = torch.zeros(len(prompts), width, dtype=torch.long, device=device)
    position = torch.zeros_like(ids)
    owner = torch.full((len(prompts), width), -2, device=device)  # -1: prompt; -2: padding, which sees itself
    sources: list[tuple[int, int, int, int]] = []
    for line, (prompt, rows) in enumerate(prompts.items()):
        n = len(prompt)
        ids[line, :n] = torch.tensor(prompt, device=device)
        position[line, :n] = torch.arange(n, device=device)
        owner[line, :n] = -1
        place = n
        for row in rows:
            m = lengths[row]
            ids[line, place : place + m] = input_ids[row, begin : begin + m]
            position[line, place : place + m] = torch.arange(n, n + m, device=device)
            owner[line, place : place + m] = row
            sources.append((row, line, n, place))
            place += m
    causal = torch.ones(width, width, dtype=torch.bool, device=device).tril()
    seen = causal & ((owner[:, :, None] == owner[:, None, :]) | ((owner[:, None, :] == -1) & (owner[:, :, None] != -2)))
    dtype = next(model.parameters()).dtype
    mask = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill(~seen, torch.finfo(dtype).min)[:, None]
    decoder = model.get_decoder()
    hidden = decoder(input_ids=ids, attention_mask=mask, position_ids=position, use_cache=False).last_hidden_state
    lines, places, targets, where = [], [], [], []
    for row, line, n, place in sources:
        for j in range(lengths[row]):
            lines.append(line)
            places.append(n - 1 if j == 0 else place + j - 1)
            where.append(row * keep + j)
            targets.append(int(input_ids[row, begin + j]))
    logits = model.get_output_embeddings()(hidden[lines, places]).float() / temperature
    told = torch.log_softmax(logits, -1)
    chosen = told.gather(1, torch.tensor(targets, device=device)[:, None])[:, 0]
    index = torch.tensor(where, device=device)
    empty = torch.zeros(input_ids.size(0) * keep, device=device)
    entropy = -(told.detach().exp() * told.detach()).sum(-1)
    shape = (input_ids.size(0), keep)
    return empty.index_put((index,), chosen).view(shape), empty.index_put((index,), entropy).view(shape)
