.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
EXTRAS := worker,service,dev,docs

export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true

CHECKS := check-format check-lint check-types check-imports check-markdown check-spelling
PAGES := README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md benchmarks/README.md infra/README.md docs

.PHONY: install demo test check $(CHECKS) docs reference coverage bench format constraints clean help

install: $(INSTALLED)  ## everything into .venv, commands in .venv/bin

demo: $(INSTALLED)  ## digits in, two fronts out, in under five minutes; a second time it resumes or shows the result again
	$(BIN)/inn-automl run --dataset photo-digits --budget examples/demo-budget.yaml --out demo

test: $(INSTALLED)  ## all tests
	$(BIN)/python -m pytest -q

check: $(CHECKS)  ## format, lint, types, import directions, Markdown, spelling

check-format: $(INSTALLED)
	$(BIN)/ruff format --check .

check-lint: $(INSTALLED)
	$(BIN)/ruff check .

check-types: $(INSTALLED)
	$(BIN)/mypy

check-imports: $(INSTALLED)
	$(BIN)/lint-imports

check-markdown: $(INSTALLED)
	$(BIN)/pymarkdown scan --recurse $(PAGES)

check-spelling: $(INSTALLED)
	$(BIN)/codespell

docs: $(INSTALLED)  ## the documentation, as HTML in build/docs; a warning or a dead link is an error
	$(BIN)/sphinx-build --builder html --fail-on-warning --quiet --jobs auto docs build/docs
	@echo "build/docs/index.html"

reference: $(INSTALLED)  ## bring the committed references of budget and commands up to date
	$(BIN)/python docs/_ext/generated.py --write

coverage: $(INSTALLED)  ## all tests with the lines and branches that they run, as HTML in build/coverage
	$(BIN)/python -m pytest -q --cov --cov-report=term --cov-report=html

bench: $(INSTALLED)  ## the numbers of benchmarks/
	$(BIN)/python -m benchmarks

format: $(INSTALLED)  ## put the code into form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Installs again only when what is to be installed changed. The pins are those that were tried together.
$(INSTALLED): pyproject.toml infra/constraints.txt
	@if [[ -z "$(PYTHON)" ]] || ! "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	    echo "inn_automl needs Python 3.11 or newer: install it, or name one with 'make PYTHON=/path/to/python3.11'." >&2; exit 1; fi
	@[[ -x $(BIN)/python ]] || "$(PYTHON)" -m venv $(VENV) || \
	    { echo "$(PYTHON) cannot make a virtual environment: install its venv module (Debian: python3-venv)." >&2; exit 1; }
	@echo "Installing into $(VENV): about 2.6 GB, a few minutes the first time."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c infra/constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

constraints:  ## resolve the newest versions that pyproject.toml allows and pin them
	@temporary=$$(mktemp -d); trap 'rm -rf "$$temporary"' EXIT; \
	"$(PYTHON)" -m venv "$$temporary"; \
	"$$temporary/bin/python" -m pip install --quiet -e '.[$(EXTRAS)]'; \
	{ echo "# Versions that were tried together; 'make constraints' writes this file."; \
	  "$$temporary/bin/python" -m pip freeze --all --exclude-editable --exclude pip | sed 's/+cpu$$//'; } > infra/constraints.txt

clean:  ## remove the environment, caches and build output; results stay
	rm -rf $(VENV) build dist *.egg-info .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
