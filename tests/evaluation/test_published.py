import pytest

from altdiffusion_clip.evaluation.published import published, published_for, published_of


@pytest.mark.parametrize("row", published(), ids=lambda row: f"{row.dataset} {row.language} {row.system}")
def test_a_row_is_consistent(row) -> None:
    """A slip in copying would show: recalls grow with k, and the mean is the mean (to the sources' rounding)."""
    for side in ("text_to_image", "image_to_text"):
        recalls = [row.figures[f"{side}_r{k}"] for k in (1, 5, 10) if f"{side}_r{k}" in row.figures]
        assert recalls == sorted(recalls)
        assert all(0 <= value <= 100 for value in recalls)
    if "mr" in row.figures:
        recalls = [value for key, value in row.figures.items() if key != "mr"]
        assert row.figures["mr"] == pytest.approx(sum(recalls) / 6, abs=0.11)
    assert row.source


def test_every_system_of_the_seed_table_is_there() -> None:
    chinese = {row.system for row in published_for("Flickr30k test", "zh")}
    assert {"CLIP", "Taiyi", "Wukong", "R2D2", "CN-CLIP ViT-L/14", "AltCLIP", "AltCLIP*"} <= chinese


def test_a_hub_id_finds_its_row() -> None:
    assert published_of("BAAI/AltCLIP", "Flickr30k test", "en").system == "AltCLIP*"
    assert published_of("wukong", "MUGE valid", "zh").figures["text_to_image_r1"] == 42.7
    assert published_of("BAAI/AltCLIP", "XTD10", "en") is None
    assert published_for("emoji held-out", "zh") == []
