# Two commands on a fresh machine: make demo, make test. Each makes its own environment first.
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

# A file's tests stay together, on as many workers as there are cores; the longest files begin.
PYTEST := $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

test: install
	$(PYTEST) --maxprocesses 4

# Runs, faults and hosts (network namespaces, as root) of real processes.
test-slow: install
	$(PYTEST) --maxprocesses 2 -m slow

# The image is built, the compose files' services run as containers: as root, with Debian's buildah, podman, runc,
# catatonit, debootstrap and iptables; skipped without. A quarter of an hour.
test-containers: install
	$(BIN)/pytest -m containers -s

# Every reader of files and messages with 58,000 damaged inputs, four times as many as in `make test`.
fuzz: install
	FEDMOSAIC_FUZZ=4 $(BIN)/pytest tests/test_fuzz.py

# The pages of docs/reference, from the code. A test compares the committed pages with the code.
reference: install
	$(BIN)/python docs/hooks/reference.py

# The drawings of docs/figures. A test compares the committed files with the script.
figures: install
	$(BIN)/python docs/figures/draw.py

# The site in site/; a test builds it as well.
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
