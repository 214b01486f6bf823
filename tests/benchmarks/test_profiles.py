"""A profile attributes the time of a program to the scopes and operations of its code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common.profiles import Operation, parse_op_name, profile, tables


def test_op_names_are_parsed_into_scope_direction_and_primitive():
    forward = parse_op_name("jit(step)/jvp()/encoder/while/body/closed_call/attention/dot_general", 2.0)
    assert forward == Operation("encoder/attention", False, "dot_general", 2.0)
    recomputed = "jit(step)/transpose(jvp(encoder))/while/body/checkpoint/rematted_computation/feed_forward/mul"
    assert parse_op_name(recomputed, 1.0) == Operation("encoder/feed_forward", True, "mul", 1.0)
    assert parse_op_name("copy", 1.0) == Operation("no scope", False, "copy", 1.0)
    assert parse_op_name("jit(step)/encoder/mul;encoder/attention/add", 1.0) == Operation("encoder", False, "mul", 1.0)
    named = "jit(step)/transpose(jvp(BertForPreTraining))/BertForPreTraining.apply_head/masked_lm/BD,DC->BC/dot_general"
    assert parse_op_name(named, 1.0) == Operation("masked_lm", True, "dot_general", 1.0)


def test_a_profile_attributes_operations_to_their_scopes(tmp_path):
    @jax.jit
    def gradient(x, weights):
        def layer(x, w):
            with jax.named_scope("mixing"):
                return jnp.sin(x @ w), None

        def loss(weights):
            with jax.named_scope("stack"):
                return jnp.square(jax.lax.scan(layer, x, weights)[0]).sum()

        return jax.grad(loss)(weights)

    x, weights = jnp.ones((131, 127)), jnp.ones((3, 127, 127))
    jax.block_until_ready(gradient(x, weights))
    found = profile(lambda: jax.block_until_ready(gradient(x, weights)), str(tmp_path))
    mixing = [one for one in found if one.scope == "stack/mixing"]
    assert {one.backward for one in mixing} == {False, True}
    products = [one for one in mixing if one.primitive == "dot_general"]
    assert len(products) >= 3
    assert all(one.seconds > 0 for one in products)
    assert any(line.startswith("| stack/mixing |") for line in tables(found))


def test_fractions_add_up_and_small_scopes_are_merged():
    some = [Operation("a", False, "dot_general", 6.0), Operation("a", True, "dot_general", 3.0)]
    some += [Operation("b", False, "exp", 0.99)] + [Operation(f"c{i}", i > 1, "tanh", 0.005) for i in range(2)]
    lines = tables(some)
    assert lines[2:5] == ["| a | 60.0% | 30.0% |", "| b | 9.9% | 0.0% |", "| 2 smaller | 0.1% | 0.0% |"]
    assert sum(float(cell.strip(" %")) for cell in " ".join(lines[8:]).split("|") if "%" in cell) == pytest.approx(100)
    assert np.all(["%" in line for line in lines[2:5]])
