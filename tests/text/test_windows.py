"""Windows cover all tokens, and the window with the most context owns a token."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bert_jax.text.windows import cover, flatten_windows, owners, slide

LENGTH, ROOM = st.integers(0, 300), st.integers(1, 40)


def check(windows, length, room):
    assert {i for window in windows for i in range(window.start, window.stop)} == set(range(length))
    assert all(window.stop - window.start <= room for window in windows)
    assert all(after.stop > before.stop for before, after in pairwise(windows))
    assert len(windows) >= 1


@given(LENGTH, ROOM, st.integers(0, 50))
def test_windows_cover_all_tokens_and_each_is_needed(length, room, overlap):
    windows = cover(length, room, overlap)
    check(windows, length, room)
    for before, after in pairwise(windows):
        assert before.stop - after.start == min(overlap, room // 2)


@given(LENGTH, ROOM, st.data())
def test_windows_begin_a_step_apart(length, room, data):
    step = data.draw(st.integers(1, room))
    windows = slide(length, room, step)
    check(windows, length, room)
    assert [window.start for window in windows] == [step * number for number in range(len(windows))]


@given(LENGTH, ROOM, st.data())
def test_a_token_belongs_to_the_window_in_which_it_has_the_most_context(length, room, data):
    windows = slide(length, room, data.draw(st.integers(1, room)))
    found = owners(windows)
    assert len(found) == length
    for token, owner in enumerate(found):
        context = [
            min(token - window.start, window.stop - 1 - token) + 0.01 * (window.stop - window.start)
            if window.start <= token < window.stop
            else -1
            for window in windows
        ]
        assert context[owner] == max(context) >= 0
        assert context.index(max(context)) == owner


@given(st.lists(st.integers(0, 40), max_size=4), st.integers(1, 15), st.data())
def test_among_the_windows_of_many_documents_each_token_is_owned_once(lengths, room, data):
    step = data.draw(st.integers(1, room))
    documents = [slide(length, room, step) for length in lengths]
    layout = flatten_windows(documents)
    assert layout.documents.tolist() == [i for i, windows in enumerate(documents) for _ in windows]
    begins = np.cumsum([0, *layout.lengths])
    assert begins[-1] == len(layout.owned)
    first = 0
    for document, windows in enumerate(documents):
        of_document = range(first, first := first + len(windows))
        for number, window in zip(of_document, windows, strict=True):
            assert layout.starts[number] == window.start
            owned = layout.owned[begins[number] : begins[number + 1]]
            owner = owners(windows)[window.start : window.stop] + of_document[0]
            assert owned.tolist() == (owner == number).tolist()
        assert layout.owned[begins[of_document[0]] : begins[first]].sum() == lengths[document]
