"""Slices of a file have the documents of the file, wherever it is cut."""

import random
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from bert_jax.data.readers import slices
from bert_jax.data.readers.documents import read_documents
from bert_jax.data.readers.report import ReadReport
from bert_jax.data.readers.slices import FileSlice, RowGroups, can_be_cut, find_borders


def texts_of(origin, document="paragraphs", encoding="utf-8-sig"):
    return [text for _, text in read_documents(origin, "text", encoding, document, ReadReport("a"))]


@pytest.mark.parametrize("document", ["line", "paragraphs"])
@pytest.mark.parametrize("break_", ["\n", "\r\n"])
def test_slices_have_the_documents_of_the_file(tmp_path, monkeypatch, document, break_):
    monkeypatch.setattr(slices, "BLOCK", 7)
    draw = random.Random(document + break_)
    blanks = ["", "", " \t", "\u3000"]
    lines = [draw.choice([*blanks, "an owl \u00e9", "\ufeffb", "%PDF-", "x" * 19, "\u4e2d\u6587"]) for _ in range(211)]
    path = tmp_path / "a.txt"
    path.write_text(break_.join(lines), encoding="utf-8", newline="")
    size = path.stat().st_size
    whole = texts_of(path, document)
    for pieces in (2, 3, 11, 499):
        with path.open("rb") as file:
            borders = find_borders(file, size, pieces, after_blank_lines=document == "paragraphs")
        assert borders[0] == 0
        assert borders[-1] == size
        assert 2 <= len(borders) - 1 <= pieces
        assert [text for ends in pairwise(borders) for text in texts_of(FileSlice(path, *ends), document)] == whole


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
