"""Texts are encoded like the tokenizer does it, or rejected with an error."""

import pytest
import small_pipelines as small

from bert_jax.pipelines.documents import read_documents
from bert_jax.text.inputs import valid_text


def read(*pairs, **options):
    options = {"max_length": small.POSITIONS, "overlap": 8, "offsets": True, "whole_first": "first text", **options}
    return list(read_documents(pairs, small.tokenizer(), **options))


def test_rows_say_the_text_between_special_tokens():
    tokenizer = small.tokenizer()
    single, pair, empty = read((None, small.SHORT), ("is that so ?", small.SHORT), (None, "  "))
    for document, arguments in ((single, [[small.SHORT]]), (pair, [["is that so ?"], [small.SHORT]]), (empty, [[""]])):
        inputs = tokenizer(*arguments)
        (window,) = document.windows
        row = document.encoded(window)
        assert row.ids.tolist() == inputs["input_ids"][0].tolist()
        assert row.second == len(row.ids) - inputs["token_type_ids"][0].sum()


def test_every_window_of_a_pair_begins_with_the_first_text():
    (document,) = read(("is that so ?", small.LONG))
    rows = [document.encoded(window) for window in document.windows]
    assert len(rows) > 5
    assert len({tuple(row.ids[: len(document.opening)]) for row in rows}) == 1
    assert max(len(row.ids) for row in rows) == small.POSITIONS


def test_a_first_text_that_leaves_no_room_is_an_error_unless_all_fits():
    question = "owl " * 17
    with pytest.raises(ValueError, match="a first text of 17 tokens leaves too little of 23 tokens: 'owl owl"):
        read((question, small.LONG))
    assert len(read((question, "owl"))[0].windows) == 1
    assert [row.stop for row in read((question + "owl owl owl", ""))[0].windows] == [0]


def test_a_first_text_is_truncated_to_half_of_the_window_or_the_rest():
    room = small.POSITIONS - 3
    for second, kept in ((small.LONG, room - room // 2 + 1), ("owl owl", room - 2), ("", room)):
        with pytest.warns(UserWarning, match="a first text is truncated to half of the window"):
            (document,) = read((small.LONG, second), whole_first=None)
        (whole,) = read((None, small.LONG))
        assert document.opening[1:-1].tolist() == whole.ids[:kept].tolist()
        assert max(window.stop for window in document.windows) == len(document.ids)
    (fitting,) = read(("owl " * 17, "owl"), whole_first=None)
    assert len(fitting.opening) == 19


def test_lone_surrogates_are_replaced_and_offsets_do_not_change():
    text = "an \ud800 owl \udfff"
    assert valid_text(text) == "an \ufffd owl \ufffd"
    (document,) = read((None, text))
    assert text[document.offsets[-1, 0] : document.offsets[-1, 1]] == "owl"


@pytest.mark.parametrize("text", [None, 7, b"owl", ["owl"]])
def test_an_invalid_text_is_an_error(text):
    with pytest.raises(ValueError, match=f"must be a string, got {type(text).__name__}"):
        valid_text(text)
