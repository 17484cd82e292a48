"""Many runs: a contest file, its plan, tuning, and the processes that carry it out."""
