# Every target first sets up what it needs. `make` is only a wrapper: .venv/bin/taxi and .venv/bin/pytest work without it.
# `make test-slow TESTS=taxi_platform_tests/ui` runs a part of the tests that take minutes.
.DEFAULT_GOAL := help
.PHONY: help demo demo-cloud notebook dev test test-bigquery test-browser test-slow soak lint agents-demo bench bench-agents bench-archive eras audit build setup setup-notebook setup-dev clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-14s %s\n", $$1, $$2}'

demo: setup ## Run a year of yellow and three months of the others end to end, on this machine alone
	@.venv/bin/taxi demo

demo-cloud: setup-dev ## Run three months through emulators of Cloud Storage and BigQuery (a Python 3.13 or newer)
	@.venv/bin/python scripts/demo_cloud.py

notebook: setup-notebook ## Open examples/first_look.py, a notebook on the months that are loaded (Ctrl-C stops it)
	@.venv/bin/marimo edit examples/first_look.py --host 127.0.0.1 --skip-update-check

dev: setup ## Open Dagster's UI on http://127.0.0.1:3000 (Ctrl-C stops it)
	@.venv/bin/taxi dev

test: setup-dev ## Run the tests
	@.venv/bin/pytest -m "not (bigquery or browser or slow or real_gcp)"

test-bigquery: setup-dev ## Run the tests that need the BigQuery emulator (a Python 3.13 or newer)
	@.venv/bin/pytest -m "bigquery and not (soak or real_gcp)"

test-browser: setup-dev ## Drive the real UI in Chromium
	@.venv/bin/pytest -n 0 -m "browser and not soak"

test-slow: setup-dev ## Run the tests that take minutes: a simulated year, hundreds of kills, notifications, the guard
	@.venv/bin/pytest -m "slow and not (bigquery or browser or soak)" $(TESTS)

soak: setup-dev ## Repeat the browser tests, all of reliability/ and what else is marked soak ten times
	@for i in 1 2 3 4 5 6 7 8 9 10; do echo "round $$i" && .venv/bin/pytest -n 0 -m browser && .venv/bin/pytest -m "not bigquery" taxi_platform_tests/reliability && .venv/bin/pytest -m "soak and not browser" || exit 1; done

lint: setup-dev ## Check style, types and layers
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

agents-demo: setup-dev ## Run a year on two agents, kill one on the way, and show that nothing is lost (needs redis-server)
	@.venv/bin/python -m deploy.agents.demo

bench: setup-dev ## Measure speed, size and memory against plain ways, side by side; writes benchmarks/results.md
	@.venv/bin/python -m benchmarks

bench-agents: setup-dev ## Measure agents: overhead, speed-up, kills, outages, every month queued (needs redis-server; an hour)
	@.venv/bin/python -m benchmarks.agents

bench-archive: setup-dev ## Measure months of 19 and 28 million rows, a backfill from the UI, and the archive; hours
	@.venv/bin/python -m benchmarks --rows 19000000 --pairs 3 cleaning
	@.venv/bin/python -m benchmarks --rows 28000000 --pairs 1 cleaning
	@.venv/bin/python -m benchmarks --rows 20000 --months 606 commands bucket
	@.venv/bin/python -m benchmarks.backfill
	@.venv/bin/python -m benchmarks.ui
	@.venv/bin/python -m benchmarks.metrics
	@.venv/bin/python -m benchmarks.archive

eras: setup-dev ## Clean a month of every era of the TLC's files and print the result
	@.venv/bin/python -m taxi_platform_tests.support.eras

audit: setup ## Look up known vulnerabilities of every locked version, where the package index lists them
	@sh scripts/audit.sh

build: setup ## Build the wheel and the sdist into dist/
	@sh scripts/build.sh

setup:
	@sh scripts/setup.sh

setup-notebook:
	@sh scripts/setup.sh notebook

setup-dev:
	@sh scripts/setup.sh dev

clean: ## Remove the environment and caches; data stays
	rm -rf dist .venv .venv-audit .venv-bigquery .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
