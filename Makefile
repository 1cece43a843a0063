# make demo            everything from nothing to a report, on rendered scenes
# make demo DATA=DIR   the same on a VOC-layout folder of your own
# make test            the whole suite      make test-fast   what takes under two minutes
# make lint            ruff                 make install     only the environment

PYTHON ?= python3
VENV ?= .venv
OUT ?= demo_out
DATA ?=
BIN := $(VENV)/bin

.PHONY: install demo test test-fast lint format

install:
	@$(PYTHON) tools/bootstrap.py --venv $(VENV)

demo: install
	@$(BIN)/python tools/demo.py --out "$(OUT)" $(if $(DATA),--data "$(DATA)")

test: install
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test-fast: install
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow"

lint: install
	@$(BIN)/ruff check densessl tools tests setup.py
	@$(BIN)/ruff format --check densessl tools tests setup.py

format: install
	@$(BIN)/ruff check --fix densessl tools tests setup.py
	@$(BIN)/ruff format densessl tools tests setup.py
