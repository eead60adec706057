"""Reads data sets in the layouts that people have on disk, one module per layout. Nothing is downloaded."""
