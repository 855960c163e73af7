# SGLANG=0.5.21: with an older supported version of SGLang, in an environment of its own
export SGLANG ?=
NEWEST := $(shell sed -n 's/^sglang==//p' requirements/cpu.txt)
OLDER := $(patsubst requirements/sglang-%.txt,%,$(sort $(wildcard requirements/sglang-*.txt)))
BIN := .venv$(addprefix -,$(filter-out $(NEWEST),$(SGLANG)))/bin
# The folder kernels/ must not hide a package of the same name (Python 3.11+).
export PYTHONSAFEPATH := 1

# What must hold on every version: off is off, oracle (one architecture of each kind), prefix cache,
# retraction, neighbours, where thinking begins and ends, server
INVARIANTS := tests/test_drift.py tests/test_model_classes.py tests/test_hybrid_prefix_cache.py \
	tests/test_window_prefix_cache.py \
	tests/engine/request_fields/test_stops.py \
	$(patsubst %,tests/engine/test_architectures.py::test_trajectories_equal_the_oracle[%], \
		llama gemma3 deepseek-v3) \
	$(addprefix tests/engine/test_, off.py hybrid_models.py prefix_cache.py retraction.py \
		neighbours.py thinking_markers.py) \
	tests/engine/test_thinking_policies.py::test_coconut_alone_leaks_no_hidden_states \
	$(addprefix tests/server/test_, plugin.py arguments.py cluster_commands.py bad_requests.py chat.py \
		completions.py generate.py routes.py start_of_thinking.py stream.py)

.PHONY: help setup serve lint test eval invariants matrix test-slow format clean

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
	$(BIN)/pytest -m "not slow and not versions" $(ARGS)

invariants: setup ## The tests that every version of SGLang must pass
	$(BIN)/pytest -m "not slow" $(INVARIANTS) $(ARGS)

matrix: ## The invariants on each older supported SGLang, and all versions against each other
	$(MAKE) setup SGLANG=
	for version in $(OLDER); do $(MAKE) invariants SGLANG=$$version || exit; done
	.venv/bin/pytest -m versions tests/versions $(ARGS)

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
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
