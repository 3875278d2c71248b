# Every target sets up what it needs in .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help quickstart published reports picture measure test browser check format gpu-check clean

help: ## Say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

quickstart: $(VENV)/.installed ## Install, measure all eight operators at one shape, show the table, make the page (about two minutes)
	$(BIN)/opbench run suites/quickstart.yaml
	$(BIN)/opbench index runs

published: $(VENV)/.installed ## Count the published networks again, into reports/published
	rm -f reports/published/run.json reports/published/records.jsonl
	$(BIN)/opbench run suites/published.yaml --out reports/published

reports: $(VENV)/.installed-dev ## Make every page below reports/ again from its records; nothing is measured
	$(BIN)/opbench index reports

PICTURED := reports/amd-epyc-2-cores/quickstart

picture: browser ## Draw the picture of the README from the page of its run
	browser=$$(which chromium chromium-browser google-chrome google-chrome-stable 2>/dev/null | head -1) && \
	$$browser --headless --no-sandbox --hide-scrollbars --virtual-time-budget=20000 --window-size=1360,1250 \
		--screenshot=$(PICTURED)/page.png file://$(CURDIR)/$(PICTURED)/report.html

SUITES ?= quickstart resnet50_slot_small
MACHINE ?= $(shell $(BIN)/python -c "import os, re; from opbench.measure.processor import name; \
	print(re.sub(r'\W+', '-', f'{name()} {os.cpu_count()} cores'.lower()).strip('-'))")

measure: $(VENV)/.installed-dev ## Measure SUITES on this machine into reports/<machine>, then make the pages; ten minutes
	for suite in $(SUITES); do \
		rm -rf reports/$(MACHINE)/$$suite && \
		$(BIN)/opbench run suites/$$suite.yaml --out reports/$(MACHINE)/$$suite || exit $$?; \
	done
	$(BIN)/opbench index reports

SUDO := $(shell test "$$(id -u)" = 0 || echo sudo -n)

browser: ## Install Chromium for the tests of report pages, where there is no browser and apt can
	@which chromium chromium-browser google-chrome google-chrome-stable 2>/dev/null | grep -q . || { \
		$(SUDO) apt-get update -qq && \
		$(SUDO) apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; \
	} || echo "no browser and no way to install one: the tests of report pages will be skipped"

test: $(VENV)/.installed-dev browser ## Install and run the whole test suite
	$(BIN)/python -m pytest -n auto --dist worksteal

check: $(VENV)/.installed-dev ## Lint and type-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Not in .venv: torch for CUDA and CuPy are what the machine has. Of pytest's plugins it needs none.
GPU_TESTS := tests/gpu tests/measure/test_cuda_stream.py tests/measure/test_memory.py tests/test_environment.py \
	tests/test_isolation.py tests/test_readiness.py tests/test_session.py

gpu-check: ## On a machine with a GPU: its tests, then suites/kernels.yaml into reports/<device>
	$(PYTHON) -m pytest -c tests/gpu/plain.ini --rootdir=. --confcutdir=. -m gpu -q -rs $(GPU_TESTS)
	$(PYTHON) -m opbench run suites/kernels.yaml \
		--out reports/$$($(PYTHON) -c "import torch; print(torch.cuda.get_device_name().lower().replace(' ', '-'))")/kernels

format: $(VENV)/.installed-dev ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove the virtual environment and what tools left
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("opbench needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[html]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.installed
