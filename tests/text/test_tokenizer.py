"""The vocabulary is a function of the corpus, files round-trip, and batches have BERT's format."""

import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from bert_jax.text import vocabulary, word_counts
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.vocabulary import SPECIAL_TOKENS

SENTENCES = [
    "The café's owner, naïve as ever, sold 17 cups of tea.",
    "An owl hooted; nobody answered it.",
    "Le garçon a mangé la crème brûlée à Noël.",
    "東京 and 北京 are cities.",
    "She reopened the untested teapot!",
]

TRAIN_ON_TIES = """
import random, sys
from bert_jax.text.tokenizer import Tokenizer
for seed in range(3):
    draw = random.Random(seed)
    word = lambda: "".join(draw.choice("abcdefgh") for _ in range(draw.randint(1, 7)))
    tokenizer = Tokenizer.train([" ".join(word() for _ in range(20)) for _ in range(23)], 151)
    print(tokenizer.fingerprint)
"""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(SENTENCES * 3, 131)


@pytest.fixture(scope="module")
def cased() -> Tokenizer:
    return Tokenizer.train(SENTENCES * 3, 139, lowercase=False)


def run(program: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)


# Training


def test_a_corpus_full_of_ties_gives_the_same_ids_in_every_process():
    first, second, third = (run(TRAIN_ON_TIES).stdout for _ in range(3))
    assert first == second == third
    assert len(set(first.split())) == 3


def test_ids_are_special_tokens_then_pieces_by_frequency_then_by_text(tokenizer):
    assert tuple(tokenizer.tokens[:5]) == SPECIAL_TOKENS
    ids, _ = tokenizer.encode_flat(SENTENCES)
    counts = np.bincount(ids, minlength=tokenizer.vocab_size)[5:]
    keys = [(-count, piece) for count, piece in zip(counts.tolist(), tokenizer.tokens[5:], strict=True)]
    assert keys == sorted(keys)


def test_a_trained_vocabulary_spells_its_corpus(tokenizer, cased):
    for trained in (tokenizer, cased):
        assert trained.unk_id not in trained.encode_flat(SENTENCES)[0]
    assert tokenizer.vocab_size <= 131


def test_very_rare_characters_are_not_in_the_vocabulary(monkeypatch):
    texts = ["abc cab " * 499 + "ж"]
    assert "ж" in Tokenizer.train(texts, 29).tokens
    monkeypatch.setattr(word_counts, "CHARACTER_COVERAGE", 0.999)
    assert "ж" not in Tokenizer.train(texts, 29).tokens


@pytest.mark.parametrize(
    ("lowercase", "strip_accents", "expected"),
    [
        (True, None, ["ete", "a"]),
        (True, False, ["été", "a"]),
        (True, True, ["ete", "a"]),
        (False, None, ["Été", "a"]),
        (False, False, ["Été", "a"]),
        (False, True, ["Ete", "a"]),
    ],
)
def test_accents_are_stripped_when_lowercasing_by_default(lowercase, strip_accents, expected):
    trained = Tokenizer.train(["Été a"] * 5, 23, lowercase=lowercase, strip_accents=strip_accents)
    assert trained.decode(trained.encode_flat(["Été a"])[0]).split() == expected


def test_rare_pairs_do_not_become_pieces():
    texts = ["abab " * 3 + "cdcd " * 7]
    assert {"abab", "cdcd"} <= set(Tokenizer.train(texts, 61, min_frequency=2).tokens)
    often = Tokenizer.train(texts, 61, min_frequency=5).tokens
    assert "cdcd" in often
    assert "abab" not in often


@pytest.mark.parametrize(
    ("texts", "size", "message"),
    [
        (SENTENCES, 5, "`vocab_size` 5 has no room besides the 5 special tokens"),
        (["abc"], 10, "`vocab_size` 10 is too small for the characters of the corpus, which need 11"),
        ([], 31, "has no text"),
        ([" ", "\n"], 31, "has no text"),
    ],
)
def test_impossible_training_is_an_error(texts, size, message):
    with pytest.raises(ValueError, match=message):
        Tokenizer.train(texts, size)


# Files


def test_a_saved_tokenizer_loads_as_it_was(tokenizer, cased, tmp_path):
    for number, saved in enumerate((tokenizer, cased)):
        folder = tmp_path / str(number)
        saved.save(folder)
        assert Tokenizer.load(folder).fingerprint == saved.fingerprint
        assert Tokenizer.load(folder / "tokenizer.json").fingerprint == saved.fingerprint
        assert Tokenizer.load(str(folder / "vocab.txt")).fingerprint == saved.fingerprint
        (folder / "tokenizer.json").unlink()
        assert Tokenizer.load(folder).fingerprint == saved.fingerprint


@pytest.mark.parametrize("said", [512, None, 1e30, "long", True, 0])
def test_model_max_length_is_saved_and_loaded(tokenizer, tmp_path, said):
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path).max_length is None
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": said}))
    for name in ("", "vocab.txt"):
        loaded = Tokenizer.load(tmp_path / name)
        assert loaded.max_length == (512 if said == 512 else None)
        assert pickle.loads(pickle.dumps(loaded)).max_length == loaded.max_length
    loaded.save(tmp_path / "again")
    assert Tokenizer.load(tmp_path / "again").max_length == loaded.max_length


def test_capitals_in_a_vocabulary_decide_whether_to_lowercase(tokenizer, cased, tmp_path):
    for saved in (tokenizer, cased):
        saved.save(tmp_path)
        (tmp_path / "tokenizer_config.json").unlink()
        loaded = Tokenizer.load(tmp_path / "vocab.txt")
        np.testing.assert_array_equal(loaded.encode_flat(SENTENCES)[0], saved.encode_flat(SENTENCES)[0])


def test_the_config_beside_a_vocabulary_decides(tmp_path):
    pieces = [*SPECIAL_TOKENS, "e", "é", "x", "##京", "京"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    config = {"do_lower_case": True, "strip_accents": False, "tokenize_chinese_chars": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert [pieces[i] for i in Tokenizer.load(tmp_path).encode_flat(["É x京"])[0]] == ["é", "x", "##京"]


def test_special_tokens_are_found_by_name_at_any_id(tmp_path):
    pieces = ["a", "[MASK]", "b", "[SEP]", "[CLS]", "##c", "[UNK]", "[PAD]"]
    path = tmp_path / "vocab.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(pieces).encode() + b"\r\n")
    loaded = Tokenizer.load(path)
    assert loaded.tokens == pieces
    assert loaded.special_ids.tolist() == [7, 6, 4, 3, 1]
    named = (loaded.pad_id, loaded.unk_id, loaded.cls_id, loaded.sep_id, loaded.mask_id)
    assert named == (7, 6, 4, 3, 1)
    assert loaded.continuation.tolist() == [piece == "##c" for piece in pieces]
    batch = loaded(["a [MASK]", "zz bc"], ["b", "a b"])
    assert batch["input_ids"].tolist() == [[4, 0, 1, 3, 2, 3, 7, 7], [4, 6, 2, 5, 3, 0, 2, 3]]


def test_settings_for_batches_in_a_file_are_not_taken_over(tokenizer, tmp_path):
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    backend.enable_truncation(3)
    backend.enable_padding(length=11)
    backend.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.load(tmp_path).fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "vocab.txt",
            "[PAD]\n[UNK]\n[SEP]\na",
            r"vocab.txt: the vocabulary of 4 tokens has no cls_token \(\[CLS\] or <s>\)$",
        ),
        ("vocab.txt", b"[PAD]\n\xff", "vocab.txt: .*decode"),
        ("tokenizer.json", "{", "tokenizer.json: not a tokenizer"),
        (
            "tokenizer.json",
            tokenizers.Tokenizer(tokenizers.models.BPE()).to_str(),
            "vocabulary of 0 tokens has no pad_token",
        ),
    ],
)
def test_the_error_names_an_invalid_file(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("model", "unk_token"), "<unk>"),
        (("model", "vocab"), {}),
        (("model", "max_input_chars_per_word"), -1),
        (("normalizer",), {"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
        (("pre_tokenizer",), {"type": "FixedLength", "length": 0}),
        (("decoder",), {"type": "Strip", "content": "a", "start": 99, "stop": 99}),
    ],
)
def test_a_broken_tokenizer_is_an_error_when_it_is_loaded(tokenizer, place, value, tmp_path):
    content = json.loads(tokenizer.backend.to_str())
    entry = content
    for key in place[:-1]:
        entry = entry[key]
    entry[place[-1]] = value
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"tokenizer\.json: not a tokenizer") as caught:
        Tokenizer.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "is not a JSON object but list"),
        ('{"do_lower_case": "yes"}', "has do_lower_case 'yes'; it must be true or false"),
        ('{"strip_accents": 3}', "has strip_accents 3; it must be true or false"),
    ],
)
def test_the_error_names_a_broken_config(content, message, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(SPECIAL_TOKENS))
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(ValueError, match=rf"vocab\.txt: the tokenizer_config\.json beside it {message}"):
        Tokenizer.load(tmp_path)


def test_a_config_may_be_incomplete(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, "a"]))
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": null, "strip_accents": null}')
    assert Tokenizer.load(tmp_path).encode_flat(["A"])[0].tolist() == [5]


def test_ids_with_a_gap_are_an_error(tokenizer, tmp_path):
    content = json.loads(tokenizer.backend.to_str())
    content["model"]["vocab"]["beyond"] = 997
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="do not have the ids 0 to"):
        Tokenizer.load(tmp_path)


def test_the_error_names_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither tokenizer\.json nor vocab\.txt"):
        Tokenizer.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no such vocabulary: .*missing"):
        Tokenizer.load(tmp_path / "missing")


@pytest.mark.filterwarnings("default")
def test_transformers_reads_what_is_saved_and_gives_the_same_ids(tokenizer, cased, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: the peer to compare with")
    for number, saved in enumerate((tokenizer, cased)):
        saved.save(folder := tmp_path / str(number))
        wanted = saved(SENTENCES, SENTENCES[::-1], max_length=17)
        for kind in (transformers.AutoTokenizer, transformers.BertTokenizer):
            theirs = kind.from_pretrained(folder)
            assert theirs.mask_token_id == saved.mask_id
            got = theirs(SENTENCES, SENTENCES[::-1], max_length=17, truncation=True, padding=True, return_tensors="np")
            for name, array in wanted.items():
                np.testing.assert_array_equal(array, got[name], err_msg=f"{kind.__name__} {name}")


@pytest.mark.filterwarnings("default")
def test_transformers_reads_a_tokenizer_that_cleans_text_in_another_way(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: the peer to compare with")
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    backend.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Replace("owl", "tea"), tokenizers.normalizers.Lowercase()]
    )
    saved = Tokenizer(backend)
    saved.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ids = theirs(["An owl hooted"])["input_ids"]
    assert ids == saved(["An owl hooted"])["input_ids"].tolist() == tokenizer(["an tea hooted"])["input_ids"].tolist()
    assert theirs.mask_token_id == saved.mask_id


# Batches


def test_rows_are_padded_to_the_longest_or_to_max_length(tokenizer):
    lengths = [len(encoding) for encoding in tokenizer.encode_batch(SENTENCES)]
    for batch, width in (
        (tokenizer(SENTENCES), max(lengths)),
        (tokenizer(SENTENCES, max_length=97), max(lengths)),
        (tokenizer(SENTENCES, max_length=97, padding="max_length"), 97),
    ):
        assert all(array.shape == (5, width) and array.dtype == np.int32 for array in batch.values())
        assert batch["attention_mask"].sum(1).tolist() == lengths
        assert ((batch["input_ids"] == tokenizer.pad_id) == (batch["attention_mask"] == 0)).all()
    assert tokenizer([], max_length=7, padding="max_length")["input_ids"].shape == (0, 7)


def test_a_pair_is_two_segments_and_the_longer_text_is_truncated(tokenizer):
    long, short = " ".join(SENTENCES), "an owl"
    whole = tokenizer([short])["input_ids"][0].tolist()
    for texts, pairs in (([long], [short]), ([short], [long])):
        batch = tokenizer(texts, pairs, max_length=31)
        ids, types = batch["input_ids"][0], batch["token_type_ids"][0]
        assert ids.shape == (31,)
        ends = np.flatnonzero(ids == tokenizer.sep_id)
        assert ends[1] == 30
        np.testing.assert_array_equal(types, np.arange(31) > ends[0])
        kept = ids[1 : ends[0]] if texts == [short] else ids[ends[0] + 1 : 30]
        assert kept.tolist() == whole[1:-1]


def test_truncation_leaves_the_tokenizer_as_it_was(tokenizer):
    before = tokenizer(SENTENCES)
    assert tokenizer(SENTENCES, max_length=7)["input_ids"].shape == (5, 7)
    np.testing.assert_array_equal(tokenizer(SENTENCES)["input_ids"], before["input_ids"])
    np.testing.assert_array_equal(tokenizer(SENTENCES, max_length=7)["input_ids"][:, :6], before["input_ids"][:, :6])
    assert Tokenizer(tokenizer.backend).fingerprint == tokenizer.fingerprint


def test_offsets_and_word_ids_lead_back_to_the_text(cased):
    for text, encoding in zip(SENTENCES, cased.encode_batch(SENTENCES), strict=True):
        for i, (begin, end), word in zip(encoding.ids, encoding.offsets, encoding.word_ids, strict=True):
            if word is not None:
                assert cased.tokens[i].removeprefix("##") == text[begin:end]


def test_lists_of_words_number_their_pieces(tokenizer):
    words = ["reopened", "untested", "zz", "tea"]
    encoding = tokenizer.encode_batch([words, ["tea"]])[0]
    for number, word in enumerate(words):
        pieces = [i for i, owner in zip(encoding.ids, encoding.word_ids, strict=True) if owner == number]
        np.testing.assert_array_equal(pieces, tokenizer.encode_flat([word])[0])


def test_special_tokens_are_special_in_an_input_and_text_in_a_corpus(tokenizer):
    assert tokenizer(["an [MASK] hooted"])["input_ids"][0, 2] == tokenizer.mask_id
    ids, lengths = tokenizer.encode_flat(["an [MASK] hooted", "", "owl"])
    assert tokenizer.mask_id not in ids
    assert lengths.tolist()[1] == 0
    assert lengths.sum() == len(ids)
    np.testing.assert_array_equal(ids[-lengths[2] :], tokenizer.encode_flat(["owl"])[0])


def test_decoding_joins_pieces_and_skips_special_tokens(tokenizer):
    row = tokenizer(["an owl reopened tea"])["input_ids"][0]
    assert tokenizer.decode(row) == "an owl reopened tea"
    assert tokenizer.decode(row, skip_special_tokens=False) == "[CLS] an owl reopened tea [SEP]"


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("one text",), {}, "texts must be a list"),
        ((["a", "b"], ["c"]), {}, "2 texts cannot be paired with 1"),
        ((["a"],), {"max_length": 2}, "`max_length` 2 has no room besides 2 special tokens"),
        ((["a"], ["b"]), {"max_length": 3}, "`max_length` 3 has no room besides 3 special tokens"),
        ((["a"],), {"padding": "max_length"}, "needs a `max_length`"),
        ((["a", None],), {}, "a text must be a string, got NoneType"),
        ((["a"], [7]), {}, "a text must be a string, got int: 7"),
        (([None],), {}, "texts must be strings or lists of words, got NoneType"),
        (([["a"], "b"],), {}, "texts must be strings or lists of words, got str: 'b'"),
        (([["a", b"b"]],), {}, "a word must be a string, got bytes: b'b'"),
    ],
)
def test_impossible_batches_are_errors(tokenizer, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        tokenizer(*arguments, **options)


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ((["an \ud800 owl"],), (["an \ufffd owl"],)),
        ((["an"], ["\udfff owl"]), (["an"], ["\ufffd owl"])),
        (([["an", "\ud800"]],), ([["an", "\ufffd"]],)),
    ],
)
def test_lone_surrogates_are_read_as_the_replacement_character(tokenizer, given, same):
    np.testing.assert_array_equal(tokenizer(*given)["input_ids"], tokenizer(*same)["input_ids"])


# Processes


def test_a_pickled_tokenizer_is_the_same(tokenizer):
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.fingerprint == tokenizer.fingerprint
    np.testing.assert_array_equal(copy(SENTENCES)["input_ids"], tokenizer(SENTENCES)["input_ids"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_forked_after_threads_were_used_works_without_a_warning():
    result = run(
        """
import os
from bert_jax.text.tokenizer import Tokenizer
tokenizer = Tokenizer.train(["one two three"] * 997, 61)
tokenizer(["one two"] * 997)
if child := os.fork():
    assert os.waitpid(child, 0)[1] == 0
else:
    os._exit(tokenizer(["one two"] * 997)["input_ids"].shape != (997, 4))
"""
    )
    assert result.stderr == ""


def test_importing_the_text_side_does_not_import_jax():
    modules = ["text.tokenizer", "data.readers.corpus", "data.readers.movie_reviews", "data.pretraining.token_store"]
    imports = ", ".join(f"bert_jax.{name}" for name in modules)
    run(f"import sys, {imports}; assert not {{'jax', 'flax', 'movie_reviews'}} & set(sys.modules)")


def test_texts_are_batched_whole_and_in_order(monkeypatch):
    monkeypatch.setattr(vocabulary, "BATCH_CHARACTERS", 53)
    draw = random.Random(7)
    texts = ["x" * draw.randint(0, 29) for _ in range(101)]
    found = list(vocabulary.text_batches(texts))
    assert [text for batch in found for text in batch] == texts
    assert all(53 <= sum(map(len, batch)) < 53 + 29 for batch in found[:-1])


def test_a_tokenizer_survives_its_bytes():
    trained = Tokenizer.train(["the owl hooted at the Ünseen mole"] * 3, 60, lowercase=False)
    told = Tokenizer.of(trained.backend.to_str().encode())
    assert told.fingerprint == trained.fingerprint
    assert told.tokens == trained.tokens
