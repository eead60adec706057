from pathlib import Path

import pytest
import torch

from altdiffusion_clip import AltCLIPScorer, AltDiffusionPipeline, RobertaSeriesModelWithTransformation
from altdiffusion_clip.offloading import WORD_EMBEDDINGS, OffloadedEmbedding
from tests.small_models import prompts, small_config, small_encoder


@pytest.mark.parametrize("shape", ["m2", "m9", "m18"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@torch.no_grad()
def test_outputs_are_the_same(shape: str, dtype: torch.dtype) -> None:
    plain = small_encoder(shape)
    offloaded = RobertaSeriesModelWithTransformation(small_config(shape), offload_embeddings=True).eval()
    state = plain.state_dict()
    table = state.pop(f"{WORD_EMBEDDINGS}.weight")
    assert not offloaded.load_state_dict(state, strict=False).unexpected_keys
    offloaded.attach_embeddings(table)
    ids, mask = prompts([5, 0, 77])
    expected, actual = plain.to(dtype)(ids, mask), offloaded.to(dtype)(ids, mask)
    assert torch.equal(actual.projection_state, expected.projection_state)
    assert torch.equal(actual.pooler_output, expected.pooler_output)


def test_the_table_stays_where_it_is_and_is_no_parameter(published: Path) -> None:
    scorer = AltCLIPScorer.from_pretrained(published / "alt-clip-m9-tiny", offload_embeddings=True, dtype=torch.float16)
    assert WORD_EMBEDDINGS not in " ".join(name for name, _ in scorer.named_parameters())
    embeddings = scorer.text_model.roberta.get_input_embeddings()
    place = embeddings.weight.data_ptr()
    scorer.to("meta")
    assert embeddings.weight.data_ptr() == place
    assert embeddings.weight.dtype == torch.float32  # as in its file


@pytest.mark.parametrize("m", ["m9", "m18"])
def test_what_is_saved_is_whole(m: str, published: Path, tmp_path: Path) -> None:
    source = published / f"alt-diffusion-{m}-tiny"
    pipe = AltDiffusionPipeline.from_pretrained(source, offload_embeddings=True)
    AltCLIPScorer.from_pipeline(pipe, published / f"alt-clip-{m}-tiny").save_pretrained(tmp_path / "scorer")
    pipe.save_pretrained(tmp_path / "pipeline")
    plain = AltDiffusionPipeline.from_pretrained(source).text_encoder.state_dict()
    saved = AltDiffusionPipeline.from_pretrained(tmp_path / "pipeline").text_encoder.state_dict()
    scorer = AltCLIPScorer.from_pretrained(tmp_path / "scorer").text_model.state_dict()
    for name, tensor in plain.items():
        assert torch.equal(saved[name], tensor), name
        assert name.startswith("transformation_pre.") or torch.equal(scorer[name], tensor), name


def test_the_towers_are_still_compared(published: Path) -> None:
    pipe = AltDiffusionPipeline.from_pretrained(published / "alt-diffusion-m9-tiny", offload_embeddings=True)
    AltCLIPScorer.from_pipeline(pipe, published / "alt-clip-m9-tiny")
    with pytest.raises(ValueError, match=r"word_embeddings\.weight differs"):
        AltCLIPScorer.from_pipeline(pipe, published / "alt-clip-m2-tiny")


def test_mistakes(published: Path) -> None:
    embedding = OffloadedEmbedding(4, 2)
    with pytest.raises(ValueError, match="no table yet"):
        embedding(torch.tensor([1]))
    with pytest.raises(ValueError, match="shape"):
        embedding.attach(torch.zeros(4, 3))
    with pytest.raises(ValueError, match="offload_embeddings=True"):
        small_encoder("m9").attach_embeddings(torch.zeros(120, 32))
