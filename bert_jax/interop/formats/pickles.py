"""Reads a pickle of tensors without running any code in it.

A pickle is a program for a small stack machine, and some of its instructions import and call any function of any
module. This machine has no such instruction. It has those that build numbers, strings, lists, tuples and dicts. A
global name stays a name, and nothing is imported. A "call" of one of the few names that PyTorch uses to describe a
tensor makes a `View`. Everything else is refused, and the error names it.

For `{"x": tensor}` of shape (2, 3) the program is, in words: an empty dict; the string "x"; the name
`torch._utils._rebuild_tensor_v2`; a tuple of the storage, the offset 0, the shape (2, 3) and the strides (3, 1); REDUCE
(call the name with the tuple); SETITEM; STOP.

References: Python, `pickletools` (what each instruction does); PyTorch, `torch/_utils.py` (`_rebuild_tensor_v2`).
"""

import pickletools
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

STORAGES = {"torch.DoubleStorage": "float64", "torch.FloatStorage": "float32", "torch.HalfStorage": "float16",
            "torch.BFloat16Storage": "bfloat16", "torch.LongStorage": "int64", "torch.IntStorage": "int32",
            "torch.ShortStorage": "int16", "torch.CharStorage": "int8", "torch.ByteStorage": "uint8",
            "torch.BoolStorage": "bool"}  # fmt: skip
TENSOR = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
PARAMETER = "torch._utils._rebuild_parameter"
CONTAINERS: dict[str, Callable] = {"collections.OrderedDict": dict, "torch.Size": tuple}
ALLOWED_NAMES = {*STORAGES, *TENSOR, PARAMETER, *CONTAINERS}

LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINSTRING",
            "SHORT_BINSTRING"}  # fmt: skip
CONSTANTS: dict[str, Callable] = {"NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
                                  "EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}  # fmt: skip
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
LIMIT = 1 << 21  # bytes; the pickle of BERT-large has 60 kB


class Name(NamedTuple):
    """A global name in the pickle; it is never imported."""

    full: str


class Storage(NamedTuple):
    """A flat array of `size` numbers outside the pickle."""

    key: str
    dtype: str
    size: int


class View(NamedTuple):
    """A tensor as PyTorch describes it: a storage with offset, shape and strides, counted in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Machine:
    """Pickle's stack machine, with the instructions that tensors in plain containers need.

    Args:
        program: bytes, or an open file at the start of a pickle; it is read up to the pickle's end.
    """

    def __init__(self, program: Any) -> None:
        self.program = program
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Returns the object that the pickle describes.

        Raises:
            ValueError: an instruction or a name that is not allowed, or a truncated pickle.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # Python's, of an escape in a damaged string
                for instruction, argument, position in _instructions(self.program):
                    if position is not None and position > LIMIT:
                        raise ValueError(f"the pickle has more than {LIMIT} bytes")
                    if instruction.name == "STOP":
                        return self.stack.pop()
                    self._step(instruction.name, argument)
        except (IndexError, KeyError, TypeError) as error:
            raise ValueError(f"a broken pickle ({type(error).__name__})") from None
        raise ValueError("a truncated pickle")

    def _step(self, name: str, argument: Any) -> None:
        """Executes one instruction."""
        stack = self.stack
        if name in LITERALS:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name]())
        elif name in TUPLES:
            count = TUPLES[name]
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "MARK":  # sets the stack aside; what is pushed from here on becomes a tuple, list or dict
            self.marks.append(stack)
            self.stack = []
        elif name == "TUPLE":
            self.stack = self.marks.pop()
            self.stack.append(tuple(stack))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else self._pop_to_mark()
            _expect(self.stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            # SETITEM takes one key and the value above it, SETITEMS all pairs since the mark.
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else self._pop_to_mark()
            for key, value in zip(items[::2], items[1::2], strict=True):
                _expect(self.stack[-1], dict)[_expect(key, str, int)] = value
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            # A dict and not a list: an index of 2^32 - 1 must not allocate.
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            # GLOBAL has "module attribute" as its argument, STACK_GLOBAL takes both from the stack.
            module, attribute = argument.split(" ", 1) if name == "GLOBAL" else (stack.pop(-2), stack.pop())
            stack.append(_check_name(f"{_expect(module, str)}.{_expect(attribute, str)}"))
        elif name == "BINPERSID":  # a reference to data outside the pickle
            stack.append(_make_storage(stack.pop()))
        elif name == "REDUCE":  # where Python would call any function; here `_call` knows a few names
            arguments = _expect(stack.pop(), tuple)
            stack.append(_call(_expect(stack.pop(), Name).full, arguments))
        elif name == "BUILD":
            stack.pop()  # the versions of a state dict's modules, which do not affect its tensors
            _expect(stack[-1], dict)
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"the pickle uses {name}; only tensors and plain containers are allowed")

    def _pop_to_mark(self) -> list[Any]:
        """Returns what was pushed on the stack since the last mark."""
        items = self.stack
        self.stack = self.marks.pop()
        return items


def _instructions(program: Any) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]:
    """Yields each instruction with its argument and its position in the program."""
    try:
        yield from pickletools.genops(program)
    except ValueError as error:
        raise ValueError(f"a broken pickle ({error})") from None


def _check_name(full: str) -> Name:
    """Returns a name after checking that it is allowed."""
    if full not in ALLOWED_NAMES:
        raise ValueError(f"the pickle uses {full!r:.200}; only tensors and plain containers are allowed")
    return Name(full)


def _make_storage(identity: Any) -> Storage:
    """Returns the storage for its persistent id ("storage", type, key, device, size)."""
    kind, name, key, _device, size, *view = _expect(identity, tuple)
    if kind != "storage" or _expect(name, Name).full not in STORAGES or any(item is not None for item in view):
        raise ValueError("the pickle refers to something other than the numbers of a tensor")
    return Storage(_expect(key, str), STORAGES[name.full], _non_negative(size))


def _call(full: str, arguments: tuple[Any, ...]) -> Any:
    """Returns the result of "calling" an allowed name."""
    if full in TENSOR:
        storage, offset, shape, strides = arguments[:4]
        view = View(_expect(storage, Storage), _non_negative(offset), _sizes(shape), _sizes(strides))
        if len(view.shape) != len(view.strides):
            raise ValueError("a tensor with different numbers of sizes and strides")
        return view
    if full == PARAMETER:
        return _expect(arguments[0], View)
    if full in CONTAINERS and all(isinstance(argument, list | tuple) for argument in arguments):
        return CONTAINERS[full](*arguments)
    raise ValueError(f"the pickle calls {full}; only tensors and plain containers are allowed")


def _non_negative(value: Any) -> int:
    if _expect(value, int) < 0:
        raise ValueError(f"a size, offset or stride of a tensor is {value!r:.80}")
    return value


def _sizes(values: Any) -> tuple[int, ...]:
    return tuple(_non_negative(value) for value in _expect(values, tuple))


def _expect(value: Any, *types: type) -> Any:
    """Returns the value after checking that it has one of these types."""
    if type(value) not in types:
        # The value itself is not shown: a list that contains itself many times over has an endless representation.
        raise ValueError(f"a {type(value).__name__} in the pickle where a {types[0].__name__} belongs")
    return value
