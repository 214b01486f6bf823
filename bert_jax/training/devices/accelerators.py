"""Data of GPUs and TPUs, from their manufacturers: what a plan for a machine that is not there is computed from.

Sources; all rates are dense and of one device:

- NVIDIA's data sheets of A100 (SXM, 80 GB), H100 (SXM), H200 and B200 (in a DGX): bfloat16 peak without sparsity,
  bandwidth of the memory, NVLink (half of the advertised rate, which counts both directions). DGX user guides: eight
  GPUs per machine, each with a network adapter of 200 Gb/s (A100) or 400 Gb/s.
- Memory, cores, clock and on-chip sizes of GPUs: what the driver reports, as in the target descriptions of OpenXLA
  (xla/backends/gpu/target_config/specs).
- cloud.google.com/tpu/docs/v5e, v5p and v6e: bfloat16 peak, memory and its bandwidth, inter-chip links (half of the
  rate of both directions), chips per pod and data-center network per chip.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bert_jax.training.devices.hlo import Collective

GIBI = 2**30


@dataclass(frozen=True)
class Chip:
    """What XLA must know of a GPU to compile for it.

    Attributes:
        capability: CUDA compute capability.
        cores: number of streaming multiprocessors.
        clock: GHz.
        fpus: float32 units per core.
        shared: bytes of shared memory per core.
        l2: bytes of the L2 cache.
    """

    name: str
    capability: tuple[int, int]
    cores: int
    clock: float
    fpus: int
    shared: int
    l2: int


@dataclass(frozen=True)
class Accelerator:
    """A manufacturer's data of a device.

    Attributes:
        peak: dense bfloat16 FLOP/s.
        memory: bytes.
        bandwidth: bytes/s of the memory.
        joined: number of devices that the fast links join.
        fast_rate: bytes/s that a device can send over the fast links.
        slow_rate: bytes/s that it can send beyond them.
        chip: of GPUs only.
    """

    name: str
    peak: float
    memory: float
    bandwidth: float
    joined: int
    fast_rate: float
    slow_rate: float
    chip: Chip | None = None

    @property
    def platform(self) -> str:
        """The platform as JAX names it: gpu or tpu."""
        return "gpu" if self.chip else "tpu"

    def communication_seconds(self, collectives: Sequence[Collective]) -> tuple[float, float]:
        """Returns the seconds that a device sends over the fast links and beyond them.

        A group that spans several nodes is reduced as by NCCL: first within each node, then each device exchanges only
        its slice with the other nodes. With 4 devices per node, an all-reduce of 80 bytes over 8 devices sends
        2 * 80 * 3/4 bytes over the fast links and 2 * 80/4 * 1/2 bytes beyond.
        """
        fast_bytes = 0.0
        slow_bytes = 0.0
        for collective in collectives:
            nodes = len({device // self.joined for device in collective.group})
            devices_per_node = len(collective.group) / nodes
            size = collective.times * collective.phases * collective.size
            if collective.kind != "collective-permute":
                fast_bytes += size * (devices_per_node - 1) / devices_per_node
                slow_bytes += size / devices_per_node * (nodes - 1) / nodes
            elif nodes == 1:
                fast_bytes += size
            else:
                slow_bytes += size
        return fast_bytes / self.fast_rate, slow_bytes / self.slow_rate


A100 = Chip("NVIDIA A100-SXM4-80GB", (8, 0), 108, 1.41, 64, 167_936, 41_943_040)
H100 = Chip("NVIDIA H100 80GB HBM3", (9, 0), 132, 1.98, 128, 233_472, 52_428_800)
H200 = Chip("NVIDIA H200 141GB HBM3e", (9, 0), 132, 1.98, 128, 233_472, 52_428_800)
B200 = Chip("NVIDIA B200", (10, 0), 148, 1.965, 128, 233_472, 132_644_864)
ACCELERATORS = {
    "a100": Accelerator("A100", 312e12, 85_100_068_864, 2.039e12, 8, 300e9, 25e9, A100),
    "h100": Accelerator("H100", 989e12, 84_942_979_072, 3.35e12, 8, 450e9, 50e9, H100),
    "h200": Accelerator("H200", 989e12, 151_397_597_184, 4.8e12, 8, 450e9, 50e9, H200),
    "b200": Accelerator("B200", 2_250e12, 191_514_411_008, 8e12, 8, 900e9, 50e9, B200),
    "v5e": Accelerator("TPU v5e", 197e12, 16 * GIBI, 819e9, 256, 200e9, 3.125e9),
    "v5p": Accelerator("TPU v5p", 459e12, 95 * GIBI, 2_765e9, 8960, 600e9, 6.25e9),
    "v6e": Accelerator("TPU v6e", 918e12, 32 * GIBI, 1_640e9, 256, 400e9, 12.5e9),
}
