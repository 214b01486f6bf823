"""Files on other machines are read like local ones, also if connections break, and every refusal is one line."""

import gzip
import http.server
import io
import json
import threading
from importlib.util import find_spec

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem
from pyarrow import parquet

from bert_jax.data.readers import corpus, remote
from bert_jax.data.readers.corpus import corpus_fingerprint, read_corpus
from bert_jax.data.readers.files import format_of, open_text
from bert_jax.data.readers.remote import RemoteFile, find_remote
from bert_jax.data.readers.report import ReadReport
from bert_jax.data.readers.sources import find_files
from bert_jax.data.readers.texts import read_texts
from bert_jax.doctor.data import examine_data

TEXTS = ["The owl hooted.\nTwice.", "Ünï çödé 北京", "A mole."]
LINES = "".join(f"line {number} is {number * 7919 % 1009}\n" for number in range(40_000))


def as_parquet(texts: list[str], **options) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(pa.table({"label": range(len(texts)), "text": texts}), sink, **options)
    return sink.getvalue()


FILES = {
    "a.txt": "\n\n".join(TEXTS).encode(),
    "b.txt.gz": gzip.compress("\n\n".join(TEXTS).encode()),
    "c.jsonl": "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode(),
    "d.csv.gz": gzip.compress('text\n"The owl hooted.\nTwice."\nÜnï çödé 北京\nA mole.\n'.encode()),
    "e.parquet": as_parquet(TEXTS),
}


class Shaky(AbstractFileSystem):
    """Files in memory whose server breaks connections: after `whole` bytes of each request, `failures` times."""

    protocol = "shaky"
    cachable = False
    files: dict[str, bytes]
    failures = 0
    whole = 0
    error: Exception = ConnectionResetError("reset by peer")
    requests: list[tuple[int, int]]

    def info(self, path, **_):
        name = self._strip_protocol(path)
        if name not in self.files:
            raise FileNotFoundError(name)
        return {"name": name, "type": "file", "size": len(self.files[name]), "ETag": f"{hash(self.files[name])}"}

    def ls(self, path, detail=True, **_):
        infos = [self.info(name) for name in sorted(self.files)]
        return infos if detail else [info["name"] for info in infos]

    def _open(self, path, mode="rb", **options):
        return ShakyFile(self, path, mode, **options)


class ShakyFile(AbstractBufferedFile):
    def _fetch_range(self, start, end):
        Shaky.requests.append((start, end))
        if Shaky.failures > 0 and end > Shaky.whole:
            Shaky.failures -= 1
            raise Shaky.error
        return Shaky.files[self.path][start:end]


@pytest.fixture
def shaky(monkeypatch):
    """The class of a filesystem whose files, failures and requests a test may set."""
    monkeypatch.setattr(remote, "WAITS", (0.0, 0.0))
    for name, value in {"files": {}, "failures": 0, "whole": 0, "requests": []}.items():
        monkeypatch.setattr(Shaky, name, value, raising=False)
    monkeypatch.setattr(Shaky, "error", Shaky.error)
    fsspec.register_implementation("shaky", Shaky, clobber=True)
    return Shaky


@pytest.fixture
def memory():
    """A function that writes a file to fsspec's filesystem in memory."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    filesystem = fsspec.filesystem("memory")
    yield filesystem.pipe_file
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def test_every_format_of_a_url_gives_the_documents_of_the_file(memory, tmp_path):
    for name, content in FILES.items():
        memory(f"/corpus/{name}", content)
        documents = read_corpus([f"memory://corpus/{name}"], cache_dir=tmp_path)
        assert documents["text"][:] == TEXTS, name


def test_patterns_of_urls_mix_with_files_in_the_order_of_their_names(memory, tmp_path):
    memory("/corpus/b.txt", b"b1\n\nb2")
    memory("/corpus/deep/a.txt", b"a")
    memory("/corpus/no.csv", b"x")
    memory("/corpus/c[1].txt", b"c")
    local = tmp_path / "z.txt"
    local.write_text("z")
    names = [str(local), "memory://corpus/**/*.txt", "memory://corpus/b.txt"]
    assert read_corpus(names, cache_dir=tmp_path / "cache")["text"][:] == ["z", "b1", "b2", "c", "a"]
    assert [str(file) for file in find_files("memory://corpus/c[1].txt")] == ["memory:///corpus/c[1].txt"]


def test_a_file_url_is_the_local_path(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    assert find_files(f"file://{tmp_path}/a.txt") == find_files(f"file://{tmp_path}/*.txt") == [tmp_path / "a.txt"]


def test_a_remote_corpus_is_cached_until_a_file_changes(memory, tmp_path, monkeypatch):
    memory("/corpus/a.txt", b"one\n\ntwo")
    source = ["memory://corpus/*.txt"]
    assert read_corpus(source, cache_dir=tmp_path)["text"][:] == ["one", "two"]
    with monkeypatch.context() as patch:
        patch.setattr(corpus, "read_documents", lambda *_: pytest.fail("read again"))
        assert read_corpus(source, cache_dir=tmp_path)["text"][:] == ["one", "two"]
    memory("/corpus/a.txt", b"one\n\nsix")
    assert read_corpus(source, cache_dir=tmp_path)["text"][:] == ["one", "six"]


def test_the_fingerprint_depends_on_url_size_and_version():
    def fingerprint(url="s3://bucket/a.txt", size=7, version="ETag x"):
        return corpus_fingerprint([RemoteFile(url, size, version, None, "")], "text", "utf-8")

    keys = [fingerprint(), fingerprint(url="s3://bucket/b.txt"), fingerprint(size=8), fingerprint(version="ETag y")]
    assert len({*keys, fingerprint(version=None)}) == 5
    assert fingerprint() == keys[0]


def test_a_file_without_a_version_is_mentioned(memory, tmp_path, monkeypatch):
    memory("/corpus/a.txt", b"one\n\ntwo")
    monkeypatch.setattr(remote, "VERSIONS", ())
    report = ReadReport("corpus", unit="documents")
    read_corpus(["memory://corpus/a.txt"], cache_dir=tmp_path, report=report)
    assert report.lines() == [
        "corpus: remote files without ETag or date, whose changes go unnoticed: 1 (first: memory:///corpus/a.txt)"
    ]


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_broken_connection_continues_where_it_broke(shaky, compress):
    shaky.files["a.txt"] = compress(LINES.encode())
    [file] = find_remote("shaky://a.txt")
    with open_text(file, "utf-8") as opened:
        assert opened.readline() == "line 0 is 0\n"
        first = len(shaky.requests)
        shaky.failures = 2
        assert opened.read() == LINES.removeprefix("line 0 is 0\n")
    assert len(shaky.requests) >= first + 3
    assert shaky.requests[first] == shaky.requests[first + 1] == shaky.requests[first + 2]  # the same block
    assert shaky.requests[first][0] == remote.FIRST_BLOCK


def test_blocks_grow_so_that_a_long_file_takes_few_requests(shaky):
    shaky.files["a.bin"] = bytes(range(256)) * (1 << 14)  # 4 MiB
    [file] = find_remote("shaky://a.bin")
    with file.open() as opened:
        assert opened.read(7) == bytes(range(7))
        assert [end - start for start, end in shaky.requests] == [remote.FIRST_BLOCK]
        assert opened.read() == shaky.files["a.bin"][7:]
    assert len(shaky.requests) < 10
    assert max(end - start for start, end in shaky.requests) <= remote.LARGEST_BLOCK


def test_a_remote_file_can_be_read_in_any_order(shaky):
    shaky.files["a.bin"] = bytes(number * 31 % 251 for number in range(300_007))
    [file] = find_remote("shaky://a.bin")
    with file.open() as opened:
        for start, count in ((299_990, 40), (0, 3), (200_000, 99_999), (65_535, 2), (300_007, 1), (131, 70_000)):
            opened.seek(start)
            assert opened.read(count) == shaky.files["a.bin"][start : start + count]
            assert opened.tell() == min(start + count, 300_007)
        assert opened.seek(-7, io.SEEK_END) == 300_000


def test_of_parquet_only_the_column_of_the_text_is_read(shaky, tmp_path):
    texts = [f"owl {number}" for number in range(1000)]
    table = pa.table({"waste": [f"{number * 7919:x}" * 100 for number in range(1000)], "text": texts})
    sink = io.BytesIO()
    parquet.write_table(table, sink, compression="none", use_dictionary=False)
    shaky.files["a.parquet"] = sink.getvalue()
    assert read_corpus(["shaky://a.parquet"], cache_dir=tmp_path)["text"][:] == texts
    assert sum(end - start for start, end in shaky.requests) < len(sink.getvalue())


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.txt.zst"])
def test_a_connection_that_stays_broken_is_named_with_its_byte_and_leaves_no_cache(shaky, tmp_path, name):
    texts = [f"{number * 7919 % 104_729:x} owl" for number in range(100_000)]
    content = "\n\n".join(texts).encode()
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    contents = {"a.txt": content, "a.txt.gz": gzip.compress(content, 1), "a.txt.zst": sink.getvalue().to_pybytes()}
    shaky.files[name] = contents[name]
    size = len(shaky.files[name])
    shaky.failures = 10**9
    shaky.whole = 150_000
    with pytest.raises(ConnectionError) as caught:
        read_corpus([f"shaky://{name}"], cache_dir=tmp_path / "cache")
    assert str(caught.value) == (
        f"shaky://{name}: the connection broke at byte {remote.FIRST_BLOCK:,} of {size:,}, and again when it was tried "
        "2 more times (reset by peer)"
    )
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_parquet_file_that_does_not_arrive_is_named(shaky, tmp_path):
    shaky.files["a.parquet"] = as_parquet(TEXTS)
    shaky.failures = 10**9
    with pytest.raises(
        ConnectionError, match=r"^shaky://a\.parquet: the connection broke at byte [\d,]+ of [\d,]+, and"
    ):
        read_corpus(["shaky://a.parquet"], cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (PermissionError("Access Denied"), PermissionError, "shaky://a.txt: no access (Access Denied)"),
        (FileNotFoundError("a.txt"), FileNotFoundError, "no such file: shaky://a.txt"),
    ],
)
def test_a_refusal_is_not_tried_again(shaky, error, expected, message):
    shaky.files["a.txt"] = LINES.encode()
    shaky.failures = 10**9
    shaky.error = error
    [file] = find_remote("shaky://a.txt")
    with pytest.raises(expected) as caught, open_text(file, "utf-8") as opened:
        opened.read()
    assert str(caught.value) == message
    assert len(shaky.requests) == 1


def test_a_cut_off_or_undecodable_remote_file_is_named_with_its_line(memory, tmp_path):
    memory("/a.txt.gz", gzip.compress(LINES.encode())[:-9])
    with pytest.raises(
        ValueError, match=r"memory:///a\.txt\.gz:\d+: the gzip data are damaged or cut off at or before by"
    ):
        read_corpus(["memory://a.txt.gz"], cache_dir=tmp_path)
    memory("/b.txt", b"one\n\nt\xffwo")
    with pytest.raises(ValueError, match=r"^memory:///b\.txt:3: not utf-8; set `encoding`$"):
        read_corpus(["memory://b.txt"], cache_dir=tmp_path)
    memory("/c.csv", b"body\nx\n")
    with pytest.raises(ValueError, match=r"^memory:///c\.csv: no column 'text' among body$"):
        read_corpus(["memory://c.csv"], cache_dir=tmp_path)
    memory("/d.parquet.gz", gzip.compress(b"PAR1"))
    with pytest.raises(
        ValueError, match=r"memory:///d\.parquet\.gz: not a parquet file \(compressed by gzip; decompress"
    ):
        read_corpus(["memory://d.parquet.gz"], cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("memory://none/a.txt", FileNotFoundError, "no such file: memory://none/a.txt"),
        ("memory://none/*.txt", FileNotFoundError, "no file matches memory://none/*.txt"),
        ("memory://full/", IsADirectoryError, "memory://full/ is a folder; name its files, as in memory://full/*.txt"),
        ("s4://bucket/a.txt", ValueError, "s4://bucket/a.txt: no filesystem for the scheme s4"),
        ("file:///absent/a.txt", FileNotFoundError, "no such file: /absent/a.txt"),
    ],
)
def test_what_cannot_be_found_is_one_line(memory, url, error, message):
    memory("/full/a.txt", b"x")
    with pytest.raises(error) as caught:
        find_files(url)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("url", "package"),
    [("s3://bucket/*.txt", "s3fs"), ("gs://bucket/a.txt", "gcsfs"), ("https://host/a.txt", "aiohttp")],
)
def test_a_missing_package_is_named_with_the_extra(url, package):
    if find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(ModuleNotFoundError) as caught:
        find_files(url)
    assert str(caught.value) == f'{url}: {package} is not installed: run pip install "bert_jax[remote]"'


def test_the_format_of_a_web_address_is_that_of_its_path(monkeypatch):
    for url, web, expected in (
        ("https://host/a.csv.gz?download=b.txt", True, ".csv"),
        ("https://host/a.parquet#top", True, ".parquet"),
        ("s3://bucket/what?.jsonl", False, ".jsonl"),
        ("simplecache::s3://bucket.de/a.tsv", False, ".tsv"),
    ):
        monkeypatch.setattr(RemoteFile, "is_web", web)
        assert format_of(RemoteFile(url, 1, None, None, "")) == expected


def test_the_readers_of_tables_and_the_doctor_read_urls_too(memory):
    memory("/a.csv", b"text,label\nThe owl hooted.,bird\nA mole.,mammal\n")
    examples, _ = read_texts("memory://a.csv")
    assert [(example.text, example.label, example.where) for example in examples] == [
        ("The owl hooted.", "bird", "memory:///a.csv:2"),
        ("A mole.", "mammal", "memory:///a.csv:3"),
    ]
    memory("/b.txt.gz", FILES["b.txt.gz"])
    found = [finding.text for finding in examine_data("memory://b.txt.gz")]
    assert found[:2] == ["memory://b.txt.gz is read as a corpus", "3 documents"]


# Web servers


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `files`; with or without ranges and sizes; breaks off the first `failures` answers in the middle."""

    files: dict[str, bytes]
    ranges = True
    sizes = True
    failures = 0

    def do_HEAD(self):
        self.send(body=False)

    def do_GET(self):
        self.send(body=True)

    def send(self, body: bool) -> None:
        path = self.path.partition("?")[0]
        if path == "/secret.txt":
            return self.send_error(403)
        if path == "/":
            content = "".join(f'<a href="{name}">{name}</a>' for name in self.files).encode()
        elif path[1:] in self.files:
            content = self.files[path[1:]]
        else:
            return self.send_error(404)
        whole = len(content)
        wanted = self.headers.get("Range") if self.ranges else None
        if wanted:
            start, _, end = wanted.removeprefix("bytes=").partition("-")
            content = content[int(start) : int(end) + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{int(start) + len(content) - 1}/{whole}")
        else:
            self.send_response(200)
        if self.sizes:
            self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hash(content)}"')
        self.end_headers()
        if body and type(self).failures > 0 and len(content) > 1000:
            type(self).failures -= 1
            content = content[: len(content) // 2]
            self.close_connection = True
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def web(monkeypatch):
    """The class and the address of a web server on this machine."""
    pytest.importorskip("aiohttp", reason="aiohttp is not installed: the extra remote")
    monkeypatch.setattr(remote, "WAITS", (0.0, 0.0, 0.0))
    kind = type("ServerOfTest", (Server,), {"files": dict(FILES)})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield kind, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("ranges", "sizes"), [(True, True), (False, True), (False, False)])
def test_every_format_is_read_from_a_web_server(web, tmp_path, ranges, sizes):
    kind, address = web
    kind.ranges = ranges
    kind.sizes = sizes
    for name in FILES:
        if name.endswith("parquet") and not ranges:
            continue
        documents = read_corpus([f"{address}/{name}?version=7"], cache_dir=tmp_path)
        assert documents["text"][:] == TEXTS, name


@pytest.mark.parametrize(("ranges", "sizes"), [(True, True), (False, True)])
def test_a_connection_to_a_web_server_that_breaks_is_continued(web, ranges, sizes):
    kind, address = web
    kind.ranges = ranges
    kind.sizes = sizes
    kind.files["lines.txt"] = LINES.encode()
    [file] = find_remote(f"{address}/lines.txt")
    kind.failures = 2
    with open_text(file, "utf-8") as opened:
        assert opened.read() == LINES
    assert kind.failures == 0


def test_the_links_of_a_page_match_a_pattern(web, tmp_path):
    _, address = web
    assert [str(file) for file in find_files(f"{address}/*.gz")] == [f"{address}/b.txt.gz", f"{address}/d.csv.gz"]
    assert read_corpus([f"{address}/*.gz"], cache_dir=tmp_path)["text"][:] == TEXTS * 2


def test_the_refusals_of_a_web_server_are_one_line(web):
    _, address = web
    for path, error, message in (
        ("absent.txt", FileNotFoundError, f"no such file: {address}/absent.txt"),
        ("secret.txt", PermissionError, f"{address}/secret.txt: no access (403"),
        ("*.pdf", FileNotFoundError, f"no file matches {address}/*.pdf"),
    ):
        with pytest.raises(error) as caught:
            find_files(f"{address}/{path}")
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConnectionError, match=r"^http://127\.0\.0\.1:9/a\.txt: cannot be reached \(Cannot connect"):
        find_files("http://127.0.0.1:9/a.txt")
