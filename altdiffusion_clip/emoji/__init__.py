"""emoji-m9: a small real AltDiffusion, and the world of pictures and captions that it was trained on."""

from altdiffusion_clip.emoji.captions import captions
from altdiffusion_clip.emoji.concepts import Colour, Concept, colours, concepts, find_colour, find_concept
from altdiffusion_clip.emoji.renders import Placement, render

__all__ = ["Colour", "Concept", "Placement", "captions", "colours", "concepts", "find_colour", "find_concept", "render"]
