"""From texts to answers in one line of Python.

Each pipeline is loaded from what `bert_jax.load` takes and called on texts; results are plain dicts with the field
names of Hugging Face's pipelines.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from bert_jax.interop.loading import LoadedBert, load


class FillMask:
    """Fills the [MASK] of a text.

    >>> FillMask.load("RUN")("i really [MASK] this film .")  # doctest: +SKIP
    [{'score': 0.41, 'token': 312, 'token_str': 'loved', 'sequence': 'i really loved this film.'}, ...]
    """

    def __init__(self, bert: LoadedBert) -> None:
        self.bert = bert

    @classmethod
    def load(cls, source: str | Path) -> "FillMask":
        """Loads a model with a masked-LM head."""
        return cls(load(source))

    def __call__(self, text: str, *, top: int = 5) -> list[dict[str, Any]]:
        """Returns the `top` likeliest tokens, best first: `score` (a probability), `token`, `token_str`, `sequence`.

        Raises:
            ValueError: the text does not hold exactly one [MASK].
        """
        tokenizer = self.bert.tokenizer
        inputs: dict[str, Any] = tokenizer([text])
        ids = inputs["input_ids"][0]
        (places,) = np.nonzero(ids == tokenizer.mask_id)
        if len(places) != 1:
            raise ValueError(f"wanted one [MASK] in the text, found {len(places)}: {text!r}")
        outputs = self.bert(**inputs, masked_positions=places[None, :])
        scores: Any = np.asarray(jax.nn.softmax(outputs.prediction_logits[0, 0].astype(np.float32)))
        return [self.filled(ids, places[0], token, scores[token]) for token in np.argsort(-scores)[:top]]

    def filled(self, ids: np.ndarray, place: int, token: int, score: float) -> dict[str, Any]:
        """Returns one result: `token` put in at `place`."""
        tokenizer = self.bert.tokenizer
        sequence = np.where(np.arange(len(ids)) == place, token, ids)
        return {
            "score": float(score),
            "token": int(token),
            "token_str": tokenizer.tokens[token],
            "sequence": tokenizer.decode(sequence),
        }
