"""What the demo says."""

from altdiffusion_clip.demo.texts import LANGUAGES, TEXTS, say


def test_every_text_is_there_in_both_languages() -> None:
    for key, texts in TEXTS.items():
        assert len(texts) == len(LANGUAGES)
        assert all(text.strip() for text in texts), key
        fields = [sorted(part.split("}")[0] for part in text.split("{")[1:]) for text in texts]
        assert fields[0] == fields[1], key
    assert say("start", "fr") == say("start", "en")
