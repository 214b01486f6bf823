"""Examines the machine: versions, devices, memory, caches, and whether the Hugging Face hub can be reached."""

import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import jax
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import HfHubHTTPError

from bert_jax.data.readers.cache import CACHE_DIR, abandoned_folders
from bert_jax.data.readers.hub import request_file
from bert_jax.doctor.findings import Finding, fact, problem, warning
from bert_jax.messages import counted
from bert_jax.training.devices import cost
from bert_jax.training.runs.folder import package_versions

GIBI = 1 << 30
PROBE = "google-bert/bert-base-uncased"  # a model that the hub has
GPU_FILES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # NVIDIA, NVIDIA in WSL, AMD
TPU_FILES = ("/dev/accel0", "/dev/vfio/0")
LOW_DISK = 5 * GIBI


def examine_machine(cache_dir: str | Path = CACHE_DIR, *, network: bool = True) -> Iterator[Finding]:
    """Yields what was found.

    Args:
        cache_dir: of tokenized corpora and compiled programs.
        network: whether to request a file of the hub, which takes up to five seconds without network.
    """
    yield fact(platform.platform())
    yield fact(", ".join(f"{name} {version}" for name, version in package_versions().items()))
    yield from _devices()
    yield from _caches(Path(cache_dir))
    if network:
        yield hub()


def _devices() -> Iterator[Finding]:
    """Yields the devices of JAX and, if it uses the CPU only, why no accelerator is used."""
    try:
        devices = jax.devices()
    except RuntimeError as error:
        yield problem(f"JAX finds no device: {' '.join(str(error).split())}")
        return
    kinds = ", ".join(sorted({device.device_kind for device in devices}))
    yield fact(f"JAX uses {counted(len(devices), f'{devices[0].platform} device')}: {kinds}")
    yield fact(f"memory of a device: {cost.memory_limit() / GIBI:.1f} GiB")
    if devices[0].platform == "cpu":
        yield no_accelerator()


def no_accelerator() -> Finding:
    """Returns why JAX uses no GPU or TPU."""
    platforms = requested_platforms()
    if platforms:
        return fact(f"no GPU or TPU is used: JAX_PLATFORMS is {platforms}")
    plugins = {plugin.name for plugin in entry_points(group="jax_plugins")}
    if any(Path(name).exists() for name in GPU_FILES):
        if plugins:
            return problem(f"a GPU is present, but JAX's plugin ({', '.join(sorted(plugins))}) does not start on it")
        return problem("a GPU is present, but JAX has no plugin for it: pip install 'bert_jax[cuda]'")
    if any(Path(name).exists() for name in TPU_FILES):
        if find_spec("libtpu"):
            return problem("a TPU is present, but libtpu does not start on it; another process may hold it")
        return problem("a TPU is present, but libtpu is missing: pip install 'bert_jax[tpu]'")
    return fact("no GPU or TPU: the system has no device file of one")


def requested_platforms() -> str | None:
    """Returns the platforms that JAX_PLATFORMS names, or None."""
    return jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]


def _caches(folder: Path) -> Iterator[Finding]:
    """Yields the sizes of the caches, the free space and the files that killed processes have left."""
    for name, path in (("cache", folder), ("Hugging Face cache", Path(HF_HUB_CACHE))):
        yield fact(f"{name}: {size_of(path) / GIBI:.2f} GiB in {path}")
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(nearest).free
    yield (warning if free < LOW_DISK else fact)(f"free disk space for the cache: {free / GIBI:.1f} GiB")
    stale = abandoned_folders(folder)
    if stale:
        size = sum(map(size_of, stale)) / GIBI
        remedy = "`remove_stale` removes them"
        yield warning(
            f"{counted(len(stale), 'folder')} of killed processes, {size:.2f} GiB, such as {stale[0]}: {remedy}"
        )


def size_of(path: Path) -> int:
    """Returns the bytes of a file, or of all files below a folder; 0 if there is none."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())


def hub() -> Finding:
    """Returns whether the Hugging Face hub answers."""
    failure = request_file(PROBE, "config.json")
    if failure is None or isinstance(failure, HfHubHTTPError):
        return fact("the Hugging Face hub can be reached")
    reason = " ".join(str(failure).split()) or type(failure).__name__
    return warning(f"the Hugging Face hub cannot be reached; models and datasets come from its cache ({reason:.200})")
