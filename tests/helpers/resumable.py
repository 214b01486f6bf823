"""Runs in separate processes, which start within a second and can be killed.

Importing JAX and Orbax takes seconds: multiprocessing's fork server does it once, and each run is forked from it.
"""

import gc
import json
import os
import runpy
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from multiprocessing import forkserver, get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tqdm  # noqa: F401 (imported where it is used, which is after the fork)
from compiling import xla_flags
from small_disk import NO_DISK, mount_disk

import bert_jax.pretraining.program  # noqa: F401 (imported by train.py when it runs, which is after the fork)
import train as script
from bert_jax.data.prefetch import Batches
from bert_jax.training.devices import processes
from bert_jax.training.loop import Cadence, Session, train
from bert_jax.training.runs.checkpoints import Checkpoints, as_arrays
from bert_jax.training.runs.interruption import Interruption, receive_signals, second_interrupt_exits
from bert_jax.training.runs.manifests import CHECKPOINTS, check_manifest
from bert_jax.training.runs.reporting import Reporter
from bert_jax.training.runs.saved_steps import newest_whole_step
from bert_jax.training.state import TrainState
from bert_jax.training.steps import train_step

CONTEXT = get_context("forkserver")
STEPS = 150
WIDE = 200_000  # parameters, so that a save takes as long as several steps
FIT: Any = SimpleNamespace(
    loss_and_metrics=lambda params, batch, key: {
        "loss": (
            jnp.square(params["w"][: batch["input_ids"].size] - batch["input_ids"].ravel()).sum(),
            jnp.float32(batch["input_ids"].size),
        )
    },
    losses={"loss": "input_ids"},
)


def start(target, *arguments, devices: int = 1, log: Path | None = None):
    """Starts `target(*arguments)` in a process with a number of CPU devices; its output goes to `log`."""
    here = Path(__file__).parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(here), str(here.parents[1])]))
        patch.setenv("PYTHONWARNINGS", "ignore")  # JAX warns of forks, but the server has run nothing of it
        CONTEXT.set_forkserver_preload(["resumable", "loaded_before_forks"])
        forkserver.ensure_running()
    process = CONTEXT.Process(target=begin, args=(target, arguments, devices, log))
    process.start()
    return process


def begin(target, arguments, devices: int, log: Path | None) -> None:
    gc.freeze()  # no collection goes through all modules
    gc.set_threshold(20_000)
    os.environ["XLA_FLAGS"] = xla_flags(devices)
    if log is not None:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
    target(*arguments)


def batch(number: int) -> dict[str, np.ndarray]:
    return {
        "input_ids": np.random.default_rng(number).normal(size=(4, 7)).astype(np.float32),
        "attention_mask": np.ones((4, 7)),
    }


def fit(run: Path, pause: float = 0.0, steps: int = STEPS, num_workers: int = 0) -> None:
    """Fits parameters to noise: like a run of train.py, without text and model."""
    optimizer = optax.adam(0.1)

    @jax.jit
    def create(key):
        return TrainState.create({"w": jax.random.normal(key, (WIDE,))}, optimizer, key=key)

    def device_put(rows):
        time.sleep(pause)
        return jax.device_put(rows)

    def evaluate(state: TrainState) -> dict[str, float]:
        return {"eval_loss": float(jnp.square(state.params["w"]).sum())}

    newest_whole_step(run / CHECKPOINTS)
    run.mkdir(exist_ok=True)
    with Checkpoints(run / CHECKPOINTS, keep=2, keep_best=1) as checkpoints:
        state, position = create(jax.random.key(3)), {"row": 0}
        if checkpoints.latest is not None:
            state, position = checkpoints.restore(state)
        first = position["row"]
        reporter = Reporter(
            run, first_step=int(state.step), last_step=steps, panels=(("", "loss"),), headline=(), quiet=True
        )
        batches = Batches(
            lambda number: batch(first + number),
            position=lambda given: {"row": first + given},
            num_workers=num_workers,
        )
        with batches, reporter, Interruption(["SIGUSR1"]) as interruption:
            state = train(
                state,
                batches,
                step=jax.jit(partial(train_step, objective=FIT, optimizer=optimizer), donate_argnums=0),
                device_put=device_put,
                evaluate=evaluate,
                steps=steps,
                session=Session(
                    checkpoints, reporter, Cadence(log=1, evaluate=7, checkpoint=3), interruption=interruption
                ),
                score=lambda metrics: float(metrics["eval_loss"]),
            )
    np.savez(run / "end.npz", *map(np.asarray, jax.tree.leaves(as_arrays(state))))


def fit_as_a_program(run: Path, pause: float) -> None:
    """A run whose process ends at once at the second Ctrl-C."""
    with second_interrupt_exits():
        fit(run, pause)


def fit_in_a_group(run: Path, pause: float) -> None:
    """A run with two workers that make its batches, the three processes in a separate group."""
    os.setsid()
    fit(run, pause, num_workers=2)


def alive_in(group: int) -> list[int]:
    """Returns the processes of a group that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # the process ended meanwhile
            state, _, its_group, *_ = path.read_text().rpartition(")")[2].split()
            if state != "Z" and int(its_group) == group:
                found.append(int(path.parent.name))
    return found


def pretrain(compiled: Path, *flags: str) -> None:
    """train.py, as on the command line; compiled programs are kept for the next run."""
    run_program(script.__file__, compiled, flags)


def finetune(compiled: Path, *flags: str) -> None:
    """finetune.py, as `pretrain` runs train.py."""
    run_program(str(Path(script.__file__).with_name("finetune.py")), compiled, flags)


def run_program(path: str, compiled: Path, flags: Sequence[str]) -> None:
    """Runs a program; one of several processes waits for the others at its end, as at the exit of an interpreter."""
    jax.config.update("jax_compilation_cache_dir", str(compiled))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    sys.argv = [path, *flags]
    sys.orig_argv = ["python", *sys.argv]
    try:
        runpy.run_path(path, run_name="__main__")
    finally:
        if jax.distributed.is_initialized():
            jax.distributed.shutdown()


def pretrain_on_disk(disk: Path, options: str, compiled: Path, *flags: str) -> None:
    """train.py with `disk` as a separate file system that no other process sees; exits with NO_DISK if that fails.

    Args:
        options: of a tmpfs, such as size=600k or ro.
    """
    if not mount_disk(disk, options):
        sys.exit(NO_DISK)
    try:
        pretrain(compiled, *flags)
    finally:
        for checkpoint in sorted(disk.glob("*/checkpoints/*")):
            print(
                checkpoint.name,
                "whole" if checkpoint.name.isdigit() and not check_manifest(checkpoint) else "unfinished",
            )


def endless_step(entered: Path) -> None:
    """Runs one compiled step that does not end."""
    step = jax.jit(lambda x: jax.lax.fori_loop(0, 2**31 - 1, lambda _, x: jnp.sin(x), x)).lower(0.5).compile()
    with second_interrupt_exits(), Interruption():
        entered.touch()
        step(0.5).block_until_ready()


def free_address() -> str:
    """Returns an unused HOST:PORT on this machine."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"


def count_steps(address: str, index: int, folder: Path, in_thread: bool = False) -> None:
    """One of two processes that count steps until they are interrupted; writes the step at which they stop."""
    if in_thread:
        thread = threading.Thread(target=count_steps, args=(address, index, folder))
        thread.start()
        return thread.join()
    jax.distributed.initialize(address, num_processes=2, process_id=index)
    with receive_signals(["SIGUSR1"]) as interruption:
        assert interruption is not None
        step = 1
        while not interruption.requested():
            (folder / f"{index}.step").write_text(str(step))
            time.sleep(0.01 * (1 + index))  # one process is ahead of the other
            step += 1
        (folder / f"{index}.end").write_text(f"{step} {interruption.received}")
    while not (folder / "1.end").exists():  # the first process runs the coordination service
        time.sleep(0.01)


def receive(address: str, index: int, folder: Path) -> None:
    """One of two processes; writes what the first one broadcasts."""
    jax.distributed.initialize(address, num_processes=2, process_id=index)
    received = processes.broadcast_from_first("content", lambda: bytes(range(256)) * 5 if index == 0 else b"made twice")
    (folder / f"{index}.received").write_bytes(received)
    processes.barrier("both processes have the value")


def wait_until(condition, process, seconds: float = 60.0, *, every: float = 0.001) -> None:
    """Waits until a condition, checked every so many seconds, is true, while the process is alive."""
    end = time.monotonic() + seconds
    while not condition() and process.is_alive():
        assert time.monotonic() < end, "waited too long"
        time.sleep(every)


def kill(process) -> None:
    process.kill()
    process.join()


def rows(run: Path) -> list[dict[str, Any]]:
    """Returns the rows of a run without the speed of the machine, and without one that is being written."""
    lines = [line for line in (run / "metrics.jsonl").read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [{name: x for name, x in json.loads(line).items() if name != "tokens_per_second"} for line in lines]


def saving(run: Path) -> bool:
    """Returns whether a checkpoint is being written."""
    return any(run.glob("checkpoints/*tmp*"))
