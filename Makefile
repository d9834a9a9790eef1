# Needs make and Python 3.11 or newer, nothing else: all dependencies come as wheels, pinned by hash in requirements.lock.

# The first of these that is new enough; another one: make PYTHON=/path/to/python
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# Only for `make lock`
UV ?= uv
BIN := .venv/bin

.PHONY: help setup torch demo demo-s3 test bench torture fuzz corpora lock clean

help: ## show this list
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST)

setup: .venv/.done ## make .venv with the pinned dependencies and h5dat itself

.venv/.done: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "found no Python 3.11 or newer; install one, or name it: make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: setup ## turn a small archive of mixed files into demo/pictures.h5, through Prefect, and read it back
	@mkdir -p demo
	$(BIN)/python samples/make_archive.py demo/pictures.zip
	$(BIN)/h5dat ingest demo/pictures.zip -o demo/pictures.h5
	$(BIN)/h5dat ls demo/pictures.h5
	$(BIN)/python samples/read_with_h5py.py demo/pictures.h5

demo-s3: setup ## the same by itself: archives that land in a bucket become an object in another, on this machine alone (Linux)
	@rm -rf demo/s3
	PYTHONPATH=. $(BIN)/python samples/demo_s3.py demo/s3

torch: .venv/.torch ## add torch without CUDA, torchdata and Lightning to .venv; their tests are skipped without

.venv/.torch: .venv/.done requirements-torch.txt requirements-torch.lock
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-torch.txt
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements-torch.lock
	$(BIN)/python -m pip check
	@touch $@

test: setup ## lint, format, types, tests: what CI runs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest -q -n 4 --dist loadfile --no-loadscope-reorder # many tests wait for disks and servers

bench: setup ## time and memory; not part of the tests
	$(BIN)/python -m tests.benchmarks
	$(BIN)/python -m tests.benchmarks.peers --rounds 2 --scale 0.25 # the formats that others train from, in an environment of their own

fuzz: setup ## mutated archives, members, staged files and outputs, for ten minutes (Linux)
	$(BIN)/python -m tests.fuzz

corpora: setup ## the test files of other projects, as far as they are there (Linux)
	$(BIN)/python -m tests.corpora --pixels

torture: setup ## cut, kill and starve ingests thousands of times; 40 minutes, not part of the tests
	$(BIN)/python -m tests.torture

# One version of each package for all supported Pythons and systems (fewest), so that the tried set is the installed set.
lock: ## resolve requirements.lock anew from pyproject.toml; keeps pinned versions where they still fit (needs uv)
	$(UV) pip compile pyproject.toml --extra dev --output-file requirements.lock --quiet \
		--universal --python-version 3.11 --fork-strategy fewest \
		--generate-hashes --no-emit-index-url --no-annotate --no-header

clean: ## remove everything that can be made again
	rm -rf .venv demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
