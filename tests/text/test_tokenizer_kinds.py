"""Tokenizers of every kind give the ids, offsets and layouts that transformers gives."""

import json
import pickle
import random

import numpy as np
import pytest
import tokenizer_kinds as kinds
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from bert_jax.text.layout import Layout
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.word_marks import trimmed, word_starts

ALPHABET = [
    *"abceiou éÉäßİıﬁΣς,.!-'[]<>/12",
    *"\u0301\u200d\u200b\u00ad\u00a0\u3000\t\n\x00\ufeff東京か\u3099한\U00020000\U0001f600▁Ġ",
    " the ", " owl", "ing ", "<s>", "</s>", "<mask>", " <mask>", "<unk>", "[SEP]", "[MASK]", "café", " believ",
]  # fmt: skip
TYPES = ["input_ids", "token_type_ids", "attention_mask"]


def texts(count=200):
    draw = random.Random(11)
    return ["".join(draw.choices(ALPHABET, k=draw.randint(0, 23))) for _ in range(count)] + kinds.SENTENCES[:4]


@pytest.fixture(scope="module", params=kinds.KINDS)
def folder(request, tmp_path_factory):
    return kinds.write(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="transformers is not installed: the peer to compare with")


@pytest.mark.filterwarnings("default")
def test_ids_and_offsets_equal_those_of_transformers(folder, transformers, tmp_path):
    ours = Tokenizer.load(folder)
    ours.save(tmp_path)
    first, second = texts(), texts()[::-1]
    for path in (folder, tmp_path):  # also what is saved
        theirs = transformers.AutoTokenizer.from_pretrained(path)
        for pairs in (None, second):
            for length in (None, 9):
                options = {"truncation": True, "max_length": length} if length else {}
                found = theirs(first, pairs, return_offsets_mapping=True, return_token_type_ids=True, **options)
                encodings = ours.encode_batch(first, pairs, max_length=length)
                assert [encoding.ids for encoding in encodings] == found["input_ids"]
                assert [encoding.offsets for encoding in encodings] == found["offset_mapping"]
                assert [encoding.type_ids for encoding in encodings] == found["token_type_ids"]
                assert [encoding.word_ids for encoding in encodings] == [found.word_ids(i) for i in range(len(first))]
        for role in ("pad", "unk", "cls", "sep", "mask"):
            assert getattr(theirs, f"{role}_token_id") == getattr(ours, f"{role}_id"), role


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("kind", "tokenizer_class"),
    [
        *((kind, "PreTrainedTokenizerFast") for kind in kinds.KINDS),
        ("wordpiece", "ElectraTokenizer"),
        ("bpe", "RobertaTokenizer"),
        ("plain unigram", "XLMRobertaTokenizer"),  # as multilingual-e5: a BERT with the tokenizer of XLM-R
    ],
)
def test_random_unicode_gives_the_ids_of_transformers(kind, tokenizer_class, transformers, tmp_path):
    folder = kinds.write(tmp_path, kind.removeprefix("plain "), tokenizer_class=tokenizer_class)
    if kind.startswith("plain"):  # transformers 5 keeps XLM-R's own normalizer only
        content = json.loads((folder / "tokenizer.json").read_text())
        (folder / "tokenizer.json").write_text(json.dumps(content | {"normalizer": None}))
    ours = Tokenizer.load(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    first = kinds.unicode_texts(2000)
    for second in (None, first[::-1]):
        found = theirs(first, second, return_offsets_mapping=True)
        encodings = ours.encode_batch(first, second)
        assert [encoding.ids for encoding in encodings] == found["input_ids"]
        assert [encoding.offsets for encoding in encodings] == found["offset_mapping"]
        assert all(encoding.word_ids == found.word_ids(number) for number, encoding in enumerate(encodings))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("part", ["pre_tokenizer", "post_processor"])
def test_a_wordpiece_that_differs_from_berts_is_saved_as_what_it_is(part, transformers, tmp_path):
    made = kinds.backend("wordpiece")
    if part == "pre_tokenizer":
        made.pre_tokenizer = pre_tokenizers.Whitespace()  # it keeps runs of punctuation together
    else:
        special = [("[CLS]", 2), ("[SEP]", 3)]
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] [SEP] $B [SEP]", special_tokens=special
        )
    ours = Tokenizer(made)
    ours.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    first = [*texts(), "an owl... hooted?!"]
    wanted = theirs(first, first[::-1])["input_ids"]
    for one in (ours, Tokenizer.load(tmp_path)):
        assert [encoding.ids for encoding in one.encode_batch(first, first[::-1])] == wanted


@pytest.mark.filterwarnings("default")
def test_padded_batches_equal_those_of_transformers(folder, transformers):
    ours = Tokenizer.load(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for pairs in (None, texts()[::-1]):
        wanted = theirs(texts(), pairs, padding=True, return_tensors="np", return_token_type_ids=True)
        for name, array in ours(texts(), pairs).items():
            np.testing.assert_array_equal(array, wanted[name], err_msg=name)


def test_a_loaded_saved_and_pickled_tokenizer_is_the_same(folder, tmp_path):
    ours = Tokenizer.load(folder)
    ours.save(tmp_path)
    assert (tmp_path / "vocab.txt").exists() == ours.roles["cls"].startswith("[")
    for one in (Tokenizer.load(tmp_path), pickle.loads(pickle.dumps(ours)), ours.with_settings(max_length=7)):
        assert one.fingerprint == ours.fingerprint
        assert (one.roles, one.layout) == (ours.roles, ours.layout)
        np.testing.assert_array_equal(one.special_ids, ours.special_ids)
        np.testing.assert_array_equal(one.continuation, ours.continuation)


def test_a_corpus_is_encoded_like_its_texts_and_holds_no_special_tokens(folder):
    ours = Tokenizer.load(folder)
    ids, lengths = ours.encode_flat(texts())
    plain = ours.text_backend()
    wanted = [plain.encode(text, add_special_tokens=False).ids for text in texts()]
    assert [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])] == wanted
    assert not {ours.cls_id, ours.sep_id, ours.pad_id, ours.mask_id} & set(ids.tolist())
    kept = ours.text_backend(ours.mask_token).encode(f"an {ours.mask_token} </s> owl", add_special_tokens=False).ids
    assert kept.count(ours.mask_id) == 1
    assert ours.sep_id not in kept


def test_words_begin_where_the_marks_say():
    text = "An unbelievably hooting owlet"
    for kind in kinds.KINDS:
        ours = Tokenizer(kinds.backend(kind))
        encoding = ours.backend.encode(text, add_special_tokens=False)
        ids = np.array(encoding.ids)
        assert len(ids) > 4
        continues = ours.continuation[ids]
        changes = np.diff([word if word is not None else -1 for word in encoding.word_ids]) == 0
        np.testing.assert_array_equal(continues[1:], changes)
        assert not ours.continuation[ours.special_ids].any()
        starts = ours.word_starts(text, ids, ours.offsets(text, encoding))
        assert [text[begin:].split()[0] for begin in ours.offsets(text, encoding)[starts, 0]] == text.split()


def test_words_in_texts_end_at_punctuation_and_chinese_characters():
    text = "a  owl,東京 x-y 'z"
    offsets = trimmed(text, np.array([(0, 1), (1, 4), (4, 6), (6, 7), (7, 8), (8, 9), (9, 11), (11, 12), (12, 13),
                                      (13, 14), (14, 15), (15, 16)]))  # fmt: skip
    assert offsets[9].tolist() == [14, 13]  # the space between y and '
    found = [text[a:b] for a, b in offsets.tolist()]
    assert found == ["a", "o", "wl", ",", "東", "京", "x", "-", "y", "", "'", "z"]
    starts = word_starts(text, offsets)
    assert [piece for piece, start in zip(found, starts, strict=True) if start and piece] == [
        "a", "o", ",", "東", "京", "x", "-", "y", "z"
    ]  # fmt: skip


# Roles


def plain(*special, post_processor=None, unk=None):
    """A byte-level BPE whose special tokens have these names."""
    pieces = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = tokenizers.Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, [], unk_token=unk))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    if post_processor is not None:
        made.post_processor = post_processor
    return made


NAMES = ("<begin>", "<end>", "<fill>", "<gap>", "<none>")
ROLES = {"cls": "<begin>", "sep": "<end>", "pad": "<fill>", "mask": "<gap>", "unk": "<none>"}


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("as_object", [False, True])
def test_roles_are_read_from_the_settings(file, as_object, tmp_path):
    plain(*NAMES).save(str(tmp_path / "tokenizer.json"))
    said = {f"{role}_token": {"content": token} if as_object else token for role, token in ROLES.items()}
    (tmp_path / file).write_text(json.dumps(said))
    loaded = Tokenizer.load(tmp_path)
    assert loaded.roles == ROLES
    assert [loaded.tokens[i] for i in loaded(["a"], ["b"])["input_ids"][0]] == [
        "<begin>", "Ġ", "a", "<end>", "<end>", "Ġ", "b", "<end>"
    ]  # fmt: skip
    again = Tokenizer.of(loaded.backend.to_str().encode(), loaded.roles)
    assert again.fingerprint == loaded.fingerprint
    loaded.save(tmp_path / "again")
    assert Tokenizer.load(tmp_path / "again").fingerprint == loaded.fingerprint


def test_roles_are_read_from_the_post_processor_and_stand_ins(tmp_path):
    for post in (
        processors.BertProcessing(("<end>", 1), ("<begin>", 0)),
        processors.RobertaProcessing(("<end>", 1), ("<begin>", 0)),
        processors.Sequence(
            [
                processors.ByteLevel(),
                processors.TemplateProcessing(
                    single="<begin> $A <end>", pair="<begin> $A $B <end>", special_tokens=[("<begin>", 0), ("<end>", 1)]
                ),
            ]
        ),
    ):
        made = Tokenizer(plain(*NAMES, post_processor=post), roles={"pad": "<fill>"})
        assert (made.cls_id, made.sep_id, made.pad_id) == (0, 1, 2)
        assert (made.mask_id, made.unk_id) == (-1, -1)
    made = Tokenizer(plain(*NAMES), roles={"pad": "<fill>", "bos": "<begin>", "eos": "<end>"})
    assert (made.cls_id, made.sep_id) == (0, 1)
    assert made.layout == Layout((0,), (1,), (1, 1), (1,), segments=False)
    assert Tokenizer(plain("<s>", "</s>", "<pad>", "<unk>", unk="<unk>")).unk_id == 3


def test_a_layout_of_one_separator_has_the_segments_of_its_template():
    post = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    assert Tokenizer(plain("<s>", "</s>", "<pad>", post_processor=post)).layout == Layout.bert(0, 1)


@pytest.mark.parametrize(
    ("single", "pair", "message"),
    [
        ("$A </s>", "$A $B </s>", "at least one"),
        ("<s> $A </s>", "</s> $A $B </s>", "the same special tokens"),
        ("<s>:1 $A </s>", "<s> $A $B </s>", "token types"),
        ("<s> $A </s>", "<s> $A $B:2 </s>:2", "token types"),
    ],
)
def test_a_layout_that_is_not_supported_is_an_error(single, pair, message):
    post = processors.TemplateProcessing(single=single, pair=pair, special_tokens=[("<s>", 0), ("</s>", 1)])
    with pytest.raises(ValueError, match=f"post-processor is not supported.*{message}"):
        Tokenizer(plain("<s>", "</s>", "<pad>", post_processor=post))


def test_a_missing_role_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"has no pad_token \(\[PAD\] or <pad>\), no cls_token \(\[CLS\] or <s>\)"):
        Tokenizer(plain("</s>"))
    with pytest.raises(ValueError, match=r"has no mask_token '<x>'"):
        Tokenizer(plain("<s>", "</s>", "<pad>", "<mask>"), roles={"mask": "<x>"})
    assert Tokenizer(plain("<s>", "</s>", "<pad>"), roles={"mask": "<mask>"}).mask_id == -1
    with pytest.raises(ValueError, match=r"has no cls_token '<x>'"):
        Tokenizer(plain("<s>", "</s>", "<pad>"), roles={"cls": "<x>"})


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_a_tokenizer_without_a_mask_is_refused_only_where_masks_are_made(kind):
    made = Tokenizer(kinds.without_mask(kind))
    assert made.mask_id == -1
    assert made(["an owl"])["input_ids"].shape[1] > 2
    with pytest.raises(ValueError, match="the tokenizer has no mask token"):
        _ = made.mask_token


@pytest.mark.filterwarnings("default")
def test_the_tokenizer_of_modernbert_is_a_byte_level_bpe_with_the_names_of_bert(transformers, tmp_path):
    """Its special tokens are added after the vocabulary, and its mask swallows the space before it."""
    made = tokenizers.Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(kinds.SENTENCES, trainer)
    names = {"unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "mask": "[MASK]"}
    made.add_special_tokens([tokenizers.AddedToken(name, lstrip=name == "[MASK]") for name in names.values()])
    ends = [(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ends)
    made.save(str(tmp_path / "tokenizer.json"))
    settings = {f"{role}_token": name for role, name in names.items()}
    settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text('{"model_type": "modernbert"}')
    ours = Tokenizer.load(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert ours.mask_id == theirs.mask_token_id == made.get_vocab_size() - 1
    assert ours.roles["cls"] == "[CLS]"
    found = theirs(texts(), texts()[::-1], return_offsets_mapping=True)
    encodings = ours.encode_batch(texts(), texts()[::-1])
    assert [encoding.ids for encoding in encodings] == found["input_ids"]
    assert [encoding.offsets for encoding in encodings] == found["offset_mapping"]
    tokens = [ours.tokens[i] for i in ours(["an owl [MASK] here"])["input_ids"][0]]
    before, after = tokens[tokens.index("[MASK]") - 1], tokens[tokens.index("[MASK]") + 1]
    assert before != "Ġ"
    assert after.startswith("Ġ")


# Files


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("prefix_space", [None, True])
def test_a_vocabulary_with_merges_is_read_like_transformers_reads_it(prefix_space, transformers, tmp_path):
    kinds.backend("bpe").model.save(str(tmp_path))
    # transformers 4 and the files of RoBERTa give the mask the space before it; transformers 5 only if it is told so.
    mask = {"__type": "AddedToken", "content": "<mask>", "lstrip": True, "rstrip": False, "normalized": False}
    config = {"tokenizer_class": "RobertaTokenizer", "mask_token": {**mask, "single_word": False, "special": True}}
    config |= {} if prefix_space is None else {"add_prefix_space": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "config.json").write_text('{"model_type": "roberta"}')
    ours = Tokenizer.load(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    first = texts() + kinds.unicode_texts(2000)
    found = theirs(first, first[::-1], return_offsets_mapping=True)
    encodings = ours.encode_batch(first, first[::-1])
    assert [encoding.ids for encoding in encodings] == found["input_ids"]
    assert [encoding.offsets for encoding in encodings] == found["offset_mapping"]


@pytest.mark.filterwarnings("default")
def test_the_class_of_roberta_follows_its_config(transformers, tmp_path):
    folder = kinds.write(tmp_path, "bpe", tokenizer_class="RobertaTokenizer", add_prefix_space=True)
    with pytest.warns(UserWarning, match="add_prefix_space is True"):
        ours = Tokenizer.load(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    found = theirs(texts(), return_offsets_mapping=True)
    encodings = ours.encode_batch(texts())
    assert [encoding.ids for encoding in encodings] == found["input_ids"]
    assert [encoding.offsets for encoding in encodings] == found["offset_mapping"]


def test_a_vocabulary_that_is_not_read_is_named(tmp_path):
    (tmp_path / "sentencepiece.bpe.model").touch()
    with pytest.raises(FileNotFoundError, match=r"no vocabulary: .*; sentencepiece.bpe.model alone is not read"):
        Tokenizer.load(tmp_path)
    (tmp_path / "vocab.json").write_text('{"<s>": 0}')
    with pytest.raises(ValueError, match=r"vocab.json: there is no merges.txt beside it"):
        Tokenizer.load(tmp_path)
