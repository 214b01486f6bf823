"""A file is complete or absent, and its bytes are on the disk before its name is."""

import errno
import os
from pathlib import Path

import pytest

from bert_jax.files import replaced, sync, write_file


def test_a_file_is_synced_renamed_and_its_name_synced_in_this_order(tmp_path, monkeypatch):
    calls = []
    replace = Path.replace
    monkeypatch.setattr(os, "fsync", lambda opened: calls.append(os.readlink(f"/proc/self/fd/{opened}")))
    monkeypatch.setattr(Path, "replace", lambda *names: calls.append("renamed") or replace(*names))
    write_file(tmp_path / "a.json", "é")
    assert calls == [f"{tmp_path}/.a.json.part", "renamed", str(tmp_path)]
    assert (tmp_path / "a.json").read_bytes() == "é".encode()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), ValueError("not JSON")])
def test_a_file_that_cannot_be_written_leaves_the_old_one_and_no_part(tmp_path, error):
    write_file(tmp_path / "a.json", b"old")

    def fail():
        with replaced(tmp_path / "a.json") as part:
            part.write_text("ne")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"


@pytest.mark.parametrize(("number", "passes"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)])
def test_file_systems_that_cannot_sync_folders_are_used(tmp_path, monkeypatch, number, passes):
    def fail(opened):
        raise OSError(number, "fsync")

    monkeypatch.setattr(os, "fsync", fail)
    if passes:
        sync(tmp_path)
    else:
        with pytest.raises(OSError, match="fsync"):
            sync(tmp_path)
