# Needs Python 3.11 or newer and make, nothing else. `make help` explains each target.
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
PACKAGES := broker_topics worker aggregator monitoring headwater

# Containers often set this. Our targets start hundreds of Pythons, and each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test check drill chaos soak bench bench-recovery lock k8s-tools k8s-test clean

help: ## Explain the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## Make the virtual environment only; the other targets do it by themselves

# Once it is there, nothing is installed again until a lock or the project's description changes.
$(READY): requirements/base.lock requirements/torch.lock requirements/uv.lock pyproject.toml scripts/setup.sh
	@PYTHON="$(PYTHON)" sh scripts/setup.sh $(VENV)
	@touch $(READY)

demo: $(READY) ## Twenty smartwatches train one model over a real Kafka; ARGS="--seed 7" passes options on
	@$(PY) -m headwater demo $(ARGS)

test: $(READY) ## All tests, those on a real Kafka included; ARGS="-k name" chooses
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(READY) ## Style, types, doctests and the rule of layers
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(PY) -m pytest -q --doctest-modules $(PACKAGES)
	$(PY) -m pytest -q tests/test_layers.py

drill: $(READY) ## Provoke the alerts for real, one after the other: real Kafka, real Prometheus
	$(PY) -m pytest -q -s -n 0 tests/kafka/drill_alerts.py $(ARGS)

chaos: $(READY) ## Simulate whole lives of a task under faults: RUNS=100000 SEED=7
	@$(PY) -m tests.simulation --runs $(or $(RUNS),1000) --seed $(or $(SEED),0)

bench: $(READY) ## Measure speed and bytes against their bars; writes report/bench.json
	$(PY) -m benchmarks $(ARGS)

soak: $(READY) ## Hurt real fleets on a real Kafka: SECONDS=600 SEED=7 ONLY="crash-points"
	@$(PY) -m tests.chaos --seconds $(or $(SECONDS),600) --seed $(or $(SEED),7) $(if $(ONLY),--only $(ONLY))

bench-recovery: $(READY) ## Kill a leader twenty times for each way of recovery and show the distribution
	$(PY) -m benchmarks.recovery $(ARGS)

lock: $(READY) ## Choose newer packages: write requirements/*.lock again
	sh scripts/lock.sh $(VENV)/bin/uv

k8s-tools: $(READY) ## Fetch what the Kubernetes manifests are tested with (needs Go)
	$(PY) -m tests.k8s.tools

k8s-test: $(READY) ## Try the manifests and the election on the cluster that KUBECONFIG names
	@$(PY) -m tests.k8s.try_cluster $(ARGS)

clean: ## Remove the virtual environment, reports and caches of this checkout
	rm -rf $(VENV) report build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(PACKAGES) tests benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} +
