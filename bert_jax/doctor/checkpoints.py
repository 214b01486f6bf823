"""Examines a run or a model: its files, its checkpoints, its vocabulary and its labels."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import jax

from bert_jax.config import BertConfig
from bert_jax.doctor.findings import Finding, fact, problem, warning
from bert_jax.doctor.labels import suspicious_names
from bert_jax.interop import huggingface
from bert_jax.interop.heads import architecture
from bert_jax.interop.loading import CHECKPOINTS, WEIGHTS, load, locate, read_vocabulary
from bert_jax.messages import counted
from bert_jax.text.tokenizer_files import no_vocabulary
from bert_jax.training.runs.folder import recorded_settings
from bert_jax.training.runs.lock import holder
from bert_jax.training.runs.manifests import check_manifest
from bert_jax.training.runs.metrics import read_metrics
from bert_jax.training.runs.saved_steps import newest_step

METRICS = "metrics.jsonl"
MODEL_FILES = ("config.json", "training.json", CHECKPOINTS)


def is_model(source: str | Path) -> bool:
    """Returns whether this is the folder of a run or of a model, or the name of a model on the hub."""
    path = Path(source).expanduser()
    if path.exists():
        return path.is_dir() and any((path / name).exists() for name in MODEL_FILES)
    try:
        return locate(source).is_dir()
    except OSError:
        return False


def examine_model(source: str | Path) -> Iterator[Finding]:
    """Yields what was found in the folder of a run or of a model, or in a model on the hub. All weights are read."""
    try:
        folder = locate(source)
        config, named = huggingface.read_config(folder)
    except (OSError, ValueError) as error:
        yield problem(str(error))
        return
    yield fact(f"{named or 'no architecture'} in {folder}, a {config.family.title}")
    yield from _tokenizer(folder, config)
    yield from _labels(config)
    is_run = (folder / CHECKPOINTS).is_dir()
    if is_run:
        yield from _run(folder)
    if is_run and newest_step(folder / CHECKPOINTS) is None and not (folder / WEIGHTS).is_file():
        yield warning(f"{folder}: no checkpoint yet, so there are no weights to load")
        return
    yield from _weights(folder)


def _tokenizer(folder: Path, config: BertConfig) -> Iterator[Finding]:
    """Yields whether the vocabulary fits the embedding and the positions."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            tokenizer = read_vocabulary(folder, config)
        except (OSError, ValueError) as error:
            yield problem(str(error))
            return
    yield from (warning(str(one.message)) for one in caught)
    if tokenizer is None:
        yield warning(f"texts cannot be encoded: {no_vocabulary(folder)}")
        return
    special = ", ".join(f"{role} {token}" for role, token in tokenizer.roles.items())
    yield fact(
        f"{tokenizer.kind} vocabulary of {tokenizer.vocab_size:,} tokens ({special}); the embedding has "
        f"{config.vocab_size:,} rows"
    )
    if "mask" not in tokenizer.roles:
        yield warning("the tokenizer has no mask token: it cannot fill masks or continue pretraining")
    longest = tokenizer.max_length
    if longest is not None and longest > config.max_length:
        yield warning(f"model_max_length is {longest:,}, but the position table has {config.max_length:,} rows")


def _labels(config: BertConfig) -> Iterator[Finding]:
    """Yields the labels of a classifier, and those that look like a mistake."""
    names = config.label_names
    if not names:
        return
    yield fact(f"{counted(len(names), 'label')}: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}")
    yield from map(warning, suspicious_names(names))


def _run(folder: Path) -> Iterator[Finding]:
    """Yields what is wrong with the files of a run."""
    try:
        if recorded_settings(folder) is None:
            yield warning(f"{folder}: no training.json: this run cannot be resumed")
    except (OSError, ValueError) as error:
        yield problem(str(error))
    writer = holder(folder)
    if writer is not None:
        yield fact(f"in use by {writer}")
    steps = sorted(int(path.name) for path in (folder / CHECKPOINTS).iterdir() if path.name.isdigit())
    yield fact(f"checkpoints: {', '.join(map(str, steps)) or 'none'}")
    for step in steps:
        try:
            check_manifest(folder / CHECKPOINTS / str(step))
        except (OSError, ValueError) as error:
            yield problem(str(error))
    if (folder / METRICS).is_file():
        try:
            yield fact(f"{METRICS}: {counted(len(read_metrics(folder / METRICS)), 'row')}")
        except (OSError, ValueError) as error:
            yield problem(str(error))


def _weights(folder: Path) -> Iterator[Finding]:
    """Yields whether the weights can be loaded, and whether each is a finite number."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            bert = load(folder)
        except (OSError, ValueError) as error:
            yield problem(str(error))
            return
    yield from (warning(str(one.message)) for one in caught)
    count = sum(leaf.size for leaf in jax.tree.leaves(bert.params))
    yield fact(f"{architecture(type(bert.model), bert.config.model_type)} loads, {count:,} parameters")
