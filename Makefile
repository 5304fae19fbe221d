# Two commands do everything on a fresh machine: `make run` and `make test`.
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
STORE ?= store
# With CI=true the slow and Slurm tests run too.
SELECT := $(if $(filter true,$(CI)),not long and not gpu,not slow and not long and not gpu and not slurm)

.DEFAULT_GOAL := help
.PHONY: help env run test lint types check wheel towers board clean

help:  ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

env: $(STAMP)  ## Make the environment (.venv)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip uv
	$(VENV)/bin/uv pip install --quiet --python $(PY) -c constraints.txt -e '.[perception,test]'
	@touch $@

run: env  ## Make, train, measure and rank lbGen in the embedded world
	$(PY) -m harness run --generator lbgen --suite all --store $(STORE)

test: env lint types check  ## Lint, types and all tests

lint: env  ## Ruff
	$(PY) -m ruff check .

types: env  ## Mypy
	$(PY) -m mypy

check: env  ## Tests only (CI=true adds the slow ones)
	$(PY) -m pytest -m "$(SELECT)" --durations=10

wheel: env  ## Build the wheel into dist/
	$(PY) -m build --wheel --installer uv

towers: env  ## Train the embedded world's models anew (hours on a CPU)
	$(PY) -m harness.microworld.train_towers --out build/towers

board: env  ## Print the leaderboard of the store
	$(PY) -m harness leaderboard --store $(STORE)

clean:  ## Remove what was built, not the store
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache
