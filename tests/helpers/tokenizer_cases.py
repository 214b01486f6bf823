"""Tokenizers as folders of files, and texts of odd Unicode: what transformers makes of them is stored.

`theirs` asks transformers, for `tests/expectations/make.py` and for machines where it is installed.
"""

import json
import random
import re
from pathlib import Path
from typing import Any

import tokenizers

from bert_jax.text.vocabulary import SPECIAL_TOKENS

STORED = Path(__file__).parents[1] / "expectations/tokenizers.json"
MARKS = [*"<>/[](),.!?-$+\u2019\u201c\u2026\u00b7"]
LATIN = [
    "ab",
    "Ab",
    "abc",
    *"abcei\u00e9\u00c9\u00e4\u00df\u0130\u01c4\ufb0112",
    "ss",
    "fi",
    "sep",
    "SEP",
    "mask",
    "12",
    "e1",
]
KANA = ["\u304b", "\u304c", "\u30ab\u3099"]
OTHER = [
    *"\u0436\u03c3\u03c2\u6771\u4eac\ud55c\U00020000\U0001f600\ufffd",
    *KANA,
    "\u1112\u1161\u11ab",
    "\u0e01\u0e33",
    "\u0915\u0940",
]
WORDS = [*LATIN, *OTHER]
PIECES = list(dict.fromkeys([*MARKS, *WORDS, *(f"##{word}" for word in WORDS)]))
VOCABULARY = [*SPECIAL_TOKENS, *PIECES]
SIZE = len(VOCABULARY)
ALPHABET = [
    *"abcABC \u00e9\u00c9\u00e4\u00df\u0130\u0131\u01c4\ufb01\u03a3\u03c3\u03c2\u0416,.!-[]<>/12",
    *"\u0301\u0308\u0327\u200d\u200b\u00ad\u00a0\u3000\u2028\t\n\r\x00\x07\x1c\x85\ufeff\u202e\ufffd\ufffe",
    *"\u6771\u4eac\u304b\u3099\u30ab\ud55c\u1112\u1161\u11ab\u0e01\u0e33\u0915\u0940\U00020000\U0001f600\U000e0041",
    "[SEP]", "[MASK]", "<e1>", "</e1>", "ab ", " \u00e9", "[E1]",
]  # fmt: skip


def texts(name: str = "") -> list[str]:
    """Texts for a case, the same in every process."""
    draw = random.Random(7)
    drawn = ["".join(draw.choices(ALPHABET, k=draw.randint(1, 17))) for _ in range(60)]
    # transformers has these two in Python, where U+001C is a space and U+FFFE a control character; in `tokenizers`
    # they are neither.
    return [re.sub("[\x1c\ufffe]", "", text) for text in drawn] if name in ("japanese", "whole words") else drawn


def added(content: str, *, special: bool = False, **options: bool) -> dict[str, Any]:
    flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": not special} | options
    return {"content": content, "special": special, **flags}


def backend(**options: Any) -> str:
    """A tokenizer.json."""
    made = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({t: i for i, t in enumerate(VOCABULARY)}, unk_token="[UNK]")
    )
    made.normalizer = tokenizers.normalizers.BertNormalizer(**options)
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.decoder = tokenizers.decoders.WordPiece()
    made.add_special_tokens([*SPECIAL_TOKENS])
    return made.to_str()


LINES = "\n".join(VOCABULARY) + "\n"
CONFIG = "tokenizer_config.json"
MARKERS = {str(SIZE): added("<e1>"), str(SIZE + 1): added("</e1>"), str(SIZE + 2): added("[E1]", special=True)}
REPEATED = "\n".join([*VOCABULARY[:7], "", "ab", "", *VOCABULARY[7:], ""])
IN_MAP = {name: value for name, value in added("[E1]", special=True).items() if name != "special"}
ADDED = {"</e1>": SIZE + 1, "<e1>": SIZE}
# The files of each tokenizer: texts, or JSON. Their model is a BERT's.
CASES: dict[str, dict[str, Any]] = {
    "lower": {"vocab.txt": LINES, CONFIG: {"do_lower_case": True}},
    "cased": {"vocab.txt": LINES, CONFIG: {"do_lower_case": False}},
    "accents": {"vocab.txt": LINES, CONFIG: {"do_lower_case": True, "strip_accents": False}},
    "stripped": {"vocab.txt": LINES, CONFIG: {"do_lower_case": False, "strip_accents": True}},
    "chinese": {"vocab.txt": LINES, CONFIG: {"do_lower_case": False, "tokenize_chinese_chars": False}},
    "japanese": {
        "vocab.txt": LINES,
        CONFIG: {"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "basic"},
    },
    "added": {"vocab.txt": LINES, CONFIG: {"do_lower_case": True}, "added_tokens.json": ADDED},
    "decoder": {"vocab.txt": LINES, CONFIG: {"do_lower_case": False, "added_tokens_decoder": MARKERS}},
    "additional": {"vocab.txt": LINES, CONFIG: {"do_lower_case": True, "additional_special_tokens": ["<e1>", "[E1]"]}},
    "extra": {"vocab.txt": LINES, CONFIG: {"do_lower_case": True, "extra_special_tokens": {"entity": "[E1]"}}},
    "map": {
        "vocab.txt": LINES,
        CONFIG: {"do_lower_case": True},
        "special_tokens_map.json": {"extra_special_tokens": ["</e1>", IN_MAP]},
    },
    "in vocabulary": {
        "vocab.txt": LINES,
        CONFIG: {"do_lower_case": True, "added_tokens_decoder": {str(VOCABULARY.index("ab")): added("ab")}},
    },
    "repeated": {"vocab.txt": REPEATED, CONFIG: {"do_lower_case": False}},
    "config wins": {"tokenizer.json": backend(lowercase=False), CONFIG: {"do_lower_case": True}},
    "config strips": {
        "tokenizer.json": backend(lowercase=True, strip_accents=False),
        CONFIG: {"do_lower_case": True, "strip_accents": True},
    },
    "json wins": {
        "tokenizer.json": backend(lowercase=False),
        CONFIG: {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": True},
    },
    "split": {"vocab.txt": LINES, CONFIG: {"do_lower_case": True, "split_special_tokens": True}},
}  # fmt: skip
WHOLE_WORDS = {"vocab.txt": LINES, CONFIG: {"do_basic_tokenize": False}}


def write(folder: Path, files: dict[str, Any]) -> Path:
    """Writes the files of a tokenizer, and the config of its model."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {"config.json": {"model_type": "bert"}, **files}.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_bytes(text.encode())
    return folder


def theirs(folder: Path, name: str) -> list[list[int]]:
    """Returns the ids that transformers gives the texts of a case, without [CLS] and [SEP]."""
    import transformers
    from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

    config = json.loads((folder / CONFIG).read_text())
    if config.get("do_basic_tokenize") is False:  # transformers 5 ignores it in its other class
        tokenizer = BertTokenizerLegacy(str(folder / "vocab.txt"), do_basic_tokenize=False)
    else:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts(name)]


def stored() -> dict[str, list[list[int]]]:
    return json.loads(STORED.read_text())
