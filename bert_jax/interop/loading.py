"""`bert_jax.load`: from a folder or a name to a model that answers from Python."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import BertConfig
from bert_jax.interop import huggingface
from bert_jax.interop.assembly import index_tensors, listed
from bert_jax.interop.formats.weights import blame, open_weights
from bert_jax.interop.heads import (
    HEADS,
    TRUNK,
    adapt_config,
    detect_model,
    init_parts,
    model_class,
    parts_of,
    require_modest,
)
from bert_jax.interop.names import leaf_shapes
from bert_jax.models import Bert, BertForMultipleChoice, Outputs
from bert_jax.text.tokenizer import Tokenizer

CHECKPOINTS = "checkpoints"
WEIGHTS = "model.safetensors"
VOCABULARY = ("tokenizer.json", "vocab.txt")
PADDING = 128  # rows; sizes of embeddings are rounded up, and seldom to a larger multiple


@dataclass(frozen=True, repr=False)
class LoadedBert:
    """A model with its parameters and vocabulary; called on arrays, it runs jitted.

    Attributes:
        model: the Flax module.
        params: the parameter tree.
        vocabulary: the tokenizer, or None where there was none to load.
        new_parts: the parts of the tree that were newly initialised.
    """

    model: Bert
    params: Mapping[str, Any]
    vocabulary: Tokenizer | None = None
    new_parts: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        config = self.config
        size = f"{config.num_hidden_layers} layers of {config.hidden_size}, vocabulary {config.vocab_size:,}"
        return f"<{type(self.model).__name__}: {size}>"

    @property
    def config(self) -> BertConfig:
        return self.model.config

    @property
    def tokenizer(self) -> Tokenizer:
        """Texts to ids and back.

        Raises:
            ValueError: the model came without a vocabulary.
        """
        if self.vocabulary is None:
            raise ValueError(f"this model came without a vocabulary: wanted {' or '.join(VOCABULARY)} beside it")
        return self.vocabulary

    def __call__(
        self,
        input_ids: Any,
        *,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        **inputs: Any,
    ) -> Outputs:
        """Runs the forward pass, without dropout; compiled once a shape.

        Args:
            input_ids: int [B, T]; [B, C, T] for multiple choice.
            **inputs: `attention_mask`, `token_type_ids`, `position_ids`, `masked_positions`, `cls_positions`: what the
                model takes, as arrays or nested lists.

        Returns:
            The model's named outputs, see `Bert.__call__`.

        Raises:
            ValueError: an array of another form, an id outside its table, or rows longer than the table of positions.
        """
        arrays = {"input_ids": input_ids} | {name: array for name, array in inputs.items() if array is not None}
        shape = np.shape(input_ids)
        axes = "[B, C, T]" if isinstance(self.model, BertForMultipleChoice) else "[B, T]"
        if len(shape) != axes.count(",") + 1 or not shape[-1]:
            raise ValueError(
                f"input_ids must be {axes} with T above 0, got {f'shape {shape}' if shape else repr(input_ids)[:60]}"
            )
        arrays = {name: self.checked(name, array, shape) for name, array in arrays.items()}
        return self.compiled(self.params, arrays, output_hidden_states, output_attentions)

    @cached_property
    def compiled(self) -> Any:
        """The jitted forward pass."""

        def forward(params, arrays, output_hidden_states, output_attentions):
            return self.model.apply(
                {"params": params},
                **arrays,
                output_hidden_states=output_hidden_states,
                output_attentions=output_attentions,
            )

        return jax.jit(forward, static_argnums=(2, 3))

    def checked(self, name: str, array: Any, shape: tuple[int, ...]) -> Any:
        """Returns `array` as int32, once it is known to fit `shape` and to hold what its table or the row has."""
        values = np.asarray(array)
        rows = (shape[0], *values.shape[-1:]) if name in ("masked_positions", "cls_positions") else shape
        if values.ndim != len(rows) or any(
            size not in (1, full) for size, full in zip(values.shape, rows, strict=True)
        ):
            raise ValueError(f"{name} has shape {values.shape}, input_ids has {shape}")
        if not np.issubdtype(values.dtype, np.integer) and values.dtype != bool:
            raise ValueError(f"{name} must hold whole numbers, got {values.dtype}")
        limits = {
            "input_ids": self.config.vocab_size,
            "token_type_ids": self.config.type_vocab_size,
            "position_ids": self.config.max_position_embeddings,
            "masked_positions": shape[-1],
            "cls_positions": shape[-1],
        }
        limit = limits.get(name)
        if limit and values.size and not (values.min() >= 0 and values.max() < limit):
            worst = values.max() if values.max() >= limit else values.min()
            raise ValueError(f"{name} holds {worst}; it must lie between 0 and {limit - 1}")
        return jnp.asarray(values, jnp.int32)

    def save_pretrained(self, folder: str | Path, *, dtype: str | None = None) -> None:
        """Writes config, weights and tokenizer in Hugging Face's layout, for transformers and for `load`.

        Args:
            folder: made when missing; files of the same names are replaced.
            dtype: of the file: float32, bfloat16 or float16; default: that of the parameters.

        Raises:
            FileExistsError: the folder is that of a run.
        """
        if (Path(folder) / CHECKPOINTS).exists():
            raise FileExistsError(f"{folder} is the folder of a run: choose another")
        huggingface.write_model(folder, self.model, self.params, dtype=dtype)
        if self.vocabulary is not None:
            self.vocabulary.save(folder)

    def export(self, path: str | Path, *, platforms: Sequence[str] = ("cpu", "cuda", "tpu")) -> None:
        """Writes the forward pass with its weights as one file of StableHLO, which runs without this package.

        Args:
            path: the file; see `bert_jax.interop.export` for how it is read.
            platforms: where it is to run.

        Raises:
            ValueError: a model of multiple choice, whose rows are of another form.
        """
        from bert_jax.interop.export import export_model

        export_model(path, self.model, self.params, platforms=platforms)


@dataclass(frozen=True)
class TrainedRun:
    """What `pretrain` and `finetune` return.

    Attributes:
        folder: the run's folder.
        metrics: the metrics of the final evaluation, by the names of `metrics.jsonl`.
    """

    folder: Path
    metrics: dict[str, float]

    @cached_property
    def model(self) -> LoadedBert:
        """The trained model, loaded from the folder on first use."""
        return load(self.folder)


def load(
    source: str | Path,
    *,
    head: str | None = None,
    new_head: bool = False,
    dtype: str | None = None,
    seed: int = 0,
    revision: str | None = None,
    step: int | None = None,
    **changes: Any,
) -> LoadedBert:
    """Loads a model, its parameters and its tokenizer.

    Args:
        source: the folder of a run, whose newest checkpoint is taken; a folder in Hugging Face's layout; or the name of
            a model on its hub.
        head: the name of another model than the one that was saved, `BertForTokenClassification` or `BertModel`. What
            it has and the checkpoint has not is newly initialised from `seed`, and a warning names it.
        new_head: initialise the head anew, whatever the checkpoint holds.
        dtype: of parameters and computation. By default parameters are float32, whatever the file holds, and so is
            computation, but for a run, which computes as it did in training.
        revision: a branch, tag or commit on the hub.
        step: which checkpoint of a run; default: the newest.
        **changes: fields of the config to change, such as `label_names` for a new head.

    Raises:
        FileNotFoundError: no such folder or model, or files lack in it.
        ValueError: files that are broken, do not fit each other, or are no BERT's; an unknown `head` or `dtype`.
    """
    model = None if head is None else model_class(head)
    if dtype == "float64" and not jax.config.read("jax_enable_x64"):
        raise ValueError("dtype float64 needs jax_enable_x64")
    folder = locate(source, revision)
    bert, params, new = read_model(folder, head=model, new_head=new_head, dtype=dtype, seed=seed, step=step, **changes)
    return LoadedBert(bert, params, read_vocabulary(folder, bert.config), new)


def locate(source: str | Path, revision: str | None = None, *, also: Sequence[str] = ()) -> Path:
    """Returns the folder of a model, fetched from the hub where it is no folder here, with what is `also` wanted of it.

    Raises:
        FileNotFoundError: no such folder or model, or no config.json in it.
    """
    folder = Path(source).expanduser()
    if not folder.exists() and not folder.is_absolute():
        from bert_jax.interop.hub import fetch

        folder = fetch(str(source), revision, also=also)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder}: no config.json here; wanted the folder of a run or of a model")
    return folder


def read_model(
    folder: Path,
    *,
    head: type[Bert] | None,
    new_head: bool,
    dtype: str | None,
    seed: int,
    step: int | None = None,
    **changes: Any,
) -> tuple[Bert, dict[str, Any], frozenset[str]]:
    """Reads a model and its parameters, and says which parts are new; arguments are those of `load`."""
    config, named = huggingface.read_config(folder)
    # A run of fine-tuning has the best model beside its checkpoints.
    run = (folder / CHECKPOINTS).is_dir() and not (folder / WEIGHTS).is_file()
    # A run's config says what it computes in; Hugging Face's says what the file is stored in.
    computed = dtype or (config.dtype if run else "float32")
    stored = dtype or ("float64" if computed == "float64" else "float32")
    with blame(folder):
        checkpoint = open_run(folder / CHECKPOINTS, step) if run else index_tensors(open_weights(folder))
        model = head or (model_class(named) if named else detect_model(checkpoint.parts))
        config = adapt_config(config, model, **{"dtype": computed, **changes})
        if config.lora_rank:
            raise ValueError(f"lora_rank is {config.lora_rank}: adapters are merged before a model is written")
        wanted = parts_of(model)
        unwanted = set(HEADS) if new_head else set()
        missing = wanted - (checkpoint.parts - unwanted) - set(TRUNK)
        params = checkpoint.assemble(leaf_shapes(config, wanted - missing), stored)
        if not {"num_labels", "label_names"} & changes.keys():
            require_modest(leaf_shapes(config, missing), params)
    if head is None and (idle := checkpoint.parts - wanted):
        warnings.warn(f"{folder}: {model.__name__} does not use the {listed(idle)} in it", stacklevel=3)
    if unasked := missing - unwanted:
        warnings.warn(f"{folder} has no {', '.join(sorted(unasked))}: newly initialised", stacklevel=3)
    return model(config), params | init_parts(config, missing, stored, seed), frozenset(missing)


def open_run(checkpoints: Path, step: int | None) -> Any:
    """Opens a checkpoint of a run, by default the newest."""
    from bert_jax.interop.run_checkpoint import RunCheckpoint  # Orbax is a good part of all that there is to import

    return RunCheckpoint(checkpoints, step)


def read_vocabulary(folder: Path, config: BertConfig) -> Tokenizer | None:
    """Returns the tokenizer in a folder, or None where there is none.

    Raises:
        ValueError: it has more tokens than the embedding has rows.
    """
    if not any((folder / name).is_file() for name in VOCABULARY):
        return None
    tokenizer = Tokenizer.load(folder)
    tokens, rows = tokenizer.vocab_size, config.vocab_size
    if tokens > rows:
        raise ValueError(f"{folder}: the vocabulary has {tokens} tokens, the embedding only {rows} rows")
    if rows - tokens >= PADDING:
        warnings.warn(f"{folder}: the embedding has {rows} rows, the vocabulary only {tokens} tokens", stacklevel=3)
    return tokenizer


def save_config(folder: str | Path, model: Bert) -> None:
    """Writes the config.json of a run."""
    huggingface.write_config(folder, type(model), model.config)
