# Two commands do everything: `make study` and `make test`. `make` alone lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
unexport PYTHONDONTWRITEBYTECODE
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
NB     ?=
DATA   := $(and $(MLCL_DATA),$(wildcard $(MLCL_DATA)/mulan))

.PHONY: help env study test site lab notebooks bench holds clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | awk -F'|' '{printf "  make %-10s %s\n", $$1, $$2}'

env: $(STAMP) ## make the virtual environment (about 6 GB, once)

$(STAMP): settings.ini setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "mlcl needs Python >= 3.11; $(PYTHON) is $$($(PYTHON) --version). Say PYTHON=python3.12 make …"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): a few minutes, once"
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

study: $(STAMP) ## the quick study on the two embedded data sets: train, leaderboard, site
	@$(BIN)/mlcl study run quick
	@$(BIN)/mlcl study report quick
	@$(MAKE) --no-print-directory site

test: $(STAMP) ## all notebooks (but their slow cells) and all tests
	@$(if $(DATA),,echo "MLCL_DATA names no data folder: cells and tests on the real benchmarks are LEFT OUT")
	OMP_NUM_THREADS=1 $(BIN)/nbdev_test --n_workers 2 --timing $(if $(DATA),--flags data)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -rs tests

site: $(STAMP) ## the website, into _site/ (by Quarto where it is installed, else by pandoc)
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python tools/site.py

lab: $(STAMP) ## the notebooks in JupyterLab; after an edit: make notebooks NB=nbs/…
	@$(BIN)/jupyter lab --notebook-dir=nbs

notebooks: $(STAMP) ## export the package, run notebooks and keep their outputs (NB="nbs/20_contrast.ipynb …" for some)
	@$(BIN)/nbdev_export
	@$(BIN)/python tools/notebooks.py $(NB)
	@$(BIN)/nbdev_clean
	@$(BIN)/python tools/site.py readme

bench: $(STAMP) ## how fast the losses are: one table, stored in results/bench.jsonl (five minutes, on a quiet machine)
	@$(BIN)/python tools/bench.py

holds: $(STAMP) ## what must hold of every loss: run the sweeps, keep the marks in results/holds.json
	@OMP_NUM_THREADS=1 $(BIN)/python tools/holds.py

clean: ## remove what can be made again (not the environment, not results/)
	@rm -rf _site _proc _docs build dist *.egg-info .pytest_cache .hypothesis
