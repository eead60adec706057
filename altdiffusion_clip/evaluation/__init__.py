"""How good a model is: retrieval, and the emoji world's own measures."""
