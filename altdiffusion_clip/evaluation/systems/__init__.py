"""The systems that are measured, one small adapter each, all with the same two functions."""
