"""Compiler options of the test suite: fast compilation rather than fast programs, because the programs are small."""

from importlib.metadata import version

# XLA ends the process where it does not know a flag, so these are for the versions that are known to have them.
FLAGS = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
QUICKLY = FLAGS if version("jaxlib").startswith("0.10.") else ""


def xla_flags(devices: int) -> str:
    """Returns XLA_FLAGS for this number of CPU devices."""
    return f"--xla_force_host_platform_device_count={devices} {QUICKLY}"
