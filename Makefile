# All is built in .venv, build/ and target/; outside of this folder only CP_HOME is changed.
.DEFAULT_GOAL := help
.PHONY: help run test serve bench chaos chaos-sweep fuzz-api mutants lint format lock audit clean
.DELETE_ON_ERROR:

# Where rustup puts cargo, for shells that have not read its profile yet.
export PATH := $(PATH):$(HOME)/.cargo/bin
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

BIN := .venv/bin
SAMPLE_ROWS := 200000
SAMPLE := build/sample/customers-$(SAMPLE_ROWS).csv
RUST := Cargo.toml $(wildcard Cargo.lock) $(shell find rust -name '*.rs' -o -name Cargo.toml 2>/dev/null)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# -- setup: two stamp files, so that a changed Rust file does not reinstall the packages ----------

.venv/.packages: requirements.lock .ci/prerequisites
	@python=$$(.ci/prerequisites) && echo "make: .venv from $$python" && "$$python" -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@touch $@

.venv/.built: .venv/.packages pyproject.toml $(RUST)
	@.ci/prerequisites >/dev/null
	@echo "make: building the extension (release)"
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# -- use ------------------------------------------------------------------------------------------

$(SAMPLE): | .venv/.built
	@mkdir -p $(@D)
	@echo "make: a sample of $(SAMPLE_ROWS) rows: $@"
	@$(BIN)/customer-panel generate $@.part --rows $(SAMPLE_ROWS) --quiet && mv $@.part $@

run: .venv/.built $(if $(CSV),,$(SAMPLE)) ## import a sample, or your file: make run CSV=path
	@$(BIN)/customer-panel import "$(or $(CSV),$(SAMPLE))"; code=$$?; \
	case $$code in \
	0) printf '%s\n' '' 'Next:' \
	    '  $(BIN)/customer-panel db psql      look at the rows' \
	    '  $(BIN)/customer-panel jobs list    the imports so far' \
	    '  make serve                            the same over HTTP, with a progress stream' \
	    '  make run CSV=path                     import a file of your own; again, to re-sync it' ;; \
	3) printf '%s\n' '' 'All other rows are in; exit code 3 means that some were set aside.' ;; \
	esac; exit $$code

serve: .venv/.built ## the HTTP API on http://localhost:3000, until Ctrl-C
	@exec $(BIN)/customer-panel serve

bench: .venv/.built ## the figures: first load and re-sync against plain psql
	@$(BIN)/customer-panel bench first-load
	@$(BIN)/customer-panel bench resync

# -- quality --------------------------------------------------------------------------------------

WORKERS := 2
test: .venv/.built ## every test, Rust and Python
	cargo test --quiet -p customer-panel-core
	$(BIN)/python -m pytest -q -n $(WORKERS)

N := 100
chaos: .venv/.built ## kill an import N times at random: make chaos N=100
	CHAOS_RUNS=$(N) $(BIN)/python -m pytest -q -s tests/chaos

chaos-sweep: .venv/.built ## each call of the driver disturbed in each way; one: make chaos-sweep SCENE=loaded KIND=hang K=7
	CHAOS_SWEEP=1 SWEEP_SCENE=$(SCENE) SWEEP_KIND=$(KIND) SWEEP_K=$(K) \
	    $(BIN)/python -m pytest -q -n $(if $(K),0,$(WORKERS)) tests/chaos/test_sweep.py

CASES := 5000
fuzz-api: .venv/.built ## thousands of cases an operation against the API: make fuzz-api CASES=5000
	FUZZ_CASES=$(CASES) $(BIN)/python -m pytest -q -s tests/fuzz tests/contract/test_model.py

SHARD := 0/20
mutants: ## which faults in the core no Rust test sees: make mutants SHARD=0/20 (hours for all)
	@command -v cargo-mutants >/dev/null || { echo "make: needs cargo install --locked cargo-mutants"; exit 1; }
	cargo mutants -p customer-panel-core --shard $(SHARD) --sharding round-robin --output build

lint: .venv/.built ## format, lints, types, layers, circles; changes nothing
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets -- -D warnings
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --quiet --check .
	$(BIN)/mypy
	$(BIN)/stubtest customer_panel._native
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -q tests/unit/test_house.py
	cargo test --quiet -p customer-panel-core --test layers

format: .venv/.built ## format and fix what can be fixed
	cargo fmt --all
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format .

lock: .venv/.packages ## fit requirements.lock to pyproject.toml; make lock UPGRADE=1: newest versions
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --group dev --extra api --generate-hashes --universal \
	    --python-version 3.11 --no-header $(if $(UPGRADE),--upgrade) --quiet -o requirements.lock

AUDIT := build/audit/bin
audit: .venv/.packages ## known holes in what the locks name; needs pypi.org, crates.io, github.com
	$(BIN)/python -m venv build/audit
	$(AUDIT)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(AUDIT)/pip-audit --strict --no-deps --disable-pip -r requirements.lock
	cargo install --quiet --locked --root build/audit cargo-audit
	PATH="$(CURDIR)/$(AUDIT):$$PATH" cargo audit

clean: ## remove what was built here; imported rows stay where they are
	rm -rf .venv build target dist python/customer_panel/*.so
