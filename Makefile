# Everything here needs only make and a Python of at least 3.11; the rest is installed into .venv from the hashed lock.

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast lint bench lock lock-image clean

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
# Many tests wait for a visibility timeout, and most of the others for one core: two processes share them, file by file.
SHARED := $(PYTEST) -n 2 --dist loadgroup
STAMP := .venv/.setup-done
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

# The tests marked `alone` run one after another, before the others: delivery starts dozens of workers, monitoring shares a bus.
test: $(STAMP) ## All tests, the fast ones first (ElasticMQ needs Java 17 and Maven; skipped without them)
ifeq ($(ARGS),)
	$(SHARED) -m "not servers and not slow"
	$(PYTEST) -m "alone"
	$(SHARED) -m "(servers or slow) and not alone" --durations=30
else
	$(PYTEST) $(ARGS)
endif

test-fast: $(STAMP) ## The tests that start no server and no process
	$(SHARED) -m "not servers and not slow" $(ARGS)

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
