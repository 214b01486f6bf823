"""The default engine: processes of this machine."""

import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context, resource_tracker
from pathlib import Path

import pyarrow as pa

from bert_jax.data.preparation.sealed import Content
from bert_jax.data.preparation.stages import Engine, Work
from bert_jax.process_start import end_with_parent, num_cores

MOST_DEATHS = 3  # of worker processes, without a part that is done between them


def local(workers: int | None = None) -> Engine:
    """Returns an engine of processes; a process that dies is replaced, and its part is done again.

    Args:
        workers: number of processes; None is one per core. With 1 the work is done in this process.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"`workers` must be at least 1, got {workers}")
    return partial(_run, workers or num_cores())


def _run(workers: int, work: Work, store: Path, parts: Sequence[int]) -> Iterator[Content]:
    workers = min(workers, len(parts))
    if workers <= 1:
        yield from (work(store, part) for part in parts)
        return
    waiting = list(reversed(parts))
    deaths = 0
    while waiting:
        # Spawned, because a fork would inherit locks from the threads of this process.
        with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker) as pool:
            running: dict[Future[Content], int] = {}
            try:
                while waiting or running:
                    while waiting and len(running) < workers:
                        with _interrupts_held_back():
                            running[pool.submit(work, store, waiting[-1])] = waiting[-1]
                        waiting.pop()
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        content = future.result()
                        del running[future]
                        deaths = 0
                        yield content
            except BrokenProcessPool:
                waiting += sorted(running.values(), reverse=True)
                deaths += 1
                if deaths == MOST_DEATHS:
                    named = ", ".join(map(str, sorted(running.values())))
                    raise ChildProcessError(
                        f"worker processes have died {deaths} times in a row, at parts {named}: memory ran out, or the "
                        'script has no `if __name__ == "__main__":` (`workers=1` starts no process)'
                    ) from None
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Makes Ctrl-C wait, also in processes that are started here: their imports would end with long tracebacks."""
    if os.name != "posix":
        yield
        return
    resource_tracker.ensure_running()  # it is started with the first process, and would let Ctrl-C through
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _start_worker() -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
    if os.name == "posix":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    use_one_core()


def use_one_core() -> None:
    """Makes libraries use one core: every core already has a process."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    pa.set_cpu_count(1)
