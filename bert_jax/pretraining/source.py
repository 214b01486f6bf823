"""The model that a run continues from: its architecture, its weights and its tokenizer."""

import warnings
from dataclasses import replace

from bert_jax.config import BertConfig
from bert_jax.interop.huggingface import read_config
from bert_jax.interop.loaded_bert import LoadedBert
from bert_jax.interop.loading import PADDING, load, locate
from bert_jax.pretraining.model import model_class
from bert_jax.pretraining.settings import Settings

# Fields of the config that only a head for fine-tuning uses.
OF_OTHER_HEADS = (
    "classifier_dropout", "num_labels", "label_names", "problem_type", "null_threshold", "activation_fn",
    "data_columns",
)  # fmt: skip


def source_config(model: str) -> BertConfig:
    """Returns the config of a model, without what belongs to heads for fine-tuning.

    Raises:
        FileNotFoundError, ValueError: no such model, or not a BERT.
    """
    config, _ = read_config(locate(model))
    defaults = BertConfig()
    others = {name: getattr(defaults, name) for name in OF_OTHER_HEADS}
    return replace(config, **others, dtype="float32")


def read_source(settings: Settings) -> LoadedBert | None:
    """Loads the model that a run continues from, and prints what is new; None if the run starts from random weights.

    Parts of the head that the model lacks are newly initialized. A resumed run has its own weights.

    Raises:
        FileNotFoundError, ValueError: no such model, files that are broken, no vocabulary, or one of another size.
    """
    source = settings.starts_from
    if source is None:
        return None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*(newly initialized|the embedding has)")  # printed, or an error, below
        bert = load(source, head=model_class(settings).__name__, seed=settings.batches.seed)
    tokens = bert.tokenizer.vocab_size
    rows = bert.config.vocab_size
    if rows - tokens >= PADDING:
        raise ValueError(f"{source}: the vocabulary has {tokens:,} tokens, the embedding {rows:,} rows")
    new = ", ".join(sorted(bert.new_parts)) or "nothing"
    unused = f"; not used: {', '.join(sorted(bert.unused_parts))}" if bert.unused_parts else ""
    print(f"{source}: {bert!r}; newly initialized: {new}{unused}; the optimizer starts at zero")
    return bert
