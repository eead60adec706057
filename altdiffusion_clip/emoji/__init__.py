"""emoji-m9: a small real AltDiffusion, and the world of pictures and captions that it was trained on."""
