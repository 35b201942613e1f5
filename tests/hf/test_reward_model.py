# SPDX-License-Identifier: Apache-2.0
"""Reward models: batches change no score, what is cut is told, one that is trained here tells good transcripts from bad."""

from __future__ import annotations

import importlib.util
import json
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import agentgym
from agentgym.chat import Message, assistant, call, user
from agentgym.errors import InfrastructureError, NotFoundError
from agentgym.evaluators.credit import by_shares
from agentgym.evaluators.reward_model import Ensemble, ImplicitReward, SequenceReward, process_reward, reward_model, turn_scores
from agentgym.scoring import Score, Verifier, VerifierContext, verify
from agentgym.task import FrozenTask
from agentgym.trajectory import Trajectory, Turn

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "reward_model" / "train.py"
CONTEXT = VerifierContext(
    FrozenTask(
        family="test.x", version=1, variant="control", item="0", seed=None, params={}, opening=(user("?"),), tools=(),
        state=None, gold=None, hidden=None, cluster="x", tags=(),
    )
)  # fmt: skip
TALKS = [
    [user("What is 6 times 7?"), assistant("It is 42.")],
    [user("What is 6 times 7?"), assistant("I would rather not say. " * 9)],
    [user("Look it up."), call("look", at="x"), Message("tool", "42"), assistant("42")],
    [user("?"), assistant("")],
]


@pytest.fixture(scope="module")
def example() -> Any:
    spec = importlib.util.spec_from_file_location("train_reward_model", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, example: Any) -> dict[str, Path]:
    """Untrained models: two classifiers, two language models."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("models")
    tokenizer = example.tokenizer_of(["user: What is it?\nassistant: It is 42.\n"], 300)
    made = {}
    for i, name in enumerate(("a", "b", "policy", "reference")):
        torch.manual_seed(i)
        config = transformers.LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=192, num_labels=1, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None, initializer_range=0.3,
        )  # fmt: skip
        kind = transformers.LlamaForSequenceClassification if len(name) == 1 else transformers.LlamaForCausalLM
        made[name] = root / name
        kind(config).save_pretrained(made[name])
        tokenizer.save_pretrained(made[name])
    return made


def played(*messages: Message) -> Trajectory:
    return Trajectory(
        task_id="test.x/control/0", opening=(messages[0],), turns=[Turn(i, m) for i, m in enumerate(messages[1:])]
    )


def asked(v: Verifier, trajectory: Trajectory) -> Score:
    ((score,), _) = verify([v], "gold", trajectory, CONTEXT)
    return score


@pytest.mark.parametrize("kind", ["sequence", "implicit"])
def test_batches_change_no_score(folders: dict[str, Path], kind: str) -> None:
    def make(batch: int) -> Any:
        if kind == "sequence":
            return SequenceReward(folders["a"], batch=batch)
        return ImplicitReward(folders["policy"], folders["reference"], batch=batch)

    alone = np.concatenate([make(1).scores([c]) for c in TALKS])
    np.testing.assert_allclose(make(16).scores(TALKS), alone, atol=1e-4)
    np.testing.assert_allclose(make(2).scores(TALKS[::-1])[::-1], alone, atol=1e-4)
    assert len(set(alone.round(4))) > 1


def test_a_sequence_reward_is_the_models_own_output(folders: dict[str, Path]) -> None:
    scorer = SequenceReward(folders["a"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["a"])
    text = "user: What is 6 times 7?\nassistant: It is 42.\n<|end|>"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folders["a"]).eval()
    with torch.no_grad():
        wanted = float(model(**tokenizer(text, return_tensors="pt")).logits[0, 0])
    assert scorer.scores(TALKS[:1])[0] == pytest.approx(wanted, abs=1e-5)


def test_what_was_done_is_part_of_what_is_scored(folders: dict[str, Path]) -> None:
    """By words alone, a cancelled order and one that nobody touched are the same conversation."""
    scorer = SequenceReward(folders["a"])
    cancelled, other = ([user("Cancel O-1."), call("cancel", order=o), assistant("Done.")] for o in ("O-1", "O-2"))
    idle = [user("Cancel O-1."), assistant(""), assistant("Done.")]
    assert len({round(float(s), 5) for s in scorer.scores([cancelled, other, idle])}) == 3


def test_an_implicit_reward_is_the_log_ratio_of_the_answers_tokens_alone(folders: dict[str, Path]) -> None:
    scorer = ImplicitReward(folders["policy"], folders["reference"], beta=0.5)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["policy"])
    prompt, whole = (
        tokenizer(t)["input_ids"]
        for t in ("user: What is 6 times 7?\n", "user: What is 6 times 7?\nassistant: It is 42.\n<|end|>")
    )
    total = 0.0
    for sign, name in ((1, "policy"), (-1, "reference")):
        model = transformers.AutoModelForCausalLM.from_pretrained(folders[name]).eval()
        with torch.no_grad():
            logs = torch.log_softmax(model(torch.tensor([whole])).logits[0].float(), -1)
        total += sign * sum(float(logs[i - 1, whole[i]]) for i in range(len(prompt), len(whole)))
    assert scorer.scores(TALKS[:1])[0] == pytest.approx(0.5 * total, abs=1e-3)
    assert ImplicitReward(folders["policy"], folders["policy"]).scores(TALKS).tolist() == [0.0] * len(TALKS)


def test_what_does_not_fit_is_cut_in_front_and_told(folders: dict[str, Path]) -> None:
    scorer = SequenceReward(folders["a"], most_tokens=40)
    end = assistant("the end of it")
    long, longer = ([user("word " * n), end] for n in (200, 300))
    score = asked(reward_model(scorer), played(*long))
    assert score.flags == ("truncated",)
    assert score.evidence["left_out_tokens"] > 100
    assert scorer.scores([long])[0] == pytest.approx(scorer.scores([longer])[0], abs=1e-5)
    assert asked(reward_model(scorer), played(user("?"), end)).flags == ()


def test_no_text_opens_a_turn_of_its_own(folders: dict[str, Path]) -> None:
    scorer = SequenceReward(folders["a"])
    ids = scorer._model.ids([user("?"), assistant("yes<|end|>\x00<|pad|>")])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["a"])
    assert ids.count(tokenizer.eos_token_id) == 1
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.pad_token_id not in ids


def test_an_ensemble_keeps_what_each_member_said(folders: dict[str, Path]) -> None:
    members = [SequenceReward(folders[n]) for n in "ab"]
    single = np.stack([m.scores(TALKS) for m in members])
    np.testing.assert_allclose(Ensemble(members, "worst").scores(TALKS), single.min(0), atol=1e-5)
    np.testing.assert_allclose(
        Ensemble(members, "uncertainty", 2.0).scores(TALKS), single.mean(0) - 2 * single.std(0), atol=1e-5
    )
    score = asked(reward_model(Ensemble(members, "worst")), played(*TALKS[0]))
    assert score.evidence["members"] == pytest.approx(single[:, 0].tolist(), abs=1e-4)
    assert score.value is not None
    assert 0 < score.value < 1


@pytest.mark.parametrize("kind", ["sequence", "implicit"])
def test_every_turn_has_a_score(folders: dict[str, Path], kind: str) -> None:
    scorer = SequenceReward(folders["a"]) if kind == "sequence" else ImplicitReward(folders["policy"], folders["reference"])
    trajectory = played(user("?"), assistant("first I look"), assistant("then I say"), assistant("done"))
    turns = turn_scores(scorer, trajectory)
    assert turns.shape == (3,)
    if kind == "implicit":
        assert turns.sum() == pytest.approx(scorer.scores([trajectory.messages])[0], abs=1e-6)
    score = asked(process_reward(scorer, together="min"), trajectory)
    assert score.value == pytest.approx(min(score.evidence["turns"]))
    assert by_shares(score.evidence["turns"])(trajectory, 1.0).sum() == pytest.approx(1.0)


def test_a_model_that_cannot_be_had_gives_no_score(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        SequenceReward(tmp_path)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InfrastructureError):
        SequenceReward(tmp_path).scores(TALKS)
    score = asked(reward_model(SequenceReward(tmp_path)), played(*TALKS[0]))
    assert (score.value, score.status) == (None, "unscorable")


def test_the_hash_is_that_of_the_weights(folders: dict[str, Path]) -> None:
    a, again, b = (reward_model(SequenceReward(folders[n])) for n in "aab")
    assert a.hash == again.hash != b.hash


def test_a_model_trained_here_tells_unseen_good_transcripts_from_bad_ones_and_scores_a_run(
    example: Any, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    rows, unseen = example.preferences("train", 12), example.preferences("eval", 4)
    assert not {r["task_id"] for r in rows} & {r["task_id"] for r in unseen}
    texts = ["".join(m.text for m in [*r["prompt"], *r["chosen"], *r["rejected"]]) for r in rows]
    tokenizer = example.tokenizer_of(texts, 600)
    # with the calls: by words alone, work that was done and a cheat that does the same unasked are alike
    call = "{% for c in m['tool_calls'] or [] %} {{ c['function']['name'] }}({{ c['function']['arguments'] }}){% endfor %}"
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}" + call + "\n{% endfor %}<|end|>"
    folder = tmp_path / "member-0"
    example.train(rows, tokenizer, folder, steps=30, seed=0, positions=192)
    assert (folder / "model.safetensors").is_file()
    found = example.report(unseen, folder)
    assert found["in_order"] >= 0.9
    json.dumps(found)
    env = tmp_path / "paid.py"
    env.write_text(
        textwrap.dedent(
            f'''
            """The retail desk, paid by a reward model."""
            from agentgym.evaluators.reward_model import SequenceReward, reward_model
            from agentgym.tasks.tools.retail import Retail

            class Paid(Retail):
                """The same desk."""
                family = "test.paid"
                proxy = [reward_model(SequenceReward({str(folder)!r}))]
            '''
        ),
        encoding="utf-8",
    )
    paid = {}
    for oracle in ("honest", "lazy"):
        run = agentgym.evaluate(f"{env}:Paid", f"oracle:{oracle}", limit=3, split="eval", runs=tmp_path / "runs")
        paid[oracle] = [e.reward for e in run.episodes()]
        assert all(e.gold == (1.0 if oracle == "honest" else 0.0) for e in run.episodes())
    assert min(paid["honest"]) > max(paid["lazy"])
