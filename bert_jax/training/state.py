"""The train state: everything that a training step changes."""

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
    """The state of a run. A checkpoint holds it and the position in the data.

    Attributes:
        step: int32 scalar, number of steps taken.
        params: trainable parameters, float32.
        optimizer_state: optax's state; the trees inside it have the names of the parameters.
        key: the run's key. It never changes; a step folds its number into it.
        skipped: int32 scalar, number of steps whose update was not finite and was skipped.
        frozen: subtrees of the parameters that are not trained and have no optimizer state.
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
        return cls(
            step=jnp.zeros((), jnp.int32),
            params=params,
            optimizer_state=optimizer.init(params),
            key=key,
            skipped=jnp.zeros((), jnp.int32),
            frozen=frozen or {},
        )


def run_key(key: Array, random_bits: str = "hashed") -> Array:
    """Converts a key of JAX's default kind into a run's key, whose kind decides how dropout masks are generated.

    `hashed`: see `functional.random_bits`. `threefry2x32`: the key itself, slowest. `rbg`: the generator of the
    hardware; only its bits depend on the sharding of an array and, under `jax.vmap`, on all keys together.

    Raises:
        ValueError: unknown `random_bits`.
    """
    if random_bits not in GENERATORS:
        raise ValueError(f"`random_bits` must be one of {', '.join(GENERATORS)}; got {random_bits!r}")
    if random_bits == "threefry2x32":
        return key
    words = jax.random.key_data(key)
    if random_bits == "rbg":
        return jax.random.wrap_key_data(jnp.tile(words, 2), impl="rbg")
    return jax.random.wrap_key_data(words, impl=HASHED)
