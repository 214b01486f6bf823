"""Kernels of optimized programs: their products, bytes, repetitions and times, in small programs counted by hand."""

import pytest

from bert_jax.training.devices.accelerators import ACCELERATORS
from bert_jax.training.devices.hlo import Collective, Instruction, Module, array_types
from bert_jax.training.devices.roofline import (
    BANDWIDTH_FRACTION,
    LAUNCH_SECONDS,
    MATRIX_FRACTION,
    SCORE_SECONDS,
    convolution_flop,
    kernels,
    step_seconds,
)

H100 = ACCELERATORS["h100"]
V5E = ACCELERATORS["v5e"]
GPU = """HloModule jit_step, is_scheduled=true

%gemm_fusion (p0: bf16[6,5], p1: bf16[5,4]) -> f32[6,4] {
  %p0 = bf16[6,5]{1,0} parameter(0)
  %p1 = bf16[5,4]{1,0} parameter(1)
  ROOT %dot.1 = f32[6,4]{1,0} dot(%p0, %p1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%slice_fusion (p0.1: f32[7,6,4], p1.1: s32[]) -> f32[6,4] {
  %p0.1 = f32[7,6,4]{2,1,0} parameter(0)
  %p1.1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %bitcast.9 = f32[7,6,4]{2,1,0} bitcast(%p0.1)
  %layer = f32[1,6,4]{2,1,0} dynamic-slice(%bitcast.9, %p1.1, %zero, %zero), dynamic_slice_sizes={1,6,4}
  ROOT %bitcast.1 = f32[6,4]{1,0} bitcast(%layer)
}

%update_fusion (p0.2: f32[7,6,4], p1.2: f32[6,4], p2.2: s32[]) -> f32[7,6,4] {
  %p0.2 = f32[7,6,4]{2,1,0} parameter(0)
  %p1.2 = f32[6,4]{1,0} parameter(1)
  %p2.2 = s32[] parameter(2)
  %zero.1 = s32[] constant(0)
  %bitcast.2 = f32[1,6,4]{2,1,0} bitcast(%p1.2)
  ROOT %updated = f32[7,6,4]{2,1,0} dynamic-update-slice(%p0.2, %bitcast.2, %p2.2, %zero.1, %zero.1)
}

%body (state: (s32[], bf16[6,5], bf16[5,4], f32[7,6,4])) -> (s32[], bf16[6,5], bf16[5,4], f32[7,6,4]) {
  %state = (s32[], bf16[6,5]{1,0}, bf16[5,4]{1,0}, /*index=3*/f32[7,6,4]{2,1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %x = bf16[6,5]{1,0} get-tuple-element(%state), index=1
  %w = bf16[5,4]{1,0} get-tuple-element(%state), index=2
  %stack = f32[7,6,4]{2,1,0} get-tuple-element(%state), index=3
  %y = f32[6,4]{1,0} fusion(%x, %w), kind=kCustom, calls=%gemm_fusion, metadata={op_name="jit(step)/encoder/dot"}
  %z = f32[6,4]{1,0} fusion(%stack, %i), kind=kLoop, calls=%slice_fusion
  %new = f32[7,6,4]{2,1,0} fusion(%stack, %y, %i), kind=kLoop, calls=%update_fusion
  ROOT %tuple = (s32[], bf16[6,5]{1,0}, bf16[5,4]{1,0}, f32[7,6,4]{2,1,0}) tuple(%i, %x, %w, %new)
}

%condition (state.1: (s32[], bf16[6,5], bf16[5,4], f32[7,6,4])) -> pred[] {
  %state.1 = (s32[], bf16[6,5]{1,0}, bf16[5,4]{1,0}, /*index=3*/f32[7,6,4]{2,1,0}) parameter(0)
  ROOT %less = pred[] constant(true)
}

ENTRY %main (q: bf16[2,64,12], m: f32[2,3,64], g: f32[6,4], init: (s32[], bf16[6,5], bf16[5,4], f32[7,6,4])) -> f32[6,8] {
  %q = bf16[2,64,12]{2,1,0} parameter(0)
  %m = f32[2,3,64]{2,1,0} parameter(1)
  %g = f32[6,4]{1,0} parameter(2)
  %init = (s32[], bf16[6,5]{1,0}, bf16[5,4]{1,0}, f32[7,6,4]{2,1,0}) parameter(3)
  %while = (s32[], bf16[6,5]{1,0}, bf16[5,4]{1,0}, f32[7,6,4]{2,1,0}) while(%init), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"7"},"known_init_step":{"init":"0","step":"1"}}
  %dq = (bf16[2,64,12]{2,1,0}, f32[2,3,64]{2,1,0}) custom-call(%q, %q, %q, %m), custom_call_target="__gpu$xla.gpu.triton", metadata={op_name="jit(step)/attention/backward_queries_kernel/pallas_call"}
  %sent = f32[6,4]{1,0} all-reduce-start(%g), replica_groups=mesh['axis_0'=2,'axis_1'=1] {'axis_0'}, to_apply=%add
  %got = f32[6,4]{1,0} all-reduce-done(%sent)
  ROOT %product = (f32[6,8]{1,0}, s8[64]{0}) custom-call(%got, %w8), custom_call_target="__cublas$gemm", backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}
  %w8 = f32[4,8]{1,0} constant({...})
}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}
"""  # noqa: E501


@pytest.fixture(scope="module")
def module():
    return Module.parse(GPU)


@pytest.fixture(scope="module")
def found(module):
    return {kernel.instruction.name: kernel for kernel in kernels(module)}


def test_kernels_are_what_a_device_starts(found):
    assert list(found) == ["y", "z", "new", "dq", "sent", "product"]
    assert found["y"].instruction.scope == "jit(step)/encoder/dot"


def test_the_body_of_a_loop_runs_as_often_as_the_loop(found):
    assert [kernel.times for kernel in found.values()] == [7, 7, 7, 1, 1, 1]


def test_products_are_found_in_fusions_and_library_calls(found):
    assert found["y"].flop == 2 * 6 * 4 * 5
    assert found["y"].products == (("bf16", "bf16", "f32"),)
    assert found["product"].flop == 2 * 6 * 8 * 4
    assert found["product"].products == (("f32", "f32", "f32"),)
    assert found["z"].flop == 0


def test_a_slice_of_a_stack_counts_not_the_stack(found):
    layer = 4 * 6 * 4
    assert found["z"].bytes == 2 * layer + 4  # the slice, the result and the index
    assert found["new"].bytes == 2 * layer + 4  # the stack is updated in place
    assert found["y"].bytes == 2 * 6 * 5 + 2 * 5 * 4 + layer


def test_an_attention_kernel_has_scores_and_three_products(found):
    kernel = found["dq"]
    assert kernel.scores == 2 * 3 * 64 * 64
    assert kernel.flop == kernel.scores * 3 * 2 * 4
    whole = kernel.scores * SCORE_SECONDS["backward_queries_kernel"] + LAUNCH_SECONDS
    assert kernel.seconds(H100) == pytest.approx(whole)
    assert kernel.seconds(H100, visited=0.5) - LAUNCH_SECONDS == pytest.approx((whole - LAUNCH_SECONDS) / 2)
    assert kernel.seconds(ACCELERATORS["a100"]) > kernel.seconds(H100)


def test_heads_of_a_group_are_counted_on_a_tpu():
    """Four heads, two of which a program computes, and both gradients in one kernel."""
    text = """HloModule m

ENTRY %main (q: bf16[3,128,8]) -> bf16[3,128,8] {
  %q = bf16[3,128,8]{2,1,0:T(8,128)(2,1)} parameter(0)
  %sums = f32[6,2,128]{2,1,0:T(2,128)} parameter(1)
  ROOT %k = (bf16[3,128,8]{2,1,0}, bf16[3,128,8]{2,1,0}) custom-call(%q, %q, %q, %sums), custom_call_target="tpu_custom_call", metadata={op_name="jit(step)/backward_kernel"}
}
"""  # noqa: E501
    (kernel,) = kernels(Module.parse(text))
    assert kernel.scores == 3 * 4 * 128 * 128
    assert kernel.flop == kernel.scores * 5 * 2 * 2
    assert kernel.seconds(V5E, visited=0.5) == max(kernel.flop / 2 / V5E.peak, kernel.bytes / V5E.bandwidth)


def test_the_scores_of_all_seeds_are_counted():
    text = """HloModule m

ENTRY %main (q: bf16[5,3,64,8]) -> bf16[5,3,64,8] {
  %q = bf16[5,3,64,8]{3,2,1,0} parameter(0)
  ROOT %k = (bf16[5,3,64,8]{3,2,1,0}, f32[5,3,2,64]{3,2,1,0}) custom-call(%q, %q, %q), custom_call_target="__gpu$xla.gpu.triton", metadata={op_name="jit(step)/forward_kernel"}
}
"""  # noqa: E501
    (kernel,) = kernels(Module.parse(text))
    assert kernel.scores == 5 * 3 * 2 * 64 * 64
    assert kernel.flop == kernel.scores * 2 * 2 * 4


def test_a_kernel_takes_the_longer_of_arithmetic_and_memory(found):
    kernel = found["y"]
    of_memory = kernel.bytes / (H100.bandwidth * BANDWIDTH_FRACTION)
    assert kernel.flop / (H100.peak * MATRIX_FRACTION) < of_memory
    assert kernel.seconds(H100) == pytest.approx(of_memory + LAUNCH_SECONDS)
    assert kernel.seconds(V5E) == pytest.approx(max(kernel.flop / V5E.peak, kernel.bytes / V5E.bandwidth))


def test_a_step_is_the_sum_of_its_kernels(found):
    each = sum(kernel.times * kernel.seconds(H100) for kernel in found.values())
    assert step_seconds(list(found.values()), H100) == pytest.approx(each)


def test_started_collectives_are_counted_once(module):
    assert module.collectives() == (Collective("all-reduce", 4 * 6 * 4, (0, 1), 1),)


def convolution(result: str, left: str, right: str, attributes: str) -> float:
    operands = {name: Instruction(name, kind, "parameter", "0", "") for name, kind in (("x", left), ("w", right))}
    return convolution_flop(Instruction("c", result, "convolution", "%x, %w", f", {attributes}"), operands)


@pytest.mark.parametrize(
    ("shapes", "attributes", "flop"),
    [
        (("bf16[60,4]", "bf16[60,5]", "bf16[5,4]"), "dim_labels=bf_io->bf", 2 * 60 * 4 * 5),
        # A product per batch entry and head: 3 x 2 products of [7, 4] and [4, 5], in both forms that compilers write.
        (
            ("f32[3,2,7,5]", "bf16[3,2,7,4]", "bf16[3,2,4,5]"),
            "window={size=3x2 stride=2x1 lhs_dilate=3x2}, dim_labels=01bf_01io->01bf",
            2 * 3 * 2 * 7 * 5 * 4,
        ),
        (
            ("f32[3,2,7,5]", "bf16[3,2,7,4]", "bf16[3,2,4,5]"),
            "window={size=3x2 stride=3x2 pad=2_2x1_1 lhs_dilate=2x1 rhs_reversal=1x1}, dim_labels=01bf_01io->01bf",
            2 * 3 * 2 * 7 * 5 * 4,
        ),
        # The window spans both rows of an axis that is contracted.
        (("f32[1,7,5]", "bf16[2,7,4]", "bf16[2,4,5]"), "window={size=2}, dim_labels=0bf_0io->0bf", 2 * 2 * 7 * 5 * 4),
    ],
)
def test_products_written_as_convolutions(shapes, attributes, flop):
    assert convolution(*shapes, attributes) == flop


def test_vector_memory_is_not_the_memory_of_the_device():
    inside, outside = array_types("(bf16[8,128]{1,0:T(8,128)(2,1)S(1)}, f8e4m3fn[3]{0})")
    assert (inside.on_chip, outside.on_chip) == (True, False)
    assert (inside.bytes, outside.bytes) == (2 * 8 * 128, 3)
    text = """HloModule m

ENTRY %main (a: f32[4]) -> f32[4] {
  %a = f32[8,4]{1,0:T(8,128)} parameter(0)
  %near = f32[8,4]{1,0:T(8,128)S(1)} negate(%a)
  %copy-start = (f32[8,4]{1,0:T(8,128)}, f32[8,4]{1,0:T(8,128)S(1)}, u32[]{:S(2)}) copy-start(%near)
  %copy-done = f32[8,4]{1,0:T(8,128)} copy-done(%copy-start)
  %slice-start = ((f32[8,4]{1,0:T(8,128)}), f32[2,4]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%copy-done)
  ROOT %slice-done = f32[2,4]{1,0:T(8,128)S(1)} slice-done(%slice-start)
}
"""
    assert [kernel.bytes for kernel in kernels(Module.parse(text))] == [4 * 8 * 4, 4 * 8 * 4, 4 * 2 * 4]
