"""Reads, names, converts and merges checkpoints."""
