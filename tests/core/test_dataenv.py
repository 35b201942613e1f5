# SPDX-License-Identifier: Apache-2.0
"""Environments over data: one task a row, the same everywhere; a bad file is named by file and line before anything runs."""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

from agentgym import dataenv
from agentgym.chat import assistant
from agentgym.dataenv import DataEnv, field, load_rows
from agentgym.env import Plan, Task
from agentgym.errors import DataError, NotFoundError, NothingSelectedError, UsageError
from agentgym.scoring import VerifierContext, verifier
from agentgym.trajectory import Trajectory


@verifier
def said(trajectory: Trajectory, context: VerifierContext) -> float:
    return float(trajectory.final_text == context.task.gold)


class Capitals(DataEnv):
    """Name the capital."""

    family = "test.capitals"
    standard_name = "capitals.jsonl"
    variants = ("control", "shout")
    parameters = {"polite": False}
    gold = (said,)

    def row_id(self, row: dict[str, Any], index: int) -> str:
        return field(row, "id", str) if "id" in row else str(index)

    def row_task(self, row: dict[str, Any]) -> Task:
        please = " Please." if self.polite else ""
        return Task(opening=f"Capital of {field(row, 'country', str)}?{please}", gold=field(row, "capital", str))

    def apply_variant(self, task: Task, variant: str, rng: np.random.Generator) -> Task:
        task.opening = f"{task.opening} {'!' * int(rng.integers(3, 9))}"
        return task

    def honest(self, task: Task) -> Plan:
        yield assistant(task.gold)


ROWS = [
    {"country": "Peru", "capital": "Lima"},
    {"country": "Kenya", "capital": "Nairobi"},
    {"country": "Österreich", "capital": "Wien"},
]
LINES = [json.dumps(row, ensure_ascii=False) for row in ROWS]

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file of these lines (text or bytes) and returns its path."""

    def make(*lines: str | bytes, name: str = "capitals.jsonl") -> str:
        data = b"".join((line.encode() if isinstance(line, str) else line) + b"\n" for line in lines)
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return str(path)

    return make


def complaint(data: str, **kwargs: Any) -> str:
    """What is said about a data file."""
    with pytest.raises(DataError) as caught:
        Capitals(data=data, **kwargs).items()
    return str(caught.value)


# -- rows are tasks ---------------------------------------------------------------------------------------------------


def test_each_row_is_a_task_in_the_order_of_the_file(write: Write) -> None:
    env = Capitals(data=write(*LINES))
    assert env.items() == ["0", "1", "2"]
    assert env.items(2) == ["0", "1"]
    task = env.make_task("2")
    assert (task.id, task.opening, task.gold, task.seed) == ("test.capitals/control/2", "Capital of Österreich?", "Wien", None)


def test_an_episode_of_a_row_is_paid_by_its_gold_and_shows_nothing_of_it(write: Write) -> None:
    env = Capitals(data=write(*LINES))
    opening, info = env.reset(options={"item": "1"})
    assert "Nairobi" not in repr(opening) + repr(info)
    obs, reward, terminated, _, info = env.step("Nairobi")
    assert (obs, reward, terminated) == ((), 1.0, True)
    assert "Nairobi" not in repr(info)
    env.reset(options={"item": "1"})
    assert env.step("Mombasa")[1] == 0.0


def test_a_row_may_have_a_name_of_its_own_with_slashes(write: Write) -> None:
    env = Capitals(data=write('{"country": "Peru", "capital": "Lima", "id": "america/south/1.json"}'))
    assert env.items() == ["america/south/1.json"]
    assert env.make_task("america/south/1.json").id == "test.capitals/control/america/south/1.json"


def test_twins_of_a_row_share_its_gold_and_its_cluster(write: Write) -> None:
    path = write(*LINES)
    control, shout = Capitals(data=path), Capitals(data=path, variant="shout")
    a, b = control.freeze(control.make_task("0")), shout.freeze(shout.make_task("0"))
    assert (a.gold, a.cluster) == (b.gold, b.cluster) == ("Lima", "test.capitals/0")
    assert b.opening[0].text.startswith(a.opening[0].text)
    assert a.opening != b.opening


def test_where_the_rows_lie_is_no_part_of_the_task(write: Write) -> None:
    first, second = write(*LINES), write(*LINES, name="elsewhere.jsonl.gz")
    a, b = Capitals(data=first, variant="shout"), Capitals(data=second, variant="shout")
    assert [a.freeze(a.make_task(i)).encode() for i in a.items()] == [b.freeze(b.make_task(i)).encode() for i in b.items()]


def test_the_same_row_is_the_same_bytes_in_another_process(write: Write, fresh_python: Callable[..., str]) -> None:
    path = write(*LINES)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1] if len(sys.argv) > 1 else '.')\n"
        "from tests.core.test_dataenv import Capitals\n"
        f"env = Capitals(data={path!r}, variant='shout')\n"
        "print([env.freeze(env.make_task(i)).encode().hex() for i in env.items()])"
    )
    env = Capitals(data=path, variant="shout")
    here = str([env.freeze(env.make_task(i)).encode().hex() for i in env.items()])
    assert [fresh_python(code, hash_seed=seed).strip() for seed in ("1", "2")] == [here, here]


def test_a_row_that_does_not_exist_is_answered_with_near_names(write: Write) -> None:
    env = Capitals(data=write('{"country": "Peru", "capital": "Lima", "id": "peru"}'))
    with pytest.raises(NotFoundError, match=r"no row 'preu'.*Did you mean: peru"):
        env.make_task("preu")


def test_a_seed_plays_the_row_at_its_place_counted_around(write: Write) -> None:
    env = Capitals(data=write(*LINES))
    assert [env.reset(seed=seed)[1]["task_id"][-1] for seed in (0, 1, 2, 3)] == ["0", "1", "2", "0"]


def test_gymnasiums_own_checker_is_content(write: Write) -> None:
    check_env(Capitals(data=write(*LINES)), skip_render_check=True)


def test_the_data_are_not_opened_before_a_task_is_asked_for() -> None:
    env = Capitals(data="/nowhere/at/all.jsonl")
    assert env.label == "test.capitals"
    with pytest.raises(DataError, match="there is no data file"):
        env.items()


# -- splits -----------------------------------------------------------------------------------------------------------


def test_the_halves_of_a_split_are_disjoint_and_whole(write: Write) -> None:
    lines = [json.dumps({"country": f"C{i}", "capital": "X", "id": f"row{i}"}) for i in range(500)]
    path = write(*lines)
    train, held = Capitals(data=path, split="train").items(), Capitals(data=path, split="eval").items()
    assert not set(train) & set(held)
    assert sorted(train + held) == sorted(Capitals(data=path).items())
    assert 60 <= len(held) <= 140
    assert Capitals(data=path, split="eval").reset(seed=7)[1]["task_id"].rpartition("/")[2] == held[7]


def test_a_half_without_rows_says_so(write: Write) -> None:
    env = Capitals(data=write(LINES[0]), split="train")
    other = Capitals(data=env.data, split="eval")
    empty = env if not env.items() else other
    with pytest.raises(NothingSelectedError, match=r"no row of .* lies in the split"):
        empty.reset(seed=0)


# -- where the rows are -----------------------------------------------------------------------------------------------


def test_without_data_both_ways_to_give_it_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(dataenv.ENVIRONMENT_VARIABLE, raising=False)
    with pytest.raises(UsageError) as caught:
        Capitals().items()
    for word in ("--data", "AGENTGYM_DATA", "capitals.jsonl", "test.capitals"):
        assert word in str(caught.value)


def test_the_folder_of_the_environment_variable_is_looked_into(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = os.path.dirname(write(*LINES))
    monkeypatch.setenv("AGENTGYM_DATA", folder)
    assert len(Capitals().items()) == 3
    os.remove(os.path.join(folder, "capitals.jsonl"))
    with pytest.raises(DataError, match=r"capitals\.jsonl does not exist.*--data.*AGENTGYM_DATA"):
        Capitals().items()


def test_data_may_be_a_folder_that_holds_the_standard_file(write: Write) -> None:
    folder = os.path.dirname(write(*LINES))
    assert len(Capitals(data=folder).items()) == 3
    assert "capitals.jsonl" in complaint(os.path.join(folder, ".."))


def test_what_is_given_goes_before_the_environment_variable(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTGYM_DATA", "/nowhere")
    assert len(Capitals(data=write(*LINES)).items()) == 3


# -- forms of files ---------------------------------------------------------------------------------------------------


def test_lines_compressed_lines_lists_and_byte_order_marks_are_read_alike(write: Write) -> None:
    whole = json.dumps(ROWS)
    forms = [
        write(*LINES),
        write(*LINES, name="a.jsonl.gz"),
        write("", *LINES, "   ", "", name="blank_lines.jsonl"),
        write(b"\xef\xbb\xbf" + LINES[0].encode(), *LINES[1:], name="mark.jsonl"),
        write(*[line + "\r" for line in LINES], name="windows.jsonl"),
        write(whole, name="list.json"),
        write(whole, name="list.json.gz"),
        write(*LINES, name="lines_after_all.json"),
    ]
    for path in forms:
        assert [row.values for row in load_rows(path).rows] == ROWS, path


def test_a_file_that_has_changed_is_read_again(write: Write) -> None:
    path = write(*LINES)
    assert len(Capitals(data=path).items()) == 3
    write(*LINES[:2])
    assert len(Capitals(data=path).items()) == 2


def test_a_file_is_read_and_checked_once(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(*LINES)
    Capitals(data=path).items()
    monkeypatch.setattr(Capitals, "row_id", None)  # a second check would call it
    assert len(Capitals(data=path).items()) == 3
    assert load_rows(path) is load_rows(path)


def test_every_set_of_parameters_is_checked_for_itself(write: Write) -> None:
    path = write(*LINES)
    assert Capitals(data=path).make_task("0").opening != Capitals(data=path, polite=True).make_task("0").opening


# -- bad files --------------------------------------------------------------------------------------------------------

GOOD = LINES[0]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ('{"country": "Peru", "capital": "Lima"', "not valid JSON"),
        ('{"country": "Peru" "capital": "Lima"}', "not valid JSON: Expecting ',' delimiter (character 19)"),
        ("country: Peru", "not valid JSON"),
        ('["Peru", "Lima"]', "expected an object, not a list"),
        ('"Peru"', "expected an object, not a text"),
        ("null", "expected an object, not null"),
        ("3", "expected an object, not a number"),
        ("[" * 100_000, "not valid JSON"),
        ('{"country": NaN}', "not valid JSON"),
        ('{"country": "\\ud800", "capital": "x"}', "lone surrogate"),
        (b'{"country": "Per\xff", "capital": "Lima"}', "not valid UTF-8 (byte 16: 0xff)"),
        (b"\xff\xfe{\x00}\x00", "not valid UTF-8 (byte 0: 0xff)"),
        (b"\x00\x01\x02", "not valid JSON"),
    ],
)
def test_a_malformed_row_is_named_by_file_and_line(write: Write, bad: str | bytes, why: str) -> None:
    path = write(GOOD, "", bad, GOOD)
    text = complaint(path)
    assert text.startswith(f"{path}, line 3: ")
    assert why in text


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"country": "Peru"}, "the field 'capital' is missing; there are: 'country'"),
        ({}, "the field 'country' is missing; there are: none"),
        ({"country": "Peru", "capital": 3}, "the field 'capital' must be str, not int"),
        ({"country": None, "capital": "Lima"}, "the field 'country' must be str, not NoneType"),
        ({"country": "Peru", "capital": ""}, "the field 'capital' is empty"),
        ({"country": "Peru", "capital": " \n"}, "the field 'capital' is empty"),
        ({"country": "Peru", "capital": "Lima", "id": 7}, "the field 'id' must be str, not int"),
        ({"country": "Peru", "capital": "Lima", "id": "a b"}, "'a b' cannot be a row id"),
        ({"country": "Peru", "capital": "Lima", "id": "a\x1b[2J"}, "cannot be a row id"),
        ({"country": "Peru", "capital": "Lima", "id": "x" * 201}, "cannot be a row id"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_by_file_and_line(write: Write, row: dict[str, Any], why: str) -> None:
    path = write(GOOD, json.dumps(row))
    assert complaint(path) == f"{path}, line 2: {why}" or why in complaint(path)
    assert complaint(path).startswith(f"{path}, line 2: ")
    listed = write(json.dumps([ROWS[0], row]), name="list.json")
    assert complaint(listed).startswith(f"{listed}, row 2: ")


def test_an_id_that_occurs_twice_names_both_lines(write: Write) -> None:
    row = '{"country": "Peru", "capital": "Lima", "id": "peru"}'
    path = write(row, GOOD, row)
    assert complaint(path) == f"{path}, line 3: the id 'peru' is also that of line 1"


def test_a_place_and_an_id_that_look_alike_are_a_double_too(write: Write) -> None:
    path = write(GOOD, '{"country": "Peru", "capital": "Lima", "id": "0"}')
    assert "is also that of line 1" in complaint(path)


@pytest.mark.parametrize(("content", "name"), [("", "a.jsonl"), ("\n \n\n", "b.jsonl"), ("[]", "c.json"), ("", "d.jsonl.gz")])
def test_an_empty_file_is_an_error(write: Write, content: str, name: str) -> None:
    assert complaint(path := write(content, name=name)) == f"{path} is empty: it holds no row"


@pytest.mark.parametrize("cut", [0, 5, 15, -9])
def test_a_damaged_archive_is_an_error(write: Write, cut: int) -> None:
    path = write(*LINES, name="a.jsonl.gz")
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole[:cut] if cut else b"not gzip")
    text = complaint(path)
    assert text.startswith(path)
    assert "cannot be read" in text or "is empty" in text


def test_a_list_that_is_not_json_says_where(write: Write) -> None:
    path = write('[{"country": "Peru"},', '{"country" "Lima"}]', name="a.json")
    assert complaint(path) == f"{path}: not valid JSON: Expecting ':' delimiter (line 2, column 12)"
    path = write('[{"country": "Peru", "capital": "Lima"}, 3]', name="b.json")
    assert complaint(path) == f"{path}, row 2: expected an object, not a number"


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    assert "there is no data file" in complaint(str(tmp_path / "none.jsonl"))
    assert "there is no data file" in complaint(str(tmp_path))


@given(st.lists(st.binary(max_size=40), max_size=4), st.sampled_from([".jsonl", ".json", ".jsonl.gz"]))
def test_no_bytes_make_the_reader_fail_otherwise(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], end: str
) -> None:
    path = tmp_path_factory.mktemp("bytes") / f"a{end}"
    path.write_bytes(b"\n".join(lines))
    complained = ""
    try:
        found = load_rows(str(path)).rows
    except DataError as e:
        found, complained = [], str(e)
    assert found or str(path) in complained


@given(st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.text(max_size=5), max_size=4))
def test_what_was_written_as_json_is_read_as_it_was(tmp_path_factory: pytest.TempPathFactory, row: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("row") / "a.jsonl"
    path.write_text(json.dumps(row) + "\n")
    assert load_rows(str(path)).rows[0].values == row


# -- fields -----------------------------------------------------------------------------------------------------------


def test_a_field_has_the_type_that_was_asked_for() -> None:
    row = {"text": "a", "whole": 3, "yes": True, "part": 0.5, "list": [1]}
    assert field(row, "text", str) == "a"
    assert field(row, "whole", int) == 3
    assert field(row, "yes", bool) is True
    assert field(row, "part", float) == 0.5
    assert type(field(row, "whole", float)) is float
    assert field(row, "list", list) == [1]
    for name, kind in (("yes", int), ("yes", float), ("whole", bool), ("part", int), ("text", int), ("list", dict)):
        with pytest.raises(DataError, match=rf"the field '{name}' must be {kind.__name__}, not "):
            field(row, name, kind)
    with pytest.raises(DataError, match="must be float"):
        field({"huge": 10**400}, "huge", float)


# -- through the datasets library ----------------------------------------------------------------------------------------


@pytest.fixture
def hub_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A local folder in the hub's formats, with two splits."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text(LINES[0] + "\n")
    (folder / "test.jsonl").write_text("\n".join(LINES[1:]) + "\n")
    return str(folder)


@pytest.mark.slow
def test_a_folder_in_the_hubs_formats_is_read_through_the_datasets_library(hub_folder: str) -> None:
    env = Capitals(data=f"hf:{hub_folder}")
    assert [env.make_task(i).gold for i in env.items()] == ["Nairobi", "Wien"]
    assert [row.values["capital"] for row in load_rows(f"hf:{hub_folder}::train").rows] == ["Lima"]
    with pytest.raises(DataError, match=r"there is no split 'dev'; there are: (train, test|test, train)"):
        load_rows(f"hf:{hub_folder}::dev")
    with pytest.raises(DataError, match=r"hf:.*nowhere cannot be loaded: "):
        load_rows(f"hf:{hub_folder}/nowhere")


@pytest.mark.parametrize("name", ["hf:", "hf::config", "hf:a:b:c:d"])
def test_a_name_that_is_no_data_set_is_explained(name: str) -> None:
    with pytest.raises(UsageError, match="expected hf:NAME"):
        load_rows(name)


def test_without_the_datasets_library_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"needs the datasets library: pip install 'agentgym-harness\[data\]'"):
        Capitals(data="hf:someone/something").items()


def test_the_library_is_not_imported_without_need(write: Write, fresh_python: Callable[..., str]) -> None:
    code = (
        "import sys\nfrom agentgym.dataenv import load_rows\n"
        f"load_rows({write(*LINES)!r})\nprint('datasets' in sys.modules, 'pandas' in sys.modules)"
    )
    assert fresh_python(code).split() == ["False", "False"]


def test_make_takes_the_data_too(write: Write) -> None:
    gymnasium.register(id="agentgym-test/capitals-v0", entry_point=Capitals)
    env = gymnasium.make("agentgym-test/capitals-v0", data=write(*LINES))
    opening, _ = env.reset(seed=1)
    assert opening[0].text == "Capital of Kenya?"
