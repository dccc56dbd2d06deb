# Two commands are enough: `make scoreboard`, then `make test`.  `make help` lists the rest.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup scoreboard test nightly lint instrument spec spec-quick spec-all oracle mutants mutants-full acceptance \
        bench bench-quick report gpu-gate gpu-baseline history publish clean

# One thread a process: on a shared machine two OpenMP threads for each of several workers cost far more than they give.
OMP_NUM_THREADS ?= 1
MKL_NUM_THREADS ?= $(OMP_NUM_THREADS)
OPENBLAS_NUM_THREADS ?= $(OMP_NUM_THREADS)
# No hub is asked for anything while tests run, figures need no screen, and forks of a tokeniser do not warn.
HF_HUB_OFFLINE ?= 1
MPLBACKEND ?= Agg
TOKENIZERS_PARALLELISM ?= false
export OMP_NUM_THREADS MKL_NUM_THREADS OPENBLAS_NUM_THREADS HF_HUB_OFFLINE MPLBACKEND TOKENIZERS_PARALLELISM
export PATH := $(CURDIR)/.venv/bin:$(PATH)

IMPL ?= impl
# Processes of the nightly's spec, whose studies train for an hour one after another.
WORKERS ?= 2
PYTHON_HERE := .venv/bin/python
PYTEST := $(PYTHON_HERE) -m pytest
TOUCHSTONE := .venv/bin/touchstone
# The steps of a long run all happen; then the report is written; then the run fails if one of them did.
STEPS = @$(MAKE) --no-print-directory --keep-going

help:  ## what there is
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:  ## .venv from pyproject.toml under constraints.txt (TORCH=auto|cpu|cuda, TORCH_INDEX=URL, PYTHON=python3.12)
	@touchstone/setup.sh

scoreboard: setup  ## measure what is built, write reports/scoreboard.md and .html, print the summary
	$(STEPS) spec-quick bench-quick; status=$$?; $(MAKE) --no-print-directory report || exit; exit $$status

test: setup lint instrument spec oracle mutants acceptance  ## what CI runs: lint, the instrument, impl and the oracle held to the spec, the spec held to mutants and peers

nightly: setup  ## everything, with studies, the full mutant matrix, benches, history and the report
	$(STEPS) lint instrument spec-all oracle mutants-full acceptance bench; status=$$?; \
	$(MAKE) --no-print-directory report REPORT=--history || exit; exit $$status

lint: setup  ## ruff, mypy, actionlint where it is installed
	@$(PYTHON_HERE) -m ruff check .
	@$(PYTHON_HERE) -m mypy
	@if command -v actionlint >/dev/null; then \
		actionlint -config-file .github/actionlint.yaml .github/workflows/*.yml; \
	else echo "actionlint: not installed, workflows not linted"; fi

instrument: setup  ## the instrument's own tests
	$(PYTEST) touchstone/tests

spec: setup
	$(PYTEST) spec --impl $(IMPL) --todo-fails -m "not study"

spec-quick: setup
	$(PYTEST) spec --impl $(IMPL) -m "not study"

spec-all: setup
	$(PYTEST) spec --impl $(IMPL) --todo-fails -m "study or not study" -n $(WORKERS)

oracle: setup  ## the oracle held to what it covers; the rest is todo
	$(PYTEST) spec --impl reference -m "fast or process"

mutants: setup  ## every mutant must be refused
	$(PYTEST) spec --mutants

mutants-full: setup
	$(PYTEST) spec --mutants --full-matrix

acceptance: setup  ## every peer and honest alternative must be accepted
	$(PYTEST) spec --acceptance

bench: setup  ## races against the peers, beside the last run's
	$(PYTEST) bench --benchmark-compare

bench-quick: setup
	$(PYTEST) bench --quick --benchmark-compare

report:
	@$(TOUCHSTONE) report --impl $(IMPL) $(REPORT)

gpu-gate: setup  ## the GPU gate: every GPU line, and no bench slower than this GPU model's committed baseline by 10 %
	@$(PYTHON_HERE) -m touchstone.races.gate

gpu-baseline: setup  ## measure and save the baseline of this GPU model under bench/baselines, to be committed
	@$(PYTHON_HERE) -m touchstone.races.gate --save

history:  ## bring the scoreboard's history back from the branch `reports`
	@touchstone/publish.sh history

publish:  ## commit reports/ to the branch `reports` and push it
	@touchstone/publish.sh push

clean:  ## what runs leave behind; not .venv, data or committed evidence
	rm -rf .touchstone .benchmarks .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
	rm -rf reports/figures reports/history reports/scoreboard.md reports/scoreboard.html
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
