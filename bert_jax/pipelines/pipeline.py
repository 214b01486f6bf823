"""What all pipelines share: texts in, in whatever form; results out, in the same form and order.

Texts are held some thousand at a time, so that a generator of a million takes no more memory than a few thousand. A
pipeline says what it asks of a text, what it wants of the model's outputs (computed on the device; only that is
fetched), and how it makes an answer of it. A text that cannot be answered costs no answer to those before it.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import jax
import numpy as np
from tqdm import tqdm

from bert_jax.interop.loading import LoadedBert, load
from bert_jax.models import Outputs
from bert_jax.pipelines.batching import Batcher, Encoded
from bert_jax.pipelines.documents import Document, Pair, read_documents
from bert_jax.text.tokenizer import require_string

SHORTEST = 5  # tokens of a window: [CLS] first [SEP] text [SEP]
HELD_CHARACTERS = 1 << 23
PATIENCE = 2.0  # seconds before there is a progress bar


class Pipeline:
    """A loaded model that answers texts.

    Args:
        bert: what `bert_jax.load` returned.
        max_length: tokens of a window, special ones included; None: as many as the model was trained to read, where
            its tokenizer says so, else as many as it takes.
        overlap: tokens that neighbouring windows of a long text share; at most half of a window.
        batch_tokens: tokens of a batch; None: what suits the platform.
        window: how many texts are held at a time; 1 answers each text before the next is read.
        progress: a progress bar on stderr; None: when that is a terminal and it takes longer than two seconds.

    Raises:
        ValueError: a model without the head that is needed, or without a vocabulary; an impossible number.
    """

    models: ClassVar[tuple[str, ...]] = ()  # that have the head which is needed; none named: any will do
    everywhere: ClassVar[bool] = False  # whether each token is answered, or each sequence
    offsets: ClassVar[bool] = False  # whether characters are asked for
    whole_first: ClassVar[str | None] = None  # what a first text is called that must not be cut

    def __init__(
        self,
        bert: LoadedBert,
        *,
        max_length: int | None = None,
        overlap: int = 128,
        batch_tokens: int | None = None,
        window: int = 4096,
        progress: bool | None = None,
    ) -> None:
        name = type(bert.model).__name__
        if self.models and name not in self.models:
            raise ValueError(f"{type(self).__name__} needs a {' or a '.join(self.models)}; this is a {name}")
        limit = bert.config.max_position_embeddings
        if max_length is None:
            max_length = min(limit, max(SHORTEST, bert.tokenizer.max_length or limit))
        if not SHORTEST <= max_length <= limit:
            raise ValueError(
                f"max_length must lie between {SHORTEST} and the model's {limit} positions, got {max_length}"
            )
        if overlap < 0 or window < 1:
            raise ValueError(f"overlap must be at least 0 and window at least 1, got {overlap} and {window}")
        self.bert, self.tokenizer = bert, bert.tokenizer
        self.max_length, self.overlap, self.window, self.progress = max_length, overlap, window, progress
        self.batcher = Batcher(self.compute, bert.params, max_length=max_length, batch_tokens=batch_tokens)

    @classmethod
    def load(cls, source: str | Path, *, dtype: str | None = None, revision: str | None = None, **options: Any) -> Self:
        """Loads a model and makes a pipeline of it.

        Args:
            source, dtype, revision: those of `bert_jax.load`.
            **options: those of the pipeline.
        """
        return cls(load(source, dtype=dtype, revision=revision), **options)

    def __call__(self, texts: Any, **options: Any) -> Any:
        """Answers one text, or a list of texts with a list, or an iterator of texts with an iterator.

        Where a text may be paired with another, `{"text": ..., "text_pair": ...}` stands for a text. Where both are too
        long for one window, the second is read in several, and of the first no more than fits half of one.

        Raises:
            ValueError: an impossible option; a text that is none or cannot be answered, with its place in the list, or
                in its turn where the texts come from an iterator.
        """
        if isinstance(texts, str | Mapping):
            return next(self.stream([texts], **options))
        if isinstance(texts, bytes) or not isinstance(texts, Iterable):
            raise ValueError(f"wanted a text or texts, got {type(texts).__name__}")
        if isinstance(texts, Sized):
            return self.gathered(list(placed(self.stream(texts, total=len(texts), **options))))
        return self.stream(texts, **options)

    def stream(self, texts: Iterable[Any], *, total: int | None = None, **options: Any) -> Iterator[Any]:
        """Returns an iterator over the answers to texts, in order. Options are checked at once.

        What is wrong with a text, or with where the texts come from, is raised after the answers to those before it.
        """
        run = partial(self.batcher.run, arrays=self.arrays(**options), **self.static(**options))
        hidden = not (sys.stderr.isatty() if self.progress is None else self.progress)

        def answers() -> Iterator[Any]:
            with tqdm(total=total, disable=hidden, delay=PATIENCE, unit=" texts") as bar:
                for held in held_texts(map(self.pair, texts), self.window):
                    yield from self.answers(held, run, bar, **options)

        return answers()

    def answers(self, pairs: list[Pair], run: Callable[..., Any], bar: tqdm, **options: Any) -> Iterator[Any]:
        """Yields the answers to texts that are held together, and raises what is wrong with one after those before."""
        documents: list[Document] = []
        results: list[list[Any]] = []
        failures: list[ValueError] = []
        for (number, part), result in run(until_failure(self.tagged_sequences(pairs, documents, results), failures)):
            results[number][part] = result
            bar.update(part == len(results[number]) - 1)
        for number, document in enumerate(documents):
            answer = self.answer(document, results[number], **options)
            results[number] = []
            yield answer
        if failures:
            raise failures[0]

    def tagged_sequences(
        self, pairs: list[Pair], documents: list[Document], results: list[list[Any]]
    ) -> Iterator[tuple[tuple[int, int], Encoded]]:
        """Yields the sequences of the texts, tagged (text, sequence), and enters each text into the two lists."""
        read = read_documents(
            pairs,
            self.tokenizer,
            max_length=self.max_length,
            overlap=self.overlap,
            offsets=self.offsets,
            whole_first=self.whole_first,
        )
        for number, document in enumerate(read):
            if document.paired and self.bert.config.type_vocab_size < 2:
                raise ValueError("this model has one token type: it cannot tell the texts of a pair apart")
            sequences = self.sequences(document)
            documents.append(document)
            results.append([None] * len(sequences))
            for part, sequence in enumerate(sequences):
                yield (number, part), sequence

    def compute(self, params: Any, batch: Mapping[str, jax.Array], **options: Any) -> Any:
        """Runs the model on a batch; on the device."""
        inputs: dict[str, Any] = {name: array for name, array in batch.items() if name != "places"}
        places = batch.get("places")
        outputs: Any = self.bert.model.apply(
            {"params": params}, **inputs, masked_positions=places, cls_positions=places
        )
        return self.wanted(outputs, batch, **options)

    # What a pipeline says of itself

    def pair(self, given: Any) -> Pair:
        """Returns what was given as a pair, once it is known to be of strings."""
        if not isinstance(given, Mapping):
            return None, require_string(given)
        if given.keys() != {"text", "text_pair"}:
            raise ValueError(f"wanted the keys text and text_pair, got {', '.join(map(str, given)) or 'none'}")
        return require_string(given["text"], "a first text"), require_string(given["text_pair"])

    def sequences(self, document: Document) -> list[Encoded]:
        """Returns the sequences that a document needs: one a window, asked at [CLS] or everywhere."""
        place = None if self.everywhere else 0
        return [document.encoded(window, self.tokenizer.sep_id, place) for window in document.windows]

    def static(self, *_: Any, **options: Any) -> dict[str, Any]:
        """Checks the options of a call and returns those that are compiled in."""
        if options:
            raise TypeError(f"{type(self).__name__} has no option {min(options)!r}")
        return {}

    def arrays(self, *_: Any, **options: Any) -> dict[str, np.ndarray]:
        """Returns the options of a call that are given to the device with every batch."""
        return {}

    def wanted(self, outputs: Outputs, batch: Mapping[str, jax.Array], *_: Any, **options: Any) -> Any:
        """Returns what is fetched: arrays [B, P, ...] for the P `places` in the batch, else [B, T, ...]."""
        raise NotImplementedError

    def answer(self, document: Document, results: list[Any], *_: Any, **options: Any) -> Any:
        """Returns the answer, given what was fetched for each sequence of the document: [1, ...] or [n, ...]."""
        raise NotImplementedError

    def gathered(self, answers: list[Any]) -> Any:
        """Returns the answers to a list of texts."""
        return answers


def held_texts(pairs: Iterable[Pair], window: int) -> Iterator[list[Pair]]:
    """Yields lists of up to `window` texts, and of fewer where they are very long or where they fail."""
    held, characters = [], 0
    try:
        for first, text in pairs:
            held.append((first, text))
            characters += len(first or "") + len(text)
            if len(held) == window or characters > HELD_CHARACTERS:
                yield held
                held, characters = [], 0
    except Exception:
        if held:
            yield held
        raise
    if held:
        yield held


def until_failure(items: Iterator[Any], failures: list[ValueError]) -> Iterator[Any]:
    """Yields items up to the one that fails, and enters what it says into the list."""
    try:
        yield from items
    except ValueError as error:
        failures.append(error)


def placed(answers: Iterator[Any]) -> Iterator[Any]:
    """Yields the answers to a list, and puts the place in it in front of what is wrong with a text."""
    place = 0
    try:
        for answer in answers:
            place += 1
            yield answer
    except ValueError as error:
        raise ValueError(f"texts[{place}]: {error}") from error
