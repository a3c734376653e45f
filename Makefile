# Every target makes .venv first when it is missing, and completes it when requirements.txt or
# pyproject.toml changed. Pass options on with ARGS, as in: make test ARGS="-k attention"

PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest -n 2 --dist loadfile
READY  := .venv/.ready

help:  ## say what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$NF}' Makefile

demo: $(READY)  ## open the demo on http://127.0.0.1:7860
	$(PYTHON) app.py $(ARGS)

test: $(READY)  ## run the core tests: a few minutes
	$(PYTEST) $(ARGS)

test-full: $(READY)  ## run what the core leaves out: programs, browsers, servers, Colab's notebooks
	$(PYTEST) -m "full and not slow and not network" $(ARGS)
	$(PYTHON) tests/colab/run.py --notebooks

test-all: $(READY)  ## run every test that needs no network, those of minutes each too; then test-colab
	$(PYTEST) -m "not network" $(ARGS)
	$(MAKE) test-colab ARGS=

test-colab: $(READY)  ## run notebooks and core tests beside what Colab brings (needs Python 3.13)
	$(PYTHON) tests/colab/run.py $(ARGS)

lab: $(READY)  ## open the course in JupyterLab, at its map
	$(PYTHON) -m jupyterlab $(if $(filter 0,$(shell id -u)),--allow-root) \
	    --ServerApp.root_dir=notebooks \
	    --LabApp.app_settings_dir=notebooks/lab --LabApp.default_url=/lab/tree/README.md $(ARGS)

notebooks: $(READY)  ## make every notebook again out of its text, and execute it
	$(PYTHON) notebooks/build.py $(ARGS)
	$(PYTHON) notebooks/landing.py

bench: $(READY)  ## measure speed on this machine, into benchmarks/
	$(PYTHON) -m mbt_lite bench --out benchmarks $(ARGS)

check: $(READY)  ## what must be green before a commit: ruff check, ruff format, core tests
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTEST) $(ARGS)

# .venv/.busy is there while packages are being installed, .venv/.ready only after everything was:
# after an interruption the environment starts over, because half a package looks installed to pip.
# An environment made by hand is kept and completed.
$(READY): requirements.txt pyproject.toml
	@set -e; \
	have_uv() { uv --version >/dev/null 2>&1; }; \
	fits() { "$$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	    >/dev/null 2>&1; }; \
	if [ -e .venv/.busy ] || ! fits $(PYTHON); then \
	    for python in python3.11 python3.12 python3.13 python3 none; do \
	        if fits $$python; then break; fi; \
	    done; \
	    if [ $$python = none ] && have_uv; then \
	        python=3.11; \
	    elif [ $$python = none ]; then \
	        echo "mbt_lite needs Python 3.11, 3.12 or 3.13, and none of them is on the PATH." >&2; \
	        exit 1; \
	    fi; \
	    echo "Setting up .venv with $$python: a download of about 450 MB, 2 GB on disk." >&2; \
	    rm -rf .venv; mkdir .venv; touch .venv/.busy; \
	    if have_uv; then uv venv --quiet --allow-existing --python $$python .venv; \
	    else $$python -m venv .venv; fi; \
	fi; \
	rm -f $(READY); touch .venv/.busy; \
	if have_uv; then \
	    install="uv pip install --python $(PYTHON)"; \
	else \
	    $(PYTHON) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m ensurepip; \
	    install="$(PYTHON) -m pip install"; \
	fi; \
	$$install -r requirements.txt; \
	$$install --no-deps -e .; \
	mv .venv/.busy $(READY)

.PHONY: help demo test test-full test-all test-colab lab notebooks bench check
