"""Pairs of a picture and a text, read from wherever people have them, and read on after a fault."""
