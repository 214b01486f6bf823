"""Small tokenizers of each kind, trained on a few sentences, as transformers has them: BERT's, RoBERTa's, XLM-R's."""

import functools
import json
import random
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from bert_jax.text.special_tokens import ROLES
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.vocabulary import SPECIAL_TOKENS, wordpiece

SENTENCES = [
    "The café's owner, naïve as ever, sold 17 cups of tea to Anna Smith in New York.",
    "An owl hooted; nobody answered it, not even the unbelievable mole of Berlin!",
    "Le garçon a mangé la crème brûlée à Noël. 東京 and 北京 are cities.",
    "She reopened the untested teapot: who believes the believers? Is that so?",
] * 5
CONFIG = "tokenizer_config.json"
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>"]
NAMED = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
KINDS = ("wordpiece", "bpe", "unigram")
# Blocks of Unicode: letters with marks, scripts with and without spaces, composed and decomposed, symbols, controls.
BLOCKS = (
    (0x20, 0x7E), (0xA0, 0x17F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF), (0x590, 0x5F4), (0x600, 0x6FF),
    (0x900, 0x97F), (0xE00, 0xE5B), (0x1100, 0x11FF), (0x1E00, 0x1EFF), (0x2000, 0x206F), (0x2190, 0x21FF),
    (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFAFF), (0xFB00, 0xFB06), (0xFF00, 0xFFEF),
    (0x1D400, 0x1D7FF), (0x1F300, 0x1FAFF), (0x20000, 0x2A6DF), (0x00, 0x1F), (0xE0000, 0xE007F),
)  # fmt: skip
SPECIAL = ["<s>", "</s>", "<mask>", " <mask> ", "<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "▁", "Ġ", "##"]
SPACES = [" ", "  ", "\n", "\t", "\u3000", "\u200b", "\u200d", "\ufeff", "\u00a0"]


def unicode_texts(count: int, seed: int = 7) -> list[str]:
    """Random texts of many scripts, white space, special tokens and beginnings of sentences; some are empty."""
    draw = random.Random(seed)

    def part() -> str:
        choice = draw.random()
        if choice < 0.45:
            first, last = draw.choice(BLOCKS)
            return "".join(chr(draw.randint(first, last)) for _ in range(draw.randint(1, 5)))
        if choice < 0.8:
            return draw.choice(SPECIAL if choice < 0.6 else SPACES)
        return draw.choice(SENTENCES)[: draw.randint(1, 30)]

    return ["".join(part() for _ in range(draw.randint(0, 9))) for _ in range(count)]


def backend(kind: str) -> tokenizers.Tokenizer:
    """A tokenizer of a kind with the layout of its family."""
    return tokenizers.Tokenizer.from_str(_trained(kind))


@functools.cache
def _trained(kind: str) -> str:
    return {"wordpiece": _wordpiece, "bpe": _bpe, "unigram": _unigram}[kind]().to_str()


def _wordpiece() -> tokenizers.Tokenizer:
    return Tokenizer.train(SENTENCES, 140).backend


def _bpe() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(SENTENCES, trainers.BpeTrainer(
        vocab_size=420, special_tokens=ROBERTA, initial_alphabet=alphabet, show_progress=False))  # fmt: skip
    content = json.loads(made.to_str())
    content["model"]["vocab"]["<mask>"] = len(content["model"]["vocab"])
    made = tokenizers.Tokenizer.from_str(json.dumps(content))
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    made.add_special_tokens([tokenizers.AddedToken("<mask>", lstrip=True, special=True)])
    return made


def _unigram() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    made.decoder = decoders.Metaspace()
    made.train_from_iterator(SENTENCES, trainers.UnigramTrainer(
        vocab_size=190, special_tokens=ROBERTA, unk_token="<unk>", show_progress=False))  # fmt: skip
    content = json.loads(made.to_str())
    content["model"]["vocab"].append(["<mask>", 0.0])
    made = tokenizers.Tokenizer.from_str(json.dumps(content))
    special = [("<s>", 0), ("</s>", 2)]
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=special
    )
    made.add_special_tokens([*ROBERTA, tokenizers.AddedToken("<mask>", lstrip=True, special=True)])
    return made


def without_mask(kind: str) -> tokenizers.Tokenizer:
    """A tokenizer of a kind whose vocabulary has no mask token."""
    if kind == "wordpiece":
        pieces = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "an", "owl", "##s", "."])}
        return wordpiece(pieces, lowercase=True, strip_accents=None)
    content: dict[str, Any] = json.loads(_trained(kind))
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != "<mask>"]
    vocabulary = content["model"]["vocab"]
    vocabulary.pop("<mask>") if kind == "bpe" else vocabulary.pop()
    return tokenizers.Tokenizer.from_str(json.dumps(content))


def write(folder: Path, kind: str, **config: Any) -> Path:
    """Writes the files of a tokenizer as transformers' generic class has them."""
    folder.mkdir(parents=True, exist_ok=True)
    backend(kind).save(str(folder / "tokenizer.json"))
    names = (
        NAMED
        if kind != "wordpiece"
        else {f"{role}_token": token for role, token in zip(ROLES, SPECIAL_TOKENS, strict=True)}
    )
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **names, **config}
    (folder / CONFIG).write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return folder
