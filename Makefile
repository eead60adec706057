# The two commands that matter: `make generate` and `make test`. Both set up everything they need.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PROMPT ?= 蓝色背景上的猫
N ?= 8
OUTPUT ?= altdiffusion-output
# For make emoji-m18: seconds after which it saves itself and ends (0: it goes on to the end).
STOP_AFTER ?= 0
READY := $(VENV)/.ready

.PHONY: help setup generate browser test test-all test-minimum test-newest test-slow lint format evaluate emoji-m18 gpu clean

help: ## list the commands
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

# --no-compile: Python compiles what is imported; compiling all that is installed takes half a minute.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt \
		--editable ".[dev]"
	touch $@

setup: $(READY) ## install into .venv

generate: $(READY) ## draw N pictures of PROMPT with emoji-m18 and rank them
	$(BIN)/altdiffusion generate "$(PROMPT)" --num-images $(N) --output "$(OUTPUT)"

browser: ## install Chromium for the tests of the demo's page, where this user may
	@./scripts/install-browser

test: $(READY) browser ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-all: $(READY) browser ## run the tests with their full counts: 20 kills, 50 clients, all matrices
	ALTDIFFUSION_TESTS=full OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-minimum: RESOLUTION := lowest-direct
test-minimum: browser ## run the tests on the oldest versions that pyproject.toml allows, in .venv-minimum (6 GB)
	$(test-other-versions)

test-newest: RESOLUTION := highest
test-newest: browser ## run the tests on the newest versions, in .venv-newest (6 GB)
	$(test-other-versions)

define test-other-versions
test -x .venv-$(@:test-%=%)/bin/uv || $(PYTHON) -m venv .venv-$(@:test-%=%)
.venv-$(@:test-%=%)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
.venv-$(@:test-%=%)/bin/uv pip install --quiet --python .venv-$(@:test-%=%) --resolution $(RESOLUTION) --editable ".[dev]"
OMP_NUM_THREADS=1 .venv-$(@:test-%=%)/bin/python -m pytest -n 2 --dist worksteal
endef

test-slow: $(READY) ## run the tests that take minutes
	$(BIN)/python -m pytest -m slow

lint: $(READY) ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	./scripts/typecheck $(BIN)/mypy

format: $(READY) ## put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

evaluate: $(READY) ## measure emoji-m18: retrieval and drawing (half an hour or more)
	$(BIN)/altdiffusion evaluate emoji --drawing

emoji-m18: $(READY) ## train emoji-m18, all stages, behind everything else (many hours on a CPU; stop and repeat at will)
	OMP_WAIT_POLICY=PASSIVE nice -n 19 $(BIN)/python -m altdiffusion_clip.emoji.recipe --seconds $(STOP_AFTER)

gpu: ## what waits for a GPU, on a machine that has one: emoji-m18, its tests, all benchmarks, in pieces of ten minutes
	$(PYTHON) scripts/gpu.py

clean: ## remove what was built
	rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache
