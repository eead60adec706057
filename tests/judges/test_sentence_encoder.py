"""sentence-transformers' verbs over judges, and mteb's and torchmetrics' own use of them."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from altdiffusion_clip import AltCLIPScorer, SentenceEncoder
from altdiffusion_clip.emoji.captions import captions
from altdiffusion_clip.errors import UserError
from tests.pictures import held_out_pictures

PICTURES = [picture.path for picture in held_out_pictures()[:24:3]]
TEXTS = ["猫", "a dog", "ein Auto"]


@pytest.fixture(scope="module")
def scorer() -> AltCLIPScorer:
    return AltCLIPScorer.from_pretrained("emoji-m18")


@pytest.fixture(scope="module")
def encoder(scorer: AltCLIPScorer) -> SentenceEncoder:
    return SentenceEncoder(scorer)


class TestSentenceEncoder:
    def test_its_similarity_is_the_scorers(self, encoder: SentenceEncoder, scorer: AltCLIPScorer) -> None:
        cosines = encoder.similarity(encoder.encode(TEXTS), encoder.encode(PICTURES))
        torch.testing.assert_close(cosines, scorer.similarity(TEXTS, PICTURES), atol=1e-5, rtol=0)

    def test_texts_and_pictures_may_be_mixed(self, encoder: SentenceEncoder) -> None:
        mixed = encoder.encode(["猫", Image.open(PICTURES[0]), "a dog", PICTURES[1]])
        expected = [encoder.encode("猫"), encoder.encode(Image.open(PICTURES[0])), encoder.encode("a dog")]
        np.testing.assert_allclose(mixed, np.stack([*expected, encoder.encode([PICTURES[1]])[0]]), atol=1e-6)
        assert mixed.dtype == np.float32
        assert isinstance(encoder.encode([], convert_to_tensor=True), torch.Tensor)

    def test_one_picture_of_any_kind_gives_one_vector(self, encoder: SentenceEncoder) -> None:
        expected = encoder.encode([PICTURES[0]])[0]
        with Image.open(PICTURES[0]) as image:
            array = np.array(image.convert("RGB"))
        for one in (PICTURES[0], Image.fromarray(array), array, torch.from_numpy(array).permute(2, 0, 1)):
            np.testing.assert_allclose(encoder.encode(one), expected, atol=1e-6)

    def test_pairs(self, encoder: SentenceEncoder) -> None:
        texts = encoder.encode(TEXTS)
        pairs = encoder.similarity_pairwise(3 * texts, texts[::-1].copy())
        torch.testing.assert_close(pairs, encoder.similarity(texts, texts[::-1].copy()).diagonal())

    def test_what_cannot_be_encoded(self, encoder: SentenceEncoder, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(b"no picture")
        with pytest.raises(UserError, match="picture 1 cannot be read"):
            encoder.encode(["猫", tmp_path / "a.png"])
        with pytest.raises(UserError, match="neither text nor image"):
            encoder.encode([{"audio": [1]}])
        with pytest.raises(UserError, match="gives scores, but no vectors"):
            SentenceEncoder(lambda texts, pictures: [0.0] * len(texts))  # type: ignore[arg-type]
        with pytest.raises(UserError, match="gives scores, but no vectors"):
            SentenceEncoder("logits:emoji-m18,emoji-m18/teacher")


def test_mteb_evaluates_it(encoder: SentenceEncoder) -> None:
    mteb = pytest.importorskip("mteb")
    datasets = pytest.importorskip("datasets")
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models.models_protocols import EncoderProtocol

    assert isinstance(encoder, EncoderProtocol)
    found = [picture for picture in held_out_pictures() if picture.path in PICTURES]
    texts = [captions(picture.concept, picture.colour, "zh")[0] for picture in found]
    images = [Image.open(picture.path).convert("RGB") for picture in found]

    class Emoji(AbsTaskRetrieval):  # type: ignore[misc,valid-type]
        metadata = TaskMetadata(
            name="EmojiRetrieval",
            description="Pictures by Chinese captions.",
            dataset={"path": "nowhere", "revision": "1"},
            type="Any2AnyRetrieval",
            category="t2i",
            modalities=["text", "image"],
            eval_splits=["test"],
            eval_langs=["zho-Hans"],
            main_score="ndcg_at_10",
        )

        def load_data(self, num_proc: int | None = None, **kwargs: object) -> None:
            corpus = datasets.Dataset.from_dict({"id": [f"d{n}" for n in range(len(images))], "image": images})
            split = RetrievalSplitData(
                corpus=corpus.cast_column("image", datasets.Image()),
                queries=datasets.Dataset.from_dict({"id": [f"q{n}" for n in range(len(texts))], "text": texts}),
                relevant_docs={f"q{n}": {f"d{n}": 1} for n in range(len(texts))},
                top_ranked=None,
            )
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    results = mteb.evaluate(encoder, [Emoji()], cache=None, show_progress_bar=False)
    (scores,) = results.task_results[0].scores["test"]
    cosines = encoder.similarity(encoder.encode(texts), encoder.encode(images))
    first = (cosines.argmax(1) == torch.arange(len(texts))).float().mean().item()
    assert scores["recall_at_1"] == pytest.approx(first, abs=1e-4)
    assert first > 0.8


def test_torchmetrics_clip_score_takes_the_scorer(scorer: AltCLIPScorer, caplog: pytest.LogCaptureFixture) -> None:
    multimodal = pytest.importorskip("torchmetrics.multimodal")
    metric = multimodal.CLIPScore(model_name_or_path=lambda: (scorer, scorer.processor))
    pictures = [Image.open(path).convert("RGB") for path in PICTURES[:3]]
    pixels = [torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in pictures]
    expected = 100 * scorer.score(TEXTS, pictures).cosine.mean().clamp(min=0)
    torch.testing.assert_close(metric(pixels, TEXTS).cpu(), expected, atol=1e-3, rtol=0)
    for words in (60, 2000):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert torch.isfinite(metric(pixels[:1], ["a cat on a red background " * words]))
    assert "tokens and only the first 78 are read" in caplog.text
