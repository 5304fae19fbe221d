# Two commands do everything on a fresh machine: `make run` and `make test`.
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
STORE ?= store
JOBS ?= 2
# Its schema is what a test holds the export against; it is read from the wheel, because its pins do not fit beside transformers 5.
EVERY_EVAL_EVER := every-eval-ever==0.3.0
# With CI=true the slow and Slurm tests run too.
SELECT := $(if $(filter true,$(CI)),not long and not gpu,not slow and not long and not gpu and not slurm)

.DEFAULT_GOAL := help
.PHONY: help env run test test-lowest test-newest lint types check mutation wheel towers board clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

env: $(STAMP)  ## Make the environment (.venv)

$(STAMP): pyproject.toml harness/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip uv
	$(VENV)/bin/uv pip install --quiet --python $(PY) -c harness/constraints.txt -e '.[perception,export,slurm,test]'
	-$(PY) -m pip download --quiet --no-deps --ignore-requires-python --dest $(VENV)/share $(EVERY_EVAL_EVER)
	@touch $@

run: env  ## Make, train, measure and rank lbGen in the embedded world
	$(PY) -m harness run --generator lbgen --suite all --store $(STORE)

test: env lint types check  ## Lint, types and all tests

lint: env  ## Ruff
	$(PY) -m ruff check .

types: env  ## Mypy
	$(PY) -m mypy

check: env  ## Tests only (CI=true adds the slow ones)
	OMP_NUM_THREADS=1 $(PY) -m pytest -m "$(SELECT)" --durations=10 -n $(JOBS) --dist worksteal

test-lowest: RESOLUTION = lowest-direct
test-newest: RESOLUTION = highest
test-lowest:  ## The default tests on the lowest versions that pyproject.toml accepts
test-newest:  ## The default tests on the newest versions there are
test-lowest test-newest:
	$(PYTHON) -m venv --clear build/$@
	build/$@/bin/python -m pip install --quiet --upgrade pip uv
	build/$@/bin/uv pip install --quiet --resolution $(RESOLUTION) --python build/$@/bin/python -e '.[perception,test]'
	build/$@/bin/uv pip list --python build/$@/bin/python
	OMP_NUM_THREADS=1 build/$@/bin/python -m pytest -m "not slow and not long and not gpu and not slurm" -n $(JOBS) --dist worksteal

mutation: env  ## Change formulas one at a time: do tests notice? (hours; EVERY=5 takes a fifth) Writes docs/mutation.md
	$(VENV)/bin/uv pip install --quiet --python $(PY) -c harness/constraints.txt -e '.[mutation]'
	$(PY) benchmarks/mutation.py run $(or $(EVERY),1)
	$(PY) benchmarks/mutation.py report

wheel: env  ## Build the wheel into dist/
	$(PY) -m build --wheel --installer uv

towers: env  ## Train the embedded world's models anew (hours on a CPU)
	$(PY) -m harness.microworld.train_towers --out build/towers

board: env  ## Print the leaderboard of the store
	$(PY) -m harness leaderboard --store $(STORE)

clean:  ## Remove what was built, not the store
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache
