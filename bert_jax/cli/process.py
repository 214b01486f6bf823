"""How a script ends: what somebody can put right is one line, and a signal is an exit code that supervisors know."""

import sys
from collections.abc import Callable, Collection

import jax

from bert_jax.training.devices import processes
from bert_jax.training.loop import NotFinite
from bert_jax.training.runs.interruption import Interrupted, command_to_resume


def run(main: Callable[[], None], name: str, *, anew: Collection[str] = ()) -> None:
    """Calls `main` and ends the process if it raises: 1 for a mistake, 128 + signal where the run was told to end.

    Args:
        anew: words of a command line that leaves nothing to go on with.
    """
    try:
        main()
    except (ValueError, OSError, ImportError, NotFinite) as error:
        processes.end(f"{name}: {error}")
    except Interrupted as error:
        if processes.is_first():
            print(f"{name}: {error}; to go on: {command_to_resume()}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        way = "" if set(anew) & set(sys.argv) else f"; to go on: {command_to_resume()}"
        print(f"{name}: interrupted{way}", file=sys.stderr)
        processes.end(130)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        ways = "lower --batch-size or --max-length, raise --accumulate, or try --remat full"
        processes.end(f"{name}: out of memory: {ways} ({str(error).splitlines()[0]})")
