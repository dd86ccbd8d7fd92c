# Each target makes the machine ready first (./setup.sh) and may be run again at no harm.
#   make run      the whole main job once; ends with what was found and where the site is
#   make serve    the same farm, kept running, until Ctrl-C
#   make test     all tests          make check  format, lint, types, import contracts
#   make bench    the benchmarks
# SETTINGS=farm.toml gives any of them another farm; FARM_HOME another place for its state.
SHELL = /bin/sh
export FARM_HOME ?= $(CURDIR)/var
export SETTINGS
BIN = $(FARM_HOME)/venv/bin

.PHONY: help run serve test check bench setup
help:
	@sed -n 's/^# \{0,1\}//p' Makefile

setup:
	@./setup.sh

run: setup
	@exec $(BIN)/farm up --once

serve: setup
	@exec $(BIN)/farm up --attach

test: check
	@./setup.sh --tests
	@exec $(BIN)/python -m pytest

check: setup
	@$(BIN)/ruff format --check --quiet . || { echo "make check: run '$(BIN)/ruff format .'" >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/python -m scenarios.versions check
	@$(BIN)/lint-imports --no-cache | tail -n 12

bench: setup
	@./setup.sh --openstack
	@exec $(BIN)/python -m bench
