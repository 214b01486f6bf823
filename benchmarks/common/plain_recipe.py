"""BERT's input pipeline in plain Python: lists, loops and one token at a time; the baseline of `input.py`.

From text to padded features, following google-research's recipe: words are split at spaces and punctuation,
lower-cased, accents removed; WordPiece takes the longest match first; sentences of a document accumulate to a target
length; A is a random prefix, B the rest or sentences of another document; pairs that are too long lose tokens at either
end of the longer side; 15 % of the tokens are masked.

References: Devlin et al., BERT, 2018, appendix A.2; Wu et al., Google's Neural Machine Translation System, 2016
(longest match first).
"""

import random
import unicodedata
from collections.abc import Iterator
from typing import Any

MAX_WORD_LENGTH = 100  # characters; longer words become [UNK]
Document = list[list[str]]


def tokenize(text: str, vocabulary: dict[str, int]) -> list[str]:
    """Splits a text into word pieces."""
    pieces = []
    for word in split_words(text):
        pieces += split_pieces(word, vocabulary)
    return pieces


def split_words(text: str) -> list[str]:
    """Splits a cleaned text at spaces, and each lower-cased word without accents at punctuation."""
    words = []
    for word in clean(text).split():
        words += split_at_punctuation(strip_accents(word.lower()))
    return words


def clean(text: str) -> str:
    """Removes control characters, turns white space into spaces, and surrounds Chinese characters with spaces."""
    output = []
    for character in text:
        if character in " \t\n\r" or unicodedata.category(character) == "Zs":
            output.append(" ")
        elif is_chinese(character):
            output += [" ", character, " "]
        elif character != "\ufffd" and unicodedata.category(character) not in ("Cc", "Cf"):
            output.append(character)
    return "".join(output)


def strip_accents(word: str) -> str:
    return "".join(
        character for character in unicodedata.normalize("NFD", word) if unicodedata.category(character) != "Mn"
    )


def split_at_punctuation(word: str) -> list[str]:
    parts: list[list[str]] = []
    starts_part = True
    for character in word:
        if is_punctuation(character):
            parts.append([character])
            starts_part = True
        else:
            if starts_part:
                parts.append([])
            starts_part = False
            parts[-1].append(character)
    return ["".join(part) for part in parts]


def is_punctuation(character: str) -> bool:
    code = ord(character)
    symbol = 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
    return symbol or unicodedata.category(character).startswith("P")


def is_chinese(character: str) -> bool:
    code = ord(character)
    return 0x3400 <= code <= 0x4DBF or 0x4E00 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF


def split_pieces(word: str, vocabulary: dict[str, int]) -> list[str]:
    """Splits a word into pieces, at each point the longest one in the vocabulary."""
    if len(word) > MAX_WORD_LENGTH:
        return ["[UNK]"]
    pieces = []
    start = 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = word[start:end] if start == 0 else "##" + word[start:end]
            if piece in vocabulary:
                break
        else:
            return ["[UNK]"]
        pieces.append(piece)
        start = end
    return pieces


def make_features(
    documents: list[Document], vocabulary: dict[str, int], *, max_length: int, predictions: int, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """Yields padded features, one sentence pair each, of one epoch."""
    generator = random.Random(seed)
    words = list(vocabulary)
    for number in range(len(documents)):
        for a, b, is_random in make_pairs(documents, number, max_length - 3, generator):
            tokens = ["[CLS]", *a, "[SEP]", *b, "[SEP]"]
            segments = [0] * (len(a) + 2) + [1] * (len(b) + 1)
            masked, positions, labels = mask(tokens, words, predictions, generator)
            yield pad(masked, segments, positions, labels, vocabulary, max_length, predictions) | {"label": is_random}


def make_pairs(
    documents: list[Document], number: int, room: int, generator: random.Random
) -> Iterator[tuple[list[str], list[str], int]]:
    document = documents[number]
    target = generator.randint(2, room) if generator.random() < 0.1 else room
    chunk: list[list[str]] = []
    length = 0
    index = 0
    while index < len(document):
        chunk.append(document[index])
        length += len(document[index])
        index += 1
        if length < target and index < len(document):
            continue
        split = generator.randint(1, len(chunk) - 1) if len(chunk) > 1 else 1
        a = [token for sentence in chunk[:split] for token in sentence]
        is_random = len(chunk) == 1 or generator.random() < 0.5
        if is_random:
            b = random_segment(documents, number, target - len(a), generator)
            index -= len(chunk) - split
        else:
            b = [token for sentence in chunk[split:] for token in sentence]
        truncate(a, b, room, generator)
        yield a, b, int(is_random)
        chunk = []
        length = 0


def random_segment(documents: list[Document], number: int, length: int, generator: random.Random) -> list[str]:
    """Returns sentences from a random start in another document."""
    other = number
    while other == number:
        other = generator.randrange(len(documents))
    segment: list[str] = []
    for sentence in documents[other][generator.randrange(len(documents[other])) :]:
        segment.extend(sentence)
        if len(segment) >= length:
            break
    return segment


def truncate(a: list[str], b: list[str], room: int, generator: random.Random) -> None:
    while len(a) + len(b) > room:
        longer = a if len(a) > len(b) else b
        if generator.random() < 0.5:
            del longer[0]
        else:
            longer.pop()


def mask(
    tokens: list[str], words: list[str], predictions: int, generator: random.Random
) -> tuple[list[str], list[int], list[str]]:
    """Returns the tokens after masking, the masked positions, and the original tokens there."""
    candidates = [position for position, token in enumerate(tokens) if token not in ("[CLS]", "[SEP]")]
    generator.shuffle(candidates)
    count = min(predictions, max(1, round(0.15 * len(tokens))))
    positions = sorted(candidates[:count])
    masked = list(tokens)
    for position in positions:
        if generator.random() < 0.8:
            masked[position] = "[MASK]"
        elif generator.random() < 0.5:
            masked[position] = words[generator.randrange(len(words))]
    return masked, positions, [tokens[position] for position in positions]


def pad(
    tokens: list[str],
    segments: list[int],
    positions: list[int],
    labels: list[str],
    vocabulary: dict[str, int],
    max_length: int,
    predictions: int,
) -> dict[str, Any]:
    features: dict[str, Any] = {
        "input_ids": [vocabulary[token] for token in tokens],
        "attention_mask": [1] * len(tokens),
        "token_type_ids": list(segments),
        "masked_positions": list(positions),
        "masked_labels": [vocabulary[token] for token in labels],
        "masked_weights": [1.0] * len(labels),
    }
    for name, values in features.items():
        size = predictions if name.startswith("masked_") else max_length
        while len(values) < size:
            values.append(0)
    return features
