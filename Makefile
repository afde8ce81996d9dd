# Everything a developer or a visitor runs. Each target makes the virtual environment when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo base-data train-base test test-slow check format lint security audit types bench dist clean

setup: $(STAMP)

# Exact versions come from constraints.txt; pyproject.toml has the ranges.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  echo "Cannot make a virtual environment: on Debian and Ubuntu, install python3-venv."; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/python scripts/demo.py $(if $(MEDIA),--media "$(MEDIA)")

# What trivium-base is trained on: scripts/base/README.md. Fetches 4.5 GB.
base-data: $(STAMP)
	$(BIN)/python scripts/base_tables.py

# The space that ships, anew: the same heads byte for byte on the machine that made them (docs/model-card.md).
train-base: base-data
	$(BIN)/python scripts/train_base.py

test: $(STAMP)
	$(BIN)/python -m pytest -q --numprocesses auto --maxprocesses 8 --dist worksteal

# Faults, kills and mutants by the thousand: an hour on two cores.
test-slow: $(STAMP)
	$(BIN)/python -m pytest -q -m slow -s

check: $(STAMP) lint security types test

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

# Patterns that are often unsafe: reads our sources, needs no network.
security: $(STAMP)
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml src scripts

# Known faults of the versions in constraints.txt. Needs a network: the Python index is asked for its advisories, and
# pip-audit itself is installed into an environment of its own, so that it decides no version of ours.
audit:
	@test -x build/audit/bin/pip-audit || { $(PYTHON) -m venv build/audit && build/audit/bin/python -m pip install -q pip-audit; }
	build/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

types: $(STAMP)
	$(BIN)/mypy
	$(BIN)/pyright

bench: $(STAMP)
	$(BIN)/python benchmarks/run.py

# Wheel and source distribution in dist/, looked into; the wheel is installed where nothing else is and asked a question.
# QUICK=1 leaves the installing out.
dist: $(STAMP)
	$(BIN)/python scripts/dist.py $(if $(QUICK),--quick)

clean:
	rm -rf build dist demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis
