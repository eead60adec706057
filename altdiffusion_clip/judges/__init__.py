"""Whatever says how well pictures fit texts: models of many kinds, functions, and several of them together."""
