# make env        make the environment, in .venv, and compile the loops for this kind of processor
# make dev        the same, with the tools of the tests and checks
# make cluster    the same, with Snakemake's executor for SLURM
# make watch      the same, with what scripts/watch.py needs to post summaries
# make fetch      the same, with what scripts/fetch.py needs to ask the archive
# make view       the same, with what scripts/view.py needs for regions of DS9 and notebooks
# make demo       process a simulated visit, from raw exposures to products, in demo/
# make report     the same, and write a report: demo/results/*_report.html
# make test       run the tests
# make test-quick run the tests for the daily loop, in two minutes
# make test-slurm run the workflow on a SLURM cluster of one node, which is started here: as root, with Debian's slurm-wlm and munge
# make test-container  the steps of the container recipes in a new root of Debian: as root, with debootstrap
# make test-snakemake  run a small visit with the oldest Snakemake that works; SNAKEMAKE=9.10.1 names another version
# make test-next  the tests with the newest releases of all packages, which the pins don't have yet; NEXT_TESTS=tests runs all
# make test-peer  compare with romancal's own functions
# make bench      measure the cost of an exposure, and romancal's where make test-peer has installed it: docs/performance.md
# make validate   compare full frames with romancal's, and give the reason of each difference: docs/validation.md (hours)
# make check      check style, imports, docstrings and types
# make test-notebooks  run the notebooks of the tutorial, and compare their outputs
# make notebooks  run them, and write their outputs to them
# make docs       make the site of the documentation: build/docs/index.html
# make changelog  move the fragments of changelog.d to CHANGELOG.md: make changelog VERSION=0.2.0
# make lock       pin the newest versions of all packages in envs/, and write the tags of these versions
SHELL := /bin/bash
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || echo 2)
VENV := .venv
BIN := $(VENV)/bin
PEER := .venv-peer
NEXT := .venv-next
VALIDATION ?= build/validate
SIMULATOR ?= rampflow
MEMORY ?= 14000
# The oldest version that works (min_version of workflow/Snakefile).
SNAKEMAKE ?= 9.2.0
# The exchange of files with roman_datamodels and asdf, and the workflow on the small visit.
NEXT_TESTS ?= tests/unit/test_tags.py tests/unit/test_asdf_io.py tests/unit/test_wcs_tree.py tests/steps/test_level1.py \
	tests/steps/test_step.py tests/steps/test_source_catalog.py tests/workflow/test_data_models.py tests/workflow/test_other_tools.py
PIP := -m pip install --quiet --disable-pip-version-check

.PHONY: env dev cluster watch fetch view demo report test test-quick test-slurm test-container test-notebooks test-snakemake test-next test-peer bench validate check notebooks docs changelog lock clean
.DEFAULT_GOAL := env

env: $(VENV)/.made-kernels

# Once for each kind of processor. The steps of the first exposures would wait for it otherwise.
$(VENV)/.made-kernels: $(VENV)/.made scripts/compile_kernels.py $(wildcard scripts/rampflow/kernels/*.py)
	$(BIN)/python scripts/compile_kernels.py
	touch $@

$(VENV)/.made: envs/rampflow.txt $(wildcard plugins/progress/*.toml plugins/progress/*/*.py)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("rampflow needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP) -r envs/rampflow.txt ./plugins/progress
	touch $@

dev: $(VENV)/.made-dev $(VENV)/.made-kernels

$(VENV)/.made-dev: $(VENV)/.made envs/dev.txt
	$(BIN)/python $(PIP) -r envs/dev.txt
	touch $@

cluster: $(VENV)/.made-cluster $(VENV)/.made-kernels

$(VENV)/.made-cluster: $(VENV)/.made envs/cluster.txt
	$(BIN)/python $(PIP) -r envs/cluster.txt
	touch $@

watch: $(VENV)/.made-watch $(VENV)/.made-kernels

$(VENV)/.made-watch: $(VENV)/.made envs/watch.txt
	$(BIN)/python $(PIP) -r envs/watch.txt
	touch $@

fetch: $(VENV)/.made-fetch $(VENV)/.made-kernels

$(VENV)/.made-fetch: $(VENV)/.made envs/fetch.txt
	$(BIN)/python $(PIP) -r envs/fetch.txt
	touch $@

view: $(VENV)/.made-view $(VENV)/.made-kernels

$(VENV)/.made-view: $(VENV)/.made envs/view.txt
	$(BIN)/python $(PIP) -r envs/view.txt
	touch $@

$(VENV)/.made-docs: $(VENV)/.made-dev envs/docs.txt
	$(BIN)/python $(PIP) -r envs/docs.txt
	touch $@

$(PEER)/.made: envs/peer.txt
	$(PYTHON) -m venv $(PEER)
	$(PEER)/bin/python $(PIP) -r envs/peer.txt
	touch $@

# The demo has its own CRDS cache, and uses no server.
demo report: export CRDS_PATH := $(CURDIR)/demo/crds_cache
demo report: export CRDS_SERVER_URL := https://crds-serverless-mode.stsci.edu
demo report: export CRDS_OBSERVATORY := roman
# Without other variables of CRDS, such as a context for real exposures.
OTHER_CRDS := $(filter-out CRDS_PATH CRDS_SERVER_URL CRDS_OBSERVATORY,$(filter CRDS_%,$(.VARIABLES)))
WITH_OWN_CRDS := env $(addprefix --unset=,$(OTHER_CRDS))
demo report: env
	$(WITH_OWN_CRDS) $(BIN)/snakemake --snakefile workflow/simulate.smk --configfile config/demo.yaml --cores $(CORES) --quiet progress rules host
	$(WITH_OWN_CRDS) $(BIN)/snakemake $(filter report,$@) --configfile config/demo.yaml --cores $(CORES)
	@$(BIN)/python scripts/show_products.py demo/results

test: $(VENV)/.made-dev $(VENV)/.made-kernels
	$(BIN)/python -m pytest --numprocesses $(CORES) --dist loadfile --durations 15 -m "not peer and not slurm and not container" --ignore tests/documents/test_notebooks.py

# Folders without quick tests. To import them takes each worker 2 s.
NOT_QUICK := faults package peer slurm
test-quick: $(VENV)/.made-dev $(VENV)/.made-kernels
	$(BIN)/python -m pytest --numprocesses $(CORES) --dist loadfile --durations 10 -m quick $(addprefix --ignore=tests/,$(NOT_QUICK))

test-slurm: $(VENV)/.made-dev $(VENV)/.made-cluster
	$(BIN)/python -m pytest -m slurm tests/slurm

test-container: $(VENV)/.made-dev
	RAMPFLOW_CONTAINER=required $(BIN)/python -m pytest -m container tests/package

# A visit with an exposure that fails, its summary and its progress, with another version of Snakemake than the pinned one.
test-snakemake: $(VENV)/.made-dev
	$(BIN)/python $(PIP) --upgrade --target "build/snakemake-$(SNAKEMAKE)" "snakemake==$(SNAKEMAKE)"
	PYTHONPATH="$(CURDIR)/build/snakemake-$(SNAKEMAKE)" $(BIN)/python -m pytest -m workflow tests/workflow/test_summary.py tests/unit/test_progress.py

# Packages without their pins, in a new environment each time. It shows what the next `make lock` will meet.
test-next:
	$(PYTHON) -m venv --clear $(NEXT)
	sed -E 's/==[0-9.]+//' envs/rampflow.in envs/dev.in | $(NEXT)/bin/python $(PIP) -r /dev/stdin ./plugins/progress
	$(NEXT)/bin/python -m pip freeze | grep -E '^(asdf|astropy|crds|gwcs|numpy|photutils|rad|roman_datamodels|snakemake|tweakwcs)=='
	$(NEXT)/bin/python -m pytest --numprocesses $(CORES) --dist loadfile -m "not peer and not slurm and not container" $(NEXT_TESTS)

test-peer: $(PEER)/.made
	$(PEER)/bin/python -m pytest -m peer tests/peer

# Takes an hour, on a machine without other load. BENCH: options of bench.py.
bench: env
	$(BIN)/python tests/benchmark/bench.py docs/performance/measurements.jsonl --folder build/bench --peer $(PEER)/bin/python $(BENCH)
	$(BIN)/python tests/benchmark/write_document.py docs/performance/measurements.jsonl docs/performance.md

# CASES="plain wfi18": some of the cases in tests/validation/cases.yaml. SIMULATOR=romanisim: another simulator. MEMORY: MB, for
# all jobs together.
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
	$(BIN)/numpydoc lint scripts/*.py $(wildcard scripts/simulator/*.py scripts/rampflow/*.py scripts/rampflow/*/*.py plugins/*/*/*.py)
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml

test-notebooks: $(VENV)/.made-dev $(VENV)/.made-kernels
	$(BIN)/python -m pytest -m workflow tests/documents/test_notebooks.py

notebooks: export RAMPFLOW_NOTEBOOKS := write
notebooks: $(VENV)/.made-dev $(VENV)/.made-kernels
	$(BIN)/python -m pytest -m workflow tests/documents/test_notebooks.py

# Warnings are errors, for example a broken link or a docstring that can't be parsed.
docs: $(VENV)/.made-docs
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --builder html --conf-dir docs . build/docs

changelog: $(VENV)/.made-dev
	$(BIN)/towncrier build $(if $(VERSION),--version $(VERSION),--draft --version next)

# Installs the packages of the .in files in a new environment, and pins what pip has chosen.
lock:
	bash envs/lock.sh $(PYTHON)

clean:
	rm -rf $(VENV) $(PEER) $(NEXT) demo .snakemake .rampflow
