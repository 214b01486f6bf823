"""A store survives what goes wrong: it is finished later, with the same bytes, or the part and the file are named."""

import gzip
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import failing_parts
import pytest
from small_disk import NO_DISK, no_disk
from small_stores import random_texts, small_parts, small_preparation, write_corpus

from bert_jax.data.preparation import reading
from bert_jax.data.preparation.engines import local as local_module
from bert_jax.data.preparation.engines.local import local
from bert_jax.data.preparation.manifest import begin_store
from bert_jax.data.preparation.parts import prepare_part
from bert_jax.data.preparation.program import prepare
from bert_jax.data.preparation.survey import survey_part
from bert_jax.data.readers.cache import abandoned_folders

HELPERS = Path(failing_parts.__file__).parent


@pytest.fixture(autouse=True)
def parts(monkeypatch):
    small_parts(monkeypatch)


@pytest.fixture
def corpus(tmp_path):
    return (write_corpus(tmp_path / "corpus")[0],)


@pytest.fixture
def whole(tmp_path, corpus):
    """The fingerprint of the store that nothing disturbs."""
    return prepare(small_preparation(tmp_path, corpus, "whole"), local(1), say=quiet).content["fingerprint"]


def quiet(_line: str) -> None:
    pass


def fingerprint(settings, engine=None) -> str:
    return prepare(settings, engine or local(1), say=quiet).content["fingerprint"]


def start(script: str, folder: Path, corpus: tuple[str, ...], **options) -> subprocess.Popen[str]:
    paths = os.pathsep.join([str(HELPERS), str(HELPERS.parents[1])])
    command = [sys.executable, str(HELPERS / script), str(folder), *corpus]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, text=True, **options)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_worker_that_is_killed_is_replaced_and_its_part_done_again(tmp_path, corpus, whole, monkeypatch):
    settings = small_preparation(tmp_path, corpus)
    assert fingerprint(settings, lambda _, *rest: local(2)(failing_parts.dies_once, *rest)) == whole
    assert (tmp_path / "store.died").exists()
    assert not list((tmp_path / "store").glob(".*"))
    monkeypatch.setattr(local_module, "MOST_DEATHS", 1)
    message = rf"worker processes have died 1 times in a row, at parts .*\b{failing_parts.PART}\b.*: memory ran out"
    with pytest.raises(ChildProcessError, match=message):
        prepare(
            small_preparation(tmp_path, corpus, "other"),
            lambda _, *rest: local(2)(failing_parts.dies, *rest),
            say=quiet,
        )


@pytest.mark.skipif(sys.platform != "linux", reason="the processes that are gone are known on Linux")
def test_a_driver_that_is_killed_takes_its_workers_with_it_and_is_started_again(tmp_path, corpus, whole):
    store = tmp_path / "store"
    with start("failing_parts.py", tmp_path, corpus, stdout=subprocess.DEVNULL) as process:
        wait_for(lambda: list(store.glob(f".part-{failing_parts.PART:05d}@*")))
        process.send_signal(signal.SIGKILL)
    wait_for(lambda: len(abandoned_folders(store)) == len(list(store.glob(".*@*"))))
    assert abandoned_folders(store)
    assert fingerprint(small_preparation(tmp_path, ())) == whole
    assert not list(store.glob(".*"))


@pytest.mark.skipif(sys.platform != "linux", reason="the workers of a process are known on Linux")
def test_workers_that_start_end_with_ctrl_c_without_a_traceback(tmp_path, corpus):
    def workers() -> bool:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return any(b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes() for child in children)

    with start("failing_parts.py", tmp_path, corpus, stderr=subprocess.PIPE, start_new_session=True) as process:
        wait_for(workers)
        time.sleep(0.2)  # they import
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate()
    assert errors.count("Traceback") == 1, errors  # of the driver, which is no program
    assert "spawn_main" not in errors


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux mounts a disk for one process")
def test_a_full_disk_leaves_whole_parts_and_is_named(tmp_path, corpus, whole):
    with start("full_disk.py", tmp_path, corpus, stdout=subprocess.PIPE) as process:
        output, _ = process.communicate()
    if process.returncode == NO_DISK:
        no_disk()
    error, files, found = output.splitlines()
    number = sum(name.startswith("part-") for name in files.split())
    assert 0 < number < 9
    assert error == f"part {number}: No space left on device"
    assert "." not in {name[0] for name in files.split()}
    assert found == whole


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def change_a_number(path: Path) -> None:
    path.write_bytes(path.read_bytes().translate(bytes.maketrans(b"12", b"21")))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip, change_a_number, truncate, Path.unlink])
def test_damaged_files_are_found_and_made_again(tmp_path, corpus, damage):
    settings = small_preparation(tmp_path, corpus, drop_duplicates=True)
    before = fingerprint(settings)
    store = tmp_path / "store"
    files = ["part-00001/train/ids.npy", "part-00002/held_out/document_offsets.npy", "part-00003/complete.json"]
    files += ["words/part-00001/hashes.npy", "duplicates/complete.json", "train/sentence_offsets.npy", "store.json"]
    contents = {name: (store / name).read_bytes() for name in files}
    for name in files:
        damage(store / name)
    assert fingerprint(settings) == before
    assert {name: (store / name).read_bytes() for name in files} == contents


def rewrite(path: Path) -> None:
    path.write_text("another text")


@pytest.mark.parametrize("work", [survey_part, prepare_part])
@pytest.mark.parametrize(
    ("happens", "message"),
    [(rewrite, "has changed since the manifest was written"), (Path.unlink, "has vanished since the manifest was wr")],
)
def test_inputs_that_change_or_vanish_are_named_with_the_part(tmp_path, corpus, work, happens, message):
    settings = small_preparation(tmp_path, corpus, drop_duplicates=work is survey_part, skip_unreadable=True)
    manifest = begin_store(settings)
    path = tmp_path / "corpus" / "b.txt"
    happens(path)
    last = len(manifest.parts) - 1
    work(tmp_path / "store", 0)
    with pytest.raises(ValueError, match=rf"^part {last}: {path} {message}"):
        work(tmp_path / "store", last)


def test_an_input_that_changes_while_it_is_read_is_named(tmp_path, corpus, monkeypatch):
    begin_store(small_preparation(tmp_path, corpus))
    path = tmp_path / "corpus" / "a.txt"
    encode = reading.valid_text
    monkeypatch.setattr(reading, "valid_text", lambda text: (os.utime(path, (7, 7)), encode(text))[1])
    with pytest.raises(ValueError, match=rf"^part 0: {path} has changed"):
        prepare_part(tmp_path / "store", 0)
    assert not list((tmp_path / "store").glob("*part*"))


def test_an_input_that_changed_after_the_survey_is_noticed(tmp_path, corpus, monkeypatch):
    settings = small_preparation(tmp_path, corpus, drop_duplicates=True, skip_unreadable=True)
    monkeypatch.setattr(reading, "CUT_AT", 19)
    with pytest.raises(ValueError, match=r"^part 0: \d+ documents, but the survey found \d+: an input has changed"):
        prepare(
            settings,
            lambda work, *rest: (
                (monkeypatch.undo(), small_parts(monkeypatch), local(1)(work, *rest))[2]
                if work is prepare_part
                else local(1)(work, *rest)
            ),
            say=quiet,
        )


@pytest.fixture
def thousands(tmp_path):
    """Two thousand files, three of which are damaged."""
    folder = tmp_path / "files"
    folder.mkdir()
    for number, text in enumerate(random_texts(2_000)):
        (folder / f"{number:04d}.txt").write_text(text)
    (folder / "0007.txt").write_bytes(b"good\n\nnot \xff utf-8")
    (folder / "1000.txt").write_bytes(gzip.compress(b"an owl hoots\n\n" * 99)[:-20])
    (folder / "1999.txt").write_bytes(b"%PDF-1.7")
    return (str(folder / "*.txt"),)


@pytest.mark.parametrize("read_at_once", [1 << 20, 1], ids=["small files", "large files"])
def test_unreadable_files_among_thousands_are_named_or_skipped_and_counted(
    tmp_path, thousands, monkeypatch, read_at_once
):
    monkeypatch.setattr(reading, "READ_AT_ONCE", read_at_once)
    options = {"tokenizer": str(tmp_path / "tokenizer"), "part_size": 128}
    with pytest.raises(ValueError, match=r"^part 0: .*files/0007\.txt:3: not utf-8"):
        prepare(small_preparation(tmp_path, thousands, **options), local(1), say=quiet)
    lines = []
    settings = small_preparation(tmp_path, thousands, "skipped", skip_unreadable=True, **options)
    prepared = prepare(settings, local(1), say=lines.append)
    [source] = prepared.content["sources"]
    assert source["num_unreadable"] == 3
    assert [Path(why.split(":")[0]).name for why in source["unreadable"]] == ["0007.txt", "1000.txt", "1999.txt"]
    assert any("skipped 3 files: " in line and "0007.txt:3: not utf-8" in line for line in lines)
    (folder,) = {Path(name).parent for name in thousands}
    for name in ("0007.txt", "1000.txt", "1999.txt"):
        (folder / name).write_text("")
    without = prepare(small_preparation(tmp_path, thousands, "without", **options), local(1), say=quiet)
    assert without.content["fingerprint"] == prepared.content["fingerprint"]
