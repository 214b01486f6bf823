"""The model that a run continues from: its architecture, its weights and its tokenizer."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

from datasets import Dataset

from bert_jax.config import BertConfig
from bert_jax.data.readers.sources import Texts
from bert_jax.interop.huggingface import read_config
from bert_jax.interop.loaded_bert import LoadedBert
from bert_jax.interop.loading import PADDING, load, locate
from bert_jax.interop.pooling import lowercased
from bert_jax.interop.resizing import add_tokens
from bert_jax.messages import counted
from bert_jax.pretraining.model import model_class
from bert_jax.pretraining.settings import Settings
from bert_jax.text.new_words import VocabularyReport, find_new_words, read_new_words, require_wordpiece
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training.devices import processes

# Fields of the config that only a head for fine-tuning uses.
OF_OTHER_HEADS = (
    "classifier_dropout", "span_dropout", "num_labels", "label_names", "problem_type", "null_threshold",
    "activation_fn", "data_columns",
)  # fmt: skip


_folders: dict[str, Path] = {}  # of names on the hub, by name


def source_folder(model: str, *, look_up: bool = False) -> Path:
    """Returns the folder of a model. A name on the hub is looked up once, or with `look_up`: a run reads one commit.

    Raises:
        FileNotFoundError: no such model.
    """
    if Path(model).expanduser().exists():
        return locate(model)
    if look_up or model not in _folders:
        _folders[model] = locate(model)
    return _folders[model]


def source_config(model: str, *, look_up: bool = False) -> BertConfig:
    """Returns the config of a model, without what belongs to heads for fine-tuning; `look_up` as of `source_folder`.

    Raises:
        FileNotFoundError, ValueError: no such model, or not a BERT.
    """
    config, _ = read_config(source_folder(model, look_up=look_up))
    defaults = {**vars(BertConfig()), **config.family.defaults}
    others = {name: defaults[name] for name in OF_OTHER_HEADS}
    return replace(config, **others, dtype="auto")


def read_source(settings: Settings) -> LoadedBert | None:
    """Loads the model that a run continues from, and prints what is new; None if the run starts from random weights.

    Parts of the head that the model lacks are newly initialized. A resumed run has its own weights.

    Raises:
        FileNotFoundError, ValueError: no such model, files that are broken, no vocabulary, one of another size, or
            new words that cannot be added.
    """
    source = settings.starts_from
    if source is None:
        return None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*(newly initialized|the embedding has)")  # printed, or an error, below
        bert = load(source_folder(source), head=model_class(settings).__name__, seed=settings.batches.seed)
    _ = bert.tokenizer.mask_token  # an error without one
    if bert.sentence is not None and bert.sentence.transformer().get("do_lower_case") is True:
        bert = replace(bert, vocabulary=lowercased(bert.tokenizer))  # as the texts were that the model learned from
    tokens = bert.tokenizer.vocab_size
    rows = bert.config.vocab_size
    if rows - tokens >= PADDING:
        raise ValueError(f"{source}: the vocabulary has {tokens:,} tokens, the embedding {rows:,} rows")
    new = ", ".join(sorted(bert.new_parts)) or "nothing"
    unused = f"; not used: {', '.join(sorted(bert.unused_parts))}" if bert.unused_parts else ""
    if settings.text.add_tokens is not None:
        require_wordpiece(bert.tokenizer)
    if isinstance(settings.text.add_tokens, str):  # checked now, because reading the text may take hours
        for line in read_new_words(settings.text.add_tokens, bert.tokenizer).lines():
            print(line)
    print(f"{source}: {bert!r}; newly initialized: {new}{unused}; the optimizer starts at zero")
    return bert


def count_new_words(settings: Settings) -> int:
    """Returns how many new words the settings add; words to be found in the text are as many as asked for.

    Raises:
        FileNotFoundError, ValueError: a file of words that cannot be added, or no such model.
    """
    wanted = settings.text.add_tokens
    if wanted is None:
        return 0
    assert settings.run.model is not None  # checked
    tokenizer = Tokenizer.load(source_folder(settings.run.model))
    require_wordpiece(tokenizer)
    return wanted if isinstance(wanted, int) else len(read_new_words(wanted, tokenizer).words)


def add_new_words(
    settings: Settings, source: LoadedBert, documents: Dataset
) -> tuple[LoadedBert, VocabularyReport | None]:
    """Returns the model with the new words that the settings ask for, and what they change; None without new words.

    Args:
        documents: those to train on.
    """
    wanted = settings.text.add_tokens
    if wanted is None:
        return source, None

    def find() -> bytes:
        if isinstance(wanted, str):
            return json.dumps(read_new_words(wanted, source.tokenizer).words).encode()
        print(f"looking for {counted(wanted, 'new word')}")
        found = find_new_words(Texts(documents), source.tokenizer, wanted)
        if len(found) < wanted:
            print(f"no more than {len(found):,}: other words of the text are rare, or are single tokens already")
        return json.dumps(found).encode()

    larger = add_tokens(source, json.loads(processes.broadcast_from_first("new words are found", find)))
    report = VocabularyReport.of(Texts(documents), source.tokenizer, larger.tokenizer)
    print(report.line())
    return larger, report
