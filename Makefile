# Holdfast's targets explain themselves: `make help`. CI runs the same targets and nothing else.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BIN := .venv/bin
PACKAGES := $(wildcard domain engine store workflows activities drivers worker api cli lab \
              simulator hostd benchmarks tests)

.PHONY: help setup demo test ci lint format simulate bench bench-recovery lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing: Debian packages, .venv, Temporal, the lab's guest (repeatable)
	@scripts/setup.sh

demo: ## Build a data centre in a box, cut a host's power, watch the VMs come back
	@scripts/setup.sh demo
	@$(BIN)/holdfast demo

test: setup ## Lint, types, import rules, and every test (needs root for the lab; three quarters of an hour on two cores)
	@scripts/test.sh

ci: test ## What CI runs: everything

lint: ## Check style, types and import rules, and change nothing
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict --explicit-package-bases $(PACKAGES)
	@$(BIN)/lint-imports

format: ## Format the sources and fix what can be fixed without thinking
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

simulate: setup ## Ten minutes of faults in virtual time; what is found goes to var/simulate
	@$(BIN)/holdfast simulate run --minutes 10 --workers $$(nproc) --coverage 100

bench: setup ## Measure, and print a table with the machine's load beside it
	@$(BIN)/python -m benchmarks

bench-recovery: setup ## Measure recovery from each kind of death in the real lab (root, an hour)
	@$(BIN)/python -m benchmarks recovery

lock: ## Pin the dependencies of pyproject.toml anew in requirements.lock
	@scripts/lock.sh

clean: ## Remove .venv, caches and what demo, lab and benchmarks left in var; your engine's data stays
	@if compgen -G 'var/lab/lab/*' >/dev/null && [ -x $(BIN)/holdfast ]; then \
	  HOLDFAST_VAR=var $(BIN)/holdfast lab down; fi
	@if compgen -G 'var/demo/lab/demo/*' >/dev/null && [ -x $(BIN)/holdfast ]; then \
	  HOLDFAST_VAR=var/demo $(BIN)/holdfast lab down --name demo; fi
	@for left in var/bench/*/lab/*; do if [ -d "$$left" ] && [ -x $(BIN)/holdfast ]; then \
	  HOLDFAST_VAR="$${left%/lab/*}" $(BIN)/holdfast lab down --name "$${left##*/}"; fi; done
	@rm -rf var/demo var/lab var/lab-cache var/bench var/bin var/simulate
	@rm -rf build .venv ./*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	  .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@if [ -d var ] && ! rmdir var 2>/dev/null; then \
	  echo "kept in var, your engine's folder: $$(ls -A var | tr '\n' ' ')"; fi
