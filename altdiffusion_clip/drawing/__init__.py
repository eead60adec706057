"""Pictures from prompts, one or thousands: what is to be drawn, the call, the output folder, and pages to look at."""
