"""From the tensors of a file to the parameter tree, and back.

Reading is strict. Every tensor is used once, or repeats another one and is equal to it; otherwise the error names it,
as it names missing tensors and those of another shape than the config's. Tensors are read one at a time, transposed
and cast directly into their place among the stacked layers, so that a model is never in memory twice. Tensors that hold
several leaves (`names.piece_names`) are read piece by piece.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import count
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.families import FAMILIES
from bert_jax.interop.formats.tensors import DTYPES, Tensor, Tensors
from bert_jax.interop.names import (
    Location,
    flatten,
    hf_name,
    is_absent,
    is_stacked,
    locate_tensor,
    piece_names,
    unflatten,
    whole_name,
)

NAMES_IN_ERROR = 5

Slot = tuple[str, int | None]  # a leaf's path, and the layer in it


class IndexedTensor(NamedTuple):
    """A tensor of a file, and where it belongs."""

    name: str
    tensor: Tensor
    location: Location

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in our order of axes."""
        return self.tensor.shape[::-1] if self.location.transposed else self.tensor.shape

    def read(self) -> np.ndarray:
        """Returns the array in our order of axes."""
        return self.tensor.read().T if self.location.transposed else self.tensor.read()


class TensorIndex(NamedTuple):
    """The tensors of a file by the slot that they fill, and those that repeat another tensor; and their family."""

    slots: dict[Slot, IndexedTensor]
    repeats: list[IndexedTensor]
    model_type: str = "bert"

    @property
    def parts(self) -> set[str]:
        """The parts of the model that the file has tensors for."""
        return {source.location.part for source in self.slots.values()}

    @property
    def has_decoder(self) -> bool:
        """Whether the file has a masked-LM decoder, equal to the word embedding or not."""
        return any(source.location.path == "embeddings/word/embedding" for source in self.repeats)

    def assemble(self, shapes: Mapping[str, tuple[int, ...]], dtype: str) -> dict[str, Any]:
        """Returns the tree of the leaves in `shapes`, read from the file and cast to `dtype`.

        Raises:
            ValueError: a tensor that is missing, unexpected, of another shape, or not floating-point.
        """
        parts = {path.split("/")[0] for path in shapes}
        _check_complete(self.slots, shapes, self.model_type, parts)
        for (path, layer), source in self.slots.items():
            if source.location.part in parts:
                _check_shape_and_dtype(source, shapes.get(path), layer)
        for source in self.repeats:
            original = self.slots[source.location.path, None]
            if source.location.part in parts and source.tensor is not original.tensor:  # not an alias of it
                _check_repeat(source, original)
        return unflatten({path: self._to_device(path, shape, DTYPES[dtype]) for path, shape in shapes.items()})

    def _to_device(self, path: str, shape: tuple[int, ...], dtype: np.dtype) -> jax.Array:
        """Reads a leaf and copies it to the device.

        JAX copies in the background. Without waiting, on a busy machine, many leaves would be in memory twice.
        """
        return jnp.asarray(self._read(path, shape, dtype)).block_until_ready()

    def _read(self, path: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Reads a leaf, layer by layer."""
        leaf = np.empty(shape, dtype)
        for layer in range(shape[0]) if is_stacked(path) else (None,):
            part = leaf if layer is None else leaf[layer]
            if is_absent(path, layer, self.model_type) and (path, layer) not in self.slots:
                part[...] = 1.0 if path.endswith("/scale") else 0.0
                continue
            source = self.slots[path, layer]
            part[...] = source.read()
            require_finite(source.name, part)
        return leaf


def index_tensors(tensors: Tensors, model_type: str = "bert") -> TensorIndex:
    """Returns where each tensor belongs.

    Raises:
        ValueError: tensors that the family does not have, or two for one slot.
    """
    slots: dict[Slot, IndexedTensor] = {}
    repeats, unknown = [], []
    for name, piece, tensor in _pieces(tensors, model_type):
        try:
            location = locate_tensor(piece, model_type)
        except KeyError:
            unknown.append(name)
            continue
        if location is None:
            continue
        source = IndexedTensor(name, tensor, location)
        slot = (location.path, location.layer)
        if location.repeats:
            repeats.append(source)
        elif slot in slots:
            raise ValueError(f"{slots[slot].name} and {name} are the same parameter")
        else:
            slots[slot] = source
    if unknown:
        raise ValueError(f"{FAMILIES[model_type].title} has no tensors called {list_names(unknown)}")
    # Some files hold the tied decoder only, and not the embedding that it repeats.
    for source in repeats:
        slots.setdefault((source.location.path, None), source)
    return TensorIndex(slots, repeats, model_type)


def _pieces(tensors: Tensors, model_type: str) -> Iterator[tuple[str, str, Tensor]]:
    """Yields (name for messages, name of the piece, tensor); a tensor that is one leaf is its own only piece.

    Raises:
        ValueError: a tensor that cannot be divided into its pieces.
    """
    for name, tensor in tensors.items():
        names = piece_names(name, model_type)
        if len(names) == 1:
            # A file has no tensors with the names of pieces.
            yield name, name if whole_name(name, model_type) == name else "", tensor
            continue
        if not tensor.shape or tensor.shape[0] % len(names):
            raise ValueError(f"{name} has shape {tensor.shape}, which is not {len(names)} pieces of equal size")
        rows = tensor.shape[0] // len(names)
        for index, piece in enumerate(names):
            part = slice(index * rows, (index + 1) * rows)
            shape = (rows, *tensor.shape[1:])
            yield (
                f"{name}[{part.start}:{part.stop}]",
                piece,
                Tensor(shape, tensor.dtype, lambda tensor=tensor, part=part: tensor.read()[part]),
            )


def _check_complete(
    slots: Mapping[Slot, IndexedTensor], shapes: Mapping[str, tuple[int, ...]], model_type: str, parts: Collection[str]
) -> None:
    """Checks that every leaf, and every layer of it, has a tensor."""
    missing = []

    def name(path: str, layer: int | None = None) -> str:
        return whole_name(hf_name(path, layer, model_type=model_type, parts=parts), model_type)

    for path, shape in shapes.items():
        if not is_stacked(path):
            missing += [] if (path, None) in slots else [name(path)]
        else:
            # A loop over the layers of the file: a hostile config may claim 10^9 of them.
            first = next(
                layer for layer in count() if (path, layer) not in slots and not is_absent(path, layer, model_type)
            )
            missing += [name(path, first)] if first < shape[0] else []
    if missing:
        raise ValueError(f"missing from the file: {list_names(dict.fromkeys(missing))}")


def _check_shape_and_dtype(source: IndexedTensor, shape: tuple[int, ...] | None, layer: int | None) -> None:
    """Checks that the config has a slot of this shape for the tensor."""
    if shape is None or (layer is not None and layer >= shape[0]):
        raise ValueError(f"the config has no place for {source.name}")
    shape = shape if layer is None else shape[1:]
    if source.shape != shape:
        expected = shape[::-1] if source.location.transposed else shape
        raise ValueError(f"{source.name} has shape {source.tensor.shape}, the config requires {expected}")
    if source.tensor.dtype not in DTYPES:
        raise ValueError(f"{source.name} is stored as {source.tensor.dtype}; parameters are {', '.join(DTYPES)}")


def _check_repeat(repeat: IndexedTensor, source: IndexedTensor) -> None:
    """Checks that a repeated tensor equals the one that it repeats: our decoder is always tied."""
    if repeat.shape != source.shape or not np.array_equal(repeat.read(), source.read()):
        raise ValueError(f"{repeat.name} differs from {source.name}: an untied decoder is not supported")


def to_state_dict(
    params: Mapping[str, Any], *, prefix: bool, dtype: str | None = None, model_type: str = "bert"
) -> dict[str, np.ndarray]:
    """Returns the parameters under the names and in the order of axes of PyTorch's classes.

    Args:
        prefix: whether the encoder's names start with `bert.`, as in every class but `BertModel`.
        dtype: of the contiguous arrays returned; default: that of the parameters.
    """
    tensors = {}
    for path, leaf in flatten(params):
        array = np.asarray(leaf)
        stored = array.dtype if dtype is None else DTYPES[dtype]
        for layer in range(len(array)) if is_stacked(path) else (None,):
            if is_absent(path, layer, model_type):
                continue
            tensor = array if layer is None else array[layer]
            tensor = tensor.T if path.endswith("/kernel") else tensor
            name = hf_name(path, layer, prefix=prefix, model_type=model_type, parts=params.keys())
            tensors[name] = np.ascontiguousarray(tensor, stored)
    return _joined(tensors, model_type)


def _joined(tensors: Mapping[str, np.ndarray], model_type: str) -> dict[str, np.ndarray]:
    """Returns the tensors with pieces put together: `Wqkv.0`, `Wqkv.1` and `Wqkv.2` become `Wqkv`."""
    wholes = dict.fromkeys(whole_name(name, model_type) for name in tensors)
    return {
        name: tensors[name]
        if name in tensors
        else np.concatenate([tensors[one] for one in piece_names(name, model_type)])
        for name in wholes
    }


def require_finite(name: str, array: np.ndarray) -> None:
    """Raises ValueError if an array has NaN or infinite values: every output of such a model would be NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(array.sum(dtype=np.float32 if array.itemsize < 8 else None))  # without a copy
    if not finite and (count := array.size - int(np.isfinite(array.astype(np.float64)).sum())):
        raise ValueError(f"{name} has NaN or infinite values: {count:,} of {array.size:,}")


def list_names(names: Iterable[str]) -> str:
    """Returns the first few names for an error message, and how many more there are."""
    # Names come from files: they may be long, and contain line breaks or control characters.
    printable = sorted(f"{name if name.isprintable() else ascii(name):.120}" for name in names)
    more = f" and {len(printable) - NAMES_IN_ERROR} more" if len(printable) > NAMES_IN_ERROR else ""
    return ", ".join(printable[:NAMES_IN_ERROR]) + more
