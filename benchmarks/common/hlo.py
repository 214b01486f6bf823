"""What one device does in a step, read out of the program: its matrix products, and its messages to other devices.

The text is that of the program after XLA's partitioner has divided it among the devices, and before a backend makes it
its own. That is the same whatever the devices are, and still says what later steps blur: numbers are of the dtype they
are sent in (a CPU's program sends bfloat16 as float32), and a sum of which a device keeps only a slice is an
all-reduce before a slice, which GPUs and TPUs make a reduce-scatter of. XLA's own cost analysis counts the body of a
loop once; here it counts as often as the loop goes round.

References: Xu et al., GSPMD, 2021, section 3. Thakur et al., Optimization of Collective Communication Operations in
MPICH, 2005 (what each kind has to send).
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
BITS = {"pred": 8, "bf16": 16}  # of the others the name says it
GRID = r"\[([\d,]+)\](?:T\(([\d,]+)\))?"
COMPUTATION = re.compile(r"(ENTRY )?%([\w.-]+) .*\{$")
INSTRUCTION = re.compile(r"\s+(?:ROOT )?%([\w.-]+) = (\(.*?\)|\S+) ([a-z][\w-]*)\(([^)]*)\)(.*)$")
ARRAY = re.compile(r"\b(pred|bf16|[a-z]+(\d+))\[([\d,]*)\]")
CALLED = re.compile(r"\b(?:calls|to_apply|body)=%([\w.-]+)")


@dataclass(frozen=True)
class Instruction:
    """One line of a program: `%name = type operation(arguments), attributes`."""

    type: str
    operation: str
    arguments: str
    attributes: str

    @property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.-]+)", self.arguments)

    @property
    def bytes(self) -> int:
        """The bytes of its result, all arrays of a tuple together."""
        return sum(math.prod(shape) * bits // 8 for bits, shape in arrays(self.type))


Computation = dict[str, Instruction]


@dataclass(frozen=True)
class Message:
    """One collective operation.

    Attributes:
        kind: of KINDS.
        size: bytes of the whole array that is summed, gathered, scattered or exchanged.
        group: the devices that take part with device 0, by number.
        times: how often it is done in a step.
    """

    kind: str
    size: int
    group: tuple[int, ...]
    times: int

    @property
    def rounds(self) -> int:
        """How often each device has to send its share of the array to every other."""
        return 2 if self.kind == "all-reduce" else 1

    @property
    def sent(self) -> float:
        """The bytes that a device sends in a step, by the algorithms that send least."""
        share = 1.0 if self.kind == "collective-permute" else (len(self.group) - 1) / len(self.group)
        return self.times * self.rounds * self.size * share


@dataclass(frozen=True)
class Program:
    """What one device does in a step.

    Attributes:
        flop: operations in matrix products, two for each multiplication.
        messages: the collective operations of more than one device.
    """

    flop: float
    messages: tuple[Message, ...]

    @classmethod
    def read(cls, text: str) -> "Program":
        """Reads a partitioned program.

        Raises:
            ValueError: a loop does not say how often it goes round, or a message not who takes part in it.
        """
        computations, entry = parse(text)
        flop, messages = 0.0, []
        for computation, times in walk(computations, entry):
            for name, instruction in computation.items():
                if instruction.operation == "dot":
                    flop += times * dot_flop(instruction, computation)
                elif instruction.operation in KINDS:
                    messages.append(message(name, computation, times))
        return cls(flop, tuple(message for message in messages if len(message.group) > 1))


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """Returns the computations by name, and the name of the one that the program begins with."""
    computations: dict[str, Computation] = {}
    current, entry = "", ""
    for line in text.splitlines():
        if begun := COMPUTATION.match(line):
            current = begun[2]
            computations[current] = {}
            entry = current if begun[1] else entry
        elif found := INSTRUCTION.match(line):
            computations[current][found[1]] = Instruction(*found.groups()[1:])
    return computations, entry


def walk(computations: dict[str, Computation], name: str, times: int = 1) -> Iterator[tuple[Computation, int]]:
    """Yields each computation with the number of times it is run, once for each place it is called from."""
    yield computations[name], times
    for instruction in computations[name].values():
        rounds = trips(instruction, computations) if instruction.operation == "while" else 1
        for called in CALLED.findall(instruction.attributes):
            yield from walk(computations, called, times * rounds)


def trips(loop: Instruction, computations: dict[str, Computation]) -> int:
    """Returns how often a loop goes round: those that JAX writes count from 0 up to a constant of the condition."""
    condition = re.search(r"\bcondition=%([\w.-]+)", loop.attributes)
    assert condition is not None
    bounds = [x.arguments for x in computations[condition[1]].values() if x.operation == "constant"]
    if len(bounds) != 1:
        raise ValueError(f"a loop whose condition {condition[1]} is not a count")
    return int(bounds[0])


def dot_flop(dot: Instruction, computation: Computation) -> float:
    """Returns the operations of a matrix product."""
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", dot.attributes)
    ((_, left),), ((_, product),) = arrays(computation[dot.operands[0]].type), arrays(dot.type)
    return 2.0 * math.prod(product) * math.prod(left[axis] for axis in numbers(contracted[1] if contracted else ""))


def message(name: str, computation: Computation, times: int) -> Message:
    """Returns the message that an instruction is."""
    instruction = computation[name]
    devices, size = group(instruction.attributes), instruction.bytes
    kind = instruction.operation
    if kind == "reduce-scatter":
        size *= len(devices)
    if kind == "all-reduce" and is_scattered(name, computation, len(devices)):
        kind = "reduce-scatter"
    return Message(kind, size, devices, times)


def is_scattered(name: str, computation: Computation, parts: int) -> bool:
    """Says whether of a sum over `parts` devices each keeps one part alone."""
    users = [user for user in computation.values() if name in user.operands]
    size = computation[name].bytes
    return bool(users) and all(user.operation == "dynamic-slice" and user.bytes * parts == size for user in users)


def arrays(kind: str) -> list[tuple[int, tuple[int, ...]]]:
    """Returns the arrays of a type, each as the bits of an element and its shape."""
    return [(BITS.get(name) or int(bits), numbers(shape)) for name, bits, shape in ARRAY.findall(kind)]


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)


def group(attributes: str) -> tuple[int, ...]:
    """Returns the group of devices that device 0 is in, from any of the ways in which XLA writes groups.

    They are a list, `{{0,1},{2,3}}`; a grid with a group a row, `[2,2]<=[4]`; or a grid with named axes and those
    that a group reaches over, `mesh['a'=2,'b'=2] {'b'}`. A grid may be made of another one, whose axes are put into
    another order, `[4,2]T(1,0)`. Messages that are passed on from device to device have pairs instead.
    """
    if found := re.search(rf"=mesh\[([^\]]*)\](?:, device_ids=\({GRID}\))? \{{([^}}:]*)\}}", attributes):
        axes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", found[1])}
        devices = grid(found[2] or str(math.prod(axes.values())), found[3]).reshape(tuple(axes.values()))
        reached = [list(axes).index(name) for name in re.findall(r"'(\w+)'", found[4])]
        last = np.moveaxis(devices, reached, range(-len(reached), 0))
        rows = last.reshape(-1, math.prod(last.shape[-len(reached) :])).tolist()
    elif found := re.search(rf"replica_groups=\[(\d+),(\d+)\]<={GRID}", attributes):
        rows = grid(found[3], found[4]).reshape(int(found[1]), int(found[2])).tolist()
    elif found := re.search(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{}]*\})\}", attributes):
        rows = [numbers(row) for row in re.findall(r"\{([\d,]*)\}", found[1])]
    else:
        raise ValueError(f"a message that does not say whom it reaches:{attributes[:200]}")
    return tuple(next((row for row in rows if 0 in row), rows[0]))


def grid(sizes: str, order: str | None) -> np.ndarray:
    """Returns the numbers from 0 on in a grid whose axes are then put into another order."""
    shape = numbers(sizes)
    return np.arange(math.prod(shape)).reshape(shape).transpose(numbers(order) if order else None)
