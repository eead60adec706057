"""emoji-m18: a small real AltDiffusion-m18, and the world of pictures and captions that it was trained on."""
