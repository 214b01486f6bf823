"""A pickle of tensors read without running what is pickled.

A pickle is a program for a small stack machine, and two of its instructions call any function of any module. Here is
the machine without them: it knows the instructions that numbers, strings, lists, tuples and dicts are made with; a name
of a module stays a name and nothing is imported; and a "call" of the few names by which PyTorch writes down a tensor
makes a `View`. Everything else is refused by name.

References: Python, `pickletools` (what each instruction does); PyTorch, `torch/_utils.py` (`_rebuild_tensor_v2`).
"""

import pickletools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

STORAGES = {"torch.DoubleStorage": "float64", "torch.FloatStorage": "float32", "torch.HalfStorage": "float16",
            "torch.BFloat16Storage": "bfloat16", "torch.LongStorage": "int64", "torch.IntStorage": "int32",
            "torch.ShortStorage": "int16", "torch.CharStorage": "int8", "torch.ByteStorage": "uint8",
            "torch.BoolStorage": "bool"}  # fmt: skip
TENSOR = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
PARAMETER = "torch._utils._rebuild_parameter"
CONTAINERS: dict[str, Callable] = {"collections.OrderedDict": dict, "torch.Size": tuple}
LET_THROUGH = {*STORAGES, *TENSOR, PARAMETER, *CONTAINERS}

LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINSTRING",
            "SHORT_BINSTRING"}  # fmt: skip
CONSTANTS: dict[str, Callable] = {"NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
                                  "EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}  # fmt: skip
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
LIMIT = 1 << 21  # bytes; the names and shapes of BERT-large take 60 kB


class Name(NamedTuple):
    """A name that the pickle asks to import, and that stays a name."""

    full: str


class Storage(NamedTuple):
    """A flat run of `size` numbers that lies outside the pickle."""

    key: str
    dtype: str
    size: int


class View(NamedTuple):
    """A tensor as PyTorch writes it down: a storage seen through an offset, a shape and strides, all in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Machine:
    """Pickle's stack machine, as far as tensors in plain containers need it.

    Args:
        program: bytes, or an open file at the beginning of a pickle, which is left at its end.
    """

    def __init__(self, program: Any) -> None:
        self.program = program
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Returns what the pickle describes.

        Raises:
            ValueError: an instruction or a name that is not let through, or a pickle that ends early.
        """
        try:
            for instruction, argument, position in instructions(self.program):
                if position is not None and position > LIMIT:
                    raise ValueError(f"the pickle has more than {LIMIT} bytes")
                if instruction.name == "STOP":
                    return self.stack.pop()
                self.step(instruction.name, argument)
        except (IndexError, KeyError, TypeError) as error:
            raise ValueError(f"a broken pickle ({type(error).__name__})") from None
        raise ValueError("a pickle that ends early")

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in LITERALS:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name]())
        elif name in TUPLES:
            count = TUPLES[name]
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "MARK":
            self.marks.append(stack)
            self.stack = []
        elif name == "TUPLE":
            self.stack = self.marks.pop()
            self.stack.append(tuple(stack))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else self.items()
            wanted(self.stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else self.items()
            for key, value in zip(items[::2], items[1::2], strict=True):
                wanted(self.stack[-1], dict)[wanted(key, str, int)] = value
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            module, attribute = argument.split(" ", 1) if name == "GLOBAL" else (stack.pop(-2), stack.pop())
            stack.append(let_through(f"{wanted(module, str)}.{wanted(attribute, str)}"))
        elif name == "BINPERSID":
            stack.append(storage(stack.pop()))
        elif name == "REDUCE":
            arguments = wanted(stack.pop(), tuple)
            stack.append(make(wanted(stack.pop(), Name).full, arguments))
        elif name == "BUILD":
            stack.pop()  # the versions of a state dict's modules: they say nothing about a tensor
            wanted(stack[-1], dict)
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"the pickle wants {name}; only tensors and plain containers are let through")

    def items(self) -> list[Any]:
        """Returns what was put on the stack since the last mark."""
        items, self.stack = self.stack, self.marks.pop()
        return items


def instructions(program: Any) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]:
    """Yields each instruction with its argument and position."""
    try:
        yield from pickletools.genops(program)
    except ValueError as error:
        raise ValueError(f"a broken pickle ({error})") from None


def let_through(full: str) -> Name:
    """Returns a name that may appear in the file."""
    if full not in LET_THROUGH:
        raise ValueError(f"the pickle wants {full!r:.200}; only tensors and plain containers are let through")
    return Name(full)


def storage(identity: Any) -> Storage:
    """Returns the storage ("storage", its type, key, device, size) that stands outside the pickle."""
    kind, name, key, _device, size, *view = wanted(identity, tuple)
    if kind != "storage" or wanted(name, Name).full not in STORAGES or any(part is not None for part in view):
        raise ValueError("the pickle points at something else than the numbers of a tensor")
    return Storage(wanted(key, str), STORAGES[name.full], natural(size))


def make(full: str, arguments: tuple[Any, ...]) -> Any:
    """Returns what a call of a name that was let through stands for."""
    if full in TENSOR:
        numbers, offset, shape, strides = arguments[:4]
        view = View(wanted(numbers, Storage), natural(offset), naturals(shape), naturals(strides))
        if len(view.shape) != len(view.strides):
            raise ValueError("a tensor with more sizes than strides, or fewer")
        return view
    if full == PARAMETER:
        return wanted(arguments[0], View)
    if full in CONTAINERS and all(isinstance(argument, list | tuple) for argument in arguments):
        return CONTAINERS[full](*arguments)
    raise ValueError(f"the pickle calls {full}; only tensors and plain containers are let through")


def natural(value: Any) -> int:
    if wanted(value, int) < 0:
        raise ValueError(f"a size, offset or stride of a tensor is {value!r:.80}")
    return value


def naturals(values: Any) -> tuple[int, ...]:
    return tuple(natural(value) for value in wanted(values, tuple))


def wanted(value: Any, *kinds: type) -> Any:
    """Returns the value, once it is known to be of one of these types; shows no other, which may be endless."""
    if type(value) not in kinds:
        raise ValueError(f"a {type(value).__name__} in the pickle where a {kinds[0].__name__} belongs")
    return value
