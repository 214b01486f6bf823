"""How a program starts and ends: messages that appear when they are printed, one line for an error, an exit code.

This module imports nothing heavy. A launcher imports it alone and leaves the imports of JAX to the program that it
passes to `run`, so that Ctrl-C ends the process quietly during those seconds too.
"""

import ctypes
import os
import select
import shlex
import sys
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any

from bert_jax.messages import first_line

# Words of the two programs' command lines with which a run leaves nothing to resume.
NOT_RESUMABLE = {"pretrain": ("--plan",), "finetune": ("--sweep", "--plan", "evaluate", "predict")}
INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
READER_GONE = 141  # 128 + SIGPIPE
# glibc's options of mallopt(3), and their values here. The first one comes first: glibc before 2.35 refuses a threshold
# above 32 MiB, and the others would then fix it at 128 KiB, so that more memory is returned than without any option.
KEEP_MEMORY = {
    -3: 1 << 30,  # M_MMAP_THRESHOLD: smaller arrays come from the heap, not from the system
    -8: 1,  # M_ARENA_MAX: one heap for all threads; the heaps of other threads are unmapped whenever they are empty
    -1: (1 << 31) - 1,  # M_TRIM_THRESHOLD: the heap is not returned to the system
    -2: 64 << 20,  # M_TOP_PAD: the heap grows in steps of 64 MiB
}
OUT_OF_MEMORY = "out of memory: lower --batch-size or --max-length, raise --accumulate, or try --remat full"


def run(program: Callable[[], object], name: str, *, not_resumable: Collection[str] | None = None) -> int:
    """Calls `program` and returns the exit code of the process.

    The code is 0; 1 after an error that the user can correct, which is one line on stderr; 128 + signal where a signal
    ended the run; 141, without a message, where the reader of standard output has gone (`| head`). Other exceptions
    propagate, with their traceback.

    Args:
        name: of the program, in front of its messages.
        not_resumable: words of a command line that leaves nothing to resume, such as --plan; None for a program that
            has nothing to resume at all.
    """
    if sys.stdout is None:
        print(f"{name}: standard output is closed: there is nowhere to write to", file=sys.stderr)
        return 1
    if sys.stderr is None:  # closed: messages have nowhere to go
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    # Text that standard output cannot encode is escaped: \xe9 if it is ASCII, \udc80 for half of a character.
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    if not_resumable is not None and _runs_on_cpu():
        _keep_freed_memory()
    with _one_line_warnings(name):
        code, together = _exit_code(program, name, not_resumable)
    if not together and _one_of_several():
        from bert_jax.training.devices.processes import leave

        leave(code)
    return code


def _exit_code(program: Callable[[], object], name: str, not_resumable: Collection[str] | None) -> tuple[int, bool]:
    """Returns the exit code of `program`, and whether all processes of a distributed run end with it."""
    try:
        try:
            program()
        finally:
            sys.stdout.flush()
        return 0, True
    except KeyboardInterrupt:
        if not_resumable is not None:
            words = {word for argument in sys.argv for word in argument.split("=")}
            # The run's folder may not exist yet: hence --begin.
            how = "" if words & set(not_resumable) else f"; to resume: {command_to_resume('--begin')}"
            _complain(f"{name}: interrupted{how}")
        return INTERRUPTED, False
    except (ValueError, OSError, ImportError) as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing can be written at exit either
            return READER_GONE, False
        _complain(f"{name}: {_one_line(_reason(error))}")
        return 1, False
    except Exception as error:
        return _exit_code_of_run(error, name, not_resumable)


def _exit_code_of_run(error: Exception, name: str, not_resumable: Collection[str] | None) -> tuple[int, bool]:
    """Returns what `_exit_code` does, for the errors that only a program with JAX has; raises others again."""
    import jax

    from bert_jax.training.devices.processes import is_first
    from bert_jax.training.metric_logger import NotFinite
    from bert_jax.training.runs.interruption import Interrupted

    if isinstance(error, Interrupted):
        if is_first():
            _complain(f"{name}: {error}; to resume: {command_to_resume()}")
        return error.exit_code, True
    if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
        remedy = "out of memory" if not_resumable is None else OUT_OF_MEMORY
        _complain(f"{name}: {remedy} ({first_line(error)})")
    elif isinstance(error, NotFinite):
        _complain(f"{name}: {_one_line(error)}")
    else:
        raise error
    return 1, False


def command_to_resume(*more: str) -> str:
    """Returns the command line of this process, changed to resume the run, with `more` flags."""
    kept = [word for word in sys.orig_argv if word not in ("--overwrite", "--resume", "--begin")]
    return shlex.join([*kept, "--resume", *more])


def _runs_on_cpu() -> bool:
    """Returns whether JAX, which is not imported yet, will find no accelerator."""
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms:
        return platforms == "cpu"
    return not entry_points(group="jax_plugins") and not find_spec("jax_plugins") and not find_spec("libtpu")


def _keep_freed_memory() -> None:
    """Makes glibc keep memory that is freed: each training step on a CPU would allocate and clear the same pages again.

    On two cores, the demo's step took 28 % of its processor time for that. Other C libraries have no such options.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    for option, value in KEEP_MEMORY.items():
        if not mallopt(option, value):
            return


def _one_of_several() -> bool:
    """Returns whether this process has joined others in a distributed run."""
    jax: Any = sys.modules.get("jax")
    return jax is not None and hasattr(jax, "distributed") and jax.distributed.is_initialized()


def _reader_is_gone() -> bool:
    """Returns whether the pipe that broke is standard output, and not one between processes of the program."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)  # errors are reported without being requested
        return bool(poll.poll(0))
    except (OSError, AttributeError):  # not a file; Windows has no poll
        return False


@contextmanager
def _one_line_warnings(name: str) -> Iterator[None]:
    """Prints warnings as one line each while the block runs."""

    def warn(message: Warning | str, *_where: object, **_more: object) -> None:
        _complain(f"{name}: warning: {_one_line(message)}")

    before = warnings.showwarning
    warnings.showwarning = warn
    try:
        yield
    finally:
        warnings.showwarning = before


def _complain(line: str) -> None:
    with suppress(OSError):  # the terminal was closed: the exit code still says what happened
        print(line, file=sys.stderr, flush=True)


def _reason(error: Exception) -> object:
    """Returns an error, or `FILE: what went wrong` where a system call failed on a file."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return error


def _one_line(message: object) -> str:
    return " ".join(str(message).split())
