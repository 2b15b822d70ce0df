VENV ?= .venv
PY ?= python3
CORES ?= all
BIN := $(VENV)/bin
export PATH := $(abspath $(BIN)):$(PATH)
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)

.PHONY: run test check setup long clean
run: setup  ## the whole pipeline on the synthetic cohort of config.yaml, with where the time went
	hepipe run --cores $(CORES)

test: setup  ## pytest: no GPU, network or weights needed
	OMP_NUM_THREADS=1 pytest -q -n 2

long: setup  ## the tests that take minutes each
	OMP_NUM_THREADS=1 pytest -q -m long

check: setup  ## everything that is not a test
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	snakefmt --check Snakefile workflow
	snakemake --lint
	codespell

setup: $(VENV)/.done

$(VENV)/.done: pyproject.toml constraints.txt
	@date +%s > .setup-began
	$(PY) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt $(HEPIPE_PIP_ARGS) -e '.[all,dev]'
	$(BIN)/pip check
	$(BIN)/hepipe doctor
	@echo "set-up took $$(( $$(date +%s) - $$(cat .setup-began) )) s"; rm .setup-began
	touch $@

clean:  ## forget results and caches; slides, sheets and weights stay
	rm -rf results .snakemake .pytest_cache .mypy_cache .ruff_cache
