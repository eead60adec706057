"""Prompts: normalising, weights, and windows of tokens."""
