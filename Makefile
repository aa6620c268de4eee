# `make demo` and `make test` set up what they need in .venv; `make help` lists the rest.
ARGS ?=
SEEDS ?= 1000
SEED ?=
BIN := .venv/bin
# Most tests wait for a process or a socket; those that measure how long a cluster is away want the machine to themselves.
WORKERS ?= $(shell expr $$(nproc) + 1)
ALONE := tests/chaos/test_chaos.py
# Thousands of files and some hundred databases that nobody reads again: they wait for no disk where memory holds them.
# Like any folder for such things it is everybody's, as PostgreSQL does not run as root; and a socket's path must be short.
ROOMY := $(shell [ -w /dev/shm ] && [ "$$(df -Pk /dev/shm | awk 'NR == 2 {print $$4}')" -gt 4000000 ] && echo /dev/shm)

# Tests start hundreds of processes: each would compile this checkout anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test chaos check lint types format simulate setup clean

help:
	@echo "make demo    set up .venv and run the demo (ARGS=--exit ends after the scene)"
	@echo "make test    set up .venv with the test tools and run every test (ARGS='-k name -x' goes to pytest)"
	@echo "make chaos   break a three-node cluster in every way, under load, at full size: a quarter of an hour"
	@echo "             (ARGS='storm failover' plays these scenes only, ARGS=--small a little of each, ARGS=-h lists them)"
	@echo "make check   everything CI wants: lint, types, tests"
	@echo "make lint    ruff check and ruff format --check"
	@echo "make types   pyright, strict"
	@echo "make format  let ruff fix and format"
	@echo "make simulate  play SEEDS=1000 schedules of faults against the ownership machine (SEED=7: one, with its trace)"
	@echo "make clean   remove .venv, caches and build leftovers"

demo:
	@.ci/setup run
	@echo "==> understudy demo $(ARGS)"
	@$(BIN)/understudy demo $(ARGS)

test: setup
ifeq ($(strip $(ARGS)),)
	@echo "==> pytest, with $(WORKERS) workers, then $(ALONE)"
	@folder=$$(mktemp -d "$(or $(ROOMY),$${TMPDIR:-/tmp})/us-XXXXXX") && chmod 1777 "$$folder" && export TMPDIR="$$folder" && \
	  trap 'rm -rf "$$folder"' EXIT && trap 'exit 130' INT TERM && \
	  $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder --ignore=$(ALONE) && $(BIN)/python -m pytest -q $(ALONE)
else
	@echo "==> pytest $(ARGS)"
	@$(BIN)/python -m pytest $(ARGS)
endif

chaos: setup
	@echo "==> python -m chaos $(ARGS)"
	@PYTHONPATH=tests $(BIN)/python -m chaos $(ARGS)

check: setup
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory types
	@$(MAKE) --no-print-directory test

lint: setup
	@echo "==> ruff check, ruff format --check"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup
	@echo "==> pyright"
	@$(BIN)/python -m pyright --pythonpath $(BIN)/python

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

simulate: setup
	@PYTHONPATH=tests $(BIN)/python -m simulation $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))

setup:
	@.ci/setup dev

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
