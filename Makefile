# Everything a newcomer needs: `make run`, `make test`. Both set up .venv first (2 to 6 minutes and 8 GB, once).
PYTHON ?= python3
VENV   ?= .venv
# On a machine with a GPU: make EXTRAS=gpu,tensorrt,dev run (the same EXTRAS with every target: others start .venv anew)
EXTRAS ?= cpu,tensorrt-rtx,dev
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))
comma  := ,

.PHONY: setup run test test-all test-gpu browser lint types site clean

setup: $(STAMP)

# Other extras than before start an empty environment: onnxruntime and onnxruntime-gpu own the same module. The stamp is
# there, out of date, before anything is installed, so that a half-finished installation is known for what it is too.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(if $(filter-out $@,$(wildcard $(VENV)/.installed-*)),--clear) $(VENV)
	touch -t 197001020000 $@
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	touch $@

run: $(STAMP)
	$(BIN)/compress run --teacher cait_s24 --student deit_tiny --strategy lift

# A file's tests stay in one process, for they share what is costly to make. Files start in the order of
# tests/conftest.py, the longest ones first; pytest-xdist would start those of many tests first, and end with the longest.
PARALLEL = -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# A test that hangs is named, with what each of its threads was doing, and fails; the slowest takes a quarter of this.
test: $(STAMP)
	$(BIN)/python -m pytest $(PARALLEL) --timeout 600 -o faulthandler_timeout=500

test-all: $(STAMP)
	$(BIN)/python -m pytest -m "not gpu" $(PARALLEL)

test-gpu: $(STAMP)
	$(BIN)/python -m pytest -m gpu

# Chromium for the tests that open report.html; without it they are skipped. Needs root.
browser:
	CI=true .ci/browser

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# The documentation: build/site/index.html opens in a browser as it is. A broken link fails. Needs no network.
site: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
