"""Loops, matrix products and collectives parsed from the text of a partitioned program."""

import pytest

from bert_jax.training.devices import hlo
from bert_jax.training.devices.hlo import Collective, Program

TEXT = """HloModule step, num_partitions=4

%sum (a: bf16[], b: bf16[]) -> bf16[] {
  %a = bf16[] parameter(0)
  %b = bf16[] parameter(1)
  ROOT %add = bf16[] add(bf16[] %a, bf16[] %b)
}

%body (state: (s32[], bf16[6,5])) -> (s32[], bf16[6,5]) {
  %state = (s32[], bf16[6,5]{1,0}) parameter(0)
  %x = bf16[6,5]{1,0} get-tuple-element((s32[], bf16[6,5]{1,0}) %state), index=1
  %w = bf16[5,2]{1,0} constant({...})
  %whole = bf16[5,4]{1,0} all-gather(bf16[5,2]{1,0} %w), channel_id=1, replica_groups=[2,2]<=[4], dimensions={1}
  %y = f32[6,4]{1,0} dot(bf16[6,5]{1,0} %x, bf16[5,4]{1,0} %whole), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %tuple = (s32[], bf16[6,5]{1,0}) tuple(%i, %x)
}

%condition (state: (s32[], bf16[6,5])) -> pred[] {
  %state.1 = (s32[], bf16[6,5]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element((s32[], bf16[6,5]{1,0}) %state.1), index=0
  %bound = s32[] constant(7)
  ROOT %less = pred[] compare(s32[] %i.1, s32[] %bound), direction=LT
}

ENTRY %main (p: bf16[8,3], q: (s32[], bf16[6,5])) -> bf16[2,3] {
  %p = bf16[8,3]{1,0} parameter(0)
  %q = (s32[], bf16[6,5]{1,0}) parameter(1)
  %while = (s32[], bf16[6,5]{1,0}) while((s32[], bf16[6,5]{1,0}) %q), condition=%condition, body=%body
  %kept = bf16[8,3]{1,0} all-reduce(bf16[8,3]{1,0} %p), replica_groups={{0,1,2,3}}, to_apply=%sum
  %zero = s32[] constant(0)
  %slice = bf16[2,3]{1,0} dynamic-slice(bf16[8,3]{1,0} %kept, s32[] %zero, s32[] %zero), dynamic_slice_sizes={2,3}
  %half = bf16[8,3]{1,0} all-reduce(bf16[8,3]{1,0} %p), replica_groups={{0,2},{1,3}}, to_apply=%sum
  %alone = bf16[8,3]{1,0} all-reduce(bf16[8,3]{1,0} %p), replica_groups={{0},{1},{2},{3}}, to_apply=%sum
  ROOT %part = bf16[2,3]{1,0} dynamic-slice(bf16[8,3]{1,0} %half, s32[] %zero, s32[] %zero), dynamic_slice_sizes={2,3}
}
"""


def test_flop_and_collectives_are_parsed():
    """A loop's body counts once per iteration; an all-reduce of which each device keeps a slice is a reduce-scatter."""
    program = Program.parse(TEXT)
    assert program.flop == 7 * 2 * 6 * 4 * 5
    assert program.collectives == (
        Collective("reduce-scatter", 2 * 8 * 3, (0, 1, 2, 3), 1),
        Collective("all-reduce", 2 * 8 * 3, (0, 2), 1),
        Collective("all-gather", 2 * 5 * 4, (0, 1), 7),
    )
    assert [collective.bytes_sent for collective in program.collectives] == [36, 48, 7 * 20]


def test_a_loop_without_a_trip_count_is_an_error():
    with pytest.raises(ValueError, match="loop condition condition does not compare with one constant"):
        Program.parse(TEXT.replace("s32[] constant(7)", "s32[] parameter(1)"))


@pytest.mark.parametrize(
    ("notation", "group"),
    [
        ("replica_groups={{0,3},{1,2}}", (0, 3)),
        ("replica_groups=[2,4]<=[8]", (0, 1, 2, 3)),
        ("replica_groups=[4,2]<=[2,4]T(1,0), use_global_device_ids=true", (0, 4)),
        ("replica_groups=mesh['a'=2,'b'=4] {'a'}, to_apply=%sum", (0, 4)),
        ("replica_groups=mesh['a'=2,'b'=2,'c'=2] {'a','c'}", (0, 1, 4, 5)),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}", (0, 1, 2, 3)),
        ("source_target_pairs={{1,0},{0,5}}", (1, 0)),
    ],
)
def test_device_groups_are_parsed(notation, group):
    assert hlo.device_group(f", channel_id=3, {notation}") == group


def test_a_collective_without_a_device_group_is_an_error():
    with pytest.raises(ValueError, match="collective without a known device group: replica_groups=mesh"):
        hlo.device_group(" replica_groups=mesh['a'=8] {'a':(1)2}")
