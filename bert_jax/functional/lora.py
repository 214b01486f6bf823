"""Low-rank adapters (LoRA): a frozen kernel plus a product of two thin matrices that are trained.

y = x kernel + bias + scale (x a) b, with a [I, R], b [R, O] and scale = lora_alpha / R. b starts at zero, so training
starts from the loaded model. scale * a b has the kernel's shape and can be merged into it after training. In the
encoder every array has a leading axis L.

References: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021. Dettmers et al., QLoRA, 2023, section 4
(adapters on every dense layer).
"""

from typing import Any


def attach(params, adapters, *, scale: float) -> Any:
    """Returns the encoder's subtree with an `adapter` beside each adapted kernel, for `dense` to add."""
    if "a" in adapters:
        # b is the smaller place to scale: [R, O] once, instead of every output [B, T, O].
        return {**params, "adapter": {"a": adapters["a"], "b": adapters["b"] * scale}}
    return {**params, **{name: attach(params[name], child, scale=scale) for name, child in adapters.items()}}


def merge(params, adapters, *, scale: float) -> Any:
    """Returns the encoder's subtree with every adapter added to its kernel: the same function without adapters."""
    if "a" in adapters:
        return {**params, "kernel": params["kernel"] + scale * (adapters["a"] @ adapters["b"])}
    return {**params, **{name: merge(params[name], child, scale=scale) for name, child in adapters.items()}}
