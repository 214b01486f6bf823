"""BERT's input as plain Python writes it: lists, loops and one token at a time, for `input.py` to compare with.

From text to padded features after the description of google-research's recipe: words at spaces and punctuation,
lower-cased, without accents; the longest piece first; sentences of a document accumulate to a target length; A is a
random prefix, B the rest or sentences of another document; a long pair loses tokens at either end of its longer side;
15 % are masked.

References: Devlin et al., BERT, 2018, appendix A.2; Wu et al., Google's Neural Machine Translation System, 2016 (the
longest piece first).
"""

import random
import unicodedata
from collections.abc import Iterator
from typing import Any

LONGEST_WORD = 100  # characters; a longer one is unknown
Document = list[list[str]]


def tokenize(text: str, vocabulary: dict[str, int]) -> list[str]:
    """Splits a text into pieces of words."""
    pieces = []
    for word in split_words(text):
        pieces += split_pieces(word, vocabulary)
    return pieces


def split_words(text: str) -> list[str]:
    """Cleans a text, splits it at spaces, and each word, lower-cased and without accents, at punctuation."""
    words = []
    for word in clean(text).split():
        words += split_at_punctuation(without_accents(word.lower()))
    return words


def clean(text: str) -> str:
    """Drops control characters, and puts spaces for white space and round Chinese characters."""
    output = []
    for character in text:
        if character in " \t\n\r" or unicodedata.category(character) == "Zs":
            output.append(" ")
        elif is_chinese(character):
            output += [" ", character, " "]
        elif character != "\ufffd" and unicodedata.category(character) not in ("Cc", "Cf"):
            output.append(character)
    return "".join(output)


def without_accents(word: str) -> str:
    return "".join(
        character for character in unicodedata.normalize("NFD", word) if unicodedata.category(character) != "Mn"
    )


def split_at_punctuation(word: str) -> list[str]:
    parts: list[list[str]] = []
    begins = True
    for character in word:
        if is_punctuation(character):
            parts.append([character])
            begins = True
        else:
            if begins:
                parts.append([])
            begins = False
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
    """Takes the longest piece that the vocabulary has, again and again."""
    if len(word) > LONGEST_WORD:
        return ["[UNK]"]
    pieces, start = [], 0
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
    """Yields padded features, one pair of sentences each, of one pass over the documents."""
    draw, words = random.Random(seed), list(vocabulary)
    for number in range(len(documents)):
        for a, b, is_random in make_pairs(documents, number, max_length - 3, draw):
            tokens = ["[CLS]", *a, "[SEP]", *b, "[SEP]"]
            segments = [0] * (len(a) + 2) + [1] * (len(b) + 1)
            masked, positions, labels = mask(tokens, words, predictions, draw)
            yield pad(masked, segments, positions, labels, vocabulary, max_length, predictions) | {"label": is_random}


def make_pairs(
    documents: list[Document], number: int, room: int, draw: random.Random
) -> Iterator[tuple[list[str], list[str], int]]:
    document = documents[number]
    target = draw.randint(2, room) if draw.random() < 0.1 else room
    chunk: list[list[str]] = []
    length = place = 0
    while place < len(document):
        chunk.append(document[place])
        length += len(document[place])
        place += 1
        if length < target and place < len(document):
            continue
        split = draw.randint(1, len(chunk) - 1) if len(chunk) > 1 else 1
        a = [token for sentence in chunk[:split] for token in sentence]
        is_random = len(chunk) == 1 or draw.random() < 0.5
        if is_random:
            b = random_segment(documents, number, target - len(a), draw)
            place -= len(chunk) - split
        else:
            b = [token for sentence in chunk[split:] for token in sentence]
        cut(a, b, room, draw)
        yield a, b, int(is_random)
        chunk, length = [], 0


def random_segment(documents: list[Document], number: int, wanted: int, draw: random.Random) -> list[str]:
    """Returns sentences from a random start in another document."""
    other = number
    while other == number:
        other = draw.randrange(len(documents))
    segment: list[str] = []
    for sentence in documents[other][draw.randrange(len(documents[other])) :]:
        segment.extend(sentence)
        if len(segment) >= wanted:
            break
    return segment


def cut(a: list[str], b: list[str], room: int, draw: random.Random) -> None:
    while len(a) + len(b) > room:
        longer = a if len(a) > len(b) else b
        if draw.random() < 0.5:
            del longer[0]
        else:
            longer.pop()


def mask(
    tokens: list[str], words: list[str], predictions: int, draw: random.Random
) -> tuple[list[str], list[int], list[str]]:
    """Returns the tokens with some of them masked, where, and what was there."""
    candidates = [place for place, token in enumerate(tokens) if token not in ("[CLS]", "[SEP]")]
    draw.shuffle(candidates)
    wanted = min(predictions, max(1, round(0.15 * len(tokens))))
    positions, masked = sorted(candidates[:wanted]), list(tokens)
    for place in positions:
        if draw.random() < 0.8:
            masked[place] = "[MASK]"
        elif draw.random() < 0.5:
            masked[place] = words[draw.randrange(len(words))]
    return masked, positions, [tokens[place] for place in positions]


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
