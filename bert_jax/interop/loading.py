"""`bert_jax.load`: from a folder or a hub name to a model."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax

from bert_jax.config import BertConfig
from bert_jax.interop import huggingface
from bert_jax.interop.assembly import index_tensors, list_names
from bert_jax.interop.formats.weights import INDEX, READERS, name_file_in_errors, open_weights
from bert_jax.interop.heads import (
    HEADS,
    TRUNK,
    adapt_config,
    architecture,
    check_new_size,
    detect_model,
    init_parts,
    known_model,
    model_class,
    parts_of,
    usable_parts,
)
from bert_jax.interop.loaded_bert import LoadedBert
from bert_jax.interop.names import NAMES, leaf_shapes
from bert_jax.interop.pooling import MODULES, SENTENCE_FILES, SentenceFiles
from bert_jax.interop.run_facts import Origin
from bert_jax.models import Bert
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.tokenizer_files import MERGES, VOCABULARY, vocabulary_lines
from bert_jax.text.tokenizer_settings import SETTINGS_FILES
from bert_jax.training.runs.manifests import CHECKPOINTS

WEIGHTS = "model.safetensors"
PADDING = 128  # embeddings have up to this many more rows than there are tokens, rounded up for speed


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
    if dtype == "auto":
        raise ValueError("dtype must be float32, bfloat16 or float64; got 'auto'")
    if dtype == "float64" and not jax.config.read("jax_enable_x64"):
        raise ValueError("dtype float64 needs jax_enable_x64")
    hub_name = None if Path(source).expanduser().exists() else str(source)
    folder = locate(source, revision)
    bert, params, new, unused, step = _read_model(
        folder, head=model, new_head=new_head, dtype=dtype, seed=seed, step=step, **changes
    )
    vocabulary = read_vocabulary(folder, bert.config)
    origin = Origin(folder, hub_name, step)
    return LoadedBert(bert, params, vocabulary, new, SentenceFiles.read(folder), unused, origin)


def locate(source: str | Path, revision: str | None = None) -> Path:
    """Returns the folder of a model; a name that is not a local folder is downloaded from the hub.

    Raises:
        FileNotFoundError: no such folder or model, or no config.json in it.
    """
    folder = Path(source).expanduser()
    if not folder.exists() and not folder.is_absolute():
        from bert_jax.interop.hub import fetch

        files = (*VOCABULARY, MERGES, *SETTINGS_FILES)
        folder = fetch(str(source), revision, files=files, beside={MODULES: SENTENCE_FILES})
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
) -> tuple[Bert, dict[str, Any], frozenset[str], frozenset[str], int | None]:
    """Returns the model, its parameters, its new parts, the unused ones, and the step of a run's checkpoint.

    The arguments are those of `load`.
    """
    config, named = huggingface.read_config(folder)
    # A fine-tuning run has its best model as model.safetensors, besides its checkpoints.
    is_run = (folder / CHECKPOINTS).is_dir() and not (folder / WEIGHTS).is_file()
    if step is not None and not is_run:
        raise ValueError(f"`step={step}`: {folder} holds one model, not the checkpoints of a pretraining run")
    # `dtype` in a run's config is the compute dtype; in Hugging Face's it is the dtype of the file.
    compute_dtype = dtype or (config.dtype if is_run else "float32")
    param_dtype = dtype or ("float64" if compute_dtype == "float64" else "float32")
    replaced = set(HEADS) if new_head else set()

    def read(checkpoint: Any) -> tuple[type[Bert], BertConfig, dict[str, Any], set[str], set[str], int | None]:
        model = head or known_model(named, config.model_type) or detect_model(checkpoint.parts, config.model_type)
        adapted = adapt_config(config, model, **{"dtype": compute_dtype, **changes})
        if adapted.lora_rank:
            raise ValueError(f"lora_rank is {adapted.lora_rank}: adapters must be merged before a model is written")
        required = parts_of(model, adapted)
        # Embeddings and encoder are never new: if they are missing, the file is broken, and `assemble` says so.
        usable = usable_parts(checkpoint.parts, required, config.model_type)
        new = required - (usable - replaced) - set(TRUNK)
        params = checkpoint.assemble(leaf_shapes(adapted, required - new), param_dtype)
        if not {"num_labels", "label_names"} & changes.keys():
            check_new_size(leaf_shapes(adapted, new), params)
        return model, adapted, params, new, checkpoint.parts - required, checkpoint.step if is_run else None

    def read_file():
        tensors = index_tensors(open_weights(folder), config.model_type)
        found = read(tensors)
        if huggingface.is_untied(folder) and "masked_lm" in found[2] and not tensors.has_decoder:
            raise ValueError(
                f"tie_word_embeddings is false, but the file has no {NAMES[config.model_type].decoder}.weight; set it "
                "to true if the decoder is the word embedding"
            )
        return found

    with name_file_in_errors(folder):
        found = _read_run(folder / CHECKPOINTS, step, read) if is_run else read_file()
    model, config, params, new, unused, step = found
    if head is None and named and known_model(named, config.model_type) is None:
        chosen = f"its tensors are those of {architecture(model, config.model_type)}"
        warnings.warn(f"{folder}: the class {named!r:.80} in config.json is unknown; {chosen}", stacklevel=3)
    if head is None and unused:
        warnings.warn(
            f"{folder}: {architecture(model, config.model_type)} does not use the {list_names(unused)} in it",
            stacklevel=3,
        )
    if missing := new - replaced:
        warnings.warn(f"{folder} has no {', '.join(sorted(missing))}: newly initialized", stacklevel=3)
    params |= init_parts(config, new, param_dtype, seed)
    return model(config), params, frozenset(new), frozenset(unused), step


def _read_run(checkpoints: Path, step: int | None, read: Callable[[Any], Any]) -> Any:
    """Returns what `read` returns for a checkpoint of a run, by default the newest."""
    # Imported here because importing Orbax takes as long as all other imports.
    from bert_jax.interop.checkpoint_reader import CheckpointReader, read_newest

    return read_newest(checkpoints, read) if step is None else read(CheckpointReader(checkpoints, step))


def read_vocabulary(folder: Path, config: BertConfig) -> Tokenizer | None:
    """Returns the tokenizer in a folder, or None if there is none.

    Raises:
        ValueError: it has more tokens than the embedding has rows.
    """
    if not any((folder / name).is_file() for name in VOCABULARY):
        return None
    tokenizer = Tokenizer.load(folder)
    rows = config.vocab_size
    lines = vocabulary_lines(tokenizer.backend.get_vocab())
    tokens = len(lines)
    while tokens > rows and not lines[tokens - 1]:  # empty lines at the end, which no text needs
        tokens -= 1
    if tokens > rows:
        raise ValueError(f"{folder}: the vocabulary has {tokens} tokens, the embedding only {rows} rows")
    if config.family.offset_positions and tokenizer.pad_id != config.pad_token_id:
        warnings.warn(
            f"{folder}: pad_token_id is {config.pad_token_id} in config.json and {tokenizer.pad_id} in the tokenizer; "
            f"positions begin at {config.position_offset}, as config.json says",
            stacklevel=3,
        )
    if rows - tokens >= PADDING:
        warnings.warn(f"{folder}: the embedding has {rows} rows, the vocabulary only {tokens} tokens", stacklevel=3)
    return tokenizer


def find_model(folder: str | Path) -> Path | None:
    """Returns the first file of a model in a folder, or None if there is none."""
    names = ("config.json", *READERS, *(f"{name}{INDEX}" for name in READERS), *VOCABULARY)
    return next((Path(folder) / name for name in names if (Path(folder) / name).exists()), None)


def save_config(folder: str | Path, model: Bert) -> None:
    """Writes the config.json of a run."""
    huggingface.write_config(folder, type(model), model.config)
