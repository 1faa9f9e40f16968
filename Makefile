# Every command of the project. `make help` prints the lines with two hashes.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CLIENT := .cache/clients
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help setup serve client check test test-glance format bench bench-glance bench-million clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# A stamp, so that nothing is installed twice.
$(VENV)/stamp: pyproject.toml constraints.txt
	@echo "setting up $(VENV) (once, about a minute)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; choose one with: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || scripts/venv-package $(PYTHON) $(VENV)
	@$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@

setup: $(VENV)/stamp ## install the project with its tools into .venv

client: $(VENV)/stamp ## install the real openstack and glance commands beside it
	@$(BIN)/python tests/rig/install.py clients

serve: $(VENV)/stamp client ## serve the Image API on 127.0.0.1:9292, state in ./state
	@scripts/serve $(BIN) $(CLIENT)/bin

format: $(VENV)/stamp ## format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

check: $(VENV)/stamp ## the quick half: formatting, lint, types, imports, tests without servers (about five minutes)
	@$(BIN)/ruff format --check --quiet . || { echo "not formatted: run make format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/pytest -q -m "not server" -n 2 --dist loadfile

test: check ## everything that guards main, with real servers (installs them as root, else says how)
	@$(BIN)/python tests/rig/install.py
	@$(BIN)/pytest -q -m "server and not glance_differential" -n 2 --dist loadfile

test-glance: $(VENV)/stamp ## the same ten thousand requests to Glimpse and to the real Glance, what differs in a list
	@$(BIN)/python tests/rig/install.py
	@$(BIN)/pytest -q -m glance_differential tests/differential

bench: $(VENV)/stamp ## measure against nginx, plain hashing and raw SQL
	@$(BIN)/python -m bench

bench-glance: $(VENV)/stamp ## measure against the real Glance
	@$(BIN)/python -m bench.glance

bench-million: $(VENV)/stamp ## measure lists of a million images (about 15 minutes)
	@$(BIN)/python -m bench.million

clean: ## remove what set-up and tests made, but not ./state
	@rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache
