# Two commands for a fresh machine: make demo, make test. Each one creates the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
METHOD ?= fedcmi
DEMO_fedcmi := configs/digits-mini-fedcmi.yaml
DEMO_fedmvp := configs/birds-mini-fedmvp.yaml

.PHONY: install demo test test-slow test-containers fuzz docs reference figures lint format clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/fedmosaic run $(or $(DEMO_$(METHOD)),$(error METHOD is fedcmi or fedmvp)) --engine processes

# One worker per core. The tests of a file run on one worker, and the longest files start first.
PYTEST := $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

test: install
	$(PYTEST) --maxprocesses 4

# Tests with real processes: runs, faults, and hosts (network namespaces, which need root).
test-slow: install
	$(PYTEST) --maxprocesses 2 -m slow

# Builds the image and runs the services of the compose files as containers. Needs root and Debian's buildah, podman,
# runc, catatonit, debootstrap and iptables; otherwise the tests are skipped. Takes a quarter of an hour.
test-containers: install
	$(BIN)/pytest -m containers -s

# Tests all code that reads files and messages with 58,000 damaged inputs, four times as many as in `make test`.
fuzz: install
	FEDMOSAIC_FUZZ=4 $(BIN)/pytest tests/test_fuzz.py

# The pages of docs/reference, from the code. A test compares the committed pages with the code.
reference: install
	$(BIN)/python docs/hooks/reference.py

# The drawings of docs/figures. A test compares the committed files with the script.
figures: install
	$(BIN)/python docs/figures/draw.py

# Builds the documentation in site/. A test builds it too.
docs: install
	$(BIN)/mkdocs build --strict

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) shards runs site
