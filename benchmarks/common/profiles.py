"""Where the time of compiled programs goes, by the named scopes of the code, forward and backward.

`jax.profiler` writes down how long each operation took, and the programs that are alive in this process know from which
scope it comes. Loops and calls are left out: what they hold is there by itself. Threads add up, so a share of the whole
says more than seconds. The folder can also be opened with XProf or Perfetto.
"""

import gzip
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import jax

INSTRUCTION = re.compile(r'^ *(?:ROOT )?%?([\w.-]+) = .*metadata=\{[^}]*?op_name="([^"]*)"', re.MULTILINE)
NUMBER = re.compile(r"\.\d+$")  # of an instruction, as in copy.38: those that XLA adds have no other name
HOLDING = re.compile(r"(while|call|conditional)(\.|$)")  # what holds other operations
TRANSFORMED = re.compile(r"(?:transpose|jvp|vmap)\((.*)\)")  # of a scope: transpose(jvp(encoder))
NO_SCOPE = re.compile(r"|.*[().>].*|Bert.*|while|body|cond|closed_call|checkpoint|rematted_computation")
SMALL = 0.005  # of the whole: scopes below are told together


@dataclass(frozen=True)
class Operation:
    """What was done in a scope, like `encoder/attention`, by a primitive of JAX, like `dot_general`."""

    scope: str
    backward: bool
    primitive: str
    seconds: float


def profile(run: Callable[[], object], folder: str) -> list[Operation]:
    """Runs what waits for its own results, leaves a profile in `folder`, and returns the operations in it."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with jax.profiler.trace(folder, profiler_options=options):
        run()
    newest = max(Path(folder).rglob("*.trace.json.gz"), key=lambda path: path.stat().st_mtime)
    with gzip.open(newest) as file:
        events = json.load(file)["traceEvents"]
    names = op_names()
    timed = [(event["args"], event["dur"] / 1e6) for event in events if "hlo_op" in event.get("args", {})]
    return [
        operation(names.get((of["hlo_module"], of["hlo_op"])) or NUMBER.sub("", of["hlo_op"]), seconds)
        for of, seconds in timed
        if not HOLDING.match(of["hlo_op"])
    ]


def op_names() -> dict[tuple[str, str], str]:
    """Returns the op_name of each (module, instruction) of the programs that are alive.

    Of several modules with one name, compiled for several shapes, the last one's: their instructions are named alike.
    """
    return {
        (module.name, instruction): name
        for program in jax.devices()[0].client.live_executables()
        for module in program.hlo_modules()
        for instruction, name in INSTRUCTION.findall(module.to_string())
    }


def operation(op_name: str, seconds: float) -> Operation:
    """Takes an op_name apart: `jit(step)/transpose(jvp(encoder))/while/body/closed_call/attention/dot_general`."""
    *path, primitive = op_name.partition(";")[0].split("/")  # what XLA merged is told by the first
    scope = "/".join(part for part in map(plain, path) if not NO_SCOPE.fullmatch(part))
    return Operation(scope or "elsewhere", "transpose(" in op_name, primitive, seconds)


def plain(part: str) -> str:
    """Returns the scope under its transformations."""
    while found := TRANSFORMED.fullmatch(part):
        part = found[1]
    return part


def table(operations: Iterable[Operation]) -> list[str]:
    """Returns two tables of Markdown: the shares of the scopes, forward and backward, and of the primitives."""
    scopes: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    primitives: dict[str, list[float]] = defaultdict(lambda: [0.0])
    for one in operations:
        scopes[one.scope][one.backward] += one.seconds
        primitives[one.primitive][0] += one.seconds
    return [
        *["| scope | forward | backward |", "|---|---|---|", *shares(scopes), ""],
        *["| operation | share |", "|---|---|", *shares(primitives)],
    ]


def shares(seconds: dict[str, list[float]]) -> list[str]:
    """Returns lines of the columns' shares of the whole, the largest first."""
    whole = sum(map(sum, seconds.values()))
    large = {name: some for name, some in seconds.items() if sum(some) >= SMALL * whole}
    small = [some for name, some in seconds.items() if name not in large]
    rows = sorted(large.items(), key=lambda row: -sum(row[1]))
    if small:
        rows.append((f"{len(small)} smaller ones", [sum(column) for column in zip(*small, strict=True)]))
    return [f"| {name} | {' | '.join(f'{second / whole:.1%}' for second in some)} |" for name, some in rows]
