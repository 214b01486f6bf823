"""Figures as event files, which TensorBoard shows.

Each row is one write at the end of a file of this process' own: nothing waits in a queue, so a killed run loses no row,
and a disk that is full is met where it can be told. (The usual SummaryWriter then waits for ever, for a thread that has
died of it.)

References: TensorFlow, `event.proto`, `tf_record.h` (length, checksum, bytes, checksum).
"""

import os
import socket
import struct
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any


class EventFile:
    """An event file in `folder`, which takes back what earlier ones say of steps after `after_step`."""

    def __init__(self, folder: Path, *, after_step: int) -> None:
        # Protocol buffers are classes made at run time; where PyTorch is installed, tensorboardX imports it too.
        self.protocol: Any = import_module("tensorboardX.proto.event_pb2")
        self.summaries: Any = import_module("tensorboardX.proto.summary_pb2")
        self.checksum = import_module("tensorboardX.record_writer").masked_crc32c
        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self.file = (folder / name).open("ab", buffering=0)
        self.write(file_version="brain.Event:2")
        self.take_back(after_step)

    def take_back(self, after_step: int) -> None:
        """Makes TensorBoard forget later steps."""
        start = self.protocol.SessionLog(status=self.protocol.SessionLog.START)
        self.write(step=after_step + 1, session_log=start)

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        """Adds scalars."""
        values = [self.summaries.Summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        self.write(step=step, summary=self.summaries.Summary(value=values))

    def write(self, **fields: Any) -> None:
        content = self.protocol.Event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(content))
        check, end = (struct.pack("<I", self.checksum(part)) for part in (length, content))
        self.file.write(length + check + content + end)

    def close(self) -> None:
        self.file.close()
