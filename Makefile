# Everything a contributor or CI runs. `make help` lists it.
#
# Needed: Python 3.11 or newer with its venv module, make and git. The rest is installed below
# .venv/ and .cache/, from files that name every package with its hash.

PYTHON ?= python3
BIN := .venv/bin

# Python compiles what it imports; doing that for every file now takes as long as all the rest.
PIP_INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile

# One environment for everything, `make demo` included: one with the runtime dependencies alone would
# be made some ten seconds sooner, once, and be a second thing to keep right for ever.
VENV := .venv/.installed

SHELL_SCRIPTS := .ci/run tools/build_image.sh tools/test_all_pythons.sh tools/write_sbom.sh

UV_COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(UPGRADE)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

.PHONY: help
help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: $(VENV) ## run the exporter against a simulated Batch account; ARGS='--scenario=…' is passed on
	@$(BIN)/azure-batch-exporter demo $(ARGS)

# With ARGS, it is no failure that one of the two sets has no such test.
PYTEST = $(BIN)/pytest --numprocesses=auto --dist=loadfile --no-loadscope-reorder
MAY_BE_EMPTY = $(if $(ARGS),|| [ $$? -eq 5 ])

.PHONY: test
test: $(VENV) ## run the tests, within four minutes; ARGS='-k words' is passed on to pytest
	@$(BIN)/python tools/install_test_tools.py basic
	@$(PYTEST) -m 'not full' $(ARGS) $(MAY_BE_EMPTY)

# Only the rest runs here: what is marked `full`, and each property with more examples.
.PHONY: test-all
test-all: test ## run all tests: also with Helm, linters, Chromium, and the long ones
	@$(BIN)/python tools/install_test_tools.py all
	@$(PYTEST) -m 'full or hypothesis' --hypothesis-profile=many $(ARGS) $(MAY_BE_EMPTY)

.PHONY: lint
lint: $(VENV) ## look for mistakes and for what is not formatted
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/shellcheck $(SHELL_SCRIPTS)

.PHONY: types
types: $(VENV) ## check the types
	@$(BIN)/mypy

.PHONY: check
check: lint types docs-check test test-all ## what CI runs

# Only the tests that write a golden file run here.
.PHONY: fix
fix: $(VENV) docs ## correct and format the code, regenerate docs/, dashboards and tests/golden/; look at the diff
	@$(BIN)/ruff check --fix --exit-zero .
	@$(BIN)/ruff format .
	@$(BIN)/pytest --quiet --update-golden tests

.PHONY: docs
docs: $(VENV) ## regenerate docs/, the dashboards, and the Helm chart's copies of them and of the rules
	@$(BIN)/python -m tools.dashboards
	@$(BIN)/python -m tools.gen_docs

.PHONY: docs-check
docs-check: $(VENV) ## check that nothing that `make docs` writes is out of date
	@$(BIN)/python -m tools.gen_docs --check
	@$(BIN)/python -m tools.dashboards --check

# What they compare with is Microsoft's client, in the environment that tests run it in, too.
BENCHMARKS := commands small_service exposition stall group node_records paced first_round ten_thousand fleet
.PHONY: bench
bench: $(VENV) ## run the benchmarks, for some 20 minutes; ARGS=--small for a quick try of all
	@$(BIN)/python tools/install_test_tools.py sdk-15.1.0
	@set -e; for name in $(BENCHMARKS); do \
		echo "benchmarks/$$name.py"; $(BIN)/python -m "benchmarks.$$name" $(ARGS); done

# Guided by coverage where the extra `fuzz` can be had, else by chance. It is locked nowhere: no test
# needs it, and it is not made for every Python.
FUZZ_SECONDS ?= 600
.PHONY: fuzz
fuzz: $(VENV) ## feed garbage to all that parses, for FUZZ_SECONDS=600; crashes stay in tests/fuzz/corpus
	@$(BIN)/python -c 'import atheris' 2>/dev/null || \
		$(PIP_INSTALL) --no-build-isolation -e '.[fuzz]' || echo 'no atheris here: by chance'
	@$(BIN)/python -m tests.fuzz --seconds=$(FUZZ_SECONDS) $(ARGS)

.PHONY: screenshots
screenshots: $(VENV) ## take the pictures of docs/img anew, of the demo; look at them
	@$(BIN)/python tools/install_test_tools.py chromium browser
	@$(BIN)/python -m tests.browser.screenshots

.PHONY: test-all-pythons
test-all-pythons: $(VENV) ## run the tests with each of Python 3.11, 3.12 and 3.13 that is found
	@$(BIN)/python tools/install_test_tools.py all
	@tools/test_all_pythons.sh

.PHONY: image
image: ## build the container image with docker, podman or buildah
	@tools/build_image.sh

# From the environment: what tests/deploy/test_image.py names, and tools/build_image.sh.
.PHONY: image-test
image-test: export IMAGE ?= azure-batch-exporter:test
image-test: $(VENV) image ## build the image and run it read-only, without capabilities, in 256 MB
	@$(BIN)/pytest tests/deploy/test_image.py $(ARGS)

.PHONY: check-deploy
check-deploy: $(VENV) ## check what is in deploy/; part of `make test-all`
	@$(BIN)/python tools/install_test_tools.py all
	@$(BIN)/pytest --numprocesses=auto --dist=loadfile tests/deploy $(ARGS)

SBOM ?= dist/sbom.cdx.json
.PHONY: sbom
sbom: $(VENV) ## write the software bill of materials, dist/sbom.cdx.json
	@$(BIN)/python tools/install_test_tools.py sbom
	@tools/write_sbom.sh $(SBOM)
	@echo 'wrote $(SBOM)'

# Versions change only where pyproject.toml asks for it; UPGRADE=--upgrade takes the newest of all.
.PHONY: lock
lock: $(VENV) ## write the lock files anew; UPGRADE=--upgrade for the newest versions
	@$(UV_COMPILE) pyproject.toml -o requirements.lock
	@$(UV_COMPILE) pyproject.toml --extra dev -c requirements.lock -o requirements-dev.lock
	@$(BIN)/python -c 'import tomllib; \
		print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
		| $(UV_COMPILE) - -c requirements-dev.lock -o requirements-build.lock
	@set -e; for list in tests/*-requirements/*.in tests/deploy/*.in; do \
		$(UV_COMPILE) "$$list" -o "$${list%.in}.lock"; done

.PHONY: clean
clean: ## remove what was installed and generated
	rm -rf .venv .cache .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis dist build
	find exporter tests tools -name __pycache__ -prune -exec rm -rf {} +

# Made from nothing each time, so that a package that left the lock file leaves .venv too. The
# build backend is locked with the rest; hence no build isolation, which would fetch it unchecked.
$(VENV): pyproject.toml requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Python 3.11 or newer is needed; $(PYTHON) is: $$($(PYTHON) --version 2>&1)." >&2; \
		echo "Name another one: make PYTHON=python3.12 …" >&2; exit 1; }
	@echo 'installing into .venv (once)'
	@$(PYTHON) -m venv --clear .venv
	@$(PIP_INSTALL) --require-hashes -r requirements-dev.lock
	@$(PIP_INSTALL) --no-build-isolation --no-deps -e .
	@touch $@
