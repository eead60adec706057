"""Scores for whole data sets: rows in, shards of Parquet out, in the memory of one shard."""
