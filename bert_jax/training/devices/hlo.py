"""Reads the text of an XLA program: computations, loops, matrix products, collectives.

Two texts are of interest. The program after XLA's SPMD partitioner has divided it among the devices and before any
backend compiles it is the same for all kinds of devices, and it still shows what later passes hide: arrays have the
dtype they are sent in (a CPU's program sends bfloat16 as float32), and a sum of which each device keeps only a slice is
an all-reduce followed by a slice, which GPUs and TPUs turn into a reduce-scatter. The optimized program is what a
device runs, see `roofline`. XLA's own cost analysis counts the body of a loop once; here it counts once per iteration.

References: Xu et al., GSPMD, 2021, section 3. Thakur et al., Optimization of Collective Communication Operations in
MPICH, 2005 (bytes sent by each collective).
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
GRID = r"\[([\d,]+)\](?:T\(([\d,]+)\))?"
COMPUTATION = re.compile(r"(ENTRY )?%([\w.-]+) .*\{$")
INSTRUCTION = re.compile(r"\s+(ROOT )?%([\w.-]+) = (\(.*?\)|\S+) ([a-z][\w-]*)\(([^)]*)\)(.*)$")
ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)[a-z0-9]*)\[([\d,]*)\](\{[^}]*\})?")
CALLED = re.compile(r"\b(?:calls|to_apply|body)=%([\w.-]+)")
ON_CHIP = "S(1)"  # a TPU's vector memory


@dataclass(frozen=True)
class ArrayType:
    """One array of a type, such as `bf16[8,128]{1,0:T(8,128)S(1)}`.

    Attributes:
        on_chip: whether it is in a TPU's vector memory, and not in the device's memory.
    """

    dtype: str
    bits: int
    shape: tuple[int, ...]
    on_chip: bool

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.bits // 8


@dataclass(frozen=True)
class Instruction:
    """One line of a program: `%name = type operation(arguments), attributes`."""

    name: str
    type: str
    operation: str
    arguments: str
    attributes: str
    is_root: bool = False

    @cached_property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.-]+)", self.arguments)

    @cached_property
    def arrays(self) -> list[ArrayType]:
        """The result, or the arrays of a tuple."""
        return array_types(self.type)

    @property
    def bytes(self) -> int:
        """Bytes of the result, summed over the arrays of a tuple."""
        return sum(array.bytes for array in self.arrays)

    @property
    def called(self) -> list[str]:
        """The computations that the instruction runs."""
        return CALLED.findall(self.attributes)

    @property
    def scope(self) -> str:
        """Where in the traced function it comes from: `jit(call)/encoder/while/body/attention/dot_general`."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""


Computation = dict[str, Instruction]


@dataclass(frozen=True)
class Collective:
    """One collective operation of a step.

    Attributes:
        kind: one of COLLECTIVES.
        size: bytes of the whole array that is summed, gathered, scattered or exchanged.
        group: ids of the devices that take part with device 0.
        times: executions per step.
    """

    kind: str
    size: int
    group: tuple[int, ...]
    times: int

    @property
    def phases(self) -> int:
        """How often each device sends its slice of the array to all others: an all-reduce scatters, then gathers."""
        return 2 if self.kind == "all-reduce" else 1

    @property
    def bytes_sent(self) -> float:
        """Bytes that a device sends per step, with the algorithms that send the least.

        An all-reduce of 80 bytes over 8 devices sends 2 * 80 * 7/8 = 140 bytes from each.
        """
        fraction = 1.0 if self.kind == "collective-permute" else (len(self.group) - 1) / len(self.group)
        return self.times * self.phases * self.size * fraction


@dataclass(frozen=True)
class Module:
    """A program as text, parsed.

    Attributes:
        computations: by name.
        entry: the name of the computation that a device runs.
    """

    computations: dict[str, Computation]
    entry: str

    @classmethod
    def parse(cls, text: str) -> "Module":
        computations: dict[str, Computation] = {}
        current = ""
        entry = ""
        for line in text.splitlines():
            if header := COMPUTATION.match(line):
                current = header[2]
                computations[current] = {}
                if header[1]:
                    entry = current
            elif found := INSTRUCTION.match(line):
                root, name, *fields = found.groups()
                computations[current][name] = Instruction(name, *fields, is_root=bool(root))
        return cls(computations, entry)

    def walk(self, name: str | None = None, times: int = 1) -> Iterator[tuple[Computation, int]]:
        """Yields each computation with the number of times it runs in a step, once per place that calls it.

        Raises:
            ValueError: a loop without a constant trip count.
        """
        name = self.entry if name is None else name
        yield self.computations[name], times
        for instruction in self.computations[name].values():
            iterations = self.iterations(instruction)
            for called in instruction.called:
                yield from self.walk(called, times * iterations)

    def iterations(self, instruction: Instruction) -> int:
        """Returns how often an instruction runs the computations that it calls.

        The compiler may state it; else JAX's loops count from 0 up to a constant in the condition.

        Raises:
            ValueError: a loop without a constant trip count.
        """
        if instruction.operation != "while":
            return 1
        if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', instruction.attributes):
            return int(known[1])
        condition = re.search(r"\bcondition=%([\w.-]+)", instruction.attributes)
        assert condition is not None
        bounds = [x.arguments for x in self.computations[condition[1]].values() if x.operation == "constant"]
        if len(bounds) != 1:
            raise ValueError(f"loop condition {condition[1]} does not compare with one constant: trip count unknown")
        return int(bounds[0])

    def collectives(self) -> tuple[Collective, ...]:
        """Returns the collectives of a step that involve more than one device.

        Raises:
            ValueError: a collective without a known device group, or a loop without a constant trip count.
        """
        found = [
            _collective(name, computation, times)
            for computation, times in self.walk()
            for name, instruction in computation.items()
            if instruction.operation.removesuffix("-start") in COLLECTIVES
        ]
        return tuple(one for one in found if len(one.group) > 1)


@dataclass(frozen=True)
class Program:
    """What one device does in a step, read from the partitioned program.

    Attributes:
        flop: operations of the matrix multiplications, two per multiply-add.
        collectives: those that involve more than one device.
    """

    flop: float
    collectives: tuple[Collective, ...]

    @classmethod
    def parse(cls, text: str) -> "Program":
        """Parses a partitioned program.

        Raises:
            ValueError: a loop without a constant trip count, or a collective without a known device group.
        """
        module = Module.parse(text)
        flop = sum(
            times * dot_flop(instruction, computation)
            for computation, times in module.walk()
            for instruction in computation.values()
            if instruction.operation == "dot"
        )
        return cls(flop, module.collectives())


def dot_flop(dot: Instruction, computation: Computation) -> float:
    """Returns the operations of a dot: two per multiply-add."""
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", dot.attributes)
    left = computation[dot.operands[0]].arrays[0].shape
    inner = math.prod(left[axis] for axis in _parse_ints(contracted[1] if contracted else ""))
    return 2.0 * math.prod(dot.arrays[0].shape) * inner


def _collective(name: str, computation: Computation, times: int) -> Collective:
    instruction = computation[name]
    devices = device_group(instruction.attributes)
    kind = instruction.operation.removesuffix("-start")
    size = sum(computation[operand].bytes for operand in instruction.operands)
    if kind == "all-gather":
        size *= len(devices)  # the operand is one device's slice
    if instruction.operation == "all-reduce" and _is_scattered(name, computation, len(devices)):
        kind = "reduce-scatter"
    return Collective(kind, size, devices, times)


def _is_scattered(name: str, computation: Computation, parts: int) -> bool:
    """Returns whether each of `parts` devices keeps only its slice of an all-reduce's result."""
    users = [user for user in computation.values() if name in user.operands]
    size = computation[name].bytes
    return bool(users) and all(user.operation == "dynamic-slice" and user.bytes * parts == size for user in users)


def array_types(text: str) -> list[ArrayType]:
    """Returns the arrays of a type: `(s32[], bf16[6,5])` has two, of 32 bits with shape () and 16 with (6, 5)."""
    return [
        ArrayType(dtype, int(bits or 8), _parse_ints(shape), ON_CHIP in layout)
        for dtype, bits, shape, layout in ARRAY.findall(text)
    ]


def _parse_ints(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)


def device_group(attributes: str) -> tuple[int, ...]:
    """Returns the group of devices that contains device 0, from any notation that XLA has for groups.

    - A list: `{{0,1},{2,3}}` -> (0, 1).
    - A grid with one group per row: `[2,2]<=[4]` -> (0, 1). The devices may be permuted first: `[4,2]<=[2,4]T(1,0)`
      reshapes 0 to 7 to [2, 4], transposes to [4, 2] and takes its rows -> (0, 4).
    - A mesh with named axes, and the axes that a group spans: `mesh['a'=2,'b'=2] {'a'}` -> (0, 2).
    - Pairs of source and target of a collective-permute: `{{1,0},{0,5}}` -> (1, 0).
    """
    if found := re.search(rf"=mesh\[([^\]]*)\](?:, device_ids=\({GRID}\))? \{{([^}}:]*)\}}", attributes):
        axes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", found[1])}
        devices = _device_grid(found[2] or str(math.prod(axes.values())), found[3]).reshape(tuple(axes.values()))
        spanned = [list(axes).index(name) for name in re.findall(r"'(\w+)'", found[4])]
        last = np.moveaxis(devices, spanned, range(-len(spanned), 0))
        groups = last.reshape(-1, math.prod(last.shape[-len(spanned) :])).tolist()
    elif found := re.search(rf"replica_groups=\[(\d+),(\d+)\]<={GRID}", attributes):
        groups = _device_grid(found[3], found[4]).reshape(int(found[1]), int(found[2])).tolist()
    elif found := re.search(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{}]*\})\}", attributes):
        groups = [_parse_ints(group) for group in re.findall(r"\{([\d,]*)\}", found[1])]
    else:
        raise ValueError(f"collective without a known device group:{attributes[:200]}")
    return tuple(next((group for group in groups if 0 in group), groups[0]))


def _device_grid(sizes: str, order: str | None) -> np.ndarray:
    """Returns the numbers from 0 on in a grid of these sizes, its axes permuted to `order`."""
    shape = _parse_ints(sizes)
    return np.arange(math.prod(shape)).reshape(shape).transpose(_parse_ints(order) if order else None)
