"""Programs that measure, simulate rules, or recompute a study: `python -m bench.NAME`."""
