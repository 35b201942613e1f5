# SPDX-License-Identifier: Apache-2.0
"""Reward models: a number that a network gives a conversation, or each of its turns (extra ``hf``: torch, transformers).

`SequenceReward` is a transformers sequence classifier of one output, `ImplicitReward` the log-ratio of two language models;
both score many conversations in batches of like length. `reward_model` makes a verifier of one of them or of an ensemble;
`process_reward` one that scores every turn.

What a reward model reads was written by who is scored: special tokens in it are made harmless (`judge_text.neutral`), so that
no text can open a turn of its own. What does not fit is cut at the front, and the score says so.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from agentgym.chat import Message
from agentgym.errors import DefinitionError, InfrastructureError, NotFoundError, UsageError
from agentgym.evaluators.ensemble import How, combine
from agentgym.evaluators.judge_text import neutral
from agentgym.scoring import Score, Verifier, VerifierContext, verifier
from agentgym.trajectory import Trajectory

PLAIN = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
"""Chat template for tokenizers that bring none."""

Conversation = Sequence[Message]


class Scorer(Protocol):
    """What gives conversations numbers."""

    name: str

    def scores(self, conversations: Sequence[Conversation]) -> np.ndarray:
        """float64[conversations]; higher is better."""
        ...

    def left_out(self, conversation: Conversation) -> int:
        """Tokens of it that do not fit."""
        ...


def rows_of(conversation: Conversation) -> list[dict[str, str]]:
    """The conversation as a chat template takes it: text and calls, without reasoning, tool answers as users' words."""
    rows = []
    for m in conversation:
        calls = "".join(f"\n{c.name}({c.arguments})" for c in m.tool_calls)
        role = "user" if m.role == "tool" else m.role
        rows.append({"role": role, "content": neutral(f"{m.text}{calls}".strip())})
    return rows


class _Model:
    """A folder of ``save_pretrained``, loaded once, when it is first needed."""

    def __init__(self, folder: str | Path, kind: str, device: str | None) -> None:
        for package in ("torch", "transformers"):
            if importlib.util.find_spec(package) is None:
                raise UsageError(f"reward models need the package {package}: pip install 'agentgym-harness[hf]'")
        self.folder = Path(folder).expanduser().absolute()
        if not (self.folder / "config.json").is_file():
            raise NotFoundError(
                f"{folder}: expected a folder with config.json, weights and tokenizer, as save_pretrained writes it"
            )
        self.kind = kind
        self.device = device
        self.lock = threading.Lock()
        """Held while the model runs: torch uses all its threads for one batch."""

    @functools.cached_property
    def digest(self) -> str:
        """Over configuration, tokenizer and weights."""
        digest = hashlib.sha256()
        for file in sorted(self.folder.iterdir()):
            if file.suffix in (".json", ".safetensors", ".jinja", ".model"):
                with file.open("rb") as f:
                    digest.update(file.name.encode() + hashlib.file_digest(f, "sha256").digest())
        return digest.hexdigest()[:12]

    @functools.cached_property
    def loaded(self) -> tuple[Any, Any]:
        """Model and tokenizer. Weights are read from safetensors only: a pickle runs code.

        Raises:
            InfrastructureError: they cannot be loaded.
        """
        import torch
        import transformers

        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
            load = getattr(transformers, self.kind).from_pretrained
            model = load(self.folder, local_files_only=True, use_safetensors=True)
        except (OSError, ValueError, RuntimeError, ImportError) as e:
            raise InfrastructureError(f"the reward model {self.folder.name} cannot be loaded: {e}", retryable=False) from e
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        if model.config.pad_token_id is None:
            model.config.pad_token_id = tokenizer.pad_token_id
        return model.to(self.device or ("cuda" if torch.cuda.is_available() else "cpu")).eval(), tokenizer

    def ids(self, conversation: Conversation) -> list[int]:
        """Token ids of a conversation, whole."""
        _, tokenizer = self.loaded
        text = tokenizer.apply_chat_template(
            rows_of(conversation), tokenize=False, chat_template=tokenizer.chat_template or PLAIN
        )
        found: list[int] = tokenizer(text, add_special_tokens=tokenizer.chat_template is None)["input_ids"]
        return found

    def room(self, most: int | None) -> int:
        """Tokens that fit."""
        own = getattr(self.loaded[0].config, "max_position_embeddings", None)
        return min(x for x in (own, most, 1 << 30) if x is not None)


def _in_batches(rows: Sequence[Sequence[int]], size: int, run: Callable[[list[int]], np.ndarray]) -> np.ndarray:
    """``run`` on indices of rows of like length, at most ``size`` at once; what it gave, in the rows' own order."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    result = np.zeros(len(rows))
    for start in range(0, len(order), size):
        part = order[start : start + size]
        result[part] = run(part)
    return result


class SequenceReward:
    """A sequence classifier with one output, by transformers.

    Args:
        folder: model and tokenizer, as ``save_pretrained`` writes them; weights as safetensors.
        batch: conversations at once.
        most_tokens: of one conversation that are read, the last ones; None: as many as the model has positions for.
        device: torch device; None: CUDA where there is one.

    Raises:
        NotFoundError: there is no such folder.
        UsageError: torch or transformers is missing.
    """

    def __init__(
        self, folder: str | Path, *, batch: int = 16, most_tokens: int | None = None, device: str | None = None
    ) -> None:
        self._model = _Model(folder, "AutoModelForSequenceClassification", device)
        self.name = f"reward:{self._model.folder.name}"
        self.batch = batch
        self.most_tokens = most_tokens

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._model.digest}, {self.most_tokens})"

    def left_out(self, conversation: Conversation) -> int:
        """Tokens of it that do not fit."""
        return max(0, len(self._model.ids(conversation)) - self._model.room(self.most_tokens))

    def scores(self, conversations: Sequence[Conversation]) -> np.ndarray:
        """float64[conversations], the raw output: only differences mean something.

        Raises:
            InfrastructureError: the model cannot be loaded, or gives something else than one finite number each.
        """
        import torch

        model, tokenizer = self._model.loaded
        room = self._model.room(self.most_tokens)
        rows = [self._model.ids(c)[-room:] or [tokenizer.pad_token_id] for c in conversations]

        def run(part: list[int]) -> np.ndarray:
            longest = max(len(rows[i]) for i in part)
            # on the right: the last token that is no padding is the one that is read
            ids = torch.tensor([[*rows[i], *[tokenizer.pad_token_id] * (longest - len(rows[i]))] for i in part])
            mask = torch.tensor([[1] * len(rows[i]) + [0] * (longest - len(rows[i])) for i in part])
            with self._model.lock, torch.inference_mode():
                logits = (
                    model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits.float().cpu().numpy()
                )
            if logits.shape != (len(part), 1) or not np.isfinite(logits).all():
                raise InfrastructureError(
                    f"{self.name} gave {logits.shape} numbers for {len(part)} conversations, or none", retryable=False
                )
            found: np.ndarray = logits[:, 0]
            return found

        return _in_batches(rows, self.batch, run)


class ImplicitReward:
    """beta (log pi(y|x) - log pi_ref(y|x)) of the assistant's tokens, by two causal language models of one tokenizer.

    The reward that a policy trained by DPO stands for (Rafailov et al. 2023, arXiv 2305.18290); per turn, a process reward
    (Yuan et al. 2024, arXiv 2412.01981).

    Args:
        policy: folder of the trained model.
        reference: folder of the model it was trained from.
        beta: scale.
        per_token: divide by the number of tokens, so that length as such earns nothing.
        batch: conversations at once.
        most_tokens: of one conversation that are read, the last ones.
        device: torch device.

    Raises:
        NotFoundError: there is no such folder.
        UsageError: torch or transformers is missing.
    """

    def __init__(
        self, policy: str | Path, reference: str | Path, *, beta: float = 0.1, per_token: bool = False, batch: int = 8,
        most_tokens: int | None = None, device: str | None = None,
    ) -> None:  # fmt: skip
        self._policy = _Model(policy, "AutoModelForCausalLM", device)
        self._reference = _Model(reference, "AutoModelForCausalLM", device)
        self.name = f"implicit:{self._policy.folder.name}"
        self.beta = beta
        self.per_token = per_token
        self.batch = batch
        self.most_tokens = most_tokens

    def __repr__(self) -> str:
        how = (self.beta, self.per_token, self.most_tokens)
        return f"ImplicitReward({self._policy.digest}, {self._reference.digest}, {how})"

    def _room(self) -> int:
        return min(self._policy.room(self.most_tokens), self._reference.room(self.most_tokens))

    def left_out(self, conversation: Conversation) -> int:
        """Tokens of it that do not fit."""
        return max(0, len(self._policy.ids(conversation)) - self._room())

    def turn_scores(self, conversations: Sequence[Conversation]) -> list[np.ndarray]:
        """For each conversation, float64[assistant messages]: the log-ratio of each message's tokens."""
        rows, spans = [], []
        for conversation in conversations:
            ids, own = self._spans(conversation)
            cut = max(0, len(ids) - self._room())
            rows.append(ids[cut:])
            spans.append([(max(0, a - cut), max(0, b - cut)) for a, b in own])
        ratio = self._ratios(rows)
        result = []
        for per_token, own in zip(ratio, spans, strict=True):
            sums = [float(per_token[a:b].sum()) / (max(1, b - a) if self.per_token else 1) for a, b in own]
            result.append(self.beta * np.array(sums))
        return result

    def scores(self, conversations: Sequence[Conversation]) -> np.ndarray:
        """float64[conversations]: the sum over the assistant's messages (with ``per_token``, the mean)."""
        turns = self.turn_scores(conversations)
        return np.array([0.0 if not len(t) else float(t.mean() if self.per_token else t.sum()) for t in turns])

    def _spans(self, conversation: Conversation) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids, and where each assistant message's tokens lie: between the ids of the prefixes without and with it."""
        spans, before = [], 0
        whole = self._policy.ids(conversation)
        for i, m in enumerate(conversation):
            after = _shared(whole, self._policy.ids(conversation[: i + 1]))
            if m.role == "assistant":
                spans.append((before, after))
            before = after
        return whole, spans

    def _ratios(self, rows: list[list[int]]) -> list[np.ndarray]:
        """Per row, float64[tokens]: log pi - log pi_ref of each token; 0 for the first, which nothing precedes."""
        result: list[np.ndarray] = [np.zeros(len(r)) for r in rows]
        for sign, model in ((1.0, self._policy), (-1.0, self._reference)):
            order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
            for start in range(0, len(order), self.batch):
                part = order[start : start + self.batch]
                for i, found in zip(part, _log_probabilities(model, [rows[i] for i in part]), strict=True):
                    result[i][1:] += sign * found
        return result


def _shared(whole: Sequence[int], prefix: Sequence[int]) -> int:
    """How many ids at the beginning are the same."""
    n = 0
    for a, b in zip(whole, prefix, strict=False):
        if a != b:
            break
        n += 1
    return n


def _log_probabilities(model: _Model, rows: Sequence[Sequence[int]]) -> list[np.ndarray]:
    import torch

    net, tokenizer = model.loaded
    longest = max(2, *(len(r) for r in rows)) if rows else 2
    ids = torch.tensor([[*r, *[tokenizer.pad_token_id or 0] * (longest - len(r))] for r in rows])
    mask = torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in rows])
    with model.lock, torch.inference_mode():
        logits = net(input_ids=ids.to(net.device), attention_mask=mask.to(net.device)).logits.float()
        found = torch.log_softmax(logits[:, :-1], -1).gather(2, ids[:, 1:, None].to(net.device))[:, :, 0].cpu().double().numpy()
    return [found[i, : max(0, len(r) - 1)] for i, r in enumerate(rows)]


# -- verifiers ----------------------------------------------------------------------------------------------------------


class Ensemble:
    """Several scorers as one; see `ensemble.combine`.

    Args:
        members: at least one.
        how: ``mean``, ``worst`` or ``uncertainty``.
        penalty: of the disagreement, for ``uncertainty``.
    """

    def __init__(self, members: Sequence[Scorer], how: How = "worst", penalty: float = 1.0) -> None:
        if not members:
            raise DefinitionError("an ensemble needs a member")
        self.members = tuple(members)
        self.how: How = how
        self.penalty = penalty
        self.name = f"{how} of {len(members)}"
        combine(np.zeros((len(members), 1)), how, penalty=penalty)

    def __repr__(self) -> str:
        return f"Ensemble({self.members!r}, {self.how}, {self.penalty})"

    def left_out(self, conversation: Conversation) -> int:
        """The most that a member leaves out."""
        return max(m.left_out(conversation) for m in self.members)

    def by_member(self, conversations: Sequence[Conversation]) -> np.ndarray:
        """float64[members, conversations]."""
        return np.stack([m.scores(conversations) for m in self.members])

    def scores(self, conversations: Sequence[Conversation]) -> np.ndarray:
        """float64[conversations]."""
        return combine(self.by_member(conversations), self.how, penalty=self.penalty)


def _squashed(value: float, squash: str) -> float:
    if squash == "none":
        return value
    return 1.0 / (1.0 + math.exp(-value)) if value >= 0 else math.exp(value) / (1.0 + math.exp(value))


def reward_model(
    scorer: Scorer, *, name: str = "reward_model", squash: Literal["sigmoid", "none"] = "sigmoid", weight: float = 1.0
) -> Verifier:
    """A verifier that gives an episode what a reward model gives its conversation.

    Args:
        scorer: `SequenceReward`, `ImplicitReward`, `Ensemble`, or anything of their shape.
        name: of the verifier and its score.
        squash: ``sigmoid`` into (0, 1), as gold must be; ``none``: as it is.
        weight: share in the proxy reward.
    """
    if squash not in ("sigmoid", "none"):
        raise DefinitionError(f"squash is 'sigmoid' or 'none', not {squash!r}")

    @verifier(name=name, weight=weight)
    def modelled(trajectory: Trajectory, context: VerifierContext) -> Score:
        conversation = trajectory.messages
        evidence: dict[str, Any] = {"model": scorer.name}
        if isinstance(scorer, Ensemble):
            members = scorer.by_member([conversation])
            evidence["members"] = members[:, 0].tolist()
            raw = float(combine(members, scorer.how, penalty=scorer.penalty)[0])
        else:
            raw = float(scorer.scores([conversation])[0])
        left_out = scorer.left_out(conversation)
        flags = ("truncated",) if left_out else ()
        evidence |= {"raw": raw, **({"left_out_tokens": left_out} if left_out else {})}
        return Score(name, value=_squashed(raw, squash), flags=flags, evidence=evidence)

    return modelled


Together = Literal["min", "mean", "product", "last"]


def turn_scores(scorer: Scorer, trajectory: Trajectory) -> np.ndarray:
    """float64[turns]: what a reward model gives each turn.

    An `ImplicitReward` gives each its own log-ratio; another scorer reads the conversation up to each turn.
    """
    if isinstance(scorer, ImplicitReward):
        found = scorer.turn_scores([trajectory.messages])[0]
        shown = sum(m.role == "assistant" for m in trajectory.opening)
        return found[shown:][: len(trajectory.turns)]
    prefixes, so_far = [], list(trajectory.opening)
    for turn in trajectory.turns:
        so_far.append(turn.message)
        prefixes.append(list(so_far))
        so_far += turn.observation
    return scorer.scores(prefixes) if prefixes else np.zeros(0)


def process_reward(
    scorer: Scorer,
    *,
    together: Together = "min",
    name: str = "process",
    squash: Literal["sigmoid", "none"] = "sigmoid",
    weight: float = 1.0,
) -> Verifier:
    """A verifier that scores every turn and gives the episode their least, mean, product or last.

    Evidence ``turns`` are the turns' own scores, for `credit.by_shares` and `credit.by_potential`.

    Args:
        scorer: see `turn_scores`.
        together: ``min`` (a chain is as good as its worst step), ``mean``, ``product`` or ``last``.
        name: of the verifier and its score.
        squash: each turn's score by ``sigmoid`` or as it is.
        weight: share in the proxy reward.
    """
    ways: dict[str, Callable[[np.ndarray], Any]] = {"min": np.min, "mean": np.mean, "product": np.prod, "last": lambda v: v[-1]}
    if together not in ways:
        raise DefinitionError(f"together is one of {', '.join(ways)}, not {together!r}")

    @verifier(name=name, weight=weight)
    def stepwise(trajectory: Trajectory, context: VerifierContext) -> Score | None:
        if not trajectory.turns:
            return None
        turns = np.array([_squashed(float(v), squash) for v in turn_scores(scorer, trajectory)])
        flags = ("truncated",) if scorer.left_out(trajectory.messages) else ()
        return Score(
            name, value=float(ways[together](turns)), flags=flags, evidence={"model": scorer.name, "turns": turns.tolist()}
        )

    return stepwise
