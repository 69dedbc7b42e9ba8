# Two commands do everything on a fresh machine: `make demo` and `make test`.
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo demo-seeds zoo test test-slow lint format types report check faults clean

demo: $(STAMP)  ## train and compare four methods on synthetic photos, 20 to 30 minutes on two CPU cores
	$(BIN)/pods_demo

demo-seeds: $(STAMP)  ## the same over three seeds: mean and range of every group
	$(BIN)/pods_demo --seeds 3 --keep benchmarks/demo

zoo: $(STAMP)  ## every method with the small detector, three seeds; hours on two CPU cores
	$(BIN)/pods_zoo --jobs 2 --keep --table benchmarks/zoo/table.md

test: $(STAMP)  ## the test suite, CPU only, minutes
	$(BIN)/python -m pytest

test-slow: $(STAMP)  ## the tests that take minutes each
	$(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP)
	$(BIN)/pyright --pythonpath $(BIN)/python

report: $(STAMP)  ## every card and table of the playground agrees with its results files
	$(BIN)/pods_report --check playground

check: lint types report test  ## what CI runs

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis

$(STAMP): pyproject.toml setup.py tools/install.sh
	sh tools/install.sh $(VENV)
	touch $@

faults: $(STAMP)  ## inject every fault into real runs; nothing may be lost
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/faults -m "slow or not slow"
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/engine_faults.py
