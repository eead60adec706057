"""Reads pairs of a picture and a text from many kinds of sources, and continues after errors."""
