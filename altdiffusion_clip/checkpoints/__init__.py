"""Reading and naming checkpoints."""
