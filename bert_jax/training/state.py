"""All that one step of training changes."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array

from bert_jax.functional.random_bits import HASHED

GENERATORS = ("hashed", "threefry2x32", "rbg")


@struct.dataclass
class TrainState:
    """The state of a run; with the data position it is all that a checkpoint holds.

    Attributes:
        step: int32 scalar, steps done so far.
        params: the parameters that learn, float32.
        optimizer_state: optax's state; trees inside it are named like the parameters.
        key: the run's key; a step folds its number into it, so it never changes.
        skipped: int32 scalar, those of the steps whose update was not finite and not made.
        frozen: the parts of the parameter tree that do not learn and have no optimizer state.
    """

    step: Array
    params: Any
    optimizer_state: Any
    key: Array
    skipped: Array
    frozen: Any = struct.field(default_factory=dict)

    @property
    def all_params(self) -> Any:
        """The whole parameter tree."""
        return {**self.frozen, **self.params}

    @classmethod
    def create(cls, params, optimizer: optax.GradientTransformation, *, key: Array, frozen=None) -> "TrainState":
        """Returns the state before the first step."""
        step, skipped = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        return cls(step, params, optimizer.init(params), key, skipped, frozen or {})


def run_key(key: Array, generator: str = "hashed") -> Array:
    """Returns a run's key, made of a key of JAX's usual kind; what differs is how dropout gets its bits from it.

    `hashed`: see `functional.random_bits`. `threefry2x32`: the key itself; the slowest. `rbg`: the hardware's own
    generator; but its bits hang on how an array is laid over devices, and under `jax.vmap` on all keys together, where
    those of the others do not.

    Raises:
        ValueError: another generator.
    """
    if generator not in GENERATORS:
        raise ValueError(f"the generator must be one of {', '.join(GENERATORS)}; got {generator!r}")
    if generator == "threefry2x32":
        return key
    words = jax.random.key_data(key)
    if generator == "rbg":
        return jax.random.wrap_key_data(jnp.tile(words, 2), impl="rbg")
    return jax.random.wrap_key_data(words, impl=HASHED)
