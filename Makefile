# The project's commands; `make help` lists them.
PYTHON ?= python3
ENV := .venv
BIN := $(ENV)/bin
RUN := $(BIN)/python
export PATH := $(CURDIR)/$(BIN):$(PATH)
.DEFAULT_GOAL := help
.PHONY: help repro test check format prove ui clean pins install

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F '\t' '{printf "  make %-8s %s\n", $$1, $$2}'

install: $(ENV)/.installed  ## create .venv and install the pinned requirements

$(ENV)/.installed: requirements.txt
	@if command -v uv >/dev/null; then \
	  uv venv --quiet --clear --python $(PYTHON) $(ENV) && uv pip install --quiet --python $(RUN) --require-hashes -r requirements.txt; \
	else \
	  $(PYTHON) -m venv --clear $(ENV) && $(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt; \
	fi
	@$(RUN) -c "import sysconfig, pathlib; pathlib.Path(sysconfig.get_path('purelib'), 'vae.pth').write_text('../../../../src\n')"
	@test -e .git || $(RUN) -m dvc config --local core.no_scm true
	@touch $@

repro: install  ## run the chain of params.yaml (dvc repro) and show what came out
	@$(RUN) -m dvc repro
	@$(RUN) -m pipeline summary

# A file's tests stay in one process, for their fixtures' sake; the heavy files come first.
test: install  ## run the test suite, in two processes
	@OMP_NUM_THREADS=1 $(RUN) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

check: install  ## format, lint, types, layers, freshness of the proofs
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(RUN) -m tests.support.prove check

format: install  ## write the code in its one format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

prove: install  ## the long proofs (100 kills, the diagnosis on real trainings); writes reports/prove.json
	@$(RUN) -m tests.support.prove run

ui: install  ## open the tracker: http://localhost:5000
	@$(BIN)/mlflow ui --workers 1

clean:  ## delete environments' caches and resume states, and say what that frees
	@$(RUN) -m pipeline clean

pins: install  ## resolve pyproject.toml's ranges into requirements.txt anew (needs uv)
	uv pip compile --universal --generate-hashes --python-version 3.11 --extra pipeline --extra dev --no-emit-index-url --no-emit-find-links --upgrade -q pyproject.toml -o requirements.txt
