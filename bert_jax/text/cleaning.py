"""What a tokenizer does to the letters of a text: case and accents.

For a new vocabulary the language decides, by BERT's own rules where they fit. Every kind of tokenizer has both choices;
BERT's own normalizer is for WordPiece.

References: Devlin et al., BERT, 2018 (uncased and cased models).
"""

import re
from typing import Any

import tokenizers
from tokenizers import normalizers

from bert_jax.text.word_marks import steps

# Languages (ISO 639) that are not lower-cased by default.
OWN_CASE = frozenset(
    (
        "de", "gsw", "lb", "nds",  # capitalised nouns
        "az", "crh", "kaa", "tr",  # I without a dot
        "ja", "ko", "wuu", "yue", "zh",  # scripts without case: East Asia
        "as", "bho", "bn", "bo", "dz", "gu", "hi", "kn", "mai", "ml", "mr", "ne", "new", "or", "pa", "sa", "sat", "si",
        "ta", "te",  # South Asia
        "km", "lo", "my", "shn", "th",  # South-East Asia
        "ar", "arz", "azb", "ckb", "dv", "fa", "he", "ks", "ps", "sd", "ug", "ur", "yi",  # Arabic, Hebrew, Thaana
        "am", "ka", "ti",  # Ethiopic, Georgian
    )
)  # fmt: skip
READABLE = {"Lowercase", "StripAccents", "NFC", "NFD", "NFKC", "NFKD", "Nmt"}


def default_lowercase(language: str) -> bool:
    """Returns whether a vocabulary of a language is lower-cased: BERT's own rule, except where that loses meaning.

    | languages | default | why |
    |---|---|---|
    | German, Luxembourgish, ... | own case | nouns are capitalised, and released models are cased |
    | Turkish, Azerbaijani, ... | own case | Unicode's lower case of I is i, not ı, and that of İ is two characters |
    | Chinese, Hindi, Thai, ... | own case | the script has no case; the names in Latin letters keep theirs |
    | all others | lower-cased | BERT's uncased recipe |
    """
    return _code(language) not in OWN_CASE


def default_strip_accents(language: str) -> bool | None:
    """Returns `strip_accents` for a vocabulary of a language: None, BERT's own rule, for English; else False.

    Elsewhere the marks belong to the words: the vowel signs of Hindi and Thai, the voicing marks of Japanese, the ü of
    German. Unicode counts all of them as accents.
    """
    return None if _code(language) == "en" else False


def letter_options(language: str, *, lowercase: bool | None, strip_accents: bool | None) -> dict[str, Any]:
    """Returns `lowercase` and `strip_accents` for a vocabulary of a language; None is the language's default."""
    return {
        "lowercase": default_lowercase(language) if lowercase is None else lowercase,
        "strip_accents": default_strip_accents(language) if strip_accents is None else strip_accents,
    }


def _code(language: str) -> str:
    """Returns the code of a language without script and country: `pt` for `pt-BR`."""
    return re.split("[-_]", language.lower())[0]


def letter_normalizers(*, lowercase: bool, strip_accents: bool | None) -> list[normalizers.Normalizer]:
    """Returns the steps that lower-case a text and strip its accents; `strip_accents` None is `lowercase`, as in BERT.

    Lower-casing comes first, because the lower case of \u0130 is i and an accent.
    """
    steps: list[Any] = [normalizers.Lowercase()] if lowercase else []
    if lowercase if strip_accents is None else strip_accents:
        steps += [normalizers.NFD(), normalizers.StripAccents(), normalizers.NFC()]
    return steps


def cleaning(backend: tokenizers.Tokenizer) -> dict[str, bool]:
    """Returns `lowercase` and `strip_accents` of a tokenizer; empty if its normalizer may do anything else."""
    normalizer = backend.normalizer
    if isinstance(normalizer, normalizers.BertNormalizer):
        strip = normalizer.strip_accents
        return {
            "lowercase": normalizer.lowercase,
            "strip_accents": normalizer.lowercase if strip is None else strip,
        }
    types = {step["type"] for step in steps(normalizer)}
    if not types <= READABLE:
        return {}
    return {"lowercase": "Lowercase" in types, "strip_accents": "StripAccents" in types}
