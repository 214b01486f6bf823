"""All that one step of training changes."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array


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


def run_key(key: Array, generator: str = "threefry2x32") -> Array:
    """Returns a run's key: `key` itself, or one made of it for JAX's generator `rbg`.

    `rbg` uses the hardware's own generator, so that dropout costs next to nothing on GPUs and TPUs; but its bits hang
    on how an array is laid over devices, and under `jax.vmap` on all keys together, where threefry's do not.
    """
    if generator == "threefry2x32":
        return key
    return jax.random.wrap_key_data(jnp.tile(jax.random.key_data(key), 2), impl=generator)
