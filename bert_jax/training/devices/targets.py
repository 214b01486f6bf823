"""Machines to compile for that need not be there: XLA's compilers take a description of the devices.

A GPU is described by the data of its chip, a TPU by its name and topology. The compilers come with the extras `cuda`
and `tpu`; neither needs a device. What GPUs measure while they compile, the fastest form of each matrix product, is
left out, so such a program is XLA's first choice rather than the fastest.

References: XLA, "Device-free compilation"; `jax.experimental.topologies`.
"""

import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from bert_jax.training.devices.accelerators import ACCELERATORS, Accelerator, Chip

# The extra of this package, and the modules of which it brings one.
COMPILERS = {"gpu": ("cuda", ("jax_cuda13_plugin", "jax_cuda12_plugin")), "tpu": ("tpu", ("libtpu",))}
NOTATION = "NAME or NAME:TOPOLOGY, such as h100, h100:8, h100:2x8 (machines x GPUs) or v5e:4x4"
# libtpu asks the cloud for these, and waits for it, unless they are set; and only one process of a machine may load it
# for its TPU's sake, which a compilation does not use.
TPU_ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}
CHIPS = {"v5e": "1x1", "v6e": "1x1", "v5p": "2x2x1"}  # the smallest topologies of TPUs


@dataclass(frozen=True)
class Target:
    """Devices of one kind.

    Attributes:
        shape: of the devices: (GPUs,) or (machines, GPUs); the sides of a grid of TPU chips.
    """

    name: str
    shape: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Parses `h100`, `h100:8` or `v5e:4x4`.

        Raises:
            ValueError: an unknown name, or a topology that such devices cannot have.
        """
        name, _, topology = text.partition(":")
        if name not in ACCELERATORS:
            raise ValueError(f"`device` must be one of {', '.join(ACCELERATORS)}; got {text!r}")
        topology = topology or CHIPS.get(name, "1")
        dimensions = 3 if name == "v5p" else 2
        if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", topology):
            raise ValueError(f"`device` must be {NOTATION}; got {text!r}")
        shape = tuple(map(int, topology.split("x")))
        if len(shape) > 2 if name not in CHIPS else len(shape) != dimensions:
            wanted = f"{dimensions} sides" if name in CHIPS else "GPUs, or machines x GPUs"
            raise ValueError(f"the topology of {name} is {wanted}; `device` is {text!r}")
        return cls(name, shape)

    @property
    def accelerator(self) -> Accelerator:
        return ACCELERATORS[self.name]

    def devices(self) -> list[Any]:
        """Returns the devices, for which programs can be compiled and on which none can run.

        Raises:
            ImportError: the compiler is not installed.
            ValueError: the compiler does not know such a topology.
        """
        from jax.experimental import topologies

        platform = self.accelerator.platform
        extra, modules = COMPILERS[platform]
        if not any(find_spec(module) for module in modules):
            raise ImportError(f"the compiler for {self.name} is not installed: pip install 'bert_jax[{extra}]'")
        sides = "x".join(map(str, self.shape))
        try:
            if self.accelerator.chip is None:
                for name, value in TPU_ENVIRONMENT.items():
                    os.environ.setdefault(name, value)
                options = {"chips_per_host_bounds": (1, 1, 1)} if set(self.shape) == {1} else {}
                described = topologies.get_topology_desc(
                    platform="tpu", topology_name=f"{self.name}:{sides}", **options
                )
            else:
                machines = sides if len(self.shape) == 2 else f"1x{sides}"
                described = topologies.get_topology_desc(
                    platform="cuda", target_config=description(self.accelerator, self.accelerator.chip),
                    topology=f"1x{machines}",
                )  # fmt: skip
        except Exception as error:  # the compilers raise exceptions of several kinds
            raise ValueError(f"`device={self.name}:{sides}` cannot be compiled for: {error}") from None
        return list(described.devices)


def description(accelerator: Accelerator, chip: Chip) -> str:
    """Returns the description of a GPU that XLA reads: a text-format GpuTargetConfigProto."""
    major, minor = chip.capability
    features = "ACCELERATED_FEATURES" if major >= 9 else "NONE"
    fields = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 49_152,
        "shared_memory_per_core": chip.shared,
        "shared_memory_per_block_optin": chip.shared - 1024,
        "threads_per_core_limit": 2048,
        "core_count": chip.cores,
        "fpus_per_core": chip.fpus,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 65_535,
        "block_dim_limit_z": 65_535,
        "thread_dim_limit_x": 1024,
        "thread_dim_limit_y": 1024,
        "thread_dim_limit_z": 64,
        "registers_per_core_limit": 65_536,
        "registers_per_block_limit": 65_536,
        "memory_bandwidth": int(accelerator.bandwidth),
        "device_memory_size": int(accelerator.memory),
        "l2_cache_size": chip.l2,
        "clock_rate_ghz": chip.clock,
        "cuda_compute_capability": f"{{ major: {major} minor: {minor} feature_extension: {features} }}",
        "name": f'"{chip.name}"',
        "driver_version": '"13.0.0"',
        "runtime_version": '"13.0.0"',
        "compile_time_toolkit_version": '"13.0.0"',
        "dnn_version": '"9.10.0"',
    }
    info = "\n".join(f"  {name}: {value}" for name, value in fields.items()).replace(": {", " {")
    return (
        f"gpu_device_info {{\n{info}\n}}\n"
        'platform_name: "CUDA"\n'
        "dnn_version_info { major: 9 minor: 10 patch: 0 }\n"
        f'device_description_str: "{chip.name}"\n'
    )
