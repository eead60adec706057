"""Scores whole data sets: rows in, Parquet shards out, with one shard in memory at a time."""
