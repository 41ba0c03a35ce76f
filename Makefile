# Everything here needs only make and a Python of at least 3.11; the rest is installed into .venv from the hashed lock.

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast lint bench lock lock-image clean

BIN := .venv/bin
FAST := $(BIN)/python -m pytest -m "not servers and not slow"
SLOW := $(BIN)/python -m pytest -m "servers or slow"
FAST_HALF := tests/deploy/aws tests/unit/cli tests/deploy/compose tests/contract tests/unit/delivery tests/unit/idempotency
ONE_HALF := tests/e2e/bad_input tests/e2e/chaos tests/e2e/outcomes tests/e2e/faults tests/e2e/idempotency tests/unit/operations tests/e2e/task_queue
STAMP := .venv/.setup-done
# Two runs of pytest at once; the one in the background is shown when the other has ended.
SIDE_BY_SIDE = $(2) -o cache_dir=.cache/pytest-other > .cache/test-other.log 2>&1 & other=$$!; \
	trap 'kill $$other 2>/dev/null' INT TERM; \
	$(1); one=$$?; \
	wait $$other; two=$$?; cat .cache/test-other.log; exit $$((one | two))
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip
RECENT_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))

help: ## Say what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 12

setup: $(STAMP) ## Make .venv with everything, at the locked versions (PYTHON=... chooses the Python)

# --no-build-isolation: pip would otherwise fetch the newest build backend, outside the lock.
# pip first (it is the last entry of the lock): an old one needs twice as long to install all the others.
# --no-compile: Python compiles what it imports; compiling everything at once takes as long as all the rest.
$(STAMP): pyproject.toml requirements.lock
	@if ! $(BIN)/python -c '$(RECENT_ENOUGH)' 2>/dev/null; then \
	  for python in $(PYTHON) python3 python3.13 python3.12 python3.11 python; do \
	    if "$$python" -c '$(RECENT_ENOUGH)' 2>/dev/null; then found="$$python"; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "make setup: no Python of at least 3.11 found; install one, or name it: make setup PYTHON=/path/to/python3.11" >&2; \
	    exit 1; \
	  fi; \
	  "$$found" -m venv --clear .venv || { \
	    echo "make setup: $$found cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; \
	    exit 1; \
	  }; \
	fi
	@echo "Installing the locked packages into .venv (once; less than a minute on most networks)"
	@sed -n '/^pip==/,$$p' requirements.lock > .venv/pip.lock
	@$(PIP) install --quiet --no-compile --require-hashes -r .venv/pip.lock
	@$(PIP) install --quiet --no-compile --require-hashes -r requirements.lock
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP) ## S3 events through a real worker, on this machine alone (ARGS=--keep leaves it running)
	@$(BIN)/brigade demo $(ARGS)

# Most of the slow tests wait for a visibility timeout, and many of the fast ones for one core, so two halves run side by
# side. Those of delivery start dozens of workers themselves, and have the machine alone.
test: $(STAMP) ## All tests, the fast ones first (ElasticMQ needs Java 17 and Maven; skipped without them)
ifeq ($(ARGS),)
	@mkdir -p .cache
	@$(call SIDE_BY_SIDE,$(FAST) $(FAST_HALF),$(FAST) $(addprefix --ignore=,$(FAST_HALF)))
	$(SLOW) tests/e2e/delivery
	@$(call SIDE_BY_SIDE,$(SLOW) $(ONE_HALF),$(SLOW) $(addprefix --ignore=,tests/e2e/delivery $(ONE_HALF)))
else
	$(BIN)/python -m pytest $(ARGS)
endif

test-fast: $(STAMP) ## The tests that start nothing
	$(FAST) $(ARGS)

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP) ## The worker beside its peers, into benchmarks/RESULTS.md (17 to 25 minutes; ARGS=--figures: latency, memory, cost…)
	@$(BIN)/python -m benchmarks $(ARGS)

lock: ## Write requirements.lock anew (ARGS=--upgrade takes newer versions)
	@.ci/lock $(ARGS)

lock-image: ## Write requirements-image.lock anew, at the versions of requirements.lock (run it after `make lock`)
	@.ci/lock-image

clean: ## Remove .venv and all caches
	rm -rf .venv .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
