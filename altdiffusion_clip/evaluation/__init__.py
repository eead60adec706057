"""Measures how good a model is: retrieval, classification, generation, and the emoji models' own measures."""
