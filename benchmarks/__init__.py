"""One script per claim about speed, memory or quality. `altdiffusion benchmark` runs them."""
