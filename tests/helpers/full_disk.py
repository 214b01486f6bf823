"""Prepares a corpus on a disk that is full until it is enlarged; prints the error, the files then, and the fingerprint.

A process of its own, which mounts the disk before anything starts threads: afterwards Linux refuses it.
"""

import sys
from pathlib import Path

from small_disk import NO_DISK, REMOUNT, mount_disk

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    disk = folder / "disk"
    disk.mkdir()
    if not mount_disk(disk, "size=150k"):
        sys.exit(NO_DISK)

    from small_stores import small_preparation

    from bert_jax.data.preparation import inputs, settings
    from bert_jax.data.preparation.engines.local import local
    from bert_jax.data.preparation.program import prepare

    settings.MEBI = 1 << 10
    inputs.SMALLEST_COST = 97
    preparation = small_preparation(folder, tuple(sys.argv[2:]), "disk/store")
    try:
        prepare(preparation, local(1), say=lambda _: None)
    except ValueError as error:
        print(error)
    print(*sorted(path.name for path in (disk / "store").iterdir()))
    assert mount_disk(disk, "size=9m", REMOUNT)
    print(prepare(preparation, local(1), say=lambda _: None).content["fingerprint"])
