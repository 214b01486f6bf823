"""Compile the attention kernel, forward and backward, for GPUs and TPUs that are not there.

Prints for each target and shape whether it compiles, in which time, and the memory beside its inputs and outputs; for
GPUs also what NVIDIA's assembler says of each kernel: registers per thread, and bytes that it spills to memory. Nothing
is run. The compilers come with the extras `cuda` and `tpu`; a shape takes seconds.

    python benchmarks/attention_kernel.py v5e:2x2 v5p:2x2x1 v6e:2x2 --record
    python benchmarks/attention_kernel.py h100 --shapes 512,64,bfloat16
"""

import re
import subprocess
import tempfile
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from common.results import make_parser, record
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from bert_jax.functional.fused_attention import fused_attention
from bert_jax.functional.random_bits import HASHED
from bert_jax.training.devices.parallel import make_mesh
from bert_jax.training.devices.targets import Target

WIDTH = 768  # D, of BERT-base
ROWS = 8  # per device
DROPOUT = 0.1
SHAPES = (  # T, H, dtype
    "128,64,bfloat16", "512,64,bfloat16", "512,32,bfloat16", "512,128,float32", "640,64,bfloat16", "40,64,bfloat16",
    "8192,64,bfloat16",
)  # fmt: skip
HEADER = "| target | rows of | heads of | dtype | seconds | MiB beside inputs and outputs | registers; bytes spilled |"
MIB = 2**20


def lower(target: Target, length: int, head_size: int, dtype: str) -> Any:
    """Returns the lowered gradient of the kernel's output, over rows that are split over all devices."""
    mesh = make_mesh(devices=target.devices())
    rows = NamedSharding(mesh, P(("data", "fsdp")))
    x = jax.ShapeDtypeStruct((ROWS * mesh.size, length, WIDTH), dtype, sharding=rows)
    numbers = jax.ShapeDtypeStruct(x.shape[:2], jnp.int32, sharding=rows)
    words = jax.ShapeDtypeStruct((2,), jnp.uint32, sharding=NamedSharding(mesh, P()))
    attend = partial(fused_attention, num_heads=WIDTH // head_size, dropout_rate=DROPOUT)

    def gradients(words, q, k, v, numbers, cotangent):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            key = jax.random.wrap_key_data(words, impl=HASHED)
            _, pull_back = jax.vjp(lambda q, k, v: attend(q, k, v, numbers, key=key), q, k, v)
            return pull_back(cotangent)

    return jax.jit(gradients).lower(words, x, x, x, numbers, x)


def assembled(folder: Path) -> str:
    """Returns what NVIDIA's assembler says of the kernels whose PTX is in a folder: `105; 0` for each."""
    spec = find_spec("nvidia")
    places = spec.submodule_search_locations if spec else None
    assembler = next(found for place in places or () for found in Path(place).rglob("ptxas"))
    usage = []
    for file in sorted(folder.glob("*.ptx")):
        if not re.search(r"\.entry \w*_kernel\b", file.read_text()):
            continue
        command = [assembler, "-v", "-arch=sm_90a", file, "-o", folder / "assembled"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        registers = re.findall(r"Used (\d+) registers", said)[0]
        spilled = sum(map(int, re.findall(r"(\d+) bytes spill", said)))
        usage.append(f"{registers}; {spilled}")
    return ", ".join(usage)


def row(target: Target, shape: str) -> str:
    """Compiles one shape for one target, and returns its row of the table."""
    length, head_size, dtype = shape.split(",")
    is_gpu = target.accelerator.platform == "gpu"
    with tempfile.TemporaryDirectory() as folder:
        lowered = lower(target, int(length), int(head_size), dtype)
        start = time.perf_counter()
        compiled = lowered.compile(compiler_options={"xla_dump_to": folder} if is_gpu else None)
        seconds = time.perf_counter() - start
        usage = assembled(Path(folder)) if is_gpu else ""
    beside = compiled.memory_analysis().temp_size_in_bytes / MIB
    devices = "x".join(map(str, target.shape))
    return f"| {target.name}:{devices} | {length} | {head_size} | {dtype} | {seconds:.0f} | {beside:.1f} | {usage} |"


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("targets", nargs="+", help="such as h100, v5e:2x2 or v5p:2x2x1")
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="tokens,head size,dtype")
    options = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")  # devices of this machine are left alone
    targets = [Target.parse(text) for text in options.targets]
    rows = []
    for target in targets:
        for shape in options.shapes:
            rows.append(row(target, shape))
            print(rows[-1], flush=True)
    text = f"Compiled, not run: {ROWS} rows per device, {WIDTH} wide, dropout {DROPOUT}, forward and backward."
    platforms = " and ".join(sorted({target.accelerator.platform.upper() for target in targets}))
    record(f"Attention kernel, compiled for {platforms}", "\n".join([text, "", HEADER, "|---" * 7 + "|", *rows]))


if __name__ == "__main__":
    main()
