"""Scenes: what training may show, all the true renders of a prompt, and pictures that are drawn as they are needed."""

from collections import Counter

import numpy as np
import pytest

from altdiffusion_clip.emoji.concepts import concepts, grounds, is_held_out
from altdiffusion_clip.emoji.renders import RESOLUTION
from altdiffusion_clip.emoji.scenes import KINDS, Scene, arrangements, draw_scenes

EVERY_KIND = dict.fromkeys(KINDS, 1.0)


def test_training_never_shows_what_is_held_out() -> None:
    assert not any(scene.is_held_out for scene in draw_scenes(3000, seed=0, shares=EVERY_KIND))


def test_unseen_scenes_are_new_in_one_thing() -> None:
    for scene in draw_scenes(300, seed=1, shares=EVERY_KIND, unseen=True):
        assert scene.is_held_out
        if len(scene.things) == 2:
            assert not any(is_held_out(thing, scene.ground) for thing in scene.things), "only their being together is"


def test_each_concept_and_each_ground_is_seen() -> None:
    assert {sum(is_held_out(concept, ground) for ground in grounds()) for concept in concepts()} == {3}
    for ground in grounds():
        assert sum(is_held_out(concept, ground) for concept in concepts()) == len(concepts()) // 6


def test_the_shares_are_as_asked_for() -> None:
    counts = Counter(scene.kind for scene in draw_scenes(4000, seed=2, shares={"one": 3, "beside": 1}))
    assert counts["one"] / counts["beside"] == pytest.approx(3, rel=0.15)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_painted", [False, True])
def test_things_lie_inside_and_on_the_autoencoders_grid(kind: str, is_painted: bool) -> None:
    for arrangement in arrangements(kind, is_painted):
        for placement in arrangement:
            assert placement.dx % 8 == placement.dy % 8 == 0
            for offset in (placement.dx, placement.dy):
                assert abs(offset) + placement.size / 2 <= RESOLUTION / 2 + 4


def test_a_moved_thing_is_the_same_picture_moved() -> None:
    cat, white = concepts()[0], grounds()[0]
    places = {(p.size, p.dx, p.dy): i for i, (p,) in enumerate(arrangements("one", False))}
    still, moved = (np.asarray(Scene("one", (cat,), white, places[88, dx, 0]).render()) for dx in (0, 16))
    np.testing.assert_array_equal(moved[:, 16:], still[:, :-16])


def test_all_true_renders_of_a_prompt() -> None:
    scene = draw_scenes(1, seed=3, shares={"one": 1})[0]
    variants = list(scene.variants())
    sides = 1 if scene.ground.rgb else 2
    assert len(set(variants)) == len(variants) == sides * len(arrangements("one", scene.ground.rgb is None))
    assert scene in variants


@pytest.mark.parametrize("ground", grounds(), ids=lambda ground: ground.name)
def test_every_ground_is_painted(ground) -> None:
    picture = np.asarray(Scene("one", (concepts()[0],), ground).render())
    assert picture.shape == (RESOLUTION, RESOLUTION, 3)
    if ground.rgb is None:
        assert len(np.unique(picture[:8].reshape(-1, 3), axis=0)) > 4
    else:
        assert tuple(picture[0, 0]) == ground.rgb
