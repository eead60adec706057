"""Workers: what they hold at once, and how they read what is far away."""

import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from altdiffusion_clip.judges.encoding import Bench
from altdiffusion_clip.judges.names import load_panel
from altdiffusion_clip.judges.pictures import READERS, Workers, _Budget
from altdiffusion_clip.sources.pictures import Located
from tests.judges.checkpoints import write_clip
from tests.pictures import held_out_pictures
from tests.sources.faulty import Faulty

PICTURES = [picture.path for picture in held_out_pictures()]


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench(load_panel("emoji-m18"))


def test_no_more_pixels_at_once_than_the_budget_unless_one_is_larger() -> None:
    budget, lock = _Budget(100), threading.Lock()
    at_once: list[int] = []
    most: list[list[int]] = []

    def decode(pixels: int) -> None:
        with budget.take(pixels):
            with lock:
                at_once.append(pixels)
                most.append(list(at_once))
            time.sleep(0.002)
            with lock:
                at_once.remove(pixels)

    threads = [threading.Thread(target=decode, args=(pixels,)) for pixels in [30, 60, 250, 40, 10, 100, 70] * 5]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(sum(each) <= 100 or each == [250] for each in most)
    assert any(len(each) > 1 for each in most)


def test_a_picture_that_cannot_be_read_gives_its_room_back() -> None:
    budget = _Budget(10)
    with pytest.raises(ValueError, match="damaged"), budget.take(10):
        raise ValueError("damaged")
    with budget.take(10):
        pass


@pytest.mark.parametrize("count", [0, 1])
def test_pictures_far_away_are_asked_for_together_and_come_in_order(count: int, bench: Bench) -> None:
    asked, lock, at_once = [0], threading.Lock(), [0]

    def slowly(number: int, path: str) -> None:
        with lock:
            asked[0] += 1
            at_once[0] = max(at_once[0], asked[0])
        time.sleep(0.02)
        with lock:
            asked[0] -= 1

    Faulty.reset(slowly)
    far = [Located(f"faulty://{path}") for path in PICTURES[:40]]
    near = [Located(str(path)) for path in PICTURES[:40]]
    prepared = []
    for pictures in (far, near, [each for pair in zip(far, near, strict=True) for each in pair]):
        with Workers(bench.preparation(), count) as workers:
            prepared.append([each.key for _, each in workers.prepare(pictures)])
    assert prepared[0] == prepared[1]
    assert prepared[2] == [key for key in prepared[0] for _ in range(2)]
    assert READERS / 2 < at_once[0] <= READERS
    Faulty.reset()


def test_what_is_wrong_far_away_is_said_of_that_picture(bench: Bench, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    Faulty.reset()
    pictures = [Located(f"faulty://{tmp_path / name}") for name in ("a.png", "b.png", "none.png")]
    with Workers(bench.preparation()) as workers:
        errors = [each.error for _, each in workers.prepare(pictures)]
    assert errors == ["", "not a picture that Pillow knows", "no such file"]


def test_two_judges_share_the_decoded_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from altdiffusion_clip.judges import pictures
    from altdiffusion_clip.judges.judging import rank

    clip = write_clip(tmp_path / "clip")
    alone = {name: rank("x", PICTURES[:6], name) for name in ("emoji-m18", str(clip))}
    decoded, load = [], pictures.load_image
    monkeypatch.setattr(pictures, "load_image", lambda *given: (decoded.append(given), load(*given))[1])
    both = rank("x", PICTURES[:6], ["emoji-m18", f"clip={clip}"])
    assert len(decoded) == 6
    of_clip = {image.index: image.score for image in alone[str(clip)]}
    assert [image.score for image in both] == pytest.approx([image.score for image in alone["emoji-m18"]], abs=1e-6)
    assert [image.scores["clip"] for image in both] == pytest.approx([of_clip[image.index] for image in both], abs=1e-6)
