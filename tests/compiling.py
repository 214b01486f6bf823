"""How the suite compiles: quickly rather than well, for what it computes is small."""

# Where XLA does not know a flag, it ends the process: these are of jaxlib 0.10.
QUICKLY = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"


def xla_flags(devices: int) -> str:
    """Returns XLA_FLAGS for so many CPU devices."""
    return f"--xla_force_host_platform_device_count={devices} {QUICKLY}"
