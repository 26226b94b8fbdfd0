# Two commands are the whole set-up: `make demo` and `make test`. Both need only Python >= 3.11 and make.
SHELL := /bin/sh
PYTHON ?= python3
BIN := .venv/bin
UV_VERSION := 0.13.8
INSTALLED := .venv/.installed
PYTORCH_VENV ?= .venv-pytorch
CLUSTERS_VENV ?= .venv-clusters
# LightGBM's wheel takes libgomp from the system; where there is none, the copy in scikit-learn's wheel serves the tests.
OPENMP := .venv/lib/openmp
# Tests wait for brokers more than they compute; they share one broker however many run.
TEST_PROCESSES ?= 2

.DEFAULT_GOAL := help
.PHONY: help install demo test test-pytorch test-clusters test-buckets test-airflow compose-config test-quick check stack stack-down bench bench-stages soak chaos fuzz docs protos format clean

help: ## show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

install: $(INSTALLED) ## make .venv with everything, as locked in uv.lock

$(INSTALLED): uv.lock pyproject.toml
	@echo "installing everything into .venv, as locked in uv.lock"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/uv || { $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); }
	$(BIN)/uv sync --quiet --frozen --all-extras --no-extra pytorch --no-extra ray --no-extra spark --python $(BIN)/python
	@mkdir -p $(OPENMP) && ln -sf $(CURDIR)/.venv/lib/python*/site-packages/scikit_learn.libs/libgomp-*.so* $(OPENMP)/libgomp.so.1 || true
	@touch $@

demo: install ## the whole product in one process: no server, no configuration
	$(BIN)/inference-worker demo

# Chaos tests are given out one by one: those that break brokers are the last, and nobody has to wait for them.
test: install ## every test a Python-only machine can run, a real Kafka included
	LD_LIBRARY_PATH="$(CURDIR)/$(OPENMP)$${LD_LIBRARY_PATH:+:$$LD_LIBRARY_PATH}" $(BIN)/python -m pytest --ignore tests/chaos -n $(TEST_PROCESSES) --dist worksteal
	$(BIN)/python -m pytest tests/chaos -m "not chaos" -n $(TEST_PROCESSES) --dist load --maxschedchunk 1

# An environment of its own: PyPI's PyTorch for Linux is a CUDA build, 3 GB to download, 6.3 GB with its environment.
test-pytorch: install ## models export from PyTorch, with PyTorch itself; needs 7 GB of disk
	UV_PROJECT_ENVIRONMENT=$(PYTORCH_VENV) $(BIN)/uv sync --quiet --frozen --extra pytorch --compile-bytecode
	$(PYTORCH_VENV)/bin/python -m pytest tests/pytorch/proof.py

# An environment of its own: Ray and Spark are 900 MB with what they need, and nothing else here needs them.
test-clusters: install ## batch scoring under Ray Data and Spark, in their local mode; the same answers as `score`
	UV_PROJECT_ENVIRONMENT=$(CLUSTERS_VENV) $(BIN)/uv sync --quiet --frozen --extra ray --extra spark --extra train
	$(CLUSTERS_VENV)/bin/python -m pytest tests/clusters/ray_and_spark.py

test-buckets: install ## the model store on Microsoft's emulator of Azure's blobs (npm, 190 MB) and ours of Google's
	$(BIN)/python -m pytest tests/buckets/model_store.py

test-airflow: install ## the DAG of deploy/airflow under a real Airflow
	$(BIN)/uv run --quiet --no-project --isolated --python $(BIN)/python --with 'apache-airflow-core>=3,<4' --with apache-airflow-task-sdk \
	  --with pytest env AIRFLOW_HOME="$$(mktemp -d)" python -m pytest --noconftest -c /dev/null --rootdir . -p no:cacheprovider tests/airflow/score_dag.py

compose-config: install ## docker-compose.yml as Docker Compose itself reads it; built first, three minutes of CPU time
	$(BIN)/python -m pytest tests/deploy/compose_config.py

test-quick: install ## the tests that need no broker
	LD_LIBRARY_PATH="$(CURDIR)/$(OPENMP)$${LD_LIBRARY_PATH:+:$$LD_LIBRARY_PATH}" $(BIN)/python -m pytest -m "not broker" -q

check: install ## format, lint, types, imports, generated docs, security lint, and `make test`
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m docs.generate --check
	$(BIN)/python -m deploy.grafana --check
	$(BIN)/python -m deploy.kubernetes --check
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml app loadgen deploy
	git ls-files -z | xargs -0 $(BIN)/detect-secrets-hook --exclude-files uv.lock
	$(MAKE) --no-print-directory test

stack: install ## a real Kafka and a schema registry on free local ports, without Docker
	$(BIN)/python -m deploy.local up --registry

stack-down: ## stop what `make stack` started
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m deploy.local down; else echo "nothing is installed, so nothing was started"; fi

bench: install ## the worker beside its peers on a real broker, an hour or more; writes docs/BENCHMARKS.md. BENCH=--quick for minutes
	$(BIN)/loadgen bench --slow-worker "$(BIN)/python -m tests.bench.fixed_cost_worker" $(BENCH)

soak: install ## memory: backlogs of 5 million events, then half an hour with rebalances; into docs/BENCHMARKS.md. SOAK=--quick
	$(BIN)/python -m tests.bench.soak $(SOAK)

bench-stages: install ## microseconds per event of each step, by batch size; no broker
	$(BIN)/python tests/bench/stages.py

chaos: install ## 200 random faults over a million events on three brokers, half an hour or more; writes docs/RELIABILITY.md
	$(BIN)/python -m pytest -m chaos tests/chaos
	$(BIN)/python -m tests.chaos.long_run

fuzz: install ## a million mutated datums through the real decoders, in processes of their own
	$(BIN)/python -m tests.fuzz.decoders --datums 1000000

docs: install ## write what is made from the code: docs/CONFIG.md, docs/METRICS.md, dashboards, PrometheusRules
	$(BIN)/python -m docs.generate
	$(BIN)/python -m deploy.grafana
	$(BIN)/python -m deploy.kubernetes

protos: install ## write app/grpc_api from schemas/grpc
	$(BIN)/python -m app.grpc_api.generate

format: install ## format the code and mend what the linter can mend
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean: stack-down ## remove what the build and the demo made
	rm -rf .venv $(PYTORCH_VENV) $(CLUSTERS_VENV) var build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
