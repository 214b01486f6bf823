"""Embeds texts as vectors.

References: Reimers, Gurevych, Sentence-BERT, 2019, section 3.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from bert_jax.functional.pooling import POOLINGS, pool
from bert_jax.interop.loaded_bert import LoadedBert
from bert_jax.interop.pooling import SentenceSettings, lowercased
from bert_jax.models import Outputs
from bert_jax.pipelines.batching import Encoded
from bert_jax.pipelines.documents import Document
from bert_jax.pipelines.pipeline import Pipeline, shortest_window
from bert_jax.text.inputs import require_string, valid_text

DEFAULT = SentenceSettings("mean", normalize=True)


class Embedder(Pipeline):
    """Turns a text into a vector, float32 [D]; a list of texts into an array [texts, D].

    Works with any model; the head is not used. For a sentence-transformers folder, pooling, length, prompts and the
    other settings are those of its files. The vectors of the windows of a long text are combined by their maximum for
    `max`, otherwise by their mean, weighted by their tokens. Options of the call:

    `prompt`: a text in front of each text.
    `prompt_name`: the name of a prompt of the model; default: the model's default prompt, if it has one.

    Args:
        bert: the result of `bert_jax.load`.
        pooling: the `mean` or `max` over the vectors of all tokens with the special tokens; `cls` or `lasttoken`, the
            vector of the first or of the last one; `weightedmean`, with weights 1, 2, 3, ...; `mean_sqrt_len_tokens`,
            the sum divided by the root of their number; or several, side by side, such as `cls+max`. None: as in the
            model's files, otherwise `mean`.
        normalize: scale to length 1, so that dot products are cosines. None: as in the model's files, otherwise True.
        truncate: read the first window of a long text alone. None: for a sentence-transformers folder.
        **options: see `Pipeline`.

    Raises:
        ValueError: an unknown kind of pooling, or a sentence-transformers folder with other modules.
    """

    def __init__(
        self,
        bert: LoadedBert,
        *,
        pooling: str | None = None,
        normalize: bool | None = None,
        truncate: bool | None = None,
        max_length: int | None = None,
        **options: Any,
    ) -> None:
        self.settings = bert.sentence.settings() if bert.sentence is not None else DEFAULT
        self.pooling = self.settings.mode if pooling is None else pooling
        self.modes = tuple(str(self.pooling).split("+"))
        if not POOLINGS.keys() >= {*self.modes}:
            where = "`pooling`" if pooling is not None or bert.sentence is None else f"{bert.sentence.folder}: pooling"
            raise ValueError(
                f"{where} must be one of {', '.join(POOLINGS)}, or several joined by +; got {self.pooling!r:.80}"
            )
        self.normalize = self.settings.normalize if normalize is None else normalize
        self.truncate = bert.sentence is not None if truncate is None else truncate
        if max_length is None and self.settings.max_length is not None:
            max_length = min(max(shortest_window(bert.tokenizer), self.settings.max_length), bert.config.max_length)
        super().__init__(bert, max_length=max_length, **options)
        if self.settings.lowercase:
            self.tokenizer = lowercased(self.tokenizer)

    def stream(
        self,
        texts: Iterable[Any],
        *,
        total: int | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        **options: Any,
    ) -> Iterator[Any]:
        before = self.prompt(prompt, prompt_name)
        skip = 0
        if before and not self.settings.include_prompt:
            if not self.truncate:
                raise ValueError("a prompt that is not pooled (`include_prompt`) needs `truncate=True`")
            skip = self.prompt_length(before)
        return super().stream((self.prepared(before, text) for text in texts), total=total, skip=skip, **options)

    def prompt(self, prompt: str | None, name: str | None) -> str:
        """Returns the text to put in front of each text."""
        name = self.settings.default_prompt if name is None else name
        if prompt is None and name is not None:
            if name not in self.settings.prompts:
                known = ", ".join(self.settings.prompts) or "none"
                raise ValueError(f"there is no prompt {name!r:.80}; the model has {known}")
            prompt = self.settings.prompts[name]
        return require_string(prompt or "", "`prompt`")

    def prompt_length(self, prompt: str) -> int:
        """Returns the number of tokens of a prompt, with the special tokens before it."""
        encoding = self.tokenizer.text_backend().encode(valid_text(prompt), add_special_tokens=False)
        return len(self.tokenizer.layout.prefix) + len(encoding)

    def default_options(self) -> dict[str, Any]:
        return {"skip": 0}

    def static(self, options: Mapping[str, Any]) -> dict[str, Any]:
        return {"skip": options["skip"]}

    def prepared(self, prompt: str, given: Any) -> Any:
        """Returns a text, or a pair, with the prompt in front."""
        if isinstance(given, Mapping):
            return {name: self.prepared(prompt if name == "text" else "", text) for name, text in given.items()}
        if not isinstance(given, str):
            return given  # the error for it names its index
        return prompt + given if prompt else given

    def sequences(self, document: Document) -> list[Encoded]:
        sequences = super().sequences(document)
        return sequences[:1] if self.truncate else sequences

    def select(self, outputs: Outputs, batch: Mapping[str, jax.Array], options: Mapping[str, Any]) -> jax.Array:
        first = batch["positions"]
        inputs = (outputs.last_hidden_state, batch["attention_mask"], batch["position_ids"], first)
        return pool(*inputs, modes=self.modes, skip=options["skip"])

    def answer(self, document: Document, results: list[Any], options: Mapping[str, Any]) -> np.ndarray:
        vectors = np.concatenate(results)  # [windows, modes * D]
        windows = document.windows[: len(results)]
        special = len(document.opening) + len(document.closing)
        tokens = [window.stop - window.start + special for window in windows]
        parts = zip(self.modes, np.split(vectors, len(self.modes), axis=1), strict=True)
        vector = np.concatenate(
            [part.max(axis=0) if mode == "max" else np.average(part, axis=0, weights=tokens) for mode, part in parts]
        )
        if self.normalize:
            vector = vector / max(np.linalg.norm(vector), 1e-12)
        return np.array(vector, np.float32)

    def collect(self, answers: list[Any]) -> Any:
        size = len(self.modes) * self.bert.config.hidden_size
        return np.stack(answers) if answers else np.zeros((0, size), np.float32)
