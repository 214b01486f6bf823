"""`bert_jax.load`: from a folder or a hub name to a model that is called on arrays."""

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
from bert_jax.interop.assembly import index_tensors, list_names
from bert_jax.interop.formats.weights import name_file_in_errors, open_weights
from bert_jax.interop.heads import (
    HEADS,
    TRUNK,
    adapt_config,
    check_new_size,
    detect_model,
    init_parts,
    model_class,
    parts_of,
)
from bert_jax.interop.names import leaf_shapes
from bert_jax.models import Bert, BertForMultipleChoice, Outputs
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training.runs.manifests import CHECKPOINTS

WEIGHTS = "model.safetensors"
VOCABULARY = ("tokenizer.json", "vocab.txt")
PADDING = 128  # embeddings have up to this many more rows than there are tokens, rounded up for speed


@dataclass(frozen=True, repr=False)
class LoadedBert:
    """A model with its parameters and tokenizer; a call runs the jitted forward pass.

    Attributes:
        model: the Flax module.
        params: the parameter tree.
        vocabulary: the tokenizer, or None if the folder has none.
        new_parts: the parts of the model that were newly initialized.
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
        """The tokenizer.

        Raises:
            ValueError: the model was loaded without one.
        """
        if self.vocabulary is None:
            raise ValueError(f"the model's folder has no vocabulary: neither {' nor '.join(VOCABULARY)}")
        return self.vocabulary

    def __call__(
        self,
        input_ids: Any,
        *,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        **inputs: Any,
    ) -> Outputs:
        """Runs the forward pass, without dropout; compiled once per shape.

        Args:
            input_ids: int [B, T]; [B, C, T] for multiple choice.
            **inputs: the model's other inputs, as arrays or nested lists: `attention_mask`, `token_type_ids`,
                `position_ids`, `masked_positions`, `cls_positions`.

        Returns:
            The model's named outputs, see `Bert.__call__`.

        Raises:
            ValueError: an array of a wrong shape, an id outside its table, or rows longer than the position table.
        """
        arrays = {"input_ids": input_ids} | {name: array for name, array in inputs.items() if array is not None}
        shape = np.shape(input_ids)
        axes = "[B, C, T]" if isinstance(self.model, BertForMultipleChoice) else "[B, T]"
        if len(shape) != axes.count(",") + 1 or not shape[-1]:
            found = f"shape {shape}" if shape else repr(input_ids)[:60]
            raise ValueError(f"input_ids must be {axes} with T above 0, got {found}")
        arrays = {name: self._validate(name, array, shape) for name, array in arrays.items()}
        return self._forward(self.params, arrays, output_hidden_states, output_attentions)

    @cached_property
    def _forward(self) -> Any:
        """The jitted forward pass."""

        def forward(params, arrays, output_hidden_states, output_attentions):
            return self.model.apply(
                {"params": params},
                **arrays,
                output_hidden_states=output_hidden_states,
                output_attentions=output_attentions,
            )

        return jax.jit(forward, static_argnums=(2, 3))

    def _validate(self, name: str, array: Any, shape: tuple[int, ...]) -> Any:
        """Returns `array` as int32 after checking that it fits `shape` and that its values are in range."""
        values = np.asarray(array)
        # masked_positions and cls_positions have the rows of input_ids and any length; the others its whole shape. An
        # axis of size 1 broadcasts.
        expected = (shape[0], *values.shape[-1:]) if name in ("masked_positions", "cls_positions") else shape
        if values.ndim != len(expected) or any(
            size not in (1, full) for size, full in zip(values.shape, expected, strict=True)
        ):
            raise ValueError(f"{name} has shape {values.shape}, input_ids has {shape}")
        if not np.issubdtype(values.dtype, np.integer) and values.dtype != bool:
            raise ValueError(f"{name} must be integers, got {values.dtype}")
        limits = {
            "input_ids": self.config.vocab_size,
            "token_type_ids": self.config.type_vocab_size,
            "position_ids": self.config.max_position_embeddings,
            "masked_positions": shape[-1],
            "cls_positions": shape[-1],
        }
        # JAX clamps an index that is out of range, so without this check the result would be silently wrong.
        limit = limits.get(name)
        if limit and values.size and not (values.min() >= 0 and values.max() < limit):
            worst = values.max() if values.max() >= limit else values.min()
            raise ValueError(f"{name} must lie in [0, {limit}), got {worst}")
        return jnp.asarray(values, jnp.int32)

    def save_pretrained(self, folder: str | Path, *, dtype: str | None = None) -> None:
        """Writes config, weights and tokenizer in Hugging Face's layout, for transformers and for `load`.

        Args:
            folder: created if missing; files of the same names are replaced.
            dtype: of the weights in the file: float32, bfloat16 or float16; default: that of the parameters.

        Raises:
            FileExistsError: the folder is that of a run.
        """
        if (Path(folder) / CHECKPOINTS).exists():
            raise FileExistsError(f"{folder} is the folder of a run: choose another one")
        huggingface.write_model(folder, self.model, self.params, dtype=dtype)
        if self.vocabulary is not None:
            self.vocabulary.save(folder)

    def export(self, path: str | Path, *, platforms: Sequence[str] = ("cpu", "cuda", "tpu")) -> None:
        """Writes the forward pass and its weights as one file of StableHLO, which runs without this package.

        Args:
            path: the file; `bert_jax.interop.export` shows how to run it.
            platforms: the JAX platforms to compile for.

        Raises:
            ValueError: a multiple-choice model, because its inputs are not [B, T].
        """
        from bert_jax.interop.export import export_model

        export_model(path, self.model, self.params, platforms=platforms)


@dataclass(frozen=True)
class TrainedRun:
    """The result of `pretrain` and `finetune`.

    Attributes:
        folder: the run's folder.
        metrics: of the final evaluation: for `pretrain` under the names in `metrics.jsonl` (`eval_loss`), for
            `finetune` under those in `scores.json` (`accuracy`); empty for predictions.
    """

    folder: Path
    metrics: dict[str, float]

    @cached_property
    def model(self) -> LoadedBert:
        """The trained model, loaded from the folder on first use.

        Raises:
            FileNotFoundError: the folder has no model, because the run only evaluated or predicted.
        """
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
        source: the folder of a run; a folder in Hugging Face's layout; or the name of a model on the hub.
        head: the model class to load, such as `BertForTokenClassification` or `BertModel`; default: the one that was
            saved. Parts that the checkpoint does not have are newly initialized from `seed`, with a warning.
        new_head: initialize the head even if the checkpoint has one.
        dtype: of the parameters and the computation. Default: float32, whatever the file is stored in; a run keeps the
            compute dtype it was trained with.
        seed: for newly initialized parts.
        revision: a branch, tag or commit on the hub.
        step: the checkpoint of a run; default: the newest.
        **changes: fields of the config to change, such as `label_names` for a new head.

    Raises:
        FileNotFoundError: no such folder or model, or missing files.
        ValueError: files that are broken, inconsistent or not a BERT's; an unknown `head` or `dtype`.
    """
    model = None if head is None else model_class(head)
    if dtype == "float64" and not jax.config.read("jax_enable_x64"):
        raise ValueError("dtype float64 needs jax_enable_x64")
    folder = locate(source, revision)
    bert, params, new = _read_model(folder, head=model, new_head=new_head, dtype=dtype, seed=seed, step=step, **changes)
    return LoadedBert(bert, params, read_vocabulary(folder, bert.config), new)


def locate(source: str | Path, revision: str | None = None, *, extra_files: Sequence[str] = ()) -> Path:
    """Returns the folder of a model; a name that is not a local folder is downloaded from the hub.

    Args:
        extra_files: further files to download, if they exist.

    Raises:
        FileNotFoundError: no such folder or model, or no config.json in it.
    """
    folder = Path(source).expanduser()
    if not folder.exists() and not folder.is_absolute():
        from bert_jax.interop.hub import fetch

        folder = fetch(str(source), revision, files=(*VOCABULARY, "tokenizer_config.json", *extra_files))
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder}: no config.json here; expected the folder of a run or of a model")
    return folder


def _read_model(
    folder: Path,
    *,
    head: type[Bert] | None,
    new_head: bool,
    dtype: str | None,
    seed: int,
    step: int | None = None,
    **changes: Any,
) -> tuple[Bert, dict[str, Any], frozenset[str]]:
    """Returns the model, its parameters and its new parts; the arguments are those of `load`."""
    config, named = huggingface.read_config(folder)
    # A fine-tuning run has its best model as model.safetensors, besides its checkpoints.
    is_run = (folder / CHECKPOINTS).is_dir() and not (folder / WEIGHTS).is_file()
    # `dtype` in a run's config is the compute dtype; in Hugging Face's it is the dtype of the file.
    compute_dtype = dtype or (config.dtype if is_run else "float32")
    param_dtype = dtype or ("float64" if compute_dtype == "float64" else "float32")
    with name_file_in_errors(folder):
        checkpoint = _open_run(folder / CHECKPOINTS, step) if is_run else index_tensors(open_weights(folder))
        model = head or (model_class(named) if named else detect_model(checkpoint.parts))
        config = adapt_config(config, model, **{"dtype": compute_dtype, **changes})
        if config.lora_rank:
            raise ValueError(f"lora_rank is {config.lora_rank}: adapters must be merged before a model is written")
        required = parts_of(model)
        replaced = set(HEADS) if new_head else set()
        # Embeddings and encoder are never new: if they are missing, the file is broken, and `assemble` says so.
        new = required - (checkpoint.parts - replaced) - set(TRUNK)
        params = checkpoint.assemble(leaf_shapes(config, required - new), param_dtype)
        if not {"num_labels", "label_names"} & changes.keys():
            check_new_size(leaf_shapes(config, new), params)
    if head is None and (unused := checkpoint.parts - required):
        warnings.warn(f"{folder}: {model.__name__} does not use the {list_names(unused)} in it", stacklevel=3)
    if missing := new - replaced:
        warnings.warn(f"{folder} has no {', '.join(sorted(missing))}: newly initialized", stacklevel=3)
    return model(config), params | init_parts(config, new, param_dtype, seed), frozenset(new)


def _open_run(checkpoints: Path, step: int | None) -> Any:
    """Opens a checkpoint of a run, by default the newest."""
    # Imported here because importing Orbax takes as long as all other imports.
    from bert_jax.interop.checkpoint_reader import CheckpointReader

    return CheckpointReader(checkpoints, step)


def read_vocabulary(folder: Path, config: BertConfig) -> Tokenizer | None:
    """Returns the tokenizer in a folder, or None if there is none.

    Raises:
        ValueError: it has more tokens than the embedding has rows.
    """
    if not any((folder / name).is_file() for name in VOCABULARY):
        return None
    tokenizer = Tokenizer.load(folder)
    tokens = tokenizer.vocab_size
    rows = config.vocab_size
    if tokens > rows:
        raise ValueError(f"{folder}: the vocabulary has {tokens} tokens, the embedding only {rows} rows")
    if rows - tokens >= PADDING:
        warnings.warn(f"{folder}: the embedding has {rows} rows, the vocabulary only {tokens} tokens", stacklevel=3)
    return tokenizer


def save_config(folder: str | Path, model: Bert) -> None:
    """Writes the config.json of a run."""
    huggingface.write_config(folder, type(model), model.config)
