# The menu. `make` alone shows it; each dish sets up what it needs, from a bare clone on.

SHELL := /usr/bin/env bash
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-replicas test test-long coverage lint conformance conformance-client drill drill-client drill-replicas recipes bench clean

BIN := .venv/bin
KILLS ?= 200
CONVERSATIONS ?= 500
STRIKES ?= 60
MINUTES ?= 30
SEED ?=
STOCK ?=
STORE ?=
TESTS ?= tests
WORKERS ?= 2
RINGS := */milepost/core/*,*/milepost/engine/*

help: ## Show this menu
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.ready ## Make .venv from uv.lock (installs uv if there is none)

.venv/.ready: pyproject.toml uv.lock scripts/setup.sh
	@scripts/setup.sh

demo: setup ## Watch a tool lose its server in the middle of a conversation, and go on
	@$(BIN)/milepost demo

demo-replicas: setup ## Watch a crowd talk to three replicas on PostgreSQL while they are killed and replaced
	@$(BIN)/python drills/show/story.py

test: setup ## Run the tests, and check what they cover (TESTS=tests/store for some, without the check; WORKERS=2)
	@$(if $(filter tests/browser%,$(TESTS)),scripts/debian-tools.sh chromium)
	@$(BIN)/python -m coverage erase
	scripts/in-memory.sh $(BIN)/python -m pytest $(TESTS) --ignore=tests/recipes $(if $(filter tests,$(TESTS)),-m "not long") -n $(WORKERS) --cov --cov-report= --durations=12
	$(if $(filter tests,$(TESTS)),@$(MAKE) --no-print-directory coverage)

test-long: setup ## Run the tests with real browsers, terminals, hosts and Node clients, and the stories with many processes
	@scripts/debian-tools.sh chromium
	scripts/in-memory.sh $(BIN)/python -m pytest tests --ignore=tests/recipes -m long -n $(WORKERS) --durations=12

coverage: ## Fail unless the last `make test` covered all lines and branches of core and engine, and 90 % of the rest
	@echo "core and engine: 100 %"; $(BIN)/python -m coverage report --include='$(RINGS)' --fail-under=100
	@echo "the rest: at least 90 %"; $(BIN)/python -m coverage report --omit='$(RINGS)' --fail-under=90

lint: setup ## Check style, types and the layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

conformance: setup ## Run the official MCP conformance suite (STORE=postgres; STOCK=1: on the SDK's own transport)
	@$(BIN)/python conformance/run.py $(if $(STOCK),--stock) $(if $(STORE),--store $(STORE))

conformance-client: setup ## Run the official client suite with milepost.client, of both revisions
	@$(BIN)/python conformance/run_client.py

drill: setup ## Kill real servers at random points and check what is left (KILLS=200, SEED=...)
	@$(BIN)/python drills/run.py --kills $(KILLS) $(if $(SEED),--seed $(SEED))

drill-client: CONVERSATIONS = 600
drill-client: setup ## Strike between clients (ours, the stock one) and three servers, at every place (CONVERSATIONS=600, SEED=...)
	@$(BIN)/python drills/client/run.py --conversations $(CONVERSATIONS) $(if $(SEED),--seed $(SEED))

drill-replicas: setup ## Many replicas on PostgreSQL under kills, failovers and bad networks (CONVERSATIONS=500, STRIKES=60, MINUTES=30, SEED=...)
	@scripts/debian-tools.sh libfaketime
	@$(BIN)/python drills/replicas.py --conversations $(CONVERSATIONS) --strikes $(STRIKES) --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

recipes: setup ## Run the client's recipes with the agent frameworks' real libraries (from PyPI, into .tools/recipes)
	@set -e; for list in examples/recipes/requirements/*.in; do scripts/recipe-env.sh $$(basename $$list .in); done
	$(BIN)/python -m pytest tests/recipes --durations=6

bench: setup ## Measure the stores, the engine, the endpoint, the client, the memory of waiting runs, and how replicas scale
	@set -e; for script in bench/*.py; do echo "# $$script"; PYTHONPATH=. $(BIN)/python "$$script"; done

clean: ## Remove everything that is made: environments, Node modules, caches
	rm -rf .venv .tools conformance/node_modules tests/typescript/node_modules .mypy_cache .ruff_cache .pytest_cache
