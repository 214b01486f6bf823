"""Tasks of a Ray cluster; only counts and hashes travel, the text and the tokens stay on the shared disk.

References: https://docs.ray.io/en/latest/ray-core/patterns/limit-pending-tasks.html.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bert_jax.data.preparation.engines.local import MOST_DEATHS, use_one_core
from bert_jax.data.preparation.sealed import Content
from bert_jax.data.preparation.stages import Engine, Work

WAITING_PER_CORE = 2  # parts that have been handed to Ray for each core of the cluster


def on_ray(address: str | None = None) -> Engine:
    """Returns an engine of Ray tasks, a core each; the task of a worker that dies is run again elsewhere.

    Args:
        address: of the cluster, `auto` for one that runs on this machine; None is the same, or else a new cluster.

    Raises:
        ImportError: Ray is not installed.
    """
    try:
        import ray  # noqa: F401
    except ImportError:
        raise ImportError("`engine=ray` needs Ray: pip install 'bert_jax[ray]'") from None
    return partial(_run, address)


def _run(address: str | None, work: Work, store: Path, parts: Sequence[int]) -> Iterator[Content]:
    import ray

    if not ray.is_initialized():
        ray.init(address, logging_level=logging.WARNING, log_to_driver=False)
    task: Any = ray.remote(num_cpus=1, max_retries=MOST_DEATHS)(_work)
    waiting = iter(parts)
    running: dict[Any, int] = {}
    try:
        while True:
            most = max(1, WAITING_PER_CORE * int(ray.cluster_resources().get("CPU", 0)))  # a cluster may grow
            while len(running) < most and (part := next(waiting, None)) is not None:
                running[task.remote(os.getcwd(), work, str(store), part)] = part
            if not running:
                return
            (done,), _ = ray.wait(list(running))
            content = _result(done, running[done])
            del running[done]
            yield content
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _work(folder: str, work: Work, store: str, part: int) -> Content:
    """Does the work for a part, in a process of Ray."""
    os.chdir(folder)  # relative paths are those of the command
    use_one_core()
    return work(Path(store), part)


def _result(reference: Any, part: int) -> Content:
    """Returns the result of a task, or raises its exception."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise error.cause from None
    except RayError as error:
        reason = " ".join(str(error).split())
        raise ChildProcessError(f"part {part}: its Ray workers have died {MOST_DEATHS + 1} times: {reason}") from None
