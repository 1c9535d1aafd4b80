# `make reproduce` and `make test` need Python 3.11 to 3.14 and nothing else: they make .venv, install into it, and run.
# PYTHON=python3.12 chooses another interpreter; ARGS="-k attach" is handed to pytest.

PYTHON ?= python3
BIN := .venv/bin
export PYTHONPATH := $(CURDIR)
# Workers run side by side, so each keeps to one thread.
export OMP_NUM_THREADS ?= 1
export MPLBACKEND := Agg

.PHONY: help reproduce test test-isa test-sse test-avx2 check format readme docs clean
.DEFAULT_GOAL := help

help:  ## this list
	@echo "make TARGET; each makes .venv first and installs into it. For other commands: source .venv/bin/activate"
	@sed -n 's/^\([a-z][a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r target text; do printf '  %-12s %s\n' "$$target" "$$text"; done

reproduce: .venv/installed  ## tables, small, on embedded data, and results/quick/report.html; it names what it leaves out
	$(BIN)/python -m reproduce --all --scale quick --out results/quick

test: .venv/installed  ## the tests: no network, no GPU
	$(BIN)/python -m pytest -n 2 $(ARGS)

test-isa: test-sse test-avx2 test  ## the tests as three processors compute them; with -k, all three whatever fails

# In this order: torch's own kernels, oneDNN, MKL, the OpenBLAS of numpy and scipy; then a cache of compiled models for
# each, since torch would take those of another instruction set.
test-sse: export ATEN_CPU_CAPABILITY := default
test-sse: export ONEDNN_MAX_CPU_ISA := SSE41
test-sse: export MKL_CBWR := COMPATIBLE
test-sse: export OPENBLAS_CORETYPE := Nehalem
test-sse: export TORCHINDUCTOR_CACHE_DIR := $(CURDIR)/.venv/inductor-sse
test-avx2: export ATEN_CPU_CAPABILITY := avx2
test-avx2: export ONEDNN_MAX_CPU_ISA := AVX2
test-avx2: export MKL_CBWR := AVX2
test-avx2: export OPENBLAS_CORETYPE := Haswell
test-avx2: export TORCHINDUCTOR_CACHE_DIR := $(CURDIR)/.venv/inductor-avx2
test-sse test-avx2: .venv/installed
	$(BIN)/python -m pytest -n 2 $(ARGS)

check: .venv/installed  ## formatter, linter, types
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

format: .venv/installed  ## write files as the formatter and the linter want them
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

readme: .venv/installed  ## write the tables of all READMEs from results/
	$(BIN)/python -m reproduce --readme

docs: .venv/installed  ## the site, in site/index.html: guides, a page a rule, results, API
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@echo "site/index.html; from a server, such as python3 -m http.server -d site, its search works too"

clean:  ## remove .venv, the peers' environments and the small results
	rm -rf .venv .peers results/quick

# Stamped only when everything is in: an interrupted install starts over, a finished one installs nothing again.
.venv/installed: requirements.txt requirements-docs.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 14) else "Python %d.%d: 3.11 to 3.14 is needed; name one with make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@
