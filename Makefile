.DEFAULT_GOAL := help
.PHONY: help setup dev serve test test-sinks test-typescript test-deploy check format bench bench-peers bench-counts bench-routing bench-usage bench-clients bench-large bench-workers bench-sizing chaos compat dist notes lock docs docs-site clean

# Where it is set, each of the many processes of the tests would compile the program again.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# For benchmarks, chaos and compat: OPTIONS='--help' shows what there is to choose; PEERS= measures without peers.
OPTIONS ?=
PEERS ?= litellm portkey infinity sentence_transformers
TAG ?=
LOCK := uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header --extra all

help:  ## What can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */  make \1\t/' | expand -t 20

.venv/setup: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Embedway needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name one: make PYTHON=python3.12 ...")'
	@echo "Installing into .venv (once, about a minute)"
	@$(PYTHON) -m venv .venv
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

.venv/dev: .venv/setup requirements-dev.lock sdks/python/pyproject.toml
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@$(PIP) install --no-deps --no-build-isolation -e sdks/python
	@touch $@

setup: .venv/setup  ## Prepare .venv with .venv/bin/embedway
	@echo "Embedway $$($(BIN)/embedway --version) is ready in .venv. Start the gateway: make serve"

dev: .venv/dev  ## The same, with what development needs

serve: .venv/setup  ## Run the gateway on the built-in model
	@exec $(BIN)/embedway serve

# At most four at once: each starts gateways, and one of those can keep every core busy.
test: .venv/dev  ## Run the tests
	@$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=worksteal

TYPESCRIPT := sdks/typescript/node_modules/.package-lock.json
RUNTIMES := sdks/typescript/tests/runtimes/node_modules/.package-lock.json
HELM := deploy/tests/node_modules/.package-lock.json
WEBSITE := website/node_modules/.package-lock.json

$(TYPESCRIPT) $(RUNTIMES) $(HELM) $(WEBSITE): %/node_modules/.package-lock.json: %/package-lock.json
	@echo "Installing into $(@D) (once)"
	@cd $* && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

test-typescript: .venv/setup $(TYPESCRIPT) $(RUNTIMES)  ## Build, check and test the TypeScript SDK
	@cd sdks/typescript && npm run --silent check && npm run --silent build && npm run --silent test

.venv/deploy: .venv/dev deploy/tests/requirements.lock
	@$(PIP) install --require-hashes -r deploy/tests/requirements.lock
	@touch $@

SINKS := chroma lance milvus qdrant

.venv/sinks: .venv/dev tests/corpora/requirements.lock
	@$(PIP) install --require-hashes -r tests/corpora/requirements.lock
	@touch $@

test-sinks: .venv/sinks  ## Test the sinks of corpora on the real thing
	@EMBEDWAY_TEST_SINKS=required $(BIN)/python -m pytest --numprocesses=2 tests/corpora/test_sinks.py

# The image takes longest, so it comes first.
test-deploy: .venv/deploy $(HELM)  ## Build and try what is in deploy/; needs root on Debian
	@$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder deploy/tests/test_image.py deploy/tests

check: .venv/dev  ## Lint, types, import contracts, workflows
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/basedpyright
	@$(BIN)/basedpyright --project sdks/python --pythonpath $(BIN)/python
	@$(BIN)/lint-imports
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml

format: .venv/dev  ## Format and fix what can be fixed
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

bench: .venv/dev  ## Measure this gateway beside a baseline
	@$(BIN)/python -m benchmarks.local_model $(OPTIONS)

bench-peers: .venv/dev  ## Measure it beside its peers, and write docs/peers.md
	@$(BIN)/python -m benchmarks.comparison $(PEERS:%=--peer %) $(OPTIONS)

bench-counts: .venv/dev  ## Check how many instructions a request takes
	@$(BIN)/python -m benchmarks.counts $(OPTIONS)

bench-routing: .venv/dev  ## Simulate a day at providers in trouble
	@$(BIN)/python -m benchmarks.routing $(OPTIONS)

bench-usage: .venv/dev  ## Time questions about ten million ledger lines
	@$(BIN)/python -m benchmarks.usage $(OPTIONS)

bench-clients: .venv/dev $(TYPESCRIPT)  ## Time the SDKs beside OpenAI's clients
	@cd sdks/typescript && npm run --silent build
	@$(BIN)/python -m benchmarks.clients $(OPTIONS)

bench-large: .venv/dev  ## Measure large requests and answers, and who waits for them
	@$(BIN)/python -m benchmarks.large $(OPTIONS)

bench-workers: .venv/dev  ## Measure what each worker process adds
	@$(BIN)/python -m benchmarks.workers $(OPTIONS)

bench-sizing: .venv/dev  ## Measure what one gateway needs, for planning
	@$(BIN)/python -m benchmarks.sizing $(OPTIONS)

chaos: .venv/dev  ## Break everything around the gateway, and check its promises
	@$(BIN)/python -m chaos $(OPTIONS)

compat: .venv/dev  ## Try other people's clients, and write docs/clients.md
	@$(BIN)/python -m compat $(OPTIONS)

# Without isolation, so that the lock file pins the build tool too: the same commit gives the same bytes.
dist: .venv/dev  ## Build the packages, with an SBOM and checksums, into dist/
	@rm -rf dist
	@$(BIN)/python -m build --quiet --no-isolation --outdir dist .
	@$(BIN)/python -m build --quiet --no-isolation --outdir dist sdks/python
	@$(BIN)/python -W ignore -m cyclonedx_py requirements --pyproject pyproject.toml \
		--output-reproducible --no-validate --output-file dist/embedway.cdx.json requirements.lock
	@cd dist && sha256sum * > SHA256SUMS && cat SHA256SUMS

notes: .venv/dev  ## Write dist/notes.md, what the changelog says of TAG=v1.2.3
	@$(BIN)/python .ci/notes.py "$(TAG)"

lock: .venv/dev  ## Update the lock files to the newest versions
	@$(BIN)/$(LOCK) --upgrade --group build --output-file requirements.lock
	@$(BIN)/$(LOCK) --upgrade --group dev --constraint requirements.lock --output-file requirements-dev.lock
	@$(BIN)/$(subst --extra all,$(SINKS:%=--extra %) --group sinks,$(LOCK)) --upgrade \
		--constraint requirements-dev.lock --output-file tests/corpora/requirements.lock
	@$(BIN)/$(subst --extra all,,$(subst pyproject.toml,deploy/tests/requirements.in,$(LOCK))) --upgrade \
		--constraint requirements-dev.lock --output-file deploy/tests/requirements.lock

docs: .venv/dev  ## Write the generated parts of docs/
	@$(BIN)/python docs/providers_table.py
	@$(BIN)/python -m compat.page
	@$(BIN)/python -m chaos.page
	@$(BIN)/python -m benchmarks.page

website/.env/setup: website/requirements.txt | .venv/dev
	@$(BIN)/python -m venv --clear --without-pip $(@D)
	@$(PIP) --python $(@D)/bin/python install --require-hashes -r $<
	@touch $@

docs-site: website/.env/setup $(WEBSITE)  ## Build the documentation site
	@$(BIN)/python -m website

clean:  ## Remove .venv and what tools left behind
	@rm -rf sdks/typescript/node_modules sdks/typescript/tests/runtimes/node_modules sdks/typescript/dist
	@rm -rf .venv benchmarks/.peers compat/.envs website/.env website/node_modules deploy/tests/node_modules .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist
