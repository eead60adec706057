import itertools
from pathlib import Path

import pytest

from altdiffusion_clip.errors import UserError
from altdiffusion_clip.training.config import RunConfig
from altdiffusion_clip.training.configs import AlignConfig, DistillConfig, DreamBoothConfig, LoraConfig


def test_the_learning_rate_warms_up_and_decays() -> None:
    config = RunConfig(steps=100, learning_rate=1.0, warmup_steps=10, decay_from=0.5)
    rates = [config.learning_rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10] == rates[49] == 1.0
    assert rates[50:] == sorted(rates[50:], reverse=True)
    assert rates[-1] < 0.01


@pytest.mark.parametrize("decay_from", [0.0, 0.05, 0.5])
def test_the_learning_rate_never_jumps(decay_from: float) -> None:
    config = RunConfig(steps=1000, learning_rate=1.0, warmup_steps=200, decay_from=decay_from)
    rates = [config.learning_rate_at(step) for step in range(1000)]
    assert max(abs(a - b) for a, b in itertools.pairwise(rates)) < 0.01
    assert max(rates) == 1.0


def test_by_the_clock_the_learning_rate_follows_the_seconds() -> None:
    config = RunConfig(steps=10**6, seconds=60.0, learning_rate=1.0, warmup_steps=10, decay_from=0.5)
    assert config.learning_rate_at(4, seconds=59.0) == pytest.approx(0.5), "the warm-up is in steps"
    assert config.learning_rate_at(500, seconds=29.0) == 1.0
    assert config.learning_rate_at(500, seconds=45.0) == pytest.approx(0.5)
    assert config.learning_rate_at(500, seconds=61.0) == pytest.approx(0.0)


class TestYaml:
    def test_what_is_saved_is_read(self, tmp_path: Path) -> None:
        config = DistillConfig(output=tmp_path, teacher="a", data=["b.tsv"], weights={"de": 4.0}, steps=7)
        config.save()
        assert DistillConfig.load(tmp_path / "config.yaml") == config
        assert DistillConfig.load(tmp_path / "config.yaml", steps=9).steps == 9

    def test_a_run_goes_on_only_with_its_own_settings(self, tmp_path: Path) -> None:
        DistillConfig(output=tmp_path, learning_rate=1e-3).save()
        with pytest.raises(UserError, match=r"learning_rate: 0\.001, and not 0\.01; give the same settings"):
            DistillConfig(output=tmp_path, learning_rate=1e-2).save()
        DistillConfig(output=tmp_path, learning_rate=1e-3, checkpoint_seconds=5.0, log_every=1).save()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("stepz: 3", "there is no setting 'stepz'; did you mean steps"),
            ("colour: 3", "there is no setting 'colour'; there are output, steps"),
            ("steps: many", "steps: 'many' is no int"),
            ("steps: 0", "steps must be at least 1"),
            ("cpu: 3", "cpu: 3 is neither true nor false"),
            ("mixed_precision: fp8", "'fp8' is none of no, fp16, bf16"),
            ("- a\n- b", "is not a list of settings"),
            ("a: [", "cannot read"),
            ("ema_decay: 1.0", "ema_decay must be at least 0 and below 1"),
        ],
    )
    def test_a_mistake_is_one_line(self, text: str, message: str, tmp_path: Path) -> None:
        path = tmp_path / "a.yaml"
        path.write_text(text)
        with pytest.raises(UserError, match=message) as caught:
            RunConfig.load(path)
        assert "\n" not in str(caught.value)

    def test_a_bare_no_is_a_precision(self, tmp_path: Path) -> None:
        path = tmp_path / "a.yaml"
        path.write_text("mixed_precision: no")
        assert RunConfig.load(path).mixed_precision == "no"

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"cannot read .*missing\.yaml"):
            RunConfig.load(tmp_path / "missing.yaml")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DreamBoothConfig(instance_prompt=" "), "give --instance-prompt"),
        (lambda: DreamBoothConfig(instance_prompt="a", train_text_encoder=True), "--rank 8"),
        (lambda: LoraConfig(rank=0), "rank must be at least 1"),
        (lambda: LoraConfig(cache_text_states=True, train_text_encoder=True), "choose one"),
        (lambda: LoraConfig(keys_and_values_steps=3), "not for a LoRA"),
        (lambda: AlignConfig(batch_size=0), "batch_size must be at least 1"),
    ],
)
def test_settings_that_contradict_each_other(make, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
