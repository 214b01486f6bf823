"""Slices of a file have the documents of the file, wherever it is cut."""

from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pyarrow import parquet

from bert_jax.data.readers import slices
from bert_jax.data.readers.documents import read_documents
from bert_jax.data.readers.report import ReadReport
from bert_jax.data.readers.slices import FileSlice, RowGroups, can_be_cut, find_borders


def texts_of(origin, document="paragraphs", encoding="utf-8-sig", cut_at=None):
    return [text for _, text in read_documents(origin, "text", encoding, document, ReadReport("a"), cut_at)]


BREAKS = ["\n", "\n\n", "\r\n", "\r\n\r\n", "\r", "\n \t\n", "\n\u3000\n", "\x0b", "\x0c", "\x85", "\u2028"]
WORDS = [
    "a",
    "an owl",
    " ",
    "\u00e9",
    "\u4e2d\u6587",
    "\U0001f989",
    "\ufeff",
    "%PDF-",
    "BZh91AY&SY",
    "PK\x03\x04",
    "\0",
]


@pytest.mark.parametrize("document", ["line", "paragraphs"])
@given(data=st.data())
def test_slices_have_the_documents_of_the_file(tmp_path_factory, document, data):
    """For every break of lines and paragraphs, with and without a byte order mark and a break at the end."""
    content = "".join(data.draw(st.lists(st.sampled_from(WORDS + BREAKS), max_size=31))).encode()
    cut_at = data.draw(st.sampled_from([None, 3]))
    path = tmp_path_factory.getbasetemp() / "slices.txt"
    path.write_bytes(content)
    try:
        whole = texts_of(path, document, cut_at=cut_at)
    except ValueError:  # it begins like an archive
        assume(False)
    with pytest.MonkeyPatch.context() as monkeypatch, path.open("rb") as file:
        monkeypatch.setattr(slices, "BLOCK", data.draw(st.integers(1, 7)))
        pieces = data.draw(st.integers(1, 11))
        borders = find_borders(file, len(content), pieces, after_blank_lines=document == "paragraphs")
        ends = list(pairwise(borders))
        assert [text for end in ends for text in texts_of(FileSlice(path, *end), document, cut_at=cut_at)] == whole
    assert borders[0] == 0
    assert borders[-1] == len(content)
    assert len(ends) <= pieces


def test_a_text_without_borders_stays_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 1009)
    with path.open("rb") as file:
        assert find_borders(file, 1009, 5, after_blank_lines=False) == [0, 1009]
    assert [can_be_cut(name) for name in ("utf-8-sig", "shift_jis", "utf-16", "iso2022_jp", "utf-7")] == [
        True, True, False, False, False,
    ]  # fmt: skip


def test_errors_name_the_file_and_the_slice(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"good\n\nb\xffd\n")
    with pytest.raises(ValueError, match=r"a\.txt\[bytes 6-10\]:1: not utf-8"):
        texts_of(FileSlice(path, 6, 10))


def test_row_groups_of_a_parquet_file_are_read_like_files(tmp_path):
    path = Path(tmp_path / "a.parquet")
    parquet.write_table(pa.table({"text": [f"text {number}" for number in range(23)]}), path, row_group_size=5)
    assert texts_of(RowGroups(path, 1, 3)) == [f"text {number}" for number in range(5, 15)]
