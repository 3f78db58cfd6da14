# Thin: makes .venv, installs core and plugins together, runs. Everything else is tox and marketfeed itself.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PLUGINS = $(foreach name,kite mstock flattrade kafka,-e plugins/marketfeed-$(name))
BIN = .venv/bin

.PHONY: help run test slow chaos clean
help:
	@echo "make run    a sandbox broker, and a feed that prints its ticks (Ctrl-C ends it)"
	@echo "make test   the test suite, on this Python"
	@echo "make slow   the long trials"
	@echo "make chaos  seeded faults at full counts, reported as a table"

run: $(BIN)/.installed
	$(BIN)/marketfeed run examples/feed.toml --sandbox $(ARGS)

test: $(BIN)/tox
	$(BIN)/tox -q -e py $(ARGS)

slow chaos: $(BIN)/tox
	$(BIN)/tox -q -e $@ $(ARGS)

clean:
	rm -rf .venv .tox build dist data

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or later found (with venv); install one, or name it: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv

$(BIN)/.installed: $(BIN)/python pyproject.toml $(wildcard plugins/*/pyproject.toml)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e . $(PLUGINS)
	@touch $@

$(BIN)/tox: $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'tox>=4.20'
