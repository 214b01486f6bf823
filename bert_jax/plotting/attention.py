"""The attention of a model to one text: its weights, a page to explore them, and a picture of one head.

The page is one file of HTML without any other: the weights are in it, and it asks no network. It shows all heads as
small pictures, and one of them as a matrix or as lines.

References: Clark et al., What Does BERT Look At?, 2019. Vig, A Multiscale Visualization of Attention, 2019.
"""

import base64
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax.files import write_file
from bert_jax.interop.loaded_bert import LoadedBert
from bert_jax.models import BertForMultipleChoice

MAX_TOKENS = 128  # of a page: 12 x 12 heads then take 6 MB
STEPS = 65535  # in which the page holds a weight


@dataclass(frozen=True)
class AttentionMaps:
    """The attention weights of a model for one text, or one pair of texts.

    Attributes:
        tokens: with the special ones, T of them.
        texts: of each token, 0 for the first text, 1 for the second, None for a special token.
        weights: float32 [L, N, T, T]: of layer and head, from the token that reads to the token that is read; each row
            is 1 in sum.
    """

    tokens: list[str]
    texts: list[int | None]
    weights: np.ndarray


def attention_maps(bert: LoadedBert, text: str, pair: str | None = None) -> AttentionMaps:
    """Returns the attention weights of a model for a text, or a pair of texts.

    Raises:
        ValueError: a text that is empty or longer than the model can read, or a multiple-choice model.
    """
    if isinstance(bert.model, BertForMultipleChoice):
        raise ValueError('a multiple-choice model reads several texts at once: load it with `head="BertModel"`')
    if not text.strip() or (pair is not None and not pair.strip()):
        raise ValueError("the text is empty")
    pairs = None if pair is None else [pair]
    (encoding,) = bert.tokenizer.encode_batch([text], pairs)
    if len(encoding) > bert.config.max_length:
        raise ValueError(f"the text has {len(encoding)} tokens, the model reads {bert.config.max_length}")
    inputs: dict[str, Any] = dict(bert.tokenizer([text], pairs))
    maps = bert(**inputs, output_attentions=True).attentions
    weights = np.stack([np.asarray(layer[0], np.float32) for layer in maps])  # [L, N, T, T]
    return AttentionMaps(encoding.tokens, encoding.sequence_ids, weights)


def write_attention_page(path: str | Path, bert: LoadedBert, text: str, pair: str | None = None) -> None:
    """Writes a page of HTML that shows all attention heads of a model for a text, or a pair of texts.

    Raises:
        ValueError: as of `attention_maps`, or more than MAX_TOKENS tokens.
        OSError: the file cannot be written.
    """
    maps = attention_maps(bert, text, pair)
    if len(maps.tokens) > MAX_TOKENS:
        raise ValueError(f"the text has {len(maps.tokens)} tokens, the page shows up to {MAX_TOKENS}: shorten it")
    write_file(path, attention_page(maps, model=repr(bert).strip("<>")))


def attention_page(maps: AttentionMaps, *, model: str = "") -> str:
    """Returns the page of HTML; `model` is a line about the model."""
    layers, heads, *_ = maps.weights.shape
    steps = np.round(np.clip(maps.weights, 0, 1) * STEPS).astype("<u2")
    data: dict[str, Any] = {
        "model": model,
        "layers": layers,
        "heads": heads,
        "tokens": [shown(token) for token in maps.tokens],
        "texts": maps.texts,
        "special": [text is None for text in maps.texts],
        "weights": base64.b64encode(steps.tobytes()).decode(),
    }
    # In a script element, </script> and <!-- would end or change the element, whatever the JSON says.
    content = json.dumps(data).replace("<", "\\u003c")
    page = files("bert_jax.plotting").joinpath("attention.html").read_text(encoding="utf-8")
    return page.replace("__DATA__", content, 1)


def shown(token: str) -> str:
    """Returns a token for people: the marks of words of byte-level BPE and of Unigram as blanks.

    >>> shown("Ġowl"), shown("▁owl"), shown("##s")
    (' owl', ' owl', '##s')
    """
    return token.replace("Ġ", " ").replace("▁", " ")
