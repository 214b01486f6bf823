"""A text is found in another spelling, with exact offsets into the original."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.text.folding import find_folded


@pytest.mark.parametrize(
    ("text", "wanted", "found"),
    [
        ("The DUKES ruled", "dukes", ["DUKES"]),
        ("Die Straße, die STRASSE", "straße", ["Straße", "STRASSE"]),
        ("Die Straße", "STRASSE", ["Straße"]),
        ("ein Fluß", "flus", []),  # ends within ß
        ("ein Fluß", "s", []),
        ("İstanbul, İzmir", "istanbul", ["İstanbul"]),
        ("İstanbul, İzmir", "İZMİR", ["İzmir"]),
        ("IĞDIR", "\u0131ğd\u0131r", ["IĞDIR"]),
        ("ΟΔΥΣΣΕΥΣ", "Οδυσσεύς", []),  # an accent is not case
        ("ΟΔΥΣΣΕΥΣ", "οδυσσευς", ["ΟΔΥΣΣΕΥΣ"]),
        ("the ﬁrst ﬂat", "FIRST F", []),
        ("the ﬁrst ﬂat", "first flat", ["ﬁrst ﬂat"]),
        ("a cafe\u0301 here", "café", ["cafe\u0301"]),
        ("a café here", "CAFE\u0301", ["café"]),
        ("a café here", "cafe", []),
        ("a cafe\u0301 here", "cafe", []),  # ends before the accent
        ("q\u0323\u0307 x", "q\u0307\u0323", ["q\u0323\u0307"]),  # marks in another order
        ("각 가", "가", ["가"]),
        (unicodedata.normalize("NFD", "각 가"), "가", [unicodedata.normalize("NFD", "가")]),
        ("\uff21\uff22\uff23　\uff11\uff12", "abc 12", ["\uff21\uff22\uff23　\uff11\uff12"]),
        ("one\r\n  two", " one\ntwo\n", ["one\r\n  two"]),
        ("one\u00a0two", "one two", ["one\u00a0two"]),
        ("so\u00adft\u200b x", "soft", ["so\u00adft"]),
        ("aaa", "AA", ["aa", "aa"]),
        ("x", "", []),
        ("x y", " ", []),
        ("", "x", []),
    ],
)
def test_offsets_are_those_of_the_original_text(text, wanted, found):
    assert [text[start:end] for start, end in find_folded(text, wanted)] == found


def test_case_is_folded_only_if_asked():
    assert find_folded("The Duke", "the", case=False) == []
    assert find_folded("one\r\nTwo", "one Two", case=False) == [(0, 8)]


PIECES = st.lists(
    st.sampled_from(["a", "É", "e\u0301", "ß", "İ", "ﬃ", " ", "\r\n", "각", "Σ", "\u00ad", "ガ", "\uff11"])
)


@given(PIECES, PIECES, PIECES, st.sampled_from(["NFC", "NFD"]))
def test_every_spelling_of_a_part_is_found_at_its_place(before, part, after, form):
    wanted = "".join(part)
    text = " ".join(["".join(before), wanted, "".join(after)])
    start = len("".join(before)) + 1
    inner = wanted.strip(" \r\n\u00ad")
    for spelling in (wanted, wanted.upper(), wanted.lower(), unicodedata.normalize(form, wanted)):
        found = [
            place for place in find_folded(text, spelling) if start <= place[0] and place[1] <= start + len(wanted)
        ]
        assert any(inner in text[begin:end] for begin, end in found) == bool(inner)
