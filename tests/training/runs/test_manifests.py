"""A checkpoint that was changed after it was written is detected, and the error names the file."""

import json

import pytest

from bert_jax.training.runs.manifests import MANIFEST, Damaged, check_manifest, crc_of_list, write_manifest


@pytest.fixture
def checkpoint(tmp_path):
    for name, content in {
        "state/d/array": b"0123456789",
        "state/empty": b"",
        "data/metadata": b"{}",
        "note": b"x",
    }.items():
        path = tmp_path / "7" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    write_manifest(tmp_path / "7")
    return tmp_path / "7"


def test_an_unchanged_checkpoint_passes(checkpoint):
    (checkpoint / "note").write_text("Orbax still writes beside the manifest afterwards")
    check_manifest(checkpoint)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.write_bytes(b"01234"), "state/d/array has 5 bytes, 10 were written"),
        (lambda path: path.unlink(), "state/d/array is missing"),
        (lambda path: path.write_bytes(b"0123456788"), "the content of state/d/array has changed since it was written"),
        (lambda path: path.unlink() or path.symlink_to("/dev/zero"), "state/d/array is missing"),
    ],
    ids=["truncated", "missing", "flipped", "linked"],
)
def test_a_damaged_file_is_named(checkpoint, harm, message):
    harm(checkpoint / "state/d/array")
    with pytest.raises(Damaged, match=f"7: the checkpoint is damaged: {message}"):
        check_manifest(checkpoint)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"files": 3}', '{"files": {"a": 3}}', '{"files": {"a": [1]}}', '{"files": {"a": [[], {}]}}']
)
def test_a_damaged_manifest_is_named(checkpoint, text):
    (checkpoint / MANIFEST).write_text(text)
    with pytest.raises(Damaged, match=r"manifest\.json cannot be read|a is missing"):
        check_manifest(checkpoint)


def test_a_missing_manifest_is_named(checkpoint):
    (checkpoint / MANIFEST).unlink()
    with pytest.raises(Damaged, match=r"manifest\.json is missing"):
        check_manifest(checkpoint)


def test_a_flipped_bit_in_the_manifest_is_blamed_on_no_other_file(checkpoint):
    written = (checkpoint / MANIFEST).read_bytes()
    messages = []
    for place in range(len(written)):
        flipped = bytearray(written)
        flipped[place] ^= 1 << place % 8
        (checkpoint / MANIFEST).write_bytes(flipped)
        try:
            check_manifest(checkpoint)
        except Damaged as error:
            messages.append(str(error))
    assert len(messages) >= len(written) - len("crc")  # a manifest whose key `crc` is broken is accepted
    assert {line for line in messages if f"damaged: {MANIFEST} " not in line} == set()


def test_a_manifest_without_a_checksum_of_itself_is_accepted(checkpoint):
    """Early versions wrote such manifests."""
    written = json.loads((checkpoint / MANIFEST).read_text())
    del written["crc"]
    (checkpoint / MANIFEST).write_text(json.dumps(written))
    check_manifest(checkpoint)


def test_no_path_that_a_manifest_names_is_opened(checkpoint):
    """It would be read to its end, and /dev/zero has none."""
    written = json.loads((checkpoint / MANIFEST).read_text())
    written["files"]["../../../../../../../../dev/zero"] = [0, 0]
    written["crc"] = crc_of_list(written["files"])
    (checkpoint / MANIFEST).write_text(json.dumps(written))
    with pytest.raises(Damaged, match="zero is missing"):
        check_manifest(checkpoint)
