PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt

.PHONY: help digits test lint format bench bench-events bench-neurons bench-training bench-control accuracy gpu docs \
	migrating clean
.DEFAULT_GOAL := help

help: ## say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Installed again only when what is asked for has changed.
$(VENV)/.base: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) "setuptools>=77"
	$(PIP) --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(PIP) --no-build-isolation -e ".[dev]"
	$(PIP) --no-deps spikingjelly==2.0.0 loguru h5py tqdm tonic==1.7.0 importRosbag expelliarmus
	@touch $@

# Other libraries, which the benchmarks compare with; no test needs them.
$(VENV)/.peers: $(VENV)/.dev
	$(PIP) --no-deps snntorch==1.0.0 norse==1.1.0 nir==1.0.8 nirtorch==2.6
	@touch $@

$(VENV)/.docs: $(VENV)/.base
	$(PIP) --no-build-isolation -e ".[docs]"
	@touch $@

digits: $(VENV)/.base ## set up, train on simulated events from real digits, and test (a few minutes)
	$(BIN)/jellyfit fit -c configs/digits.yaml
	$(BIN)/jellyfit test -c configs/digits.yaml --ckpt_path best

test: $(VENV)/.dev ## set up and run all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

lint: $(VENV)/.dev ## ruff, mypy and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py

migrating: $(VENV)/.dev ## write docs/migrating.md from the comparison with SpikingJelly
	$(BIN)/python -m tests.compat.table

format: $(VENV)/.dev ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

RESULTS := benchmarks/results

bench: bench-events bench-neurons bench-training bench-control ## measure everything against others (JSON into benchmarks/results; an hour)

bench-events: $(VENV)/.peers ## events: decoding, frames, loading (two minutes)
	mkdir -p $(RESULTS)
	$(BIN)/python benchmarks/events.py --json $(RESULTS)/events.json
	$(BIN)/python benchmarks/loading.py --json $(RESULTS)/loading.json

bench-neurons: $(VENV)/.peers ## neurons and small layers (half an hour)
	mkdir -p $(RESULTS)
	$(BIN)/python benchmarks/neurons.py --compile --json $(RESULTS)/neurons.json
	$(BIN)/python benchmarks/open_neuromorphic.py --json $(RESULTS)/open_neuromorphic.json

bench-training: $(VENV)/.peers ## training steps of whole networks, and of two processes
	mkdir -p $(RESULTS)
	$(BIN)/python benchmarks/overhead.py --json $(RESULTS)/overhead.json
	$(BIN)/python benchmarks/training.py --json $(RESULTS)/training.json
	$(BIN)/python benchmarks/training.py --only nets --threads 1 --json $(RESULTS)/training_nets.json
	$(BIN)/python benchmarks/scaling.py --json $(RESULTS)/scaling.json

bench-control: $(VENV)/.peers ## updates of a spiking actor
	mkdir -p $(RESULTS)
	$(BIN)/python benchmarks/rl.py --speed --json $(RESULTS)/rl_speed.json

accuracy: $(VENV)/.base ## train three networks on the digits events, and write their accuracies into README
	$(BIN)/python benchmarks/accuracy.py

# CuPy for the CUDA version that torch was built with.
$(VENV)/.gpu: $(VENV)/.dev
	@$(BIN)/python -c "import torch, sys; sys.exit(0 if torch.version.cuda and torch.cuda.is_available() else 'make gpu: no CUDA device, or torch without CUDA (see jellyfit doctor)')"
	$(PIP) --no-build-isolation -e ".[cuda$$($(BIN)/python -c 'import torch; print(torch.version.cuda.split(".")[0])')]"
	@touch $@

gpu: $(VENV)/.gpu ## on a machine with an NVIDIA GPU: test the kernels there, train on it, and measure
	mkdir -p benchmarks/results
	JELLYFIT_REQUIRE_GPU=1 JELLYFIT_REQUIRE_NVRTC=1 $(BIN)/python -m pytest -q tests/kernels
	$(BIN)/jellyfit fit -c configs/digits.yaml --trainer.accelerator=gpu --name=digits_gpu
	$(BIN)/jellyfit test -c configs/digits.yaml --trainer.accelerator=gpu --name=digits_gpu --ckpt_path best
	$(BIN)/python benchmarks/overhead.py --device cuda --json benchmarks/results/overhead_gpu.json
	$(BIN)/python benchmarks/gpu.py --folder benchmarks/results

docs: $(VENV)/.docs ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q

clean: ## remove what was made here, except data/ and runs/
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
