"""Windows lose no token, and each token is spoken for by the window in which it sees most."""

from itertools import pairwise

import pytest
import small_pipelines as small
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.pipelines.documents import cover, read_documents, valid_text

SIZES = st.integers(0, 300), st.integers(1, 40), st.integers(0, 50)


def read(*pairs, **options):
    options = {"max_length": small.POSITIONS, "overlap": 8, "offsets": True, **options}
    return list(read_documents(pairs, small.tokenizer(), **options))


@given(*SIZES)
def test_windows_lose_no_token_and_none_is_for_nothing(length, room, overlap):
    windows = cover(length, room, overlap)
    assert {i for window in windows for i in range(window.start, window.stop)} == set(range(length))
    assert all(window.stop - window.start <= room for window in windows)
    for before, after in pairwise(windows):
        assert before.stop - after.start == min(overlap, room // 2)
        assert after.stop > before.stop
    assert len(windows) >= 1


@given(st.integers(1, 120), st.integers(1, 10))
def test_a_token_belongs_to_the_window_in_which_it_has_the_most_context(words, overlap):
    (document,) = read((None, "owl " * words), max_length=17, overlap=overlap)
    assert len(document.ids) == words
    for token, owner in enumerate(document.owners):
        context = [
            min(token - window.start, window.stop - 1 - token) + 0.01 * (window.stop - window.start)
            if window.start <= token < window.stop
            else -1
            for window in document.windows
        ]
        assert context[owner] == max(context) >= 0


def test_rows_say_the_text_between_special_tokens():
    tokenizer = small.tokenizer()
    single, pair, empty = read((None, small.SHORT), ("is that so ?", small.SHORT), (None, "  "))
    for document, arguments in ((single, [[small.SHORT]]), (pair, [["is that so ?"], [small.SHORT]]), (empty, [[""]])):
        inputs = tokenizer(*arguments)
        (window,) = document.windows
        row = document.row(window, tokenizer.sep_id)
        assert row.ids.tolist() == inputs["input_ids"][0].tolist()
        assert row.second == len(row.ids) - inputs["token_type_ids"][0].sum()


def test_every_window_of_a_pair_begins_with_the_first_text():
    (document,) = read(("is that so ?", small.LONG))
    rows = [document.row(window, small.tokenizer().sep_id) for window in document.windows]
    assert len(rows) > 5
    assert len({tuple(row.ids[: len(document.opening)]) for row in rows}) == 1
    assert max(len(row.ids) for row in rows) == small.POSITIONS


def test_a_first_text_that_leaves_no_room_is_refused_unless_all_fits():
    question = "owl " * 17
    with pytest.raises(ValueError, match="a first text of 17 tokens leaves too little of 23 tokens: 'owl owl"):
        read((question, small.LONG))
    assert len(read((question, "owl"))[0].windows) == 1


def test_lone_surrogates_become_a_mark_and_characters_keep_their_numbers():
    text = "an \ud800 owl \udfff"
    assert valid_text(text) == "an \ufffd owl \ufffd"
    (document,) = read((None, text))
    assert text[document.offsets[-1, 0] : document.offsets[-1, 1]] == "owl"


@pytest.mark.parametrize("text", [None, 7, b"owl", ["owl"]])
def test_what_is_no_text_is_refused(text):
    with pytest.raises(ValueError, match=f"must be a string, got {type(text).__name__}"):
        valid_text(text)
