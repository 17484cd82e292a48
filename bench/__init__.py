"""Programs that measure speed and memory, or recompute a study: `python -m bench.NAME`."""
