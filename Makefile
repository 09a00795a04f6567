# What a developer needs; `make help` lists it.
PYTHON ?= python3.11
BIN := .venv/bin
# One file at a time is handed to each core, in the order of tests/scheduling.py.
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help run test exhaustive check bench ui emulator clean
.DEFAULT_GOAL := help

help:  ## list the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

run: .venv/local  ## tune the embedded model on the embedded data, from a fresh clone
	$(BIN)/python -m runner $(ARGS)
	@echo "To continue in this shell: source $(BIN)/activate (then python -m runner --help), or $(BIN)/python -m runner …"

test: .venv/dev .venv/azurite  ## the whole test suite, slow tests included; DURATIONS=1 writes how long its files take
	$(PYTEST) -m "not exhaustive" $(if $(DURATIONS),--write-durations) $(ARGS)

exhaustive: .venv/dev .venv/azurite  ## the tests that `make test` leaves out: further cases, and new random examples
	$(PYTEST) -m exhaustive $(ARGS)
	$(PYTEST) -m hypothesis --hypothesis-profile=default $(ARGS)

check: .venv/dev  ## format, lint, types and the fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --num-workers 2
	$(PYTEST) $(ARGS)

bench: .venv/dev  ## the benchmarks; each ends with a line of JSON
	for file in tests/benchmarks/bench_*.py; do $(BIN)/python $$file $(ARGS) || exit 1; done

ui: .venv/local  ## the MLflow page of the runs made here
	$(BIN)/mlflow ui

emulator: .venv/tinker  ## rehearse hosted jobs, sessions and Tinker: services on this machine, really training; paste what it prints
	$(BIN)/python -m tests.emulator $(ARGS)

clean:  ## remove the environment and what tools left behind, never runs/ or mlflow.db
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist

.venv/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON); install Python 3.11 or give PYTHON=…"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/local: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing into .venv (about 2 minutes and 2 GB) …"
	$(PIP) -e '.[local]'
	@touch $@

.venv/foundry: .venv/local
	$(PIP) -e '.[local,foundry]'
	@touch $@

.venv/tinker: .venv/foundry
	$(PIP) -e '.[local,foundry,tinker]'
	@touch $@

# In one call and not on top of .venv/tinker: each call resolves everything again, half a minute or more.
.venv/dev: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing into .venv (about 4 minutes and 3 GB) …"
	$(PIP) -e '.[local,foundry,tinker,sweeps,ray,graders,harness,export,onnx,mlx,mcp,dev]'
	@touch .venv/local .venv/foundry .venv/tinker $@

# Azure's storage on this machine, by Microsoft's emulator (18 s, 190 MB): 3.35 is the last version for Node 20.
.venv/azurite: | .venv/bin/python
	@npm install --silent --no-audit --no-fund --prefix $@ azurite@3.35.0 \
	  || echo "no Azurite, as npm is not here or failed: the tests of abfs: are skipped"
