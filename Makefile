# Two commands on a bare machine with Python 3.11 or newer: `make demo` and `make test`.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/demo

.PHONY: demo test lint docs notebooks setup clean

# Installing torch by itself first lets a machine's own build of it be found; everything else then
# keeps it.
$(BIN)/headscope: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'headscope needs Python 3.11 or newer')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(BIN)/.dev: $(BIN)/headscope
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev,app,docs,harness,lens,nnsight,notebook]"
	touch $@

setup: $(BIN)/.dev

# The whole way on the built-in model: scan, a small causal test, report.
demo: $(BIN)/headscope
	$(BIN)/headscope scan smollm2 --samples 6 --out $(RUN)
	$(BIN)/headscope validate $(RUN) --part answer --samples 8 --controls 19
	$(BIN)/headscope show $(RUN)
	$(BIN)/headscope report $(RUN)

test: $(BIN)/.dev
	$(BIN)/python -m pytest -n auto --maxprocesses 4

lint: $(BIN)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

# The documentation, with warnings as errors; executed notebooks are shown where there are any.
docs: $(BIN)/.dev
	$(BIN)/python docs/build.py

notebooks: $(BIN)/.dev
	$(BIN)/python examples/run.py $(NOTEBOOKS)

clean:
	rm -rf $(VENV) dist
