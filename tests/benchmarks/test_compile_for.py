"""Each check of compiled programs sees what it is for."""

from pathlib import Path

import compile_for
import numpy as np
import pytest
from common import program_checks
from common.gpu_cases import Case, random_batch

from bert_jax.training.devices.hlo import Collective, Module
from bert_jax.training.devices.roofline import kernels

HEADS, LENGTH = 3, 7
TEXT = """HloModule step

%fused (p: bf16[2,3,7,7], ids: s32[4]) -> bf16[5,7] {
  %p = bf16[2,3,7,7]{3,2,1,0} parameter(0)
  %ids = s32[4]{0} parameter(1)
  %rows = bf16[4,7]{1,0} constant({...})
  %zeros = bf16[5,7]{1,0} constant({...})
  ROOT %scattered = bf16[5,7]{1,0} scatter(%zeros, %ids, %rows), update_window_dims={1}, UNIQUE, to_apply=%add
}

ENTRY %main (a: LEFT[6,5], b: f32[5,4]) -> f32[6,4] {
  %a = LEFT[6,5]{1,0} parameter(0)
  %b = f32[5,4]{1,0} parameter(1)
  %out = (bf16[2,7,12]{2,1,0}, f32[2,STORED,7]{2,1,0}) custom-call(%a), custom_call_target="kernel"
  %kept = bf16[5,7]{1,0} fusion(%out, %a), kind=kInput, calls=%fused
  ROOT %c = f32[6,4]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="jit(call)/SCOPE/dot_general"}
}
"""  # noqa: E501
GOOD = {"LEFT": "bf16", "STORED": "3", "UNIQUE": "unique_indices=true", "SCOPE": "encoder"}


def problems(**changes):
    """What the checks of one program say of the text with `changes`."""
    text = TEXT
    for name, value in (GOOD | changes).items():
        text = text.replace(name, value)
    module = Module.parse(text)
    found = kernels(module)
    return (
        program_checks.float32_products(found)
        + program_checks.stored_scores(found, heads=HEADS, length=LENGTH)
        + program_checks.unordered_scatters(module)
    )


def test_a_good_program_passes():
    """Scores inside a fusion are no array in memory."""
    assert problems() == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"LEFT": "f32"}, "c multiplies float32 by float32: jit(call)/encoder/dot_general"),
        ({"STORED": "3,7"}, "out stores f32[2, 3, 7, 7]: no scope"),
        ({"UNIQUE": "unique_indices=false"}, "scattered scatters bf16[5,7]{1,0} in no fixed order: no scope"),
    ],
)
def test_a_lost_property_is_found(changes, message):
    assert problems(**changes) == [message]


def test_sums_of_embeddings_are_in_float32():
    assert problems(LEFT="f32", SCOPE="transpose(jvp)/embeddings/mij,mjd->mid") == []


def test_sums_once_per_step_and_once_per_micro_batch():
    once = [Collective("all-reduce", 100, (0, 1), 1), Collective("all-gather", 30, (0, 1), 1)]
    gathered_more = [once[0], Collective("all-gather", 30, (0, 1), 4)]
    assert program_checks.sums_that_grow(once, gathered_more) == []
    per_micro_batch = [Collective("all-reduce", 100, (0, 1), 4)]
    assert program_checks.sums_that_grow(once, per_micro_batch) == [
        "sums over devices grow with accumulation: from 1 of 100 bytes to 4 of 400 bytes"
    ]


def test_memory_may_grow_by_five_per_cent():
    assert program_checks.memory_growth(1050, 1000) == []
    assert program_checks.memory_growth(1051, 1000) == ["memory grew by 5%: 1,051 bytes, it was 1,000"]


def test_a_check_fails_if_the_kernel_is_lost(monkeypatch):
    class Step:
        flags = "x"
        collectives = kernels = ()
        seconds_to_compile = 0.0

        class model:
            kernel = None

        class memory:
            working = 10

        class target:
            class accelerator:
                platform = "tpu"

    monkeypatch.setattr(compile_for, "compile_step", lambda device, flags: Step)
    before = {"jax": compile_for.jax.__version__, "attention": "pallas", "x": 10}
    assert compile_for.check("v5e", {"v5e": before}, update=False) == ["v5e: attention is plain, it was pallas"]
    assert compile_for.check("v5e", {"v5e": before | {"attention": "plain", "x": 9}}, update=False) == [
        "v5e: memory grew by 11%: 10 bytes, it was 9"
    ]
    assert compile_for.check("v5e", {"v5e": {"jax": "0.1"}}, update=False) == []
    stored = {}
    assert compile_for.check("v5e", stored, update=True) == []
    assert stored["v5e"] == before | {"attention": "plain"}


def test_blocks_of_other_sequences_are_not_visited():
    whole = np.ones((2, 512), np.int32)
    halves = np.repeat([[1, 2]], 256, axis=1)
    quarters = np.repeat([[1, 2, 3, 3]], 128, axis=1)
    packed = random_batch(Case("base", 512, True, 64), 100)["attention_mask"]
    on_gpu, on_tpu = (
        [compile_for.visited_fraction(mask, platform) for mask in (whole, halves, quarters, packed)]
        for platform in ("gpu", "tpu")
    )
    assert on_gpu[:3] == [1, 0.5, 0.375]
    assert on_tpu[:3] == [1, 0.5, 0.5]  # blocks of 256
    assert 0.3 < on_gpu[3] < 0.6 < on_tpu[3] <= 1


def test_the_stored_memory_is_that_of_the_checked_programs():
    assert Path(compile_for.STORED).is_file()
    for flags in compile_for.json.loads(compile_for.STORED.read_text()).values():
        assert {f"{compile_for.CHECKED} {count}" for count in compile_for.MICRO_BATCHES} <= set(flags)
