# SGLANG=0.5.21: with an older supported version of SGLang, in an environment of its own
export SGLANG ?=
NEWEST := $(shell sed -n 's/^sglang==//p' requirements/cpu.txt)
BIN := .venv$(addprefix -,$(filter-out $(NEWEST),$(SGLANG)))/bin
# The folder kernels/ must not hide a package of the same name (Python 3.11+).
export PYTHONSAFEPATH := 1

.PHONY: help setup serve lint test eval test-slow format clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: ## Install everything into .venv (does nothing when up to date)
	@scripts/setup.sh

serve: setup ## Serve on port 30000; more flags in ARGS="..."
	$(BIN)/python -m soft_sglang.launch_server --port 30000 $(ARGS)

lint: setup ## Style, types, shell scripts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	BIN=$(BIN) scripts/typecheck.sh
	$(BIN)/shellcheck scripts/*.sh .ci/run

test: lint ## Lint and the tests; pytest flags in ARGS="..."
	$(BIN)/pytest -m "not slow" $(ARGS)

eval: setup ## Compare every arm on the bundled model, with a report in build/eval/report
	OMP_WAIT_POLICY=passive $(BIN)/python -m soft_sglang.eval run --out build/eval --limit 300 \
		--early-stopping-entropy-threshold 0.1 --early-stopping-length-threshold 14 \
		--max-new-tokens 400 $(ARGS)
	$(BIN)/python -m soft_sglang.eval report build/eval --out build/eval/report

test-slow: setup ## The tests that take minutes
	$(BIN)/pytest -m slow $(ARGS)

format: setup ## Fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove what was built, not .venv
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
