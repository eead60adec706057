"""The world of the default model, emoji-m18: what it knows, how it is said, and how it looks."""

from altdiffusion_clip.emoji.captions import captions
from altdiffusion_clip.emoji.concepts import Concept, Ground, colours, concepts, find_concept, find_ground, grounds
from altdiffusion_clip.emoji.renders import Placement, render
from altdiffusion_clip.emoji.scenes import Scene

__all__ = [
    "Concept",
    "Ground",
    "Placement",
    "Scene",
    "captions",
    "colours",
    "concepts",
    "find_concept",
    "find_ground",
    "grounds",
    "render",
]
