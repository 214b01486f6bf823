"""The FLOP and collectives of programs for many devices, compared with the known counts."""

import pytest
import scaling

from bert_jax.training.devices.hlo import Collective

CLOSE = 0.01
V, D, L = 80, 32, 3
FLAGS = [
    "--preset", "tiny", "--vocab-size", str(V), "--hidden-size", str(D), "--num-hidden-layers", str(L),
    "--num-attention-heads", "8", "--intermediate-size", "40", "--max-length", "24", "--max-position-embeddings", "24",
    "--hidden-act", "relu", "--hidden-dropout-prob", "0", "--attention-probs-dropout-prob", "0",
]  # fmt: skip


def test_beyond_the_fast_links_a_device_sends_only_its_slice():
    machine = scaling.Accelerator("M", 1.0, 1.0, 1.0, joined=4, fast_rate=10.0, slow_rate=1.0)
    all_devices = Collective("all-reduce", 80, tuple(range(8)), times=3)
    assert machine.communication_seconds([all_devices]) == pytest.approx(
        (3 * 2 * 80 * 3 / 4 / 10, 3 * 2 * 20 * 1 / 2 / 1)
    )
    near = Collective("all-gather", 80, (0, 1), 1)
    far = Collective("all-gather", 80, (0, 4), 1)
    assert machine.communication_seconds([near, far]) == pytest.approx((4, 40))
    permutes = [Collective("collective-permute", 80, pair, 1) for pair in ((0, 1), (0, 5))]
    assert machine.communication_seconds(permutes) == pytest.approx((8, 80))


@pytest.fixture(scope="module")
def steps():
    """The step of train.py for eight devices, with each kind of sharding."""
    return {name: scaling.compile_step(FLAGS, sizes, rows=2) for name, sizes in scaling.MESHES.items()}


def bytes_sent(step, kind):
    return sum(one.bytes_sent for one in step.program.collectives if one.kind == kind)


def test_flop_are_divided_among_the_devices(steps):
    """With `tensor`, all devices of a group repeat the dense layers of the heads: a large part of so small a model."""
    for name, step in steps.items():
        assert step.program.flop == pytest.approx(step.traced_flop, rel=0.1 if "tensor" in name else CLOSE)


def test_data_parallelism_sends_the_gradients(steps):
    """An all-reduce over 8 devices sends 2 x 7/8 of its bytes. The tied table of input and decoder is sent once."""
    step = steps["data"]
    gradients = step.state_bytes / 3
    assert bytes_sent(step, "all-reduce") == pytest.approx(2 * 7 / 8 * gradients, rel=CLOSE)
    assert bytes_sent(step, "all-reduce") == sum(one.bytes_sent for one in step.program.collectives)


def test_fsdp_gathers_parameters_and_scatters_gradients(steps):
    whole = steps["data"]
    step = steps["data x fsdp 8"]
    assert step.state_bytes < whole.state_bytes / 8 * 1.3
    kernels = 4 * L * (4 * D * D + 2 * D * 40)
    assert bytes_sent(step, "all-gather") > 7 / 8 * 2 * kernels  # forward and backward
    assert bytes_sent(step, "reduce-scatter") > 7 / 8 * kernels
    assert bytes_sent(step, "all-reduce") < bytes_sent(whole, "all-reduce") / 4


def test_the_report_has_every_sharding_and_accelerator(steps):
    steps = {(step.devices, name): step for name, step in steps.items()}
    text = scaling.report(FLAGS, steps, dict.fromkeys(scaling.MESHES, 1e6))
    for machine in scaling.MACHINES:
        assert f"\n{machine.name}: " in text
    assert text.count("\n| 8 | data x fsdp 8 | ") == 1 + len(scaling.MACHINES)
