"""Text files are read whether they are compressed or not, with the same line numbers."""

import bz2
import gzip
import json
import lzma
import re
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from bert_jax.data.readers.corpus import read_corpus
from bert_jax.data.readers.files import format_of, open_text
from bert_jax.data.readers.tables import read_rows
from bert_jax.data.readers.texts import read_texts

LINES = "".join(f"line {number} is für {number * 7919 % 1009}\n" for number in range(1, 3000))


def compress_by_arrow(codec: str, data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


COMPRESSIONS = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: compress_by_arrow("zstd", data),
    "lz4": lambda data: compress_by_arrow("lz4", data),
}


def read_all(path) -> str:
    with open_text(path, "utf-8") as file:
        return file.read()


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_compressed_text_is_recognised_by_its_content(tmp_path, compression):
    data = COMPRESSIONS[compression](LINES.encode())
    path = tmp_path / "lines.txt"  # no suffix names the compression
    path.write_bytes(data)
    assert read_all(path) == LINES
    path.write_bytes(data + data)  # as `cat a.gz b.gz` and parallel compressors write it
    assert read_all(path) == LINES * 2


def test_a_suffix_of_a_compression_does_not_make_a_text_compressed(tmp_path):
    path = tmp_path / "lines.txt.gz"
    path.write_text("BZh is how this line begins\n")
    assert read_all(path) == "BZh is how this line begins\n"


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_cut_off_data_are_an_error_with_the_line(tmp_path, compression):
    data = COMPRESSIONS[compression](LINES.encode())
    path = tmp_path / "lines.txt"
    for length in (len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(
            ValueError, match=rf"lines\.txt:\d+: the {compression} data are damaged or cut off"
        ) as caught:
            read_all(path)
        assert re.search(rf"at or before byte {length:,} \(.+\)$", str(caught.value))


def test_the_line_of_damage_is_after_the_last_line_that_was_read(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes(gzip.compress(b"one\ntwo\n") + b"garbage")
    with pytest.raises(ValueError, match=r"lines\.txt:3: the gzip data are damaged"):
        read_all(path)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_corpus_of_every_text_format_is_read_in_every_compression(tmp_path, compression):
    texts = ["Ünï\nçödé", "two"]
    contents = {
        "a.txt": "\n\n".join(texts),
        "a.csv": 'text,label\n"Ünï\nçödé",1\ntwo,2\n',
        "a.tsv": "label\ttext\n1\tone\n2\ttwo\n",
        "a.jsonl": "".join(json.dumps({"text": text}) + "\n" for text in texts),
        "a.ndjson": "".join(json.dumps({"text": text}) + "\n" for text in texts),
        "a.json": json.dumps([{"text": text} for text in texts]),
    }
    names = []
    for name, content in contents.items():
        names.append(str(tmp_path / f"{name}.gz"))  # whatever compression it is
        Path(names[-1]).write_bytes(COMPRESSIONS[compression](content.encode()))
    documents = read_corpus(names, cache_dir=tmp_path / "cache")
    assert documents["text"][:] == [*texts * 2, "one", "two", *texts * 3]


@pytest.mark.parametrize("compression", ["snappy", "gzip", "zstd", "lz4", "brotli"])
def test_parquet_is_read_in_its_own_compressions(tmp_path, compression):
    texts = [f"owl {number}" for number in range(101)]
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"text": texts}), path, compression=compression, row_group_size=37)
    assert read_corpus([str(path)], cache_dir=tmp_path / "cache")["text"][:] == texts


def test_the_byte_of_damage_is_one_of_the_compressed_file(tmp_path):
    data = bytearray(gzip.compress("\n".join(str(number * 7919) for number in range(300_000)).encode()))
    data[len(data) // 2] ^= 255
    path = tmp_path / "lines.txt.gz"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"lines\.txt\.gz:\d+: the gzip data are damaged") as caught:
        read_all(path)
    byte = int(re.search(r"before byte ([\d,]+) ", str(caught.value))[1].replace(",", ""))
    assert len(data) // 2 < byte <= len(data)


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv", "a.CSV.XZ", "a.tsv.gz", "a.jsonl.gz", "a.json.gz"])
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_compressed_tables_give_the_same_rows(tmp_path, name, compression):
    path = tmp_path / name
    content = {
        ".csv": '\ufefftext,label\r\n"ä\r\nb",x\r\nc,y\r\n',
        ".tsv": "\ufefftext\tlabel\nä\tx\nc\ty\n",
        ".jsonl": '{"text": "ä", "label": "x"}\n\n{"text": "c", "label": "y"}\n',
        ".json": '\n [{"text": "ä", "label": "x"},\n{"text": "c", "label": "y"}]',
    }[format_of(path)]
    path.write_bytes(content.encode())
    expected = list(read_rows(path))
    assert [row["label"] for _, row in expected] == ["x", "y"]
    path.write_bytes(COMPRESSIONS[compression](content.encode()))
    assert list(read_rows(path)) == expected


def test_wrong_bytes_in_a_compressed_file_have_the_line_number(tmp_path):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"text,label\na,x\n\xff,y\n"))
    with pytest.raises(ValueError, match=r"a\.csv\.gz:3: not utf-8; set `encoding`"):
        read_texts(str(path))


@pytest.mark.parametrize(
    ("head", "meaning"),
    [
        (b"PK\x03\x04", "a zip archive"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (b"\x1f\x9d\x90", "compressed by `compress`"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"PAR1", r"a parquet file; its name must end in \.parquet"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"\0" * 257 + b"ustar", "a tar archive"),
    ],
)
def test_a_file_that_is_no_text_is_refused_by_name(tmp_path, head, meaning):
    path = tmp_path / "a.csv"
    for data in (head + bytes(300), gzip.compress(head + bytes(300))):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=rf"a\.csv: {meaning}"):
            list(read_rows(path))


def test_a_compressed_parquet_file_is_refused_by_name(tmp_path):
    path = tmp_path / "a.parquet.gz"
    path.write_bytes(gzip.compress(b"PAR1"))
    with pytest.raises(ValueError, match=r"not a parquet file \(compressed by gzip; decompress it"):
        list(read_rows(path))
