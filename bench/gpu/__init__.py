"""Everything that has to be shown on a GPU, in one command; see `python -m bench.gpu --help`."""
