import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from altdiffusion_clip.training.grad_cache import cached_backward
from altdiffusion_clip.training.losses import info_nce


class Towers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.text, self.image = nn.Linear(6, 4), nn.Linear(5, 4)
        self.logit_scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, texts: Tensor, images: Tensor) -> dict[str, Tensor]:
        embeds = {"text_embeds": self.text(texts).tanh(), "image_embeds": self.image(images).tanh()}
        return {**embeds, "logit_scale": self.logit_scale}


@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_it_is_the_gradient_of_the_plain_large_batch(parts: int) -> None:
    accelerator = Accelerator(cpu=True)
    generator = torch.Generator().manual_seed(1)
    texts, images = torch.randn(16, 6, generator=generator), torch.randn(16, 5, generator=generator)
    names = torch.randint(5, (16,), generator=generator)  # repeats, so that there are several positives

    plain = Towers()
    loss = info_nce(**plain(texts, images), positives=names[:, None] == names[None, :])
    loss.backward()

    cached = Towers()
    batch = {"texts": texts, "images": images, "names": names}
    split = [{k: v[i * 16 // parts : (i + 1) * 16 // parts] for k, v in batch.items()} for i in range(parts)]

    def loss_of(names: Tensor, **embeds: Tensor) -> Tensor:
        return info_nce(**embeds, positives=names[:, None] == names[None, :])

    measured = cached_backward(accelerator, cached, split, loss_of, fixed=("names",))
    torch.testing.assert_close(measured, loss.detach(), atol=1e-6, rtol=0)
    for (name, a), b in zip(plain.named_parameters(), cached.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-5, msg=name)


def test_a_frozen_tower_gets_no_gradient() -> None:
    towers = Towers()
    towers.image.requires_grad_(False)
    batch = {"texts": torch.randn(4, 6), "images": torch.randn(4, 5)}
    split = [{k: v[i : i + 2] for k, v in batch.items()} for i in (0, 2)]
    cached_backward(Accelerator(cpu=True), towers, split, info_nce, fixed=())
    assert towers.image.weight.grad is None
    assert towers.text.weight.grad is not None
    assert towers.text.weight.grad.abs().max() > 0


def test_dropout_falls_twice_alike() -> None:
    def towers() -> Towers:
        made = Towers()
        made.text = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 4))
        torch.manual_seed(3)
        nn.init.normal_(made.text[1].weight)
        return made

    generator = torch.Generator().manual_seed(1)
    batch = {"texts": torch.randn(16, 6, generator=generator), "images": torch.randn(16, 5, generator=generator)}
    split = [{k: v[i : i + 4] for k, v in batch.items()} for i in range(0, 16, 4)]
    plain = towers()
    torch.manual_seed(7)
    outputs = [plain(**part) for part in split]
    rows = {name: torch.cat([output[name] for output in outputs]) for name in ("text_embeds", "image_embeds")}
    info_nce(**rows, logit_scale=plain.logit_scale).backward()
    cached = towers()
    torch.manual_seed(7)
    cached_backward(Accelerator(cpu=True), cached, split, info_nce, fixed=())
    for (name, a), b in zip(plain.named_parameters(), cached.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-5, msg=name)
