"""The settings of a tokenizer mean what they mean to transformers, whichever file they are in, or are refused."""

import json
import pickle
import re
from importlib.util import find_spec

import pytest
import tokenizer_cases as cases
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_cases import CASES, CONFIG, LINES, SIZE, VOCABULARY, WHOLE_WORDS, added, write

from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.tokenizer_files import vocabulary_lines
from bert_jax.text.vocabulary import SPECIAL_TOKENS

ALL = {**CASES, "whole words": WHOLE_WORDS}
TOLD = {
    "repeated": "vocab.txt: lines 8 and 10 are empty, and 1 more lines: of equal tokens the last one is used",
    "config wins": "lowercase is True in tokenizer_config.json and False in tokenizer.json; the config is used",
    "config strips": "strip_accents is True in tokenizer_config.json and False in tokenizer.json; the config is used",
    "json wins": "lowercase is True in tokenizer_config.json and False in tokenizer.json, which is used",
}


def load(folder, name=""):
    """Loads a tokenizer that says of itself what is expected, and nothing else."""
    if name not in TOLD:
        return Tokenizer.load(folder)
    with pytest.warns(UserWarning, match=re.escape(TOLD[name])) as caught:
        loaded = Tokenizer.load(folder)
    assert len(caught) == 1
    return loaded


def ids(tokenizer, texts):
    return [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]


def refusal(folder):
    with pytest.raises(ValueError, match=": ") as caught:
        Tokenizer.load(folder)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(str(folder))
    return line


@pytest.mark.parametrize("name", ALL)
def test_odd_texts_get_the_ids_of_transformers(name, tmp_path):
    loaded = load(write(tmp_path, ALL[name]), name)
    assert ids(loaded, cases.texts(name)) == cases.stored()[name]


@pytest.mark.skipif(find_spec("transformers") is None, reason="asks transformers: needs the torch extra")
@pytest.mark.filterwarnings("default")
def test_what_is_stored_is_what_transformers_says(tmp_path):
    assert {name: cases.theirs(write(tmp_path / name, files), name) for name, files in ALL.items()} == cases.stored()


@pytest.mark.parametrize("name", ALL)
def test_a_tokenizer_is_saved_as_it_was(name, tmp_path):
    loaded = load(write(tmp_path, ALL[name]), name)
    loaded.save(tmp_path / "again")
    again = Tokenizer.load(tmp_path / "again")  # and nothing is told twice
    assert again.fingerprint == loaded.fingerprint == pickle.loads(pickle.dumps(loaded)).fingerprint
    assert ids(again, cases.texts(name)) == cases.stored()[name]
    (tmp_path / "again" / "tokenizer.json").unlink()
    assert ids(load(tmp_path / "again", name if name == "repeated" else ""), cases.texts(name)) == cases.stored()[name]
    if "vocab.txt" in ALL[name]:
        assert (tmp_path / "again" / "vocab.txt").read_text("utf-8").split("\n") == ALL[name]["vocab.txt"].split("\n")


@pytest.mark.skipif(find_spec("transformers") is None, reason="asks transformers: needs the torch extra")
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["added", "decoder", "in vocabulary", "repeated", "config wins"])
def test_transformers_reads_a_saved_tokenizer_alike(name, tmp_path):
    Tokenizer.load(write(tmp_path, ALL[name])).save(tmp_path)
    assert cases.theirs(tmp_path, name) == cases.stored()[name]


def test_added_tokens_have_the_ids_of_their_file(tmp_path):
    files = {"vocab.txt": LINES, "added_tokens.json": {"</e1>": SIZE + 1, "<e1>": SIZE}}
    loaded = Tokenizer.load(write(tmp_path, files))
    assert ids(loaded, ["<e1> ab </e1>"]) == [[SIZE, VOCABULARY.index("ab"), SIZE + 1]]
    assert loaded.tokens[SIZE:] == ["<e1>", "</e1>"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"added_tokens.json": {"<e1>": SIZE + 1}}, f"'<e1>' the id {SIZE + 1}, but no token has the id {SIZE}"),
        ({"added_tokens.json": {"<e1>": 5}}, "'<e1>' the id 5, but in vocab.txt that is the id of '<'"),
        ({"added_tokens.json": {"ab": SIZE}}, f"'ab' the id {SIZE}, but in vocab.txt it has {VOCABULARY.index('ab')}"),
        ({CONFIG: {"added_tokens_decoder": {"1": added("[CLS]")}}}, "'[CLS]' the id 1, but in vocab.txt it has 2"),
        ({CONFIG: {"added_tokens_decoder": {"x": added("<e1>")}}}, "gives an added token the id 'x'"),
        ({CONFIG: {"added_tokens_decoder": [1]}}, "are not an object but list"),
        ({"added_tokens.json": {"<e1>": "long"}}, "gives an added token the id 'long'"),
        ({"special_tokens_map.json": {"additional_special_tokens": [7]}}, "an added token without text: 7"),
        ({"special_tokens_map.json": "{"}, "the special_tokens_map.json beside it is no JSON"),
        ({CONFIG: {"extra_special_tokens": 3}}, "extra_special_tokens beside it must be a list of tokens, got 3"),
    ],
)
def test_added_tokens_that_do_not_fit_are_refused(files, message, tmp_path):
    assert message in refusal(write(tmp_path, {"vocab.txt": LINES, **files}))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "mecab"}, "word_tokenizer_type 'mecab'"),
        ({"word_tokenizer_type": "sudachi"}, "word_tokenizer_type 'sudachi' in tokenizer_config.json is not supported"),
        ({"subword_tokenizer_type": "character"}, "subword_tokenizer_type 'character'"),
        ({"do_word_tokenize": False}, "do_word_tokenize False"),
        ({"never_split": ["[CLS]", "[unused1]"]}, "never_split ['[unused1]'] in tokenizer_config.json is not"),
        ({"truncation_side": "left"}, "truncation_side 'left'"),
        ({"wordpieces_prefix": "_"}, "wordpieces_prefix '_'"),
        ({"mask_token": "<mask>"}, "mask_token '<mask>'"),
        ({"cls_token": {"content": "<s>"}}, "cls_token '<s>'"),
        ({"tokenizer_class": "KoBertTokenizer"}, "tokenizer_class 'KoBertTokenizer' is not supported without"),
        ({"tokenizer_class": "RoFormerTokenizerFast"}, "tokenizer_class 'RoFormerTokenizer' is not supported without"),
        ({"do_basic_tokenize": "no"}, "has do_basic_tokenize 'no'; it must be true or false"),
        ({"split_special_tokens": 1}, "has split_special_tokens 1; it must be true or false"),
    ],
)
def test_a_setting_that_is_not_supported_is_refused_by_name(config, message, tmp_path):
    assert message in refusal(write(tmp_path, {"vocab.txt": LINES, CONFIG: config}))


def test_the_class_of_a_tokenizer_may_be_in_the_config_of_the_model(tmp_path):
    """Where tokenizer_config.json has the settings of a class and not its name."""
    files = {"vocab.txt": LINES, "config.json": {"tokenizer_class": "BertJapaneseTokenizer"}}
    named = {**files, "config.json": {}, CONFIG: {"tokenizer_class": "BertJapaneseTokenizer"}}
    folders = [write(tmp_path / str(number), each) for number, each in enumerate((files, named))]
    first, second = map(Tokenizer.load, folders)
    assert first.fingerprint == second.fingerprint
    assert ids(first, ["Ab \u6771\u4eac"]) == [[VOCABULARY.index(p) for p in ("Ab", "\u6771", "##\u4eac")]]
    write(folders[0], files | {CONFIG: {"word_tokenizer_type": "mecab"}})
    assert "word_tokenizer_type 'mecab'" in refusal(folders[0])


@pytest.mark.parametrize(
    "config",
    [
        {"tokenizer_class": "BertTokenizerFast", "never_split": None},
        {"tokenizer_class": "ElectraTokenizer", "never_split": ["[SEP]"], "mask_token": added("[MASK]", special=True)},
        {"tokenizer_class": "PreTrainedTokenizerFast", "word_tokenizer_type": "basic", "truncation_side": "right"},
        {"do_basic_tokenize": True, "padding_side": "left", "bos_token": "<s>", "max_len": 77},
    ],
)
def test_settings_that_change_nothing_change_nothing(config, tmp_path):
    plain = Tokenizer.load(write(tmp_path / "plain", {"vocab.txt": LINES}))
    loaded = Tokenizer.load(write(tmp_path / "said", {"vocab.txt": LINES, CONFIG: config}))
    assert loaded.fingerprint == plain.fingerprint
    assert loaded.max_length == config.get("max_len")


def test_a_config_that_agrees_with_the_tokenizer_is_silent(tmp_path):
    same = {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True}
    for strips in (None, True):
        files = {"tokenizer.json": cases.backend(lowercase=True, strip_accents=strips), CONFIG: same}
        assert Tokenizer.load(write(tmp_path, files)).backend.normalizer.lowercase


def test_a_line_number_is_an_id_even_of_an_empty_or_repeated_line(tmp_path):
    lines = [*SPECIAL_TOKENS, "", "a", "b", "", "a", "##b", ""]
    (tmp_path / "vocab.txt").write_text("\n".join(lines) + "\n")
    with pytest.warns(UserWarning, match="lines 6 and 12 are empty, and 2 more lines: of equal tokens the last"):
        loaded = Tokenizer.load(tmp_path)
    assert ids(loaded, ["a b ab"]) == [[9, 7, 9, 10]]
    assert loaded.vocab_size == len(lines)
    assert vocabulary_lines(loaded.backend.get_vocab()) == lines
    loaded.save(tmp_path)
    assert (tmp_path / "vocab.txt").read_text() == "\n".join(lines) + "\n"
    assert vocabulary_lines(Tokenizer.load(tmp_path).backend.get_vocab()) == lines


# Special tokens in texts


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    """A tokenizer with markers: <e1> is an added token, [E1] an added special token."""
    return Tokenizer.load(write(tmp_path_factory.mktemp("marked"), CASES["decoder"]))


def words(tokenizer, backend, text):
    return [tokenizer.tokens[i] for i in backend.encode(text, add_special_tokens=False).ids]


def test_special_tokens_in_the_text_of_a_user_are_text_and_markers_stay_whole(marked):
    text = "a [SEP] b<e1>[MASK][E1]"
    assert words(marked, marked.backend, text) == ["a", "[SEP]", "b", "<e1>", "[MASK]", "[E1]"]
    spelled = ["a", "[", "SEP", "]", "b", "<e1>"]
    assert words(marked, marked.text_backend(), text) == [*spelled, "[", "[UNK]", "]", "[E1]"]
    assert words(marked, marked.text_backend("[MASK]"), text) == [*spelled, "[MASK]", "[E1]"]
    flat, _ = marked.encode_flat([text])
    assert flat.tolist() == marked.text_backend().encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_no_special_token_can_be_typed(marked, token):
    assert marked.backend.token_to_id(token) in ids(marked, [token])[0]
    found = marked.text_backend().encode(f"a{token} {token.lower()}", add_special_tokens=False).ids
    assert marked.backend.token_to_id(token) not in found or token == "[UNK]"


def test_the_settings_decide_about_special_tokens_in_texts(tmp_path):
    for said, in_texts, in_calls in ((None, False, True), (False, True, True), (True, False, False)):
        config = {"do_lower_case": True} | ({} if said is None else {"split_special_tokens": said})
        loaded = Tokenizer.load(write(tmp_path, {"vocab.txt": LINES, CONFIG: config}))
        loaded.save(tmp_path / "again")
        for one in (loaded, Tokenizer.load(tmp_path / "again"), pickle.loads(pickle.dumps(loaded))):
            assert one.split_special_tokens is said
            encoding = one.text_backend().encode("a [SEP] b", add_special_tokens=False)
            assert (one.sep_id in encoding.ids) == in_texts
            assert (one.sep_id in ids(one, ["a [SEP] b"])[0]) == in_calls
            truncated = one(["a [SEP] b"], max_length=6)["input_ids"]
            assert truncated.shape == ((1, 5) if in_calls else (1, 6))
            assert one.text_backend("[SEP]").encode("[SEP]", add_special_tokens=False).ids == [one.sep_id]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, SIZE + 1) | st.sampled_from([*SPECIAL_TOKENS, "<e1>", "", "\ud800"]),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.sampled_from(["content", "7", "x"]), values),
    max_leaves=5,
)
KEYS = ["do_lower_case", "strip_accents", "do_basic_tokenize", "never_split", "added_tokens_decoder", "mask_token",
        "extra_special_tokens", "additional_special_tokens", "tokenizer_class", "model_max_length"]  # fmt: skip


@settings(max_examples=150, derandomize=True, database=None)
@given(
    config=st.dictionaries(st.sampled_from(KEYS), JSON, max_size=2), more=st.dictionaries(st.text(), JSON, max_size=1)
)
def test_any_settings_are_honoured_or_refused_in_one_line(config, more, tmp_path_factory):
    files = {"vocab.txt": LINES, CONFIG: json.dumps(config), "added_tokens.json": json.dumps(more)}
    folder = write(tmp_path_factory.getbasetemp() / "any", files)
    try:
        loaded = Tokenizer.load(folder)
        assert len(ids(loaded, ["a [SEP] b"])[0]) > 2
    except ValueError as error:
        (line,) = str(error).splitlines()
        assert line.startswith(str(folder))
