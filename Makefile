# make            create .venv and run the study that config.yaml names (STUDY=omniglot for another)
# make test       run the whole test suite in the same environment
# make lint       ruff, snakefmt, snakemake --lint
# make unlock     after Snakemake itself was killed; refuses while one of its jobs is still at work
# make clean      remove .venv; results stay
#
# TORCH_INDEX=<url> adds a package index to look for torch in; https://download.pytorch.org/whl/cpu has builds without
# CUDA, which are some gigabytes smaller.

STUDY ?=
PYTHON ?= python3
TORCH_INDEX ?=

SHELL := /bin/bash
VENV := $(CURDIR)/.venv
INSTALLED := $(VENV)/.installed
REQUIREMENTS := envs/requirements.txt envs/requirements-test.txt envs/constraints.txt
INDEX := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
export PATH := $(VENV)/bin:$(PATH)

.PHONY: study test lint unlock clean
.DEFAULT_GOAL := study

study: $(INSTALLED)
	snakemake $(if $(STUDY),--config study=$(STUDY))
	@python -m icl_transience words $(if $(STUDY),--study $(STUDY)) | tail -n 1

test: $(INSTALLED)
	python -m pytest -n auto

lint: $(INSTALLED)
	ruff check .
	ruff format --check .
	snakefmt --check .
	snakemake --lint

unlock: $(INSTALLED)
	python -m icl_transience writers
	snakemake --unlock

clean:
	rm -rf $(VENV)

$(INSTALLED): $(REQUIREMENTS) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than 3.11: say PYTHON=<a newer one>"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet $(INDEX) -c envs/constraints.txt -r envs/requirements.txt -r envs/requirements-test.txt
	$(VENV)/bin/pip install --quiet --no-deps -e .
	touch $@
