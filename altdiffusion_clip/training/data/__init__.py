"""Training data: parallel sentences and captioned pictures, read once and then memory-mapped."""
