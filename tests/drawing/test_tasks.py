"""Prompts, tables and grids as pictures one by one."""

import json
from pathlib import Path

import pytest

from altdiffusion_clip.drawing.generation import with_places
from altdiffusion_clip.drawing.settings import Settings
from altdiffusion_clip.drawing.tasks import RANDOM_SEED, Plan, Task, seeds_of, tasks_of, variations_of
from altdiffusion_clip.errors import UserError
from altdiffusion_clip.sources.records import read_records

BASE = Settings("", 0, (), "emoji-m18", num_inference_steps=20, guidance_scale=3.0)


def tasks(records: list, seeds: tuple[int, ...] = (0, 1), **plan: object) -> list[Task]:
    return list(tasks_of(records, Plan(BASE, seeds, **plan)))  # type: ignore[arg-type]


def test_a_prompt_is_drawn_with_each_seed() -> None:
    found = tasks([{"prompt": "a cat"}, {"prompt": "猫"}])
    assert [task.name for task in found] == ["000-seed0", "000-seed1", "001-seed0", "001-seed1"]
    assert [task.settings.seed for task in found] == [0, 1, 0, 1]
    assert found[2].settings.prompt == "猫"
    assert found[2].group == "001"
    assert found[3].settings.batch_seeds == (1,)


def test_a_row_says_what_it_wants() -> None:
    row = {
        "prompt": "a cat",
        "negative_prompt": "dog",
        "seed": "7",
        "width": "32",
        "height": 48.0,
        "steps": "5",
        "guidance": "2.5",
        "scheduler": "euler-a",
        "id": "first",
        "language": "en",
        "occupation": "baker",
        "empty": "",
    }
    (task,) = tasks([row])
    settings = task.settings
    assert task.name == "first-en-seed7"
    assert (settings.seed, settings.width, settings.height, settings.num_inference_steps) == (7, 32, 48, 5)
    assert (settings.guidance_scale, settings.scheduler, settings.negative_prompt) == (2.5, "euler-a", "dog")
    assert (task.language, dict(task.own)) == ("en", {"occupation": "baker", "empty": ""})


def test_a_grid_of_languages_seeds_and_values() -> None:
    rows = [{"id": "cat", "zh": "猫", "en": "a cat", "kind": "animal"}, {"id": "dog", "zh": "狗", "en": ""}]
    found = tasks(rows, (0, 1, 2), languages=["zh", "en"], vary={"guidance": ["3", "5"]})
    assert len(found) == 2 * 2 * 2 * 3
    assert found[0].name == "cat-zh-guidance3-seed0"
    assert [task.settings.guidance_scale for task in found[:6]] == [3, 3, 3, 5, 5, 5]
    assert {task.group for task in found} == {"cat-zh", "cat-en", "dog-zh", "dog-en"}
    assert dict(found[0].own) == {"kind": "animal"}
    assert {task.error for task in found if task.group == "dog-en"} == {"row 2: the prompt is empty; say what to draw"}


def test_templates_are_filled_from_the_row() -> None:
    rows = [{"job": "baker", "place": "a kitchen"}, {"job": "nurse"}]
    found = tasks(rows, (0,), templates=["a {job} in {place}", "the {job}, {smiling}"])
    assert [task.settings.prompt for task in found] == [
        "a baker in a kitchen", "the baker, {smiling}", "a nurse in {place}", "the nurse, {smiling}",
    ]  # fmt: skip
    assert [task.name for task in found] == ["000-0-seed0", "000-1-seed0", "001-0-seed0", "001-1-seed0"]
    (task,) = tasks([{"prompt": "a {job}", "job": "baker"}], (0,))
    assert task.settings.prompt == "a baker"


def test_names_are_what_a_disk_takes_and_keep_apart() -> None:
    ids = ["a/b", "a_b", "a:b", "..", "猫", "x" * 300, "x" * 301]
    names = [task.name for task in tasks([{"prompt": "cat", "id": one} for one in ids], (0,))]
    assert len(set(names)) == len(ids)
    for name in names:
        assert not set(name) & set('/\\:*?"<>|')
        assert not name.startswith(".")
        assert len(name) < 120
    assert names[1] == "a_b-seed0"
    assert names[4] == "猫-seed0"


def test_a_prompt_keeps_its_number_and_new_ones_get_others() -> None:
    plan = Plan(BASE, [0])
    known = {"a cat": ["000"], "a dog": ["001"]}
    found = list(tasks_of([{"prompt": "a tree"}, {"prompt": "a dog"}, {"prompt": "a car"}], plan, known))
    assert [task.group for task in found] == ["002", "001", "003"]
    assert [task.group for task in tasks_of([{"prompt": "a"}, {"prompt": "b"}], plan, {"b": ["001"]})] == ["000", "001"]


def test_a_prompt_that_stands_twice_is_drawn_twice() -> None:
    rows = [{"prompt": "a cat", "guidance": "3"}, {"prompt": "a cat", "guidance": "5"}]
    assert [(task.name, task.error) for task in tasks(rows, (0,))] == [("000-seed0", ""), ("001-seed0", "")]
    again = list(tasks_of(rows, Plan(BASE, [0]), {"a cat": ["000", "001"]}))
    assert [task.name for task in again] == ["000-seed0", "001-seed0"]


def test_large_seeds_are_exact() -> None:
    for seed in (2**53 + 1, 2**63 - 1):
        assert [task.settings.seed for task in tasks([{"prompt": "a", "seed": str(seed)}])] == [seed]
    assert [task.settings.seed for task in tasks([{"prompt": "a", "seed": "7.0"}])] == [7]


def test_twice_the_same_is_said() -> None:
    found = tasks([{"prompt": "a cat", "id": "x"}, {"prompt": "a dog", "id": "x"}], (0,))
    assert [task.error for task in found] == ["", "a row above has the same id, language and seed"]
    assert len({task.name for task in found}) == 2


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "  "}, "the prompt is empty"),
        ({"prompt": None}, "the prompt is empty"),
        ({"prompt": "a", "width": "65"}, "width 65 is no multiple of 16, which this model needs"),
        ({"prompt": "a", "height": "0"}, "height 0 is no multiple of 16"),
        ({"prompt": "a", "scheduler": "magic"}, "there is no scheduler 'magic'; choose one of ddim"),
        ({"prompt": "a", "seed": "x"}, "seed is 'x', and no number"),
        ({"prompt": "a", "seed": "1.5"}, "seed is '1.5', and no number"),
        ({"prompt": "a", "seed": -5}, "seed -5 is not between 0 and 2^63"),
        ({"prompt": "a", "seed": 2**63}, "is not between 0 and 2^63"),
        ({"prompt": "a", "steps": "0"}, "steps must be 1 or more"),
        ({"prompt": "a", "steps": "nan"}, "steps is 'nan', and no number"),
        ({"prompt": "a", "mask": "nowhere.png"}, "there is no mask nowhere.png"),
        ({"prompt": "a", "image": "nowhere.png"}, "there is no image nowhere.png"),
        ({"prompt": "a", "strength": "2"}, "strength is between 0 and 1"),
        ({"prompt": "a", "lora": "style:much"}, "has no number for a weight"),
        ("2 cells in a table of 3 columns", "2 cells in a table of 3 columns"),
    ],
    ids=str,
)
def test_a_bad_row_is_named_and_the_rest_goes_on(row: object, message: str) -> None:
    bad, *_, good = tasks([row, {"prompt": "a cat"}], (0,), multiple=16)
    assert bad.error.startswith("row 1: ")
    assert message in bad.error
    assert "\n" not in bad.error
    assert (good.error, good.settings.prompt) == ("", "a cat")
    json.dumps(bad.name)


def test_a_mask_needs_its_image(tmp_path: Path) -> None:
    (tmp_path / "mask.png").touch()
    (task,) = tasks([{"prompt": "a", "mask": str(tmp_path / "mask.png")}], (0,))
    assert "a mask needs the image" in task.error


def test_pictures_are_looked_for_beside_the_table(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    rows = [{"prompt": "a", "image": "a.png"}, {"prompt": "a", "image": "b.png"}, "no JSON"]
    assert list(with_places(rows, tmp_path)) == [{"prompt": "a", "image": str(tmp_path / "a.png")}, rows[1], "no JSON"]


def test_loras_are_looked_for_beside_the_table(tmp_path: Path) -> None:
    (tmp_path / "style.safetensors").touch()
    (row,) = with_places([{"prompt": "a", "lora": "style.safetensors:0.8, owner/name, other:0.5"}], tmp_path)
    assert row == {"prompt": "a", "lora": f"{tmp_path / 'style.safetensors'}:0.8, owner/name, other:0.5"}


def test_random_seeds_are_not_the_same_twice() -> None:
    one, other = (tasks([{"prompt": "a"}], (RANDOM_SEED,) * 3) for _ in range(2))
    seeds = [task.settings.seed for task in one + other]
    assert len(set(seeds)) == 6
    assert all(f"seed{task.settings.seed}" in task.name for task in one)


@pytest.mark.parametrize(
    ("given", "expected"), [("0-3", [0, 1, 2, 3]), ("5", [5]), ("1,1, 7 - 8", [1, 7, 8]), ("-1", [-1])]
)
def test_seeds(given: str, expected: list[int]) -> None:
    assert seeds_of(given) == expected


@pytest.mark.parametrize("given", ["", "a", "3-1", "1,,2", "1.5", str(2**63)])
def test_wrong_seeds(given: str) -> None:
    with pytest.raises(UserError, match="give numbers and ranges"):
        seeds_of(given)


def test_variations() -> None:
    assert variations_of(["steps=2, 4", "scheduler=ddim"]) == {"steps": ["2", "4"], "scheduler": ["ddim"]}
    for wrong in (["steps"], ["steps="], ["colour=red"], ["steps=1", "steps=2"]):
        with pytest.raises(UserError, match="give a column and its values"):
            variations_of(wrong)


class TestTables:
    ROWS = [{"prompt": "a cat, black", "seed": "3", "名": "猫"}, {"prompt": 'a "dog"', "seed": "4", "名": "狗"}]

    def test_every_kind(self, tmp_path: Path) -> None:
        import csv

        import pyarrow
        import pyarrow.parquet

        by_tabs = {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None}
        for name, options in (("a.csv", {}), ("a.tsv", by_tabs)):
            with (tmp_path / name).open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(self.ROWS[0]), **options)
                writer.writeheader()
                writer.writerows(self.ROWS)
        (tmp_path / "a.jsonl").write_text("\n\n".join(json.dumps(row) for row in self.ROWS), encoding="utf-8")
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(self.ROWS), tmp_path / "a.parquet")
        for name in ("a.csv", "a.tsv", "a.jsonl", "a.parquet"):
            assert list(read_records(str(tmp_path / name))) == self.ROWS, name

    def test_other_encodings(self, tmp_path: Path) -> None:
        text = "prompt,seed\n蓝色背景上的猫,1\n"
        (tmp_path / "a.csv").write_bytes(text.encode("utf-16"))
        assert list(read_records(str(tmp_path / "a.csv"))) == [{"prompt": "蓝色背景上的猫", "seed": "1"}]
        (tmp_path / "a.csv").write_bytes(text.encode("gb18030"))
        assert list(read_records(str(tmp_path / "a.csv"), "gb18030")) == [{"prompt": "蓝色背景上的猫", "seed": "1"}]
        with pytest.raises(UserError, match="name its --encoding"):
            list(read_records(str(tmp_path / "a.csv")))

    def test_rubbish_belongs_to_its_row(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("prompt,seed\na,1\nb\nc,2,3\nd,4\n")
        assert list(read_records(str(tmp_path / "a.csv"))) == [
            {"prompt": "a", "seed": "1"},
            "1 cells in a table of 2 columns",
            "3 cells in a table of 2 columns",
            {"prompt": "d", "seed": "4"},
        ]
        (tmp_path / "a.jsonl").write_text('{"prompt": "a"}\n[1]\nrubbish\n')
        assert list(read_records(str(tmp_path / "a.jsonl"))) == [{"prompt": "a"}, "no JSON object", "no JSON"]

    def test_a_table_that_cannot_be_read_is_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"nowhere\.csv: no such file"):
            list(read_records(str(tmp_path / "nowhere.csv")))
        (tmp_path / "a.parquet").write_bytes(b"PAR1 or so")
        with pytest.raises(UserError, match="cannot be read"):
            list(read_records(str(tmp_path / "a.parquet")))
        (tmp_path / "a.csv").write_text("prompt,prompt\na,b\n")
        with pytest.raises(UserError, match="has the column prompt twice"):
            list(read_records(str(tmp_path / "a.csv")))
