# Two commands: `make demo` trains, analyses and reports; `make test` checks. Both build .venv first, once.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export HF_HUB_OFFLINE := 1

.PHONY: demo test check test-slow test-calibration bench clean

demo: $(READY)
	@$(BIN)/mesaprobe train --preset quick --out trained_models/demo --resume
	@$(BIN)/mesaprobe analyze trained_models/demo --out analyses/demo --reuse

test: check
	$(BIN)/pytest -m "not slow"

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-slow: $(READY)
	$(BIN)/pytest -m slow

test-calibration: $(READY)
	$(BIN)/pytest -m slow tests/test_statistics*.py

bench: $(READY)
	$(BIN)/mesaprobe bench

# torch first and pinned: a looser requirement would fetch gigabytes of CUDA libraries.
$(READY): constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

clean:
	rm -rf $(VENV) trained_models/demo analyses/demo
