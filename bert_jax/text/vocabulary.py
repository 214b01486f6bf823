"""What every vocabulary here has, and the WordPiece tokenizer of BERT's own code.

Reference: Wu et al., Google's Neural Machine Translation System, 2016, section 4.1 (WordPiece).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, get_args

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
Kind = Literal["wordpiece", "bpe", "unigram"]  # of a vocabulary that is trained; all have these special tokens
KINDS: tuple[str, ...] = get_args(Kind)
BYTES = 256  # each of them is a piece of a byte-level BPE
CONTINUATION = "##"
MANY_UNKNOWN = 0.02  # a fraction of [UNK] above which a text is probably of another language or casing
BATCH_CHARACTERS = 1 << 20


def smallest_vocabulary(kind: str) -> int:
    """Returns the number of tokens below which no corpus has a vocabulary of the kind."""
    return len(SPECIAL_TOKENS) + (BYTES if kind == "bpe" else 1)


def require_room(vocab_size: int, characters: int) -> None:
    """Raises ValueError if a corpus has no characters, or if they do not fit in a vocabulary."""
    if not characters:
        raise ValueError("the corpus to train a tokenizer on has no text")
    smallest = len(SPECIAL_TOKENS) + characters
    if vocab_size < smallest:
        raise ValueError(
            f"`vocab_size` {vocab_size} is too small for the characters of the corpus, which need {smallest}"
        )


def wordpiece(
    pieces: Sequence[str] | Mapping[str, int], *, lowercase: bool, strip_accents: bool | None, chinese: bool = True
) -> tokenizers.Tokenizer:
    """Returns the tokenizer of BERT's own code with a vocabulary, or with the special tokens and these pieces."""
    if not isinstance(pieces, Mapping):
        pieces = {piece: i for i, piece in enumerate([*SPECIAL_TOKENS, *pieces])}
    backend = tokenizers.Tokenizer(models.WordPiece(dict(pieces), unk_token=UNK))
    backend.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=chinese, lowercase=lowercase, strip_accents=strip_accents
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return backend


def split_words(backend: tokenizers.Tokenizer, text: str) -> list[str]:
    """Returns the normalized words of a text, as the model of a tokenizer gets them; added tokens are text."""
    if backend.normalizer is not None:
        text = backend.normalizer.normalize_str(text)
    if backend.pre_tokenizer is None:
        return [text]
    return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text)]


def is_word(backend: tokenizers.Tokenizer, token: str) -> bool:
    """Returns whether WordPiece would find a token in texts, as a whole word, if its vocabulary had it."""
    return (
        isinstance(backend.model, models.WordPiece)
        and len(token) <= backend.model.max_input_chars_per_word
        and not token.startswith(CONTINUATION)
        and split_words(backend, token) == [token]
    )


def with_tokens(backend: tokenizers.Tokenizer, tokens: Sequence[str]) -> tokenizers.Tokenizer:
    """Returns a copy of a tokenizer with new tokens at the end of the vocabulary.

    Words become entries of the WordPiece vocabulary, whose longest match finds them: "quokkas", before it "qu ##ok
    ##kas", becomes "quokka ##s" if "quokka" is added. Words that do not begin with a new word keep their pieces. Other
    tokens, such as "new york" or "e-mail", which the tokenizer splits before it looks them up, become added tokens,
    which are found before the text is split. Encoding a corpus is slower with them (see `WordCache`).

    If the tokenizer has words as added tokens already, all tokens become added tokens. Otherwise the words that begin
    with those would change, because ids without holes need them in the vocabulary too.
    """
    content = json.loads(backend.to_str())
    if not isinstance(backend.model, models.WordPiece):  # words are not entries of other vocabularies
        return _with_added(tokenizers.Tokenizer.from_str(json.dumps(content)), tokens)
    vocabulary = content["model"]["vocab"]
    outside = {token: i for token, i in backend.get_vocab().items() if token not in vocabulary}
    if not any(is_word(backend, token) for token in outside):
        vocabulary.update(outside)
        for token in tokens:
            if is_word(backend, token):
                vocabulary[token] = len(vocabulary)
    grown = tokenizers.Tokenizer.from_str(json.dumps(content))
    return _with_added(grown, [token for token in tokens if token not in vocabulary])


def _with_added(backend: tokenizers.Tokenizer, tokens: Sequence[str]) -> tokenizers.Tokenizer:
    """Adds tokens that are found as whole words, before a text is split."""
    backend.add_tokens([tokenizers.AddedToken(token, single_word=True) for token in tokens])
    return backend


def text_batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yields lists of texts with at least BATCH_CHARACTERS characters together; the last list may have fewer."""
    batch = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch = []
            size = 0
    if batch:
        yield batch
