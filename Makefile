# make train: everything from nothing to a trained small GPT-2
# make quick: before every commit; make test: the tests; make test-all: the slow ones too
# make test-gpu: what needs a GPU; make test-oldest, make test-newest: with other versions
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# more than there are cores: many tests wait for processes that they have started
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(os.cpu_count() + 1)')
PYTEST := $(BIN)/python -m pytest --dist worksteal
STDLIB := data/tokens/stdlib/meta.json

.PHONY: train contest quick test test-all test-gpu test-oldest test-newest lint types format hooks aa mutants clean
train: .venv/installed $(STDLIB)
	$(BIN)/python -m launch --nproc 2 configs/quickstart.toml
	@printf '\nnow type:\n%s\n%s\n%s\n' \
	    '  . .venv/bin/activate    # once in each shell: python and torchrun are then those of .venv' \
	    '  python -m launch --nproc 2 configs/quickstart.toml --optimizer.lr 1e-3' \
	    '  python -m report runs/adamw-*   # compares the two learning rates'

# three schedules x three seeds, and whether the numbers are those of docs/results/expected.toml
contest: .venv/installed $(STDLIB)
	$(BIN)/python -m contest configs/contest/quickstart.toml
	$(BIN)/python -m contest.expected runs/quickstart docs/results/expected.toml || [ $$? = 3 ]
	@printf '\nnow type:\n%s\n%s\n' \
	    '  . .venv/bin/activate    # once in each shell: python and torchrun are then those of .venv' \
	    '  python -m report runs/quickstart'

# lint, types, and the tests that start no process and compile nothing
quick: lint types
	$(PYTEST) -n $(shell $(PYTHON) -c 'import os; print(os.cpu_count())') -m "not slow" --quick

test: .venv/installed-test
	$(PYTEST) -n $(WORKERS) -m "not slow"

test-all: .venv/installed-test
	$(PYTEST) -n $(WORKERS)

test-gpu: .venv/installed-test
	$(BIN)/python -m pytest -m gpu

# beside CI: the oldest and the newest versions that requirements.txt allows, each in an environment
# of its own; PIP_EXTRA_INDEX_URL as for `make train`
test-oldest: .venv-oldest/installed
	.venv-oldest/bin/python -m pytest --dist worksteal -n $(WORKERS) -m "not slow"

test-newest: .venv-newest/installed
	.venv-newest/bin/python -m pytest --dist worksteal -n $(WORKERS) -m "not slow"

.venv-%/bin/python:
	$(PYTHON) -m venv .venv-$*

# uv takes the oldest of each that go together, which pip cannot
.venv-oldest/installed: RESOLUTION := lowest-direct
.venv-newest/installed: RESOLUTION := highest
.venv-oldest/installed .venv-newest/installed: .venv-%/installed: requirements.txt requirements-test.txt | .venv-%/bin/python
	.venv-$*/bin/python -m pip install --quiet uv
	.venv-$*/bin/uv pip install --quiet --python .venv-$*/bin/python --upgrade \
	    $(addprefix --extra-index-url ,$(PIP_EXTRA_INDEX_URL)) --index-strategy unsafe-best-match \
	    --resolution $(RESOLUTION) --requirement requirements-test.txt
	touch $@

lint: .venv/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell

types: .venv/installed-test
	$(BIN)/mypy

format: .venv/installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# `git commit` then formats, lints and checks types
hooks: .venv/installed-test
	$(PIP) pre-commit
	$(BIN)/pre-commit install

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
	rm -rf .venv .venv-* build runs data/tokens

# beside CI: 200 contests of an arm against itself, which differ in rounding only; half an hour
aa: .venv/installed $(STDLIB)
	OMP_NUM_THREADS=1 nice $(BIN)/python -m bench.aa --contests 200

# beside CI: which expression could be wrong without a test that notices? hours on one core
mutants: .venv/installed-test
	$(PIP) --requirement requirements-mutants.txt
	nice $(BIN)/python -m tests.mutants
