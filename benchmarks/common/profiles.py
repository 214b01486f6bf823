"""Where the time of compiled programs goes, by the named scopes of the code, forward and backward.

`jax.profiler` records how long each operation took; the programs alive in this process map each operation to its scope.
Loops and calls are left out, because the operations inside them are recorded too. Times of all threads are added, so
fractions of the total mean more than seconds. The folder can also be opened with XProf or Perfetto.
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
NUMBER = re.compile(r"\.\d+$")  # the suffix of an instruction added by XLA, as in copy.38, which has no op_name
CONTAINER = re.compile(r"(while|call|conditional)(\.|$)")  # contains other operations
TRANSFORM = re.compile(r"(?:transpose|jvp|vmap)\((.*)\)")  # around a scope: transpose(jvp(encoder))
NO_SCOPE = re.compile(r"|.*[().>].*|Bert.*|while|body|cond|closed_call|checkpoint|rematted_computation")
UNSCOPED = "no scope"
SMALL = 0.005  # rows with a smaller fraction of the total are merged


@dataclass(frozen=True)
class Operation:
    """One execution of a JAX primitive, such as `dot_general`, in a scope, such as `encoder/attention`."""

    scope: str
    backward: bool
    primitive: str
    seconds: float


def profile(run: Callable[[], object], folder: str) -> list[Operation]:
    """Calls `run`, which must wait for its own results; writes a profile to `folder` and returns its operations."""
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with jax.profiler.trace(folder, profiler_options=options):
        run()
    newest = max(Path(folder).rglob("*.trace.json.gz"), key=lambda path: path.stat().st_mtime)
    with gzip.open(newest) as file:
        events = json.load(file)["traceEvents"]
    op_names = _live_op_names()
    operations = []
    for event in events:
        arguments = event.get("args", {})
        instruction = arguments.get("hlo_op")
        if instruction is None or CONTAINER.match(instruction):
            continue
        name = op_names.get((arguments["hlo_module"], instruction)) or NUMBER.sub("", instruction)
        operations.append(parse_op_name(name, seconds=event["dur"] / 1e6))
    return operations


def _live_op_names() -> dict[tuple[str, str], str]:
    """Returns {(module, instruction): op_name} of the programs alive in this process.

    Of several modules with one name, compiled for several shapes, the last counts: their instructions have equal names.
    """
    return {
        (module.name, instruction): name
        for program in jax.devices()[0].client.live_executables()
        for module in program.hlo_modules()
        for instruction, name in INSTRUCTION.findall(module.to_string())
    }


def parse_op_name(op_name: str, seconds: float) -> Operation:
    """Splits an op_name such as `jit(step)/transpose(jvp(encoder))/while/body/closed_call/attention/dot_general`.

    That one is a `dot_general` of the backward pass in the scope `encoder/attention`.
    """
    # XLA joins the names of fused operations with semicolons; the first one counts.
    *path, primitive = op_name.partition(";")[0].split("/")
    scopes = [part for part in map(_without_transforms, path) if not NO_SCOPE.fullmatch(part)]
    return Operation("/".join(scopes) or UNSCOPED, "transpose(" in op_name, primitive, seconds)


def _without_transforms(part: str) -> str:
    while found := TRANSFORM.fullmatch(part):
        part = found[1]
    return part


def tables(operations: Iterable[Operation]) -> list[str]:
    """Returns two Markdown tables: fractions of the total by scope, forward and backward, and by primitive."""
    by_scope: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    by_primitive: dict[str, list[float]] = defaultdict(lambda: [0.0])
    for operation in operations:
        by_scope[operation.scope][operation.backward] += operation.seconds
        by_primitive[operation.primitive][0] += operation.seconds
    return [
        *["| scope | forward | backward |", "|---|---|---|", *_fraction_rows(by_scope), ""],
        *["| operation | of the total |", "|---|---|", *_fraction_rows(by_primitive)],
    ]


def _fraction_rows(seconds: dict[str, list[float]]) -> list[str]:
    """Returns one row per name with each column's fraction of the total, largest first; small ones are merged."""
    total = sum(map(sum, seconds.values()))
    rows = sorted(seconds.items(), key=lambda row: -sum(row[1]))
    large = [(name, columns) for name, columns in rows if sum(columns) >= SMALL * total]
    small = [columns for _, columns in rows[len(large) :]]
    if small:
        large.append((f"{len(small)} smaller", [sum(column) for column in zip(*small, strict=True)]))
    return [f"| {name} | {' | '.join(f'{value / total:.1%}' for value in columns)} |" for name, columns in large]
