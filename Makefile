# make quickstart | test | lint | docs | shell: each makes .venv from the pinned requirements when it is missing or older than they are.
# Files are tested in their order: by the number of tests, a long one of few tests would come last and run alone.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test lint docs shell
quickstart: .venv/run
	$(BIN)/python -m experiments.train_reward --config=configs/reward.py:ratings --workdir=runs/ratings

test: .venv/dev
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

lint: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs: .venv/dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

shell: .venv/run
	PATH="$(CURDIR)/$(BIN):$$PATH" $${SHELL:-bash}

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rmjax needs Python 3.11 or later; name one: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv

.venv/run: requirements.txt | .venv/bin/python
	$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements.txt
	touch $@

.venv/dev: requirements-dev.txt .venv/run
	$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements-dev.txt
	touch $@
