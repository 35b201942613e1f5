# SPDX-License-Identifier: Apache-2.0
"""The model in this process: the real one, on the real engine."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from agentgym.chat import ImagePart, Message, ToolCall, assistant, system, user
from agentgym.errors import InfrastructureError, ModelFileError, NotFoundError, UsageError
from agentgym.policies import local, modelfiles
from agentgym.policies.local import LocalPolicy
from agentgym.protocols import Completion, Sampling
from agentgym.toolspec import ToolSpec

pytestmark = pytest.mark.usefixtures("model_cache")

YES = [user("Answer with just the word: yes")]
STORY = [user("Tell me a long story about a lighthouse keeper.")]
PRICE = ToolSpec("lookup_price", "Looks up a price.", {"type": "object", "properties": {"item": {"type": "string"}}})


@pytest.fixture(scope="module")
def policy(fetched: Any) -> Iterator[LocalPolicy]:
    """One policy for all tests that need nothing special, so that the model is loaded once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGENTGYM_CACHE", str(fetched.cache))
        p = LocalPolicy("smollm2", threads=1)
        p.prepare()
    yield p
    asyncio.run(p.aclose())


def act(policy: LocalPolicy, conversation: list[Message], tools: tuple[ToolSpec, ...] = (), **sampling: Any) -> Completion:
    return asyncio.run(policy.act(conversation, tools, Sampling(**sampling)))


def ids(completion: Completion) -> list[int]:
    assert completion.tokens is not None
    return completion.tokens.output_ids.tolist()  # type: ignore[no-any-return]


# -- what an answer holds ---------------------------------------------------------------------------------------------


def test_an_answer_has_text_usage_tokens_and_the_parameters_used(policy: LocalPolicy) -> None:
    c = act(policy, YES, temperature=0.0, seed=1)
    assert c.message.role == "assistant"
    assert c.message.text
    assert c.finish_reason == "stop"
    assert c.usage.prompt_tokens > 10
    assert c.tokens is not None
    assert c.tokens.output_ids.dtype == np.int32
    assert c.tokens.logprobs.dtype == np.float32
    assert len(c.tokens.output_ids) == len(c.tokens.logprobs) == c.usage.completion_tokens
    assert (c.tokens.logprobs <= 0).all()
    assert c.tokens.stop_token_in_output
    assert c.sampling is not None
    assert (c.sampling.temperature, c.sampling.top_p, c.sampling.top_k, c.sampling.max_tokens) == (0.0, 0.95, 0, 192)
    assert c.latency_s > 0


def test_unspecified_sampling_is_chosen_and_told(policy: LocalPolicy) -> None:
    c = act(policy, YES, max_tokens=2)
    assert c.sampling is not None
    assert (c.sampling.temperature, c.sampling.top_p, c.sampling.max_tokens) == (0.7, 0.95, 2)
    assert c.sampling.seed is not None


def test_max_tokens_ends_a_turn_with_length(policy: LocalPolicy) -> None:
    c = act(policy, STORY, max_tokens=5, seed=0)
    assert c.finish_reason == "length"
    assert c.usage.completion_tokens == len(ids(c)) == 5
    assert c.tokens is not None
    assert not c.tokens.stop_token_in_output


def test_a_stop_text_ends_a_turn_and_is_left_out(policy: LocalPolicy) -> None:
    whole = act(policy, STORY, temperature=0.0, max_tokens=12)
    word = whole.message.text.split()[4]
    c = act(policy, STORY, temperature=0.0, max_tokens=12, stop=(word,))
    assert c.finish_reason == "stop"
    assert c.message.text == whole.message.text[: whole.message.text.index(word)]
    assert c.tokens is not None
    assert not c.tokens.stop_token_in_output
    assert ids(c) == ids(whole)[: len(ids(c))]
    assert len(ids(c)) == c.usage.completion_tokens


def test_log_probabilities_are_the_models_own_at_every_temperature(policy: LocalPolicy) -> None:
    # the same tokens are forced by top_k = 1, so only a scaling by temperature or top_p could tell them apart
    told = [
        act(policy, STORY, temperature=t, top_p=p, top_k=1, max_tokens=8, seed=3).tokens
        for t, p in ((0.3, 1.0), (1.0, 1.0), (2.0, 1.0), (1.0, 0.1))
    ]
    assert all(t is not None and t.logprob_kind == "raw" for t in told)
    assert all(t.output_ids.tolist() == told[0].output_ids.tolist() for t in told)  # type: ignore[union-attr]
    for t in told[1:]:
        np.testing.assert_allclose(t.logprobs, told[0].logprobs, rtol=0, atol=0.02)  # type: ignore[union-attr]
    assert (told[0].logprobs < -0.05).any()  # type: ignore[union-attr]  # a certainty would look the same at any temperature


def test_every_token_of_an_emoji_is_told_though_only_its_last_has_a_log_probability() -> None:
    ten, a, b, c = 10813, 237, 247, 33
    reply = {"tokens": [ten, a, b, c, ten, b, b, c], "stop_type": "limit"}
    entries = [(b, -1.0), (c, -2.0), (b, -3.0), (c, -4.0)]
    choice = {"logprobs": {"content": [{"id": i, "logprob": p} for i, p in entries]}}
    usage = local.Usage(1, 8)
    tokens = local._tokens(choice, reply, usage)
    assert tokens is not None
    assert tokens.output_ids.tolist() == reply["tokens"]
    nan = np.nan  # the third entry belongs to either of two equal tokens: left unknown
    np.testing.assert_array_equal(tokens.logprobs, np.array([nan, nan, -1, -2, nan, nan, nan, -4], np.float32))
    assert local._tokens(choice, {"tokens": [ten]}, usage) is None  # not all tokens: rather none
    assert local._tokens(choice, {}, usage) is None


def test_emoji_of_the_real_model_keep_all_their_tokens(policy: LocalPolicy) -> None:
    told = [act(policy, [user("Write 3 emoji")], max_tokens=16, temperature=1.0, seed=i) for i in range(6)]
    assert all(len(ids(c)) == c.usage.completion_tokens for c in told)
    with_gaps = [c for c in told if np.isnan(c.tokens.logprobs).any()]  # type: ignore[union-attr]
    assert with_gaps
    assert not all(c.message.text.isascii() for c in with_gaps)


# -- seeds ------------------------------------------------------------------------------------------------------------


def test_equal_seeds_give_equal_tokens_alone_and_among_others(policy: LocalPolicy) -> None:
    async def at_once() -> list[Completion]:
        return await asyncio.gather(
            *(policy.act(STORY, (), Sampling(seed=i, max_tokens=24, temperature=1.0)) for i in range(8))
        )

    alone = [ids(act(policy, STORY, seed=i, max_tokens=24, temperature=1.0)) for i in range(8)]
    assert len({tuple(a) for a in alone}) == 8
    assert [ids(c) for c in asyncio.run(at_once())] == alone


def test_seeds_beyond_32_bits_differ_and_none_means_random_by_accident() -> None:
    def seed(s: int, messages: int = 1) -> int:
        used = local._effective(Sampling(seed=s), messages).seed
        assert used is not None
        return used

    many = [*range(1000), 2**32 - 1, 2**32, 2**40, 2**63 - 1, 2**64, -1]
    assert len({seed(s) for s in many}) == len(many)
    assert all(0 <= seed(s) < 2**32 - 1 for s in many)  # 2**32 - 1 is the engine's word for "random"


def test_each_turn_of_an_episode_has_random_numbers_of_its_own() -> None:
    assert local._effective(Sampling(seed=7), 1).seed != local._effective(Sampling(seed=7), 3).seed


@pytest.mark.parametrize(
    "bad", [{"temperature": float("nan")}, {"temperature": -1.0}, {"top_p": float("inf")}, {"max_tokens": 0}]
)
def test_senseless_sampling_is_refused_before_the_engine_sees_it(policy: LocalPolicy, bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="must be"):
        act(policy, YES, **bad)


# -- conversations ----------------------------------------------------------------------------------------------------


def test_a_conversation_beyond_the_context_ends_with_length_and_no_text() -> None:
    policy = LocalPolicy(threads=1, context=256)
    c = act(policy, [user("word " * 300)])
    assert (c.message.text, c.finish_reason) == ("", "length")
    assert c.usage.prompt_tokens > 300
    assert c.usage.completion_tokens == 0
    assert ids(c) == []

    # 241 tokens, so there is room for fifteen more: too few for a story to end by itself
    nearly = act(policy, [system("You are kind. " * 55), user("Tell me a long story.")], temperature=0.0)
    assert 0 < nearly.usage.completion_tokens <= 30
    assert nearly.finish_reason == "length"
    assert nearly.usage.prompt_tokens + nearly.usage.completion_tokens == policy.context
    asyncio.run(policy.aclose())


@pytest.mark.parametrize("text", ["a\ud800b", "a\x00b", "", "<|im_end|>", "\U0001f600"])
def test_any_text_can_be_asked(policy: LocalPolicy, text: str) -> None:
    assert act(policy, [user(text)], max_tokens=2, seed=0).usage.completion_tokens > 0


def test_a_conversation_with_tools_is_told_as_text(policy: LocalPolicy) -> None:
    conversation = [
        system("Be brief."),
        user("Price?"),
        assistant("", ToolCall("lookup_price", '{"item": "banana"}', "1")),
        Message("tool", "3", tool_call_id="1", name="lookup_price"),
    ]
    plain = act(policy, conversation, max_tokens=2, seed=0).usage.prompt_tokens
    told = act(policy, conversation, (PRICE,), max_tokens=2, seed=0).usage.prompt_tokens
    assert told > plain + 100


def reply(text: str, finish: str = "stop", **message: Any) -> dict[str, Any]:
    return {
        "choices": [{"finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1},
    }


@pytest.mark.parametrize(
    ("said", "tools", "names", "finish"),
    [
        (reply('{"name": "f", "arguments": {}}'), (PRICE,), ["f"], "tool_calls"),
        (reply('{"name": "f", "arguments": {}}'), (), [], "stop"),
        (reply('{"name": "f", "arguments": {}}', "length"), (PRICE,), ["f"], "length"),
        (reply("hello"), (PRICE,), [], "stop"),
        (reply("", reasoning_content='{"name": "f", "arguments": {}}'), (PRICE,), [], "stop"),
    ],
    ids=["call", "no tools offered", "cut after the call", "prose", "reasoning"],
)
def test_calls_are_read_where_tools_are_offered(
    policy: LocalPolicy,
    monkeypatch: pytest.MonkeyPatch,
    said: dict[str, Any],
    tools: tuple[ToolSpec, ...],
    names: list[str],
    finish: str,
) -> None:
    # the model is too small to be made to call a tool, so its words are put into the engine's mouth
    monkeypatch.setattr(local._Engine, "ask", lambda self, request: said)
    c = act(policy, YES, tools)
    assert [call.name for call in c.message.tool_calls] == names
    assert c.finish_reason == finish


def test_reasoning_is_a_part_of_its_own(policy: LocalPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local._Engine, "ask", lambda self, request: reply("yes", reasoning_content="Hm."))
    message = act(policy, YES).message
    assert (message.text, message.reasoning) == ("yes", "Hm.")


def test_an_image_is_refused_rather_than_dropped(policy: LocalPolicy) -> None:
    with pytest.raises(InfrastructureError, match="image") as e:
        act(policy, [Message("user", (ImagePart(b"x"),))])
    assert not e.value.retryable


@pytest.mark.parametrize(
    ("answer", "retryable"),
    [
        ({"error": {"code": 500, "message": "out of slots", "type": "server_error"}}, True),
        ({"error": {"code": 400, "message": "no such role", "type": "invalid_request_error"}}, False),
        ({"choices": []}, True),
        ({}, True),
    ],
)
def test_errors_of_the_engine_are_infrastructure(
    policy: LocalPolicy, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], retryable: bool
) -> None:
    monkeypatch.setattr(local._Engine, "ask", lambda self, request: answer)
    with pytest.raises(InfrastructureError, match="local engine") as e:
        act(policy, YES)
    assert e.value.retryable is retryable


def test_what_the_engine_raises_is_infrastructure(policy: LocalPolicy) -> None:
    assert policy._engine is not None
    with pytest.raises(InfrastructureError, match="the local engine failed"):
        policy._engine.ask({"messages": "not a list"})


# -- the engine -------------------------------------------------------------------------------------------------------


def test_policies_of_one_file_share_one_engine(policy: LocalPolicy) -> None:
    other = LocalPolicy("", threads=1)
    other.prepare()
    assert other._engine is policy._engine
    asyncio.run(other.aclose())
    assert other._engine is None
    assert act(policy, YES, max_tokens=1).usage.completion_tokens == 1


def test_the_model_is_not_loaded_before_the_first_turn_and_again_after_closing(policy: LocalPolicy) -> None:
    other = LocalPolicy("smollm2", threads=1)
    assert other._engine is None
    for _ in range(2):
        assert act(other, YES, max_tokens=1).usage.completion_tokens == 1
        asyncio.run(other.aclose())
        assert other._engine is None


def test_nobody_can_connect_to_the_engine(policy: LocalPolicy) -> None:
    # llama.cpp's server insists on listening; what it listens on has no port, and its name is gone
    me = psutil.Process()
    assert [c for c in me.net_connections("inet") if c.status == psutil.CONN_LISTEN] == []
    names = [c.laddr for c in me.net_connections("unix") if "engine.sock" in str(c.laddr)]
    assert names
    assert not any(Path(str(n)).parent.exists() for n in names)


def test_a_long_temporary_folder_does_not_matter(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    done = python("LocalPolicy().prepare(); print('loaded')", TMPDIR=str(deep))
    assert done.stdout == "loaded\n", done.stderr
    assert list(deep.iterdir()) == []


def test_a_cancelled_turn_is_given_up_and_leaves_the_policy_usable(policy: LocalPolicy) -> None:
    async def cancel() -> Completion:
        turns = [asyncio.create_task(policy.act(STORY, (), Sampling(max_tokens=48))) for _ in range(6)]
        await asyncio.sleep(0)  # lets them start; nothing waits for a clock
        for t in turns:
            t.cancel()
        results = await asyncio.gather(*turns, return_exceptions=True)
        assert all(isinstance(r, asyncio.CancelledError) for r in results)
        return await policy.act(YES, (), Sampling(max_tokens=2))

    assert asyncio.run(cancel()).usage.completion_tokens == 2


SETUP = """
import asyncio, os, sys
from agentgym.chat import user
from agentgym.policies.local import LocalPolicy
from agentgym.protocols import Sampling
"""


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # the time limit only keeps a deadlock from holding up the test run
    return subprocess.run(
        [sys.executable, "-c", SETUP + code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_process_ends_by_itself_right_after_loading() -> None:
    # a server freed before its loop has begun would wait for ever, in about half of the cases
    for _ in range(4):
        done = python("p = LocalPolicy(); p.prepare(); print('loaded', flush=True)")
        assert (done.returncode, done.stdout) == (0, "loaded\n"), done.stderr


def test_a_process_ends_by_itself_in_the_middle_of_a_turn() -> None:
    code = """
async def main():
    p = LocalPolicy()
    p.prepare()
    turn = asyncio.create_task(p.act([user("Tell me a story.")], (), Sampling(max_tokens=64)))
    await asyncio.sleep(0)
    turn.cancel()
    await p.aclose()
asyncio.run(main())
print("over")
"""
    done = python(code)
    assert (done.returncode, done.stdout) == (0, "over\n"), done.stderr


ONE_TURN = "print(asyncio.run(LocalPolicy().act([user('Hi')], (), Sampling(max_tokens=2))).usage.completion_tokens)"


def test_the_engine_is_silent_unless_asked() -> None:
    quiet = python(ONE_TURN)
    assert (quiet.stdout, quiet.stderr) == ("2\n", "")
    loud = python(ONE_TURN, AGENTGYM_VERBOSE="1")
    assert loud.stdout.endswith("2\n")
    assert "llama" in loud.stdout + loud.stderr


def test_importing_agentgym_or_the_policy_does_not_import_the_engine() -> None:
    done = python("import agentgym; p = LocalPolicy(); p.fingerprint(); print('xllamacpp' in sys.modules)")
    assert done.stdout == "False\n", done.stderr


# -- which model ------------------------------------------------------------------------------------------------------


def test_names_paths_and_the_default() -> None:
    assert LocalPolicy().name == LocalPolicy("").name == "local:smollm2"
    assert LocalPolicy("smollm2").slots == 4


def test_a_file_is_played_by_its_path(fetched: Any, policy: LocalPolicy) -> None:
    by_path = LocalPolicy(str(fetched.path), threads=1)
    assert by_path.name == f"local:{fetched.path}"
    assert by_path.fingerprint()["sha256"] == policy.fingerprint()["sha256"]
    by_path.prepare()
    assert by_path._engine is policy._engine
    asyncio.run(by_path.aclose())


def test_the_fingerprint_says_what_plays(policy: LocalPolicy) -> None:
    fingerprint = policy.fingerprint()
    known = modelfiles.KNOWN["smollm2"]
    assert (fingerprint["name"], fingerprint["sha256"], fingerprint["bytes"]) == ("local:smollm2", known.sha256, known.size)
    assert fingerprint["engine_version"] == importlib.metadata.version("xllamacpp")
    assert fingerprint["sampling"]["temperature"] == 0.7


def test_an_unknown_name_names_its_neighbour() -> None:
    with pytest.raises(NotFoundError, match=r"no local model 'smolm2'\. Did you mean: smollm2\?"):
        LocalPolicy("smolm2")


@pytest.mark.parametrize("argument", ["there/is/none.gguf", "none.gguf"])
def test_a_path_that_does_not_exist_is_told_at_once(argument: str) -> None:
    with pytest.raises(NotFoundError, match=r"there is no model file .*none\.gguf"):
        LocalPolicy(argument)


@pytest.mark.parametrize("content", [b"", b"GGU", b"PK\x03\x04 a zip file"])
def test_a_file_of_another_kind_is_told_at_once(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is not a GGUF file"):
        LocalPolicy(str(path))


def test_a_folder_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        LocalPolicy(f"{tmp_path}/")


def test_a_file_that_vanishes_before_it_is_loaded_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    policy = LocalPolicy(str(path))
    path.unlink()
    with pytest.raises(ModelFileError, match="cannot be read"):
        policy.prepare()


@pytest.mark.parametrize("damage", ["header only", "cut", "garbled"])
def test_a_damaged_file_is_an_error_and_not_the_end_of_the_process(fetched: Any, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "damaged.gguf"
    whole = fetched.path.read_bytes()
    path.write_bytes(
        {"header only": b"GGUF" + bytes(200), "cut": whole[:50_000_000], "garbled": whole[:64] + bytes(range(256)) * 4000}[
            damage
        ]
    )
    policy = LocalPolicy(str(path), threads=1)
    with pytest.raises(ModelFileError, match="the engine cannot load"):
        policy.prepare()
    with pytest.raises(InfrastructureError, match="the engine cannot load") as e:
        act(policy, YES)
    assert not e.value.retryable


def test_a_missing_model_is_fetched_at_the_first_turn(tmp_path: Path, fetched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTGYM_CACHE", str(tmp_path))

    def fetch(name: str, progress: Callable[[str], None]) -> Path:  # that of the tests of modelfiles is the real one
        progress("fetching\n")
        path = modelfiles.cached_path(name)
        path.parent.mkdir(parents=True)
        shutil.copy(fetched.path, path)
        return path

    monkeypatch.setattr(modelfiles, "fetch", fetch)
    said: list[str] = []
    policy = LocalPolicy(threads=1, progress=said.append)
    assert said == []
    assert act(policy, YES, max_tokens=1).usage.completion_tokens == 1
    assert said == ["fetching\n"]
    asyncio.run(policy.aclose())


def test_a_model_that_cannot_be_fetched_is_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTGYM_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    said: list[str] = []
    policy = LocalPolicy(progress=said.append)

    async def two_turns() -> list[Any]:
        return await asyncio.gather(*(policy.act(YES, (), Sampling()) for _ in range(2)), return_exceptions=True)

    for error in asyncio.run(two_turns()):
        assert isinstance(error, InfrastructureError)
        assert not error.retryable
        assert "agentgym fetch smollm2" in str(error)
        assert "--model oracle:honest" in str(error)
    assert "".join(said) == "fetching SmolLM2-135M-Instruct (93 MB) ... failed\n"
    asyncio.run(policy.aclose())


def test_a_file_put_by_hand_that_is_another_one_does_not_play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTGYM_CACHE", str(tmp_path))
    path = modelfiles.cached_path("smollm2")
    path.parent.mkdir(parents=True)
    with path.open("wb") as f:
        f.write(b"GGUF")
        f.truncate(modelfiles.KNOWN["smollm2"].size)
    with pytest.raises(ModelFileError, match="is not SmolLM2-135M-Instruct: its sha256"):
        LocalPolicy().prepare()


# -- on a busy machine ------------------------------------------------------------------------------------------------


def test_the_engine_is_loaded_so_that_its_threads_do_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    with local._no_spinning():
        assert os.environ["GOMP_SPINCOUNT"] == "1000"
    assert "GOMP_SPINCOUNT" not in os.environ, "programs started later decide for themselves"


@pytest.mark.parametrize(("name", "value"), [("GOMP_SPINCOUNT", "77"), ("OMP_WAIT_POLICY", "active")])
def test_who_has_decided_about_spinning_is_left_alone(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for known in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(known, raising=False)
    monkeypatch.setenv(name, value)
    with local._no_spinning():
        assert os.environ.get("GOMP_SPINCOUNT") == (value if name == "GOMP_SPINCOUNT" else None)
