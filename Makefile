# The two commands of the README. Each does its own set-up: a virtual environment in .venv with the pinned dependencies.

# An interpreter counts if it is new enough and can make a virtual environment (Debian packs venv apart).
USABLE := -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python $(USABLE) 2>/dev/null && echo $$python && break; done)

.PHONY: help demo test compat simulate chaos

help:
	@echo "make demo   plant attacks in 300,000 log events, find them on two Ray shards with a Redis store"
	@echo "make test   ruff, mypy and every test"
	@echo "make simulate SEEDS=10000   run as many simulated jobs with kills, pauses and failing stores"
	@echo "make chaos KILLS=100   kill and freeze processes, nodes and Redis under runs on Ray, and compare what they leave"
	@echo "make compat PACK=dir   run the tests of a pack in this format, and count by kind what passes"

demo: .venv/installed
	.venv/bin/python -m bench.demo
	@echo
	@echo "Next: write a rule, then  .venv/bin/countersign test rules/packs"
	@echo "      your own logs:      .venv/bin/countersign run LOGS --rules rules/packs"

test: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/mypy
	@# Runs are evaluated with this hash seed (cluster/environment.py): a simulated one that fails here fails in countersign-sim.
	PYTHONHASHSEED=0 .venv/bin/python -m pytest -p tests.skipped_claims
	@echo
	@echo "All passed. Next: make demo"

compat: .venv/installed
	@.venv/bin/python -m bench.compat "$(PACK)"

SEEDS ?= 1000

simulate: .venv/installed
	@.venv/bin/countersign-sim --seeds $(SEEDS)

KILLS ?= 100

chaos: .venv/installed
	@.venv/bin/python -m bench.chaos --kills $(KILLS)

.venv/installed: pyproject.toml .ci/constraints.txt
	@$(or $(PYTHON),false) $(USABLE) || { \
		echo "$(or $(PYTHON),make): no Python 3.11 or newer with venv: install one" \
			"(Debian, Ubuntu: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "Installing Countersign and its pinned dependencies into .venv (about half a minute) ..."
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -qq --no-input --disable-pip-version-check -c .ci/constraints.txt -e '.[dev]'
	@touch $@
