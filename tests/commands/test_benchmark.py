"""`altdiffusion benchmark`."""

import json
from pathlib import Path

import pytest

from altdiffusion_clip.cli import main
from altdiffusion_clip.commands import benchmark
from altdiffusion_clip.commands.benchmark import find_benchmarks, line_of, measure, what_it_measures

ROOT = Path(__file__).parents[2]


def test_every_script_is_found_and_says_what_it_measures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark"]) == 0
    listed = capsys.readouterr().out
    scripts = {p.stem for p in (ROOT / "benchmarks").glob("*.py")} - {"__init__", "report", "full_size", "timing"}
    assert set(find_benchmarks()) == scripts
    for name, path in find_benchmarks().items():
        assert what_it_measures(path).endswith("."), name
        assert name in listed


@pytest.mark.full
def test_one_is_run(capsys: pytest.CaptureFixture[str]) -> None:
    # The machine is busy with other tests, so whether the claims hold is not asked here.
    main(["benchmark", "startup", "--json", "--arguments=--rounds 1"])
    figures = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [figure["name"] for figure in figures] == [
        "startup, altdiffusion --help",
        "startup, import altdiffusion_clip",
    ]
    for figure in figures:
        assert figure["unit"] == "seconds"
        assert figure["ratio_at_most"] == pytest.approx(figure["ours"] / figure["theirs"], abs=1e-4)
        assert figure["machine"]


def test_a_figure_for_people() -> None:
    figure = {"name": "x", "ours": 1.0, "theirs": 4.0, "unit": "s", "goal": 5, "machine": "m", "holds": False}
    assert line_of({**figure, "ratio": 4.0}) == "x: 4.00 times (goal 5), DOES NOT HOLD; ours 1, theirs 4 s; m"


def test_a_device_is_for_those_that_take_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {}

    def measured(script: Path, arguments: list[str]) -> tuple[list[dict[str, object]], int]:
        given[script.stem] = arguments
        return [{"name": script.stem}], 0

    monkeypatch.setattr(benchmark, "measure", measured)
    main(["benchmark", "startup", "scoring", "--device", "cuda", "--arguments=--rounds 2"])
    capsys.readouterr()
    assert given == {"startup": ["--rounds", "2"], "scoring": ["--device", "cuda", "--rounds", "2"]}


def test_an_unknown_one_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "speed"]) == 2
    assert "there is no benchmark speed; there are add_language" in capsys.readouterr().err


def test_one_that_fails_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "bad.py"
    script.write_text("print('some words')\nprint('{\"name\": \"x\"}')\nraise SystemExit(3)\n")
    assert measure(script, []) == ([{"name": "x"}], 3)
    assert "some words" in capsys.readouterr().err
