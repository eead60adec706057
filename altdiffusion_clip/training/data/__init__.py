"""What the stages are trained on: parallel sentences and captioned pictures, read once and kept memory-mapped."""
