"""Every kind of judge, wherever pictures are scored, against its reference implementation."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from altdiffusion_clip import AltDiffusionPipeline
from altdiffusion_clip.bulk.shards import read_shards
from altdiffusion_clip.cli import main
from altdiffusion_clip.demo.ranking import compare
from altdiffusion_clip.demo.studio import Studio
from altdiffusion_clip.drawing.log import read_results
from altdiffusion_clip.judges.encoding import Bench
from altdiffusion_clip.judges.judging import rank
from altdiffusion_clip.judges.names import load_panel
from tests.conftest import in_full
from tests.judges.blip import image_reward
from tests.judges.checkpoints import write_chinese_clip, write_image_reward, write_open_clip, write_siglip
from tests.pictures import held_out_pictures
from tests.processes import Command

PICTURES = [picture.path for picture in held_out_pictures()[:24:2]]
TEXT = "a cat"
QUICK = ["--num-images", "3", "--steps", "2"]
Reference = Callable[[list[str], list[Image.Image]], np.ndarray]
"""Of texts and pictures; gives the scores of all pairs, (texts, pictures)."""

FUNCTION = """
def redness(texts, pictures):
    return [len(text) + sum(picture.convert("RGB").resize((1, 1)).getpixel((0, 0))[:1]) / 255
            for text, picture in zip(texts, pictures)]
"""


@torch.no_grad()
def of_transformers(folder: Path, **padding: object) -> Reference:
    """Cosines by transformers' own classes."""
    model = AutoModel.from_pretrained(folder).eval()
    tokenizer, processor = AutoTokenizer.from_pretrained(folder), AutoImageProcessor.from_pretrained(folder)

    @torch.no_grad()
    def cosines(texts: list[str], pictures: list[Image.Image]) -> np.ndarray:
        encoded = tokenizer(texts, truncation=True, return_tensors="pt", **padding)
        if "max_length" in padding:
            encoded = {"input_ids": encoded.input_ids}
        text = F.normalize(model.get_text_features(**encoded).pooler_output, dim=-1)
        seen = model.get_image_features(**processor(pictures, return_tensors="pt")).pooler_output
        return (text @ F.normalize(seen, dim=-1).T).numpy()

    return cosines


def of_open_clip(name: str) -> Reference:
    import open_clip

    architecture, _, weights = name.removeprefix("open_clip:").partition("@")
    model, _, preprocess = open_clip.create_model_and_transforms(architecture, pretrained=weights)
    model.eval()

    @torch.no_grad()
    def cosines(texts: list[str], pictures: list[Image.Image]) -> np.ndarray:
        text = model.encode_text(open_clip.get_tokenizer(architecture)(texts), normalize=True)
        seen = model.encode_image(torch.stack([preprocess(picture) for picture in pictures]), normalize=True)
        return (text @ seen.T).numpy()

    return cosines


def of_function(texts: list[str], pictures: list[Image.Image]) -> np.ndarray:
    space: dict[str, Callable[..., list[float]]] = {}
    exec(FUNCTION, space)
    return np.array([space["redness"]([text] * len(pictures), pictures) for text in texts])


@pytest.fixture(
    scope="module", params=["siglip2", "function", *in_full("chinese_clip", "open_clip", "image_reward", "ensemble")]
)
def judge(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Reference]:
    """A judge's name and its reference."""
    folder: Path = tmp_path_factory.mktemp("judges")
    padded = {"padding": "max_length", "max_length": 16}
    if request.param == "siglip2":
        return str(write_siglip(folder / "siglip2", naflex=True)), of_transformers(folder / "siglip2", **padded)
    if request.param == "chinese_clip":
        return str(write_chinese_clip(folder / "cn")), of_transformers(folder / "cn", padding=True)
    if request.param == "open_clip":
        pytest.importorskip("open_clip")
        name = write_open_clip(folder / "open_clip")
        return name, of_open_clip(name)
    if request.param == "image_reward":
        place = write_image_reward(folder / "reward")
        return str(place), lambda texts, pictures: np.stack(
            [image_reward(place, [text] * len(pictures), pictures).numpy() for text in texts]
        )
    (folder / "mine.py").write_text(FUNCTION)
    if request.param == "function":
        return f"python:{folder / 'mine.py'}:redness", of_function
    one, other = write_chinese_clip(folder / "cn"), write_siglip(folder / "siglip", naflex=False)
    parts = [(of_transformers(one, padding=True), one), (of_transformers(other, **padded), other)]
    scales = [AutoModel.from_pretrained(place).logit_scale.exp().item() for _, place in parts]

    def logits(texts: list[str], pictures: list[Image.Image]) -> np.ndarray:
        return np.mean([s * of(texts, pictures) for s, (of, _) in zip(scales, parts, strict=True)], axis=0)

    return f"logits:{one},{other}", logits


def opened(paths: list[Path]) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in paths]


def assert_scores(found: object, expected: object) -> None:
    np.testing.assert_allclose(np.asarray(found, float), np.asarray(expected, float), atol=1e-5, rtol=1e-5)


def value(row: dict) -> float:
    """A row's own score, whatever it is called."""
    return row["cosine"] if "cosine" in row else row["score"]


def test_rank_and_rerank(judge: tuple[str, Reference], capsys: pytest.CaptureFixture[str]) -> None:
    name, reference = judge
    expected = reference([TEXT], opened(PICTURES))[0]
    ranking = rank(TEXT, PICTURES, name)
    assert_scores([image.score for image in ranking], sorted(expected, reverse=True))
    assert_scores([image.score for image in ranking], [expected[image.index] for image in ranking])
    files = [str(path) for path in PICTURES]
    assert main(["rerank", TEXT, *files, "--judge", "emoji-m18", "--judge", f"it={name}", "--json", "--no-cache"]) == 0
    rows = {row["file"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert_scores([rows[file]["judges"]["it"] for file in files], expected)
    assert_scores(
        [rows[file]["cosine"] for file in files],
        [image.score for image in _in_order(rank(TEXT, PICTURES, "emoji-m18"))],
    )


def _in_order(ranking: object) -> list:
    return sorted(ranking, key=lambda image: image.index)  # type: ignore[call-overload]


def rows_file(folder: Path, texts: list[str]) -> Path:
    path = folder / "rows.jsonl"
    lines = [{"image": str(picture), "text": text} for text in texts for picture in PICTURES]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_score_killed_and_resumed(judge: tuple[str, Reference], tmp_path: Path) -> None:
    name, reference = judge
    texts = ["a cat", "a dog on a red background", "猫"]
    source = rows_file(tmp_path, texts)
    common = ["--judge", name, "--judge", "emoji-m18", "--shard-size", "7", "--workers", "0", "--dtype", "float32"]
    command = ["score", str(source), *common, "--output", str(tmp_path / "scores")]
    killed = Command(command, tmp_path)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "scores").glob("part-*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert main(command) == 0
    rows = read_shards(tmp_path / "scores")
    assert len({row.row_id for row in rows}) == len(rows) == len(texts) * len(PICTURES)
    assert_scores([row.scores[0] for row in rows], reference(texts, opened(PICTURES)).ravel())


@pytest.mark.full
def test_score_on_ray(judge: tuple[str, Reference], tmp_path: Path) -> None:
    pytest.importorskip("ray")
    name, reference = judge
    command = ["score", str(rows_file(tmp_path, [TEXT])), "--judge", name, "--engine", "ray", "--shard-size", "5"]
    assert main([*command, "--workers", "0", "--dtype", "float32", "--output", str(tmp_path / "scores")]) == 0
    rows = read_shards(tmp_path / "scores")
    assert_scores([row.scores[0] for row in rows], reference([TEXT], opened(PICTURES))[0])


def test_best_of(judge: tuple[str, Reference], emoji: AltDiffusionPipeline) -> None:
    name, reference = judge
    settings = {"n": 4, "num_inference_steps": 2, "guidance_scale": 3.0}
    best = emoji.best_of(TEXT, keep=2, judge=[name, "own=emoji-m18"], **settings)
    everything = emoji.best_of(TEXT, keep=4, judge=name, **settings)
    expected = reference([TEXT], everything.images)[0]
    assert_scores(everything.scores, expected)
    assert best.seeds == everything.seeds[:2]
    assert_scores(best.scores, expected[:2])
    assert len(best.judges["own"]) == 2


def test_generate(judge: tuple[str, Reference], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, reference = judge
    assert main(["generate", TEXT, *QUICK, "--judge", name, "--judge", "own", "--output", str(tmp_path)]) == 0
    rows = read_results(tmp_path)
    expected = reference([TEXT], opened([tmp_path / row["file"] for row in rows]))[0]
    assert_scores([value(row["score"]) for row in rows], expected)
    ranks = np.array([row["rank"] for row in rows])
    assert sorted(ranks) == list(range(1, len(rows) + 1))
    assert (np.diff(np.asarray(expected)[ranks.argsort()]) <= 1e-6).all(), "two may be equally good"
    assert all(-1 <= row["score"]["judges"]["own"] <= 1 for row in rows)


def test_the_demo(judge: tuple[str, Reference], emoji: AltDiffusionPipeline) -> None:
    name, reference = judge
    studio = Studio(emoji, load_panel([name, "emoji-m18"], pipeline=emoji), "emoji-m18")
    picture = opened(PICTURES[:1])[0]
    drawn = studio.scored(picture, studio.settings(TEXT, 0))
    assert_scores(drawn.score, reference([TEXT], [picture])[0, 0])
    assert set(drawn.judges) == {"emoji-m18"}
    texts = ["a dog", TEXT]
    found = compare(Bench(load_panel(name)), texts, PICTURES)
    of_name = {path.name: column for path, column in zip(PICTURES, reference(texts, opened(PICTURES)).T, strict=True)}
    assert_scores(found.scores[0], [of_name[each] for each in found.names])


def test_evaluate(judge: tuple[str, Reference], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, reference = judge
    texts = [f"{picture.stem} is here" for picture in PICTURES]
    lines = [{"image": str(p), "captions": {"en": text}} for p, text in zip(PICTURES, texts, strict=True)]
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ["evaluate", "retrieval", "jsonl", str(tmp_path / "set.jsonl"), "--judge", f"it={name}", "--no-cache"]
    assert main([*command, "--json"]) == 0
    (row,) = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    scores = reference(texts, opened(PICTURES))
    own = scores.diagonal()[:, None]
    ranks = (scores > own + 1e-6).sum(1) + (np.abs(scores - own) <= 1e-6).sum(1) / 2 + 0.5
    assert row["text_to_image_r5"] == pytest.approx(100 * (ranks <= 5).mean(), abs=0.01)


@pytest.fixture(scope="module")
def emoji() -> AltDiffusionPipeline:
    pipeline = AltDiffusionPipeline.from_pretrained("emoji-m18")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
