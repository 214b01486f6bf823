"""TensorBoard event files, written synchronously.

Each row is one unbuffered write at the end of a file that belongs to this process: a killed run loses no row, and a
full disk is an error where the row is written. That is why tensorboardX gives only the protocol buffers and the
checksum here: its SummaryWriter queues rows for a thread and hangs after that thread dies of a full disk, and its
EventsWriter buffers rows and names files by the second, so that a run resumed at once overwrites its own file.

References: TensorFlow, `event.proto`, `tf_record.h` (length, checksum, bytes, checksum).
"""

import os
import socket
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from bert_jax.training.runs.metrics import tags


class EventFile:
    """An event file in `folder`; TensorBoard ignores what earlier files say of steps after `after_step`."""

    def __init__(self, folder: Path, *, after_step: int) -> None:
        # The classes of protocol buffers are made at run time.
        with _without_pytorch():
            self.protocol: Any = import_module("tensorboardX.proto.event_pb2")
            self.summaries: Any = import_module("tensorboardX.proto.summary_pb2")
            self.checksum = import_module("tensorboardX.record_writer").masked_crc32c
        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self.file = (folder / name).open("ab", buffering=0)
        self._write_event(file_version="brain.Event:2")
        self.cut(after_step)

    def cut(self, after_step: int) -> None:
        """Makes TensorBoard ignore later steps that were written before."""
        start = self.protocol.SessionLog(status=self.protocol.SessionLog.START)
        self._write_event(step=after_step + 1, session_log=start)

    def write(self, *rows: Mapping[str, Any]) -> None:
        """Writes the metrics of each row as scalars, see `tags`."""
        for row in rows:
            values = [self.summaries.Summary.Value(tag=tag, simple_value=value) for tag, value in tags(row).items()]
            self._write_event(step=row["step"], summary=self.summaries.Summary(value=values))

    def sync(self) -> None:
        """Does nothing: metrics.jsonl holds the same rows, and is synced."""

    def close(self) -> None:
        self.file.close()

    def _write_event(self, **fields: Any) -> None:
        content = self.protocol.Event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(content))
        length_check = struct.pack("<I", self.checksum(length))
        content_check = struct.pack("<I", self.checksum(content))
        self.file.write(length + length_check + content + content_check)


@contextmanager
def _without_pytorch() -> Iterator[None]:
    """Makes `import torch` an ImportError in the block, unless PyTorch is imported already.

    tensorboardX imports it if it is installed, and survives an ImportError only: a broken PyTorch raises other errors.
    """
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        del sys.modules["torch"]
