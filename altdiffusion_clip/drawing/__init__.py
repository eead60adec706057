"""Draws pictures from prompts, one or thousands: the plan, the pipeline call, the output folder and its pages."""
