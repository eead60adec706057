"""One script for each claim of speed, memory or quality; `altdiffusion benchmark` runs them."""
