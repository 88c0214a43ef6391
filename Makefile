# Everything sets itself up; `make` alone lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
DEPLOYMENT ?= deployment
MINUTES ?= 1
export GRPC_VERBOSITY ?= NONE

.PHONY: help setup protos demo up test-tools test test-fast lint fuzz mutate coverage load bench bench-quick bench-scale docs clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.venv/installed: requirements.lock pyproject.toml hatch_build.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "keyark needs Python 3.11 or newer; name one with PYTHON=..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@command -v openssl > /dev/null || apt-get install --yes --quiet openssl || { echo "the demo and the tests need openssl; install it"; exit 1; }
	@touch $@

build/protos: .venv/installed hatch_build.py $(wildcard protos/keyark/*/*.proto protos/keyark/*/*/*.proto)
	$(BIN)/python hatch_build.py
	@mkdir -p build && touch $@

setup: .venv/installed build/protos ## virtual environment, locked dependencies, generated code

protos: setup ## generate the code of the gRPC contract anew
	$(BIN)/python hatch_build.py

docs: setup ## what is made from the code: docs/cli.md, tables in docs/protocol.md and docs/policy.md, build/reference
	$(BIN)/python -m keyark.policy.reference docs/policy.md
	$(BIN)/python -m tools.error_tables
	$(BIN)/python -m tools.cli_reference
	$(BIN)/python -m pdoc keyark.client keyark.client.blocking --no-show-source --output-directory build/reference

demo: setup ## the whole story in a terminal: a deployment, an enrollment, an encrypted message
	$(BIN)/python -I -m keyark.cli.demo.commands

up: setup ## a deployment in ./deployment, made if need be, until Ctrl-C; make clean leaves it alone
	@test -e $(DEPLOYMENT)/keyark.toml || $(BIN)/keyark init $(DEPLOYMENT) --authority-password none < /dev/null
	$(BIN)/keyark up $(DEPLOYMENT)

build/node/installed: $(addprefix tests/interop/node/,package-lock.json package.json enroll.mjs)
	@mkdir -p build/node && cp $^ build/node
	@cd build/node && npm ci --ignore-scripts --no-audit --no-fund --silent
	@touch $@

test-tools:
	@for need in strace:strace certtool:gnutls-bin pk12util:libnss3-tools gpgsm:gpgsm keytool:default-jre-headless node:nodejs npm:npm unshare:util-linux nsenter:util-linux ip:iproute2; do \
	  command -v $${need%%:*} > /dev/null || missing="$$missing $${need##*:}"; done; \
	test -z "$$missing" || apt-get install --yes --quiet $$missing || { apt-get update --quiet && apt-get install --yes --quiet $$missing; } \
	  || { echo "the tests need these Debian packages; install them:$$missing"; exit 1; }

test: lint test-tools build/node/installed ## lint, types, import rules, proto lint, and all tests
	$(BIN)/python -m pytest -n auto --dist loadfile -q

# The protos of the newest release: buf build --exclude-source-info -o tools/protos/VERSION.binpb.gz
RELEASED := 0.2.0

SLOW := $(addprefix tests/,client e2e faults interop load recovery service test_distribution.py test_documents.py)

test-fast: setup test-tools ## in less than a minute: the units and one story from end to end
	$(BIN)/python -m pytest -n auto --dist loadfile -q $(filter-out $(SLOW),$(patsubst %/,%,$(wildcard tests/[a-z]*/ tests/test_*.py))) tests/e2e/commands/test_demo.py

lint: setup ## ruff, mypy, import-linter, buf
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf breaking --against tools/protos/$(RELEASED).binpb.gz

fuzz: setup ## mutate the input of every parser: MINUTES=9; what is found is in build/fuzz
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

.venv/mutmut: .venv/installed requirements-mutate.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-mutate.lock
	@touch $@

mutate: setup .venv/mutmut ## small changes of a module that its tests do not notice: MODULE=drm_service/archival/linking.py, TESTS=tests/drm
	$(BIN)/python tools/mutate.py $(MUTATE) $(MODULE) $(TESTS)

coverage: setup .venv/mutmut ## branches that each package's own tests reach, against floors that only rise: PACKAGES="rm_service"
	$(BIN)/python tools/coverage_floor.py $(PACKAGES)

load: setup ## load a fresh deployment: build/load/report.html; LOAD="--rate 100 --duration 5m" hands options on
	$(BIN)/python -m benchmarks.load $(LOAD)

bench: setup ## every figure of docs/performance.md on fresh deployments: build/bench.json, build/bench.html; BENCH="--runs 5" takes medians
	$(BIN)/python -m benchmarks $(BENCH)

bench-scale: setup ## the same with 10^3 to 10^6 archived keys; may take two hours, SCALE="--minutes 10" bounds it
	$(BIN)/python -m benchmarks.scale $(SCALE)

bench-quick: setup ## the same in less than two minutes
	$(BIN)/python -m benchmarks --quick

lock: .venv/installed
	$(BIN)/uv pip compile pyproject.toml --extra dev --generate-hashes --no-header --universal --python-version 3.11 --no-emit-index-url --quiet -o requirements.lock
	$(BIN)/uv pip compile --group pyproject.toml:mutate -c requirements.lock --generate-hashes --no-header --universal --python-version 3.11 --no-emit-index-url --quiet -o requirements-mutate.lock

clean: ## delete everything that the build made
	@! test -e build/deployment || { echo "build/deployment holds a CA and an archive; move it away first, for example: mv build/deployment deployment"; exit 1; }
	rm -rf .venv build dist keyark/v1 keyark/records .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
