# Two commands for a newcomer: `make demo` and `make test`. Both set themselves up.
# Assumed: python3 (3.11 or newer), make, and a package index. Everything else is installed here.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
# pip compiles with one core, this with all of them; files that are no Python 3 on purpose are none of our business.
COMPILE := $(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null || true

# Debian tells root's make to help itself; everybody else is told what to install.
apt = { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get -qq update && apt-get -qq install -y $(1) >/dev/null; }

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format bench clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "twostep needs Python 3.11 or newer as '$(PYTHON)'; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { rm -rf $(VENV); $(call apt,python3-venv) && $(PYTHON) -m venv $(VENV); } || \
	  { rm -rf $(VENV); echo "Python's venv module is missing; on Debian: apt-get install python3-venv" >&2; exit 1; }

# Stamps make a second run quick: they are renewed when the dependency lists change.
$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing what the demo needs into $(VENV) (about a minute; TensorFlow is the large part)"
	@$(PIP) --editable '.[demo]'
	@$(COMPILE)
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing everything into $(VENV) (about two minutes; TensorFlow is the large part)"
	@$(PIP) --editable '.[dev]'
	@$(COMPILE)
	@touch $(VENV)/.demo $@

setup: $(VENV)/.dev ## virtual environment with everything installed

demo: $(VENV)/.demo ## the main job: train, start a registry and three nodes, classify, kill one
	@$(BIN)/twostep demo --kill-one $(ARGS)

test: $(VENV)/.dev ## every test, installing what they need (a real Consul and a browser included)
	@for tool in curl jq chromium; do command -v $$tool >/dev/null || $(call apt,$$tool) || \
	  echo "$$tool is missing: the tests that use it will say so" >&2; done
	@infra/consul/install.sh >/dev/null || echo "no Consul: the tests that use one will say so" >&2
	@$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev ## ruff and mypy, both strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.dev ## mend what ruff can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.dev ## the figures of docs/benchmarks.md
	@for what in start node registry client tails dashboard; do $(BIN)/twostep bench $$what || exit 1; done

clean: ## remove what was built and installed here
	rm -rf $(VENV) .cache models .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
