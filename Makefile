# Every target sets up its own needs; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.setup
BUDGET ?= 2m

.DEFAULT_GOAL := help
.PHONY: help setup demo test faults lint bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(SETUP) ## make .venv with unetseg and all that its tests need

# One pip command: only so does pip see the pin of torch when it resolves unetseg.
$(SETUP): pyproject.toml .ci/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "make: python3 is %d.%d, 3.11 or newer is due; give another: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing unetseg into $(VENV), once; this takes minutes"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c .ci/constraints.txt torch -e '.[dev]'
	@touch $@

# In a folder of its own, anew each time; `make demo BUDGET=10m` trains longer.
demo: $(SETUP) ## run the main job on synthetic images from end to end, in minutes
	@rm -rf demo && mkdir demo
	cd demo && ../$(BIN)/unetseg synth --n 100
	cd demo && ../$(BIN)/unetseg patch
	cd demo && ../$(BIN)/unetseg train --budget $(BUDGET)
	cd demo && ../$(BIN)/unetseg predict data/test/images
	cd demo && ../$(BIN)/unetseg evaluate
	@echo "Look at $$(ls demo/predictions/overlays/* | head -n 1)"

# One thread a process: two processes that each use all cores are slower than one.
test: $(SETUP) ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 $(ARGS)

# Linux alone, and long: ARGS='--share 0.1' tries a tenth of each fault.
faults: $(SETUP) ## inject every fault that is promised to do no harm
	$(BIN)/python -m tests.faults $(ARGS)

lint: $(SETUP) ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(SETUP) ## run the benchmarks
	$(BIN)/python -m tests.benchmarks $(ARGS)

clean: ## remove all that was made here, .venv too
	rm -rf $(VENV) demo dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
