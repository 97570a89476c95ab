# The menu. `make` alone shows it; each dish sets up what it needs, from a bare clone on.

SHELL := /usr/bin/env bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint conformance drill bench clean

BIN := .venv/bin
KILLS ?= 200
SEED ?=
STOCK ?=
TESTS ?= tests

help: ## Show this menu
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.ready ## Make .venv from uv.lock (installs uv if there is none)

.venv/.ready: pyproject.toml uv.lock scripts/setup.sh
	@scripts/setup.sh

demo: setup ## Watch a tool lose its server in the middle of a conversation, and go on
	@$(BIN)/milepost demo

test: setup ## Run all tests, with coverage (TESTS=tests/store for some of them)
	@$(BIN)/python -m coverage erase
	$(BIN)/python -m pytest $(TESTS) --cov --cov-report=term --durations=12

lint: setup ## Check style, types and the layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

conformance: setup ## Run the official MCP conformance suite (STOCK=1: on the SDK's own transport)
	@$(BIN)/python conformance/run.py $(if $(STOCK),--stock)

drill: setup ## Kill real servers at random points and check what is left (KILLS=200, SEED=...)
	@$(BIN)/python drills/run.py --kills $(KILLS) $(if $(SEED),--seed $(SEED))

bench: setup ## Measure the store, the engine, the endpoint and the memory of waiting runs
	@set -e; for script in bench/*.py; do echo "# $$script"; $(BIN)/python "$$script"; done

clean: ## Remove everything that is made: environments, Node modules, caches
	rm -rf .venv .tools conformance/node_modules tests/typescript/node_modules .mypy_cache .ruff_cache .pytest_cache
