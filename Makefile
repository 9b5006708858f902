# make env        the environment in .venv
# make demo       a simulated visit, from raw exposures to products, in demo/
# make report     the same, with a report of it: demo/results/*_report.html
# make test       the tests
# make test-quick those for the daily loop, in three minutes
# make test-snakemake  a small visit with the oldest Snakemake that works: SNAKEMAKE=9.0.0 names another
# make test-slurm the workflow on a SLURM cluster of one node, started here: as root, with Debian's slurm-wlm and munge
# make test-peer  the comparison with romancal's own functions
# make bench      what an exposure costs, beside romancal where make test-peer has installed it: docs/performance.md
# make validate   our numbers beside romancal's, on full frames, and the reason of every difference: docs/validation.md (hours)
# make check      style, lint, imports, docstrings, types
# make docs       the documentation as a site: build/docs/index.html
# make changelog  the fragments of changelog.d into CHANGELOG.md: make changelog VERSION=0.2.0
# make lock       new pins in envs/
SHELL := /bin/bash
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || echo 2)
VENV := .venv
BIN := $(VENV)/bin
PEER := .venv-peer
VALIDATION ?= build/validate
SIMULATOR ?= rampflow
MEMORY ?= 14000
# The oldest version that works (min_version of workflow/Snakefile).
SNAKEMAKE ?= 9.0.0
SNAKEMAKE_TESTS = $(wildcard $(addprefix tests/,test_summary.py test_progress.py */test_summary.py */test_progress.py))
PIP := -m pip install --quiet --disable-pip-version-check

.PHONY: env demo report test test-quick test-slurm test-snakemake test-peer bench validate check docs changelog lock clean
.DEFAULT_GOAL := env

env: $(VENV)/.made

$(VENV)/.made: envs/rampflow.txt $(wildcard plugins/progress/*.toml plugins/progress/*/*.py)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("rampflow needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) -r envs/rampflow.txt ./plugins/progress
	touch $@

$(VENV)/.made-dev: $(VENV)/.made envs/dev.txt
	$(BIN)/python $(PIP) -r envs/dev.txt
	touch $@

$(VENV)/.made-docs: $(VENV)/.made-dev envs/docs.txt
	$(BIN)/python $(PIP) -r envs/docs.txt
	touch $@

$(PEER)/.made: envs/peer.txt
	$(PYTHON) -m venv $(PEER)
	$(PEER)/bin/python $(PIP) -r envs/peer.txt
	touch $@

# The demo's references come from a CRDS cache of its own, with no server.
demo report: export CRDS_PATH := $(CURDIR)/demo/crds_cache
demo report: export CRDS_SERVER_URL := https://crds-serverless-mode.stsci.edu
demo report: export CRDS_OBSERVATORY := roman
demo report: env
	$(BIN)/snakemake --snakefile workflow/simulate.smk --configfile config/demo.yaml --cores $(CORES) --quiet progress rules host
	$(BIN)/snakemake $(filter report,$@) --configfile config/demo.yaml --cores $(CORES)
	@$(BIN)/python scripts/show_products.py demo/results

test: $(VENV)/.made-dev
	$(BIN)/python -m pytest --numprocesses $(CORES) --dist loadfile --durations 15 -m "not peer and not slurm"

test-quick: $(VENV)/.made-dev
	$(BIN)/python -m pytest --numprocesses $(CORES) --dist loadfile --durations 10 -m quick

test-slurm: $(VENV)/.made-dev
	$(BIN)/python -m pytest -m slurm tests/slurm

# A visit with an exposure that fails, its summary and its progress, with another version of Snakemake than the pinned one.
test-snakemake: $(VENV)/.made-dev
	$(BIN)/python $(PIP) --upgrade --target "build/snakemake-$(SNAKEMAKE)" "snakemake==$(SNAKEMAKE)"
	PYTHONPATH="$(CURDIR)/build/snakemake-$(SNAKEMAKE)" $(BIN)/python -m pytest -m workflow $(SNAKEMAKE_TESTS)

test-peer: $(PEER)/.made
	$(PEER)/bin/python -m pytest -m peer tests/peer

# It needs a machine that does nothing else, and an hour; BENCH has options of bench.py.
bench: env
	$(BIN)/python tests/benchmark/bench.py docs/performance/measurements.jsonl --folder build/bench --peer $(PEER)/bin/python $(BENCH)
	$(BIN)/python tests/benchmark/write_document.py docs/performance/measurements.jsonl docs/performance.md

# CASES="plain wfi18" are some of tests/validation/cases.yaml; SIMULATOR=romanisim; MEMORY in MB, of all that runs at once.
validate: env $(PEER)/.made $(if $(filter romanisim,$(SIMULATOR)),$(PEER)/.made-romanisim)
	$(BIN)/snakemake --snakefile tests/validation/Snakefile --directory $(VALIDATION)/$(SIMULATOR) --cores $(CORES) \
		--resources mem_mb=$(MEMORY) --quiet rules host --config peer=$(abspath $(PEER))/bin/python simulator=$(SIMULATOR) only="$(CASES)"
	$(BIN)/python tests/validation/write_document.py $(VALIDATION) docs/validation docs/validation.md

$(PEER)/.made-romanisim: $(PEER)/.made envs/romanisim.txt
	$(PEER)/bin/python $(PIP) -r envs/romanisim.txt
	touch $@

check: $(VENV)/.made-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint
	$(BIN)/snakemake --snakefile workflow/simulate.smk --configfile config/demo.yaml --lint
	$(BIN)/python tests/check_imports.py
	$(BIN)/numpydoc lint scripts/*.py $(wildcard scripts/rampflow/*.py scripts/rampflow/*/*.py)
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml

# A warning is an error: a link that leads nowhere, a docstring that can't be read.
docs: $(VENV)/.made-docs
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --builder html --conf-dir docs . build/docs

changelog: $(VENV)/.made-dev
	$(BIN)/towncrier build $(if $(VERSION),--version $(VERSION),--draft --version next)

# Pins follow from the .in files; a new environment shows what they lead to.
lock:
	bash envs/lock.sh $(PYTHON)

clean:
	rm -rf $(VENV) $(PEER) demo .snakemake .rampflow
