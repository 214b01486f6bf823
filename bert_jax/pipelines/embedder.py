"""Embeds texts as vectors.

References: Reimers, Gurevych, Sentence-BERT, 2019, section 3 (the three poolings).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.functional import select
from bert_jax.interop.loaded_bert import LoadedBert
from bert_jax.interop.pooling import SentenceSettings, lowercased
from bert_jax.models import Outputs
from bert_jax.pipelines.batching import Encoded
from bert_jax.pipelines.documents import Document
from bert_jax.pipelines.pipeline import Pipeline, shortest_window
from bert_jax.text.inputs import require_string

Pooling = Literal["mean", "cls", "max"]
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
        pooling: the `mean` or `max` over the vectors of all tokens with the special tokens; or the vector of [CLS].
            None: as in the model's files, otherwise `mean`.
        normalize: scale to length 1, so that dot products are cosines. None: as in the model's files, otherwise True.
        truncate: read the first window of a long text alone. None: for a sentence-transformers folder.
        **options: see `Pipeline`.

    Raises:
        ValueError: a sentence-transformers folder with another kind of pooling, or with other modules.
    """

    def __init__(
        self,
        bert: LoadedBert,
        *,
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        truncate: bool | None = None,
        max_length: int | None = None,
        **options: Any,
    ) -> None:
        self.settings = bert.sentence.settings() if bert.sentence is not None else DEFAULT
        if pooling is None and self.settings.mode not in get_args(Pooling):
            choices = ", ".join(get_args(Pooling))
            folder = bert.sentence.folder if bert.sentence is not None else "the model"
            raise ValueError(f"{folder} pools by {self.settings.mode!r:.80}: choose one of {choices}")
        if pooling is not None and pooling not in get_args(Pooling):
            raise ValueError(f"`pooling` must be one of {', '.join(get_args(Pooling))}; got {pooling!r}")
        self.pooling = pooling or self.settings.mode
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
        return super().stream((self.prepared(before, text) for text in texts), total=total, **options)

    def prompt(self, prompt: str | None, name: str | None) -> str:
        """Returns the text to put in front of each text."""
        name = self.settings.default_prompt if name is None else name
        if prompt is None and name is not None:
            if name not in self.settings.prompts:
                known = ", ".join(self.settings.prompts) or "none"
                raise ValueError(f"there is no prompt {name!r:.80}; the model has {known}")
            prompt = self.settings.prompts[name]
        if prompt and not self.settings.include_prompt:
            raise ValueError("prompts are not supported for a model that does not pool their tokens (`include_prompt`)")
        return require_string(prompt or "", "`prompt`")

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
        x = outputs.last_hidden_state.astype(jnp.float32)
        if self.pooling == "cls":
            return select(x, batch["positions"])
        sequence = batch["attention_mask"]
        inside = jnp.take_along_axis(sequence, batch["positions"], axis=1)[:, :, None] == sequence[:, None, :]
        if self.pooling == "max":
            return jnp.where(inside[:, :, :, None], x[:, None, :, :], -jnp.inf).max(axis=2)
        sums = jnp.einsum("BPT,BTD->BPD", inside.astype(jnp.float32), x, precision="highest")
        return sums / inside.sum(axis=2)[:, :, None]

    def answer(self, document: Document, results: list[Any], options: Mapping[str, Any]) -> np.ndarray:
        vectors = np.concatenate(results)
        if self.pooling == "max":
            vector = vectors.max(axis=0)
        else:
            windows = document.windows[: len(results)]
            special = len(document.opening) + len(document.closing)
            tokens = [window.stop - window.start + special for window in windows]
            vector = np.average(vectors, axis=0, weights=tokens)
        if self.normalize:
            vector = vector / max(np.linalg.norm(vector), 1e-12)
        return np.array(vector, np.float32)

    def collect(self, answers: list[Any]) -> Any:
        return np.stack(answers) if answers else np.zeros((0, self.bert.config.hidden_size), np.float32)
