"""Compilations are counted by the shape of the batch, and one too many gives a warning."""

import re
import threading

import jax
import numpy as np
import pytest

from bert_jax.training.devices.compilations import CompilationCounter


def counted():
    return CompilationCounter(jax.jit(lambda x, batch: x + batch["input_ids"].sum()))


def batch(width, dtype=np.float32):
    return {"input_ids": np.zeros((2, width), dtype)}


def test_each_shape_is_counted_as_often_as_it_is_compiled():
    add = counted()
    for width in (3, 5, 3, 5, 3):
        add(0.0, batch(width))
    assert add.shapes == {(2, 3): 1, (2, 5): 1}
    add(0.0, batch(3, np.float16))
    assert add.shapes == {(2, 3): 2, (2, 5): 1}


def test_compilations_outside_the_function_are_not_counted():
    add = counted()
    add(0.0, batch(3))
    other = jax.jit(lambda x: x * 3 + 1)
    other(np.zeros(7))
    thread = threading.Thread(target=lambda: other(np.zeros(11)))

    def meanwhile(x, batch):
        thread.start()
        thread.join()
        return x

    beside = CompilationCounter(meanwhile)
    beside(0.0, batch(3))
    assert beside.shapes == {}
    assert add.shapes == {(2, 3): 1}


@pytest.mark.parametrize(
    ("widths", "dtypes", "varied_shapes", "warning"),
    [
        ([3, 3, 3, 3], "ffff", False, None),
        ([3, 3, 2, 3], "ffff", False, r"\(2 compilations so far\).*; the shape of the batch changed"),
        ([3, 3, 2, 3], "ffff", True, None),
        ([3, 3, 3, 3], "ffef", False, r"\(2 compilations so far\).*; a dtype or a sharding changed"),
        ([3, 2, 3, 3], "ffef", True, r"\(3 compilations so far\).*; a dtype or a sharding changed"),
    ],
)
def test_the_third_call_warns_of_an_unexpected_compilation(widths, dtypes, varied_shapes, warning):
    add = counted()
    warnings = []
    for width, dtype in zip(widths, dtypes, strict=True):
        add(0.0, batch(width, dtype))
        warnings.append(add.warning(batch(width), varied_shapes=varied_shapes))
    assert warnings[:2] == [None, None]
    assert warnings[3] is None
    if warning is None:
        assert warnings[2] is None
    else:
        assert re.search(warning, warnings[2])
