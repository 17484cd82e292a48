# make train: everything from nothing to a trained small GPT-2; make test: the tests; make test-all: slow ones too.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# more than there are cores: many tests wait for processes that they have started
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(os.cpu_count() + 2)')
STDLIB := data/tokens/stdlib/meta.json

.PHONY: train contest test test-all lint types format clean mutants
train: .venv/installed $(STDLIB)
	$(BIN)/torchrun --standalone --nproc_per_node=2 train_gpt2.py configs/quickstart.toml

# three schedules x three seeds, and whether the numbers are those of docs/results/expected.toml
contest: .venv/installed $(STDLIB)
	$(BIN)/python -m contest configs/contest/quickstart.toml
	$(BIN)/python -m contest.expected runs/quickstart docs/results/expected.toml

test: .venv/installed-test
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

test-all: .venv/installed-test
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

lint: .venv/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell

types: .venv/installed-test
	$(BIN)/mypy

format: .venv/installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(STDLIB): .venv/installed
	$(BIN)/python -m data stdlib

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, this is " + sys.version)'
	$(PYTHON) -m venv .venv

.venv/installed: requirements.txt constraints.txt | .venv/bin/python
	$(PIP) --requirement requirements.txt
	touch $@

.venv/installed-test: requirements-test.txt .venv/installed
	$(PIP) --requirement requirements-test.txt
	touch $@

clean:
	rm -rf .venv build runs data/tokens

# beside CI: which expression could be wrong without a test that notices? hours on one core
mutants: .venv/installed-test
	$(PIP) --requirement requirements-mutants.txt
	nice $(BIN)/python -m tests.mutants
