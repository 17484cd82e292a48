"""Which rule decides a contest? Simulated contests: `python -m bench.calibration`."""
