"""Named outputs of a model, read by key or by attribute, under Hugging Face's names."""

from typing import Any

import jax


@jax.tree_util.register_pytree_with_keys_class
class Outputs(dict):
    """A dict of arrays whose entries are also attributes; a pytree for JAX.

    >>> Outputs(logits=1).logits
    1
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"outputs are {', '.join(self)}; not {name}") from None

    def tree_flatten_with_keys(self):
        return tuple((jax.tree_util.DictKey(name), value) for name, value in self.items()), tuple(self)

    def tree_flatten(self):
        return tuple(self.values()), tuple(self)

    @classmethod
    def tree_unflatten(cls, names, values):
        return cls(zip(names, values, strict=True))
