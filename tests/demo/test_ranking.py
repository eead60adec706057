"""Pictures against prompts."""

import base64
import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from altdiffusion_clip import AltCLIPScorer
from altdiffusion_clip.demo.ranking import Comparison, compare
from altdiffusion_clip.judges.altclip import AltCLIPJudge
from altdiffusion_clip.judges.encoding import Bench
from altdiffusion_clip.judges.names import load_panel
from tests.pictures import held_out_pictures


def test_pictures_against_prompts(scorer: AltCLIPScorer, tmp_path: Path) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    cat, dog = (held_out_pictures()[place].path for place in (2, 4))
    found = compare(Bench.of(AltCLIPJudge(scorer)), ["一只狗", "a cat"], [cat, dog, tmp_path / "empty.png"])
    assert found.names == [dog.name, cat.name]
    assert found.scores[0, 0, 0] > found.scores[0, 1, 0]
    assert found.scores[0, 1, 1] > found.scores[0, 0, 1]
    assert found.broken == ["empty.png: an empty file"]
    np.testing.assert_allclose(found.scores[0, :, 0], scorer.similarity(["一只狗"], [dog, cat])[0], atol=1e-6)
    assert found.as_csv().splitlines()[0] == "picture (cosine),一只狗,a cat"
    small = Image.open(io.BytesIO(base64.b64decode(found.thumbnails[0].removeprefix("data:image/jpeg;base64,"))))
    assert max(small.size) <= 96


def test_every_judge_has_its_column(scorer: AltCLIPScorer) -> None:
    def width(texts: list[str], pictures: list[Image.Image]) -> list[float]:
        return [picture.width + len(text) for text, picture in zip(texts, pictures, strict=True)]

    cat, dog = (held_out_pictures()[place].path for place in (2, 4))
    found = compare(Bench(load_panel([AltCLIPJudge(scorer), width])), ["一只狗", "a cat"], [cat, dog])
    assert found.names == [dog.name, cat.name], "the first judge decides the order"
    assert found.judges == [("AltCLIP", "cosine"), ("width", "score")]
    assert found.scores[1].tolist() == [[131.0, 133.0], [131.0, 133.0]]
    head, first, _ = found.as_csv().splitlines()
    assert head.endswith(
        '"一只狗 [AltCLIP, cosine]","一只狗 [width, score]","a cat [AltCLIP, cosine]","a cat [width, score]"'
    )
    assert first.split(",")[2] == "131.000000"
    table = found.as_html()
    assert table.count('colspan="2"') == 2
    assert table.count("<td") == 8
    assert "AltCLIP<br><small>cosine</small>" in table


ONE = [("AltCLIP", "cosine")]


def test_names_and_prompts_are_text() -> None:
    found = Comparison(["=1+1.png"], ["<script>", "@SUM(A1)"], ONE, np.array([[[0.5, 0.25]]]), [], [""])
    assert "<script>" not in found.as_html()
    assert "&lt;script&gt;" in found.as_html()
    assert found.as_csv().splitlines() == ["picture (cosine),<script>,'@SUM(A1)", "'=1+1.png,0.500000,0.250000"]


def test_the_best_of_a_column_is_the_strongest() -> None:
    table = Comparison(["a", "b"], ["p"], ONE, np.array([[[0.5], [0.4]]]), [], ["", ""]).as_html("zh")
    assert '--share: 1.00"><span role="img" aria-label="最佳">★</span> 0.500' in table
    assert '--share: 0.00">0.400' in table


def test_scores_that_hardly_differ_stay_pale() -> None:
    scores = np.array([[[0.9, 0.11], [0.1, 0.10]]])
    table = Comparison(["a", "b"], ["p", "q"], ONE, scores, [], ["", ""]).as_html()
    assert [float(share) for share in re.findall(r"--share: ([\d.]+)", table)] == [1.0, 0.05, 0.0, 0.0]
