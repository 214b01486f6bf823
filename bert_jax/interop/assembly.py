"""From the tensors of a file to the parameter tree, and back.

Strict on the way in: each tensor is used once, or known to say again what another says, or named in an error; so is
each that lacks, and each of another shape than the config asks for. One tensor at a time is read, turned and cast into
its place among the stacked layers.
"""

from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bert_jax.interop.formats.tensors import DTYPES, Tensor, Tensors
from bert_jax.interop.names import Place, hf_name, is_stacked, nested, place, walk

NAMED = 5  # in an error

Slot = tuple[str, int | None]  # a leaf's path, and the layer in it


class Source(NamedTuple):
    """A tensor of a file, and where it belongs."""

    name: str
    tensor: Tensor
    place: Place

    @property
    def shape(self) -> tuple[int, ...]:
        """In our order of axes."""
        return self.tensor.shape[::-1] if self.place.transposed else self.tensor.shape

    def read(self) -> np.ndarray:
        """Returns the array in our order of axes."""
        return self.tensor.read().T if self.place.transposed else self.tensor.read()


class Sources(NamedTuple):
    """The tensors of a file by what they fill, and those that repeat another."""

    slots: dict[Slot, Source]
    repeats: list[Source]

    @property
    def parts(self) -> set[str]:
        """The parts of the tree that there is something for."""
        return {source.place.part for source in self.slots.values()}

    def assemble(self, shapes: Mapping[str, tuple[int, ...]], dtype: str) -> dict[str, Any]:
        """Returns the tree of the leaves `shapes`, read from the file and cast to `dtype`.

        Raises:
            ValueError: a tensor that lacks, is too many, has another shape, or is not of floating-point numbers.
        """
        parts = {path.split("/")[0] for path in shapes}
        check_complete(self.slots, shapes)
        for (path, layer), source in self.slots.items():
            if source.place.part in parts:
                check_fit(source, shapes.get(path), layer)
        for source in self.repeats:
            if source.place.part in parts:
                check_repeat(source, self.slots[source.place.path, None])
        kind = DTYPES[dtype]
        return nested({path: jnp.asarray(read_leaf(self.slots, path, shape, kind)) for path, shape in shapes.items()})


def index_tensors(tensors: Tensors) -> Sources:
    """Finds out where each tensor belongs.

    Raises:
        ValueError: tensors that BERT does not have, or two for one place.
    """
    slots: dict[Slot, Source] = {}
    repeats, unknown = [], []
    for name, tensor in tensors.items():
        try:
            where = place(name)
        except KeyError:
            unknown.append(name)
            continue
        if where is None:
            continue
        source, slot = Source(name, tensor, where), (where.path, where.layer)
        if where.repeats:
            repeats.append(source)
        elif slot in slots:
            raise ValueError(f"{slots[slot].name} and {name} are two tensors for one place")
        else:
            slots[slot] = source
    if unknown:
        raise ValueError(f"BERT has no tensors called {listed(unknown)}")
    for source in repeats:
        slots.setdefault((source.place.path, None), source)
    return Sources(slots, repeats)


def check_complete(slots: Mapping[Slot, Source], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Sees to it that every leaf, and every layer of it, has its tensor."""
    lacking = []
    for path, shape in shapes.items():
        if not is_stacked(path):
            lacking += [] if (path, None) in slots else [hf_name(path)]
        else:
            # Not over all layers of the config, which may speak of a thousand million.
            first = next(layer for layer in count() if (path, layer) not in slots)
            lacking += [hf_name(path, first)] if first < shape[0] else []
    if lacking:
        raise ValueError(f"the file lacks {listed(lacking)}")


def check_fit(source: Source, shape: tuple[int, ...] | None, layer: int | None) -> None:
    """Sees to it that the config has a place of this shape for the tensor."""
    if shape is None or (layer is not None and layer >= shape[0]):
        raise ValueError(f"the config has no place for {source.name}")
    shape = shape if layer is None else shape[1:]
    if source.shape != shape:
        theirs = shape[::-1] if source.place.transposed else shape
        raise ValueError(f"{source.name} has shape {source.tensor.shape}, the config asks for {theirs}")
    if source.tensor.dtype not in DTYPES:
        raise ValueError(f"{source.name} is stored as {source.tensor.dtype}; parameters are {', '.join(DTYPES)}")


def check_repeat(repeat: Source, source: Source) -> None:
    """Sees to it that a repeated tensor is the one it repeats, which is all that a tied decoder can be."""
    if repeat.shape != source.shape or not np.array_equal(repeat.read(), source.read()):
        raise ValueError(f"{repeat.name} differs from {source.name}: a decoder that is not tied is not supported")


def read_leaf(slots: Mapping[Slot, Source], path: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Reads a leaf, layer by layer."""
    leaf = np.empty(shape, dtype)
    if is_stacked(path):
        for layer in range(shape[0]):
            leaf[layer] = slots[path, layer].read()
    else:
        leaf[...] = slots[path, None].read()
    return leaf


def to_state_dict(params: Mapping[str, Any], *, prefix: bool, dtype: str | None = None) -> dict[str, np.ndarray]:
    """Returns what PyTorch's classes call the parameters, contiguous, in `dtype` or their own.

    Args:
        prefix: whether the encoder lies below `bert.`, as it does but in `BertModel`.
    """
    tensors = {}
    for path, leaf in walk(params):
        array = np.asarray(leaf)
        for layer in range(len(array)) if is_stacked(path) else (None,):
            one = array if layer is None else array[layer]
            one = one.T if path.endswith("/kernel") else one
            kind = array.dtype if dtype is None else DTYPES[dtype]
            tensors[hf_name(path, layer, prefix=prefix)] = np.ascontiguousarray(one, kind)
    return tensors


def listed(names: Iterable[str]) -> str:
    """Returns the first few names, and how many more there are."""
    names = sorted(f"{name if name.isprintable() else ascii(name):.120}" for name in names)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
