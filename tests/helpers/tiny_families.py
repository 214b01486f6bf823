"""A tiny checkpoint of every family with a tokenizer of its kind, made without PyTorch: for tests of all families."""

from functools import cache
from pathlib import Path

import jax
import numpy as np
import small_bert
import tokenizer_kinds as kinds

from bert_jax.config import BertConfig
from bert_jax.families import FAMILIES
from bert_jax.interop.heads import parts_of
from bert_jax.interop.loading import LoadedBert
from bert_jax.interop.names import leaf_shapes, unflatten
from bert_jax.models import BertForMaskedLM, BertForPreTraining
from bert_jax.text.tokenizer import Tokenizer

POSITIONS = 96  # those that are used
KIND_OF_FAMILY = {
    "roberta": "bpe",
    "xlm-roberta": "unigram",
    "camembert": "unigram",
    "modernbert": "bpe",
}  # the others: wordpiece


@cache
def tokenizer(kind: str) -> Tokenizer:
    return Tokenizer(kinds.backend(kind))


def config(model_type: str, kind: str | None = None, **changes) -> BertConfig:
    """The config of a family for a tokenizer of a kind; sizes are divisible by the axes of a mesh of 8 devices."""
    family = FAMILIES[model_type]
    words = tokenizer(kind or KIND_OF_FAMILY.get(model_type, "wordpiece"))
    sizes = {
        "vocab_size": words.vocab_size,
        "pad_token_id": words.pad_id,
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 12,
        "max_position_embeddings": POSITIONS + (words.pad_id + 1 if family.offset_positions else 0),
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    if "embedding_size" not in family.without:
        sizes["embedding_size"] = 4
    if "span_dropout" not in family.without:
        sizes["span_dropout"] = 0.0
    return BertConfig(model_type=model_type, **sizes | changes)


def bert(model_type: str, kind: str | None = None, **changes) -> LoadedBert:
    """A pretrained model of a family, in which every parameter matters."""
    chosen = config(model_type, kind, **changes)
    model = BertForPreTraining if chosen.family.has_next_sentence else BertForMaskedLM
    params = small_bert.draw(unflatten(leaf_shapes(chosen, parts_of(model, chosen))))
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
    return LoadedBert(model(chosen), params, tokenizer(kind or KIND_OF_FAMILY.get(model_type, "wordpiece")))


def write(model_type: str, folder: Path) -> Path:
    """Writes that model in Hugging Face's layout."""
    bert(model_type).save_pretrained(folder)
    return folder
