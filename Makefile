# Both commands build their own virtual environment; a second call does not install again.
#   make train   trains Pong and shows how it goes (ARGS="..." is passed on to `ga3c train`)
#   make test    passes the tests
#   make lint    checks style and types
#   make docs    builds the pages of docs/ into site/
PYTHON ?= python3
VENV ?= .venv
INSTALLED := $(VENV)/.installed
ARGS ?=
# Where it is set, torch is compiled anew whenever a test starts ga3c: three seconds instead of one and a half.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: train test lint docs

train: $(INSTALLED)
	$(VENV)/bin/ga3c train $(ARGS)

test: $(INSTALLED)
	$(VENV)/bin/python -m pytest --numprocesses 2 $(ARGS)

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: $(INSTALLED)
	$(VENV)/bin/python docs/options.py
	$(VENV)/bin/mkdocs build --strict

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --constraint constraints.txt --editable '.[compare,report,video,export,tensorboard,ale,docs,dev]'
	touch $@
