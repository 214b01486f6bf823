"""A profile tells the time of a program by the scopes and the operations of its code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common.profiles import Operation, operation, profile, table


def test_an_op_name_is_taken_apart():
    forward = operation("jit(step)/jvp()/encoder/while/body/closed_call/attention/dot_general", 2.0)
    assert forward == Operation("encoder/attention", False, "dot_general", 2.0)
    again = "jit(step)/transpose(jvp(encoder))/while/body/checkpoint/rematted_computation/feed_forward/mul"
    assert operation(again, 1.0) == Operation("encoder/feed_forward", True, "mul", 1.0)
    assert operation("copy", 1.0) == Operation("elsewhere", False, "copy", 1.0)
    assert operation("jit(step)/encoder/mul;encoder/attention/add", 1.0) == Operation("encoder", False, "mul", 1.0)
    named = "jit(step)/transpose(jvp(BertForPreTraining))/BertForPreTraining.apply_head/masked_lm/BD,DC->BC/dot_general"
    assert operation(named, 1.0) == Operation("masked_lm", True, "dot_general", 1.0)


def test_a_program_is_told_by_its_scopes(tmp_path):
    @jax.jit
    def slope(x, weights):
        def layer(x, w):
            with jax.named_scope("mixing"):
                return jnp.sin(x @ w), None

        def whole(weights):
            with jax.named_scope("stack"):
                return jnp.square(jax.lax.scan(layer, x, weights)[0]).sum()

        return jax.grad(whole)(weights)

    x, weights = jnp.ones((131, 127)), jnp.ones((3, 127, 127))
    jax.block_until_ready(slope(x, weights))
    found = profile(lambda: jax.block_until_ready(slope(x, weights)), str(tmp_path))
    mixing = [one for one in found if one.scope == "stack/mixing"]
    assert {one.backward for one in mixing} == {False, True}
    products = [one for one in mixing if one.primitive == "dot_general"]
    assert len(products) >= 3
    assert all(one.seconds > 0 for one in products)
    assert any(line.startswith("| stack/mixing |") for line in table(found))


def test_shares_add_up_and_small_scopes_are_told_together():
    some = [Operation("a", False, "dot_general", 6.0), Operation("a", True, "dot_general", 3.0)]
    some += [Operation("b", False, "exp", 0.99)] + [Operation(f"c{i}", i > 1, "tanh", 0.005) for i in range(2)]
    lines = table(some)
    assert lines[2:5] == ["| a | 60.0% | 30.0% |", "| b | 9.9% | 0.0% |", "| 2 smaller ones | 0.1% | 0.0% |"]
    assert sum(float(cell.strip(" %")) for cell in " ".join(lines[8:]).split("|") if "%" in cell) == pytest.approx(100)
    assert np.all(["%" in line for line in lines[2:5]])
