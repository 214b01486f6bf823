"""Low-rank adapters: beside a kernel that stays as it is, a product of two thin matrices that learns (LoRA).

y = x kernel + bias + scale (x a) b, with a [I, R], b [R, O] and scale = alpha / R. Since b starts at zero, training
starts from the model that was loaded; and since scale a b has the kernel's shape, the two can be made one afterwards.

References: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021. Dettmers et al., QLoRA, 2023, section 4
(adapters beside every dense layer).
"""

from typing import Any


def attach(params, adapters, *, scale: float) -> Any:
    """Returns the encoder's subtree with an `adapter` beside each kernel that has one; `dense` adds it."""
    if "a" in adapters:
        return {**params, "adapter": {"a": adapters["a"], "b": adapters["b"] * scale}}
    joined = {name: attach(params[name], child, scale=scale) for name, child in adapters.items()}
    return {**params, **joined}


def merge(params, adapters, *, scale: float) -> Any:
    """Returns the encoder's subtree with every adapter added to its kernel: the same function, without adapters."""
    if "a" in adapters:
        return {**params, "kernel": params["kernel"] + scale * (adapters["a"] @ adapters["b"])}
    joined = {name: merge(params[name], child, scale=scale) for name, child in adapters.items()}
    return {**params, **joined}
