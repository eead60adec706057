"""Judges say how well pictures fit texts: models of many kinds, functions, and combinations of them."""
