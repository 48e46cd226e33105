# The targets that people type; `make help` lists them.
PYTHON ?= python3
export PYTHON
RUN := .venv/bin/python
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo demo-grid test test-long test-stack-e lint docs bench lock clean

help: ## Say what can be made
	@grep -E '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: ## Set up .venv and run the AGC ttbar analysis three times: cold, warm, edited
	@# After `make test` the environment holds all that the demo needs, in the same versions.
	@grep -q test.lock .venv/.set-up-from 2>/dev/null && scripts/set-up .venv requirements/test.lock || scripts/set-up .venv requirements/demo.lock
	@$(RUN) -m agc_example.demo

demo-grid: ## Run the AGC ttbar analysis on a grid in a box: DiracX, Rucio and two sites with storages, on this machine
	@# Needs DiracX's client, which the environment of the demo alone does not have.
	@scripts/set-up .venv requirements/test.lock
	@scripts/set-up .venv-diracx requirements/diracx.lock
	@# Without these two the demo reads this machine's disk, and says so.
	-@scripts/set-up-xrootd
	-@scripts/set-up .venv-rucio requirements/rucio-server.lock
	@$(RUN) -m agc_example.demo_grid

test: ## Set up .venv and pass the tests on both stacks, ruff, mypy and import-linter
	@scripts/set-up .venv requirements/test.lock
	@# Without a server the tests that need one are left out, and named at the end; as root on Debian they fail.
	-@scripts/set-up .venv-diracx requirements/diracx.lock
	-@scripts/set-up-xrootd
	-@scripts/set-up .venv-rucio requirements/rucio-server.lock
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory test-stack-e
	@echo "test: stack A (coffea with dask-awkward), everything"
	@$(RUN) -m pytest -q -n $(JOBS) --dist loadfile -m "not long"

test-stack-e: ## The core tests with the newest dask and without dask-awkward
	@scripts/set-up .venv-stack-e requirements/stack-e.lock
	@echo "test: stack E (newest dask, no dask-awkward), core"
	@.venv-stack-e/bin/python -m pytest -q -n $(JOBS) --dist loadfile -m "core and not long" tests

test-long: ## Races, drills and foreign suites; writes docs/reference/long-tests.md
	@scripts/set-up .venv requirements/test.lock
	-@scripts/set-up .venv-diracx requirements/diracx.lock
	-@scripts/set-up-xrootd
	-@scripts/set-up .venv-rucio requirements/rucio-server.lock
	@scripts/set-up .venv-stack-e requirements/stack-e.lock
	@$(RUN) tests/long_tests.py A "long"; failed=$$?; \
	.venv-stack-e/bin/python tests/long_tests.py E "core and long" tests && exit $$failed

lint: ## ruff, mypy, import-linter
	@scripts/set-up .venv requirements/test.lock
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-cache

docs: ## Build the documentation into site/
	@scripts/set-up .venv-docs requirements/docs.lock
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet && echo "docs: open site/index.html"

bench: ## Measure speed, paired with named peers; renew docs/reference/benchmarks.md and its plot
	@scripts/set-up .venv requirements/test.lock
	@$(RUN) -m benchmarks

lock: ## Renew the locks in requirements/ (needs uv)
	scripts/lock

clean: ## Remove what was set up and made
	rm -rf .venv .venv-stack-e .venv-diracx .venv-rucio .venv-docs site agc_example/output .mypy_cache .ruff_cache .pytest_cache .hypothesis
