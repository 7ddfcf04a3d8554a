.DEFAULT_GOAL := help
.PHONY: help demo test lint bench chaos mutants contract up

VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready-$(shell cksum < pyproject.toml | cut -d' ' -f1)
EXTRAS := .[test,lint,otlp]

# pyright keeps its program here: a home directory is not needed
export PYRIGHT_PYTHON_CACHE_DIR := $(CURDIR)/$(VENV)/pyright
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## 500 orders, two workers, one of them killed half way, the books balanced
	@$(BIN)/saga demo

test: $(READY) ## every check: lint, types, layers, all tests, and a minute of faults
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile
	@CHAOS_SIZE=smoke CHAOS_SEED=$${CHAOS_SEED:-31} $(BIN)/python -m pytest tests/chaos/test_chaos.py -k nothing_is_lost

lint: $(READY) ## format, lint, both type checkers, the layers of the house
	@$(BIN)/ruff format --check --quiet . || { echo "run: $(BIN)/ruff format ."; exit 1; }
	@$(BIN)/ruff check .
	@$(BIN)/mypy & mypy=$$!; $(BIN)/pyright && wait $$mypy
	@$(BIN)/lint-imports --no-cache

bench: $(READY) ## throughput and latency beside the limits of this machine
	@$(BIN)/python -m benchmarks

chaos: $(READY) ## 100,000 random lives and worlds, the sizes that are promised, then a quarter of an hour of faults (CHAOS_SIZE=release for longer)
	@LAW_EXAMPLES=$${LAW_EXAMPLES:-100000} $(BIN)/python -m pytest tests/properties
	@SCALE_SIZE=$${SCALE_SIZE:-full} $(BIN)/python -m pytest tests/scale --timeout=0
	@RELAY_STORM=$${RELAY_STORM:-full} $(BIN)/python -m pytest tests/crash/test_relay_storm.py
	@MODEL_EXAMPLES=$${MODEL_EXAMPLES:-5000} $(BIN)/python -m pytest tests/faults/test_store_model.py --timeout=0
	@INBOUND_RECORDS=$${INBOUND_RECORDS:-10000} $(BIN)/python -m pytest tests/crash/test_inbound_killed.py tests/crash/test_event_consumer_killed.py
	@SIM_SEEDS=$${SIM_SEEDS:-100000} CHAOS_SIZE=$${CHAOS_SIZE:-nightly} CHAOS_MINUTES=$${CHAOS_MINUTES:-10} $(BIN)/python -m pytest -m chaos --timeout=0

mutants: $(READY) ## plant one bug after another: each must be found
	@$(BIN)/python -m pytest --numprocesses=2 tests/simulation/test_simulation.py -k planted_bug -v

contract: $(READY) ## write docs/events anew: JSON Schemas and AsyncAPI (RELEASE=1 promises them to readers)
	@$(BIN)/python -m orchestrator.faces.contract docs/events $(if $(RELEASE),--release)

up: $(READY) ## worker, relay and an embedded Postgres in one process
	@$(BIN)/saga up

# The environment, made anew or brought up to date when pyproject.toml changed. uv where it is present.
define SET_UP
set -eu
if command -v uv >/dev/null 2>&1; then
  $(BIN)/python -c '' 2>/dev/null || uv venv --quiet --clear --python '>=3.11' $(VENV)
  uv pip install --quiet --python $(BIN)/python -e '$(EXTRAS)'
else
  fits='import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))'
  if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then
    python=
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
      if $$name -c "$$fits" >/dev/null 2>&1; then python=$$name; break; fi
    done
    if [ -z "$$python" ]; then
      echo 'Python 3.11 or newer with its venv module is needed (on Debian: apt install python3 python3-venv).' >&2
      exit 1
    fi
    "$$python" -m venv --clear $(VENV)
  fi
  $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '$(EXTRAS)'
fi
rm -f $(VENV)/.ready-*
touch '$@'
endef

$(READY): export SCRIPT = $(SET_UP)
$(READY):
	@echo 'setting up $(VENV) ...'
	@sh -c "$$SCRIPT"
