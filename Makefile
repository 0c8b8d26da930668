# make            create .venv and run the study that config.yaml names (STUDY=omniglot for another)
# make test       run the test suite in the same environment
# make test-quick what of it is done in two or three minutes, for the work on one change
# make test-all   all of it, with a fresh interpreter for every job and triton (700 MB): what CI runs
# make lint       ruff, snakefmt, pyright, snakemake --lint, typos
# make docs       build the documentation as a site, in site/
# make docs-figures  draw the pictures in docs/ again, from the tables in docs/data
# make docs-tables   the same, once the default study (or STUDY=...) has been run and its tables have been copied there, and
#                   docs/results.md, which says what it shows
# make unlock     after Snakemake itself was killed; refuses while one of its jobs is still at work
# make clean      remove this folder's .venv; results stay
#
# TORCH_INDEX=<url> adds a package index to look for torch in; https://download.pytorch.org/whl/cpu has builds without
# CUDA, which are some gigabytes smaller.

STUDY ?=
PYTHON ?= python3
TORCH_INDEX ?=

# Values from outside reach recipes through the shell's environment, as they were given: make would read a dollar in them,
# and take a path with spaces for several. For the same reason no path here is absolute.
override STUDY := $(value STUDY)
override PYTHON := $(value PYTHON)
override TORCH_INDEX := $(value TORCH_INDEX)
export STUDY PYTHON TORCH_INDEX

# The whole list: a path with spaces may end in this word, too.
ifneq ($(strip $(MAKEFILE_LIST)),Makefile)
$(error run make in the folder of this Makefile, and with it alone: cd there first, or say make -C FOLDER)
endif

# Settings of pip that put packages elsewhere than into .venv: an empty value is none, and --no-user comes before pip.conf.
override PIP_USER :=
override PIP_TARGET :=
override PIP_PREFIX :=
override PIP_ROOT :=
export PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT
PIP = .venv/bin/python -m pip

# No file or function of whoever calls make runs before a recipe's first word, where it could go to another folder: -p ignores
# them, and shells further down find none named.
override SHELL := /bin/bash
override .SHELLFLAGS := -pc
override BASH_ENV :=
override ENV :=
export BASH_ENV ENV
REQUIREMENTS := envs/requirements.txt envs/requirements-test.txt envs/constraints.txt
# Rules and Snakemake's jobs find the environment by PATH. Programs are called as modules: the scripts that pip writes do not
# start where their path has quotes or dollars in it.
RUN = PATH="$$PWD/.venv/bin:$$PATH" python -m
# Snakemake reads a value as YAML, a number where it is one, once it has taken quotes from its ends: spaces keep them.
CONFIG = $${STUDY:+--config "study= '$${STUDY//$$QUOTE/$$QUOTE$$QUOTE}' "}

.PHONY: study test test-quick test-all lint docs docs-figures docs-tables unlock clean place
.DEFAULT_GOAL := study

study: .venv/.installed
	QUOTE=\'; $(RUN) snakemake $(CONFIG)

test: .venv/.installed
	$(RUN) pytest -n auto -m 'not heavy'

test-quick: .venv/.installed
	$(RUN) pytest -n auto -m 'not slow and not heavy'

# Elsewhere jobs are forks of a process that has torch loaded (tests/warm); here it is shown that this hides nothing.
test-all: .venv/.installed-gpu-test .venv/.installed-docs
	export PLAIN=1; $(RUN) pytest -n auto

# pyright would ask npm whether there is a newer version, and say so.
lint: .venv/.installed
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) snakefmt --check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(RUN) pyright
	$(RUN) snakemake --lint
	.venv/bin/typos

# The variable leaves out what the theme says of its makers' next program.
docs: .venv/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict
	@echo "site/index.html"

docs-figures: .venv/.installed
	.venv/bin/python docs/pictures.py

docs-tables: study
	study="$${STUDY:-$$(sed -n 's/^study: *\([^ #]*\).*/\1/p' config.yaml)}"; .venv/bin/python docs/pictures.py \
		"results/studies/$$study" && .venv/bin/python -m icl_transience results-page --record "$$study"

unlock: .venv/.installed
	$(RUN) icl_transience writers
	$(RUN) snakemake --unlock

clean:
	rm -rf .venv

# Where PATH cannot name the environment, or Snakemake its rules. The path behind a link counts, too: Python resolves it.
# A line break at the end would be lost from $(...).
place:
	@real=$$(pwd -P; echo .); real=$${real%?.}; for path in "$$PWD" "$$real"; do case "$$path" in (*[:{}]*|*$$'\n'*) \
		printf '%q: nothing can be installed or run in a folder with a colon, a brace or a line break in its path:' "$$path"; \
		echo " move this one"; exit 1;; esac; done >&2
	@if [[ ! -d .venv && ( -e .venv || -L .venv ) ]]; then \
		echo ".venv is no folder but a file, or a link to nothing: move it away, or remove it by make clean"; exit 1; fi >&2

.venv/.installed-docs: .venv/.installed envs/requirements-docs.txt
	$(PIP) install --no-user --quiet -c envs/constraints.txt -r envs/requirements-docs.txt
	touch $@

# Some 700 MB, which nothing else needs.
.venv/.installed-gpu-test: .venv/.installed envs/requirements-gpu-test.txt envs/requirements-triton-3.6.txt
	$(PIP) install --no-user --quiet -c envs/constraints.txt -r envs/requirements-gpu-test.txt
	$(PIP) install --no-user --quiet --no-deps --upgrade --target .venv/triton-3.6 -r envs/requirements-triton-3.6.txt
	touch $@

.venv/.installed: $(REQUIREMENTS) pyproject.toml | place
	@"$$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$$PYTHON is older than 3.11: say PYTHON=<a newer one>"; exit 1; }
	"$$PYTHON" -m venv .venv
	@# Asked once: pip would ask an index that does not answer for every package, six times each, and say nothing.
	@[[ -z "$$TORCH_INDEX" ]] || PIP_CONFIG_FILE=/dev/null PIP_EXTRA_INDEX_URL= PIP_FIND_LINKS= $(PIP) index versions \
		torch -qq --retries 0 --timeout 15 --index-url "$$TORCH_INDEX" || { \
		echo "TORCH_INDEX: $$TORCH_INDEX does not answer, or has no torch for this Python:" \
		"try its address in a browser, name a proxy in HTTPS_PROXY (this question is asked without pip.conf)," \
		"or leave TORCH_INDEX out"; exit 1; } >&2
	$(PIP) install --no-user --quiet $${TORCH_INDEX:+--extra-index-url "$$TORCH_INDEX"} \
		-c envs/constraints.txt -r envs/requirements.txt -r envs/requirements-test.txt
	$(PIP) install --no-user --quiet --no-deps -e .
	touch $@
