"""Engine `triton` compiled ahead of time: what the compiler makes of every kernel without a GPU, within written bounds.

The interpreter accepts what the compiler refuses, and says nothing of registers; so every kernel goes through both.
Architectures: sm_80 is an A100, sm_90 an H100 or H200.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import interpreted  # skips this file where triton is missing
import pytest

assert interpreted
pytestmark = pytest.mark.heavy

# Depth, width, heads, MLP ratio, context, labels, exemplar width: (c) of docs/performance.md; (a), with stored
# gradients; the widest; the narrowest; the longest sequences.
MLP, STORED = "2,64,8,4,8,1600,512", "1,64,8,0,8,1936,64,store"
WIDE, NARROW, LONG = "1,128,8,4,8,1000,64", "1,32,4,0,2,1000,64", "1,64,8,1,16,1000,64"
CASES = [
    (90, "tf32", (MLP, STORED, WIDE, NARROW, LONG)),
    (90, "bfloat16", (MLP, STORED, WIDE, NARROW, LONG)),
    (90, "float32", (MLP, LONG)),
    (80, "tf32", (MLP,)),
    (80, "bfloat16", (MLP,)),
    (80, "float32", (MLP,)),
]
# Bytes of stack a thread, which is where registers are spilled to: none, but for these. Of the forward pass, and of the
# backward pass in bfloat16, it is because registers are limited, so that more programs run at a time: that was measured
# to be faster. Of the longest sequences it is attention, of which a program must hold whole ones.
SPILLED = {
    (90, "tf32", f"{MLP} blocks_forward"): 360,
    (90, "tf32", f"{WIDE} block_backward"): 40,
    (90, "tf32", f"{NARROW} blocks_forward"): 72,
    (90, "tf32", f"{NARROW} block_backward"): 8,
    (90, "bfloat16", f"{MLP} blocks_forward"): 16,
    (90, "bfloat16", f"{MLP} block_backward"): 352,
    (90, "bfloat16", f"{MLP} block_step"): 16,
    (90, "bfloat16", f"{STORED} block_backward"): 56,
    (90, "bfloat16", f"{WIDE} block_step"): 16,
    (90, "tf32", f"{LONG} blocks_forward"): 152,
    (90, "tf32", f"{LONG} block_backward"): 440,
    (90, "tf32", f"{LONG} head_step"): 240,
    (90, "bfloat16", f"{LONG} block_backward"): 376,
    (90, "bfloat16", f"{LONG} block_step"): 16,
    (90, "bfloat16", f"{LONG} head_step"): 240,
    (90, "float32", f"{LONG} blocks_forward"): 152,
    (90, "float32", f"{LONG} block_backward"): 3000,
    (90, "float32", f"{MLP} blocks_forward"): 40,
    (90, "float32", f"{MLP} block_backward"): 352,
    (80, "tf32", f"{MLP} block_backward"): 24,
    (80, "float32", f"{MLP} blocks_forward"): 72,
    (80, "float32", f"{MLP} block_backward"): 336,
}
# Of a program, in bytes; CUDA's programming guide, "technical specifications per compute capability".
SHARED = {80: 163 << 10, 90: 227 << 10}
# What multiplies, on tensor cores in tf32 and bfloat16, those of blocks in float32, too: there in three products. The
# stored gradients of labels are sums in full float32 always.
IN_BLOCKS = {"blocks_forward", "block_backward", "block_step"}
MULTIPLYING = {"tokens", "head_stats", "head_backward", "head_step", "embedder_step"} | IN_BLOCKS


# Another version of the compiler, and how many bytes more it may spill: 56 at most were seen.
OLDER, MORE_SPILLED = Path(sys.prefix, "triton-3.6"), 64


def compiled(arch: int, numerics: str, shapes: tuple[str, ...], cache: Path, **other: str) -> dict[str, dict]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = Path(__file__).with_name("ahead_of_time.py")
    done = subprocess.run(
        [sys.executable, script, str(arch), numerics, *shapes],
        env=environment | {"TRITON_CACHE_DIR": str(cache)} | other,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    print("\n".join(f"sm_{arch} {numerics} {name}: {report}" for name, report in found.items()))
    return found


@pytest.mark.skipif(
    not OLDER.is_dir(), reason="triton 3.6 is not beside this environment (`make test-all` puts it there)"
)
@pytest.mark.parametrize("numerics", ["float32", "tf32", "bfloat16"])
def test_kernels_compile_by_the_older_version_that_gpu_machines_may_have(numerics, tmp_path):
    found = compiled(90, numerics, (MLP,), tmp_path, PYTHONPATH=f"{OLDER}:{os.environ.get('PYTHONPATH', '')}")
    for name, report in found.items():
        assert report["triton"].startswith("3.6.")
        assert report["REG"] <= 255, name
        assert report["STACK"] <= SPILLED.get((90, numerics, name), 0) + MORE_SPILLED, name
        assert report["shared"] <= SHARED[90], name
        assert not report.keys() & {"ATOM", "ATOMG", "RED"}, name


@pytest.mark.parametrize(("arch", "numerics", "shapes"), CASES)
def test_kernels_compile_within_bounds(arch, numerics, shapes, tmp_path):
    found = compiled(arch, numerics, shapes, tmp_path)
    kernels = {name.split()[1] for name in found}
    assert kernels >= MULTIPLYING | {"head_sums", "query_backward", "replay", "rows_step", "vectors_step"}
    assert (kernels >= {"rows_stored", "weigh", "penalize", "finish"}) == (STORED in shapes)
    for name, report in found.items():
        assert report["REG"] <= 255, name
        assert report["STACK"] <= SPILLED.get((arch, numerics, name), 0), name
        assert report["shared"] <= SHARED[arch], name
        # Sums by atomics would depend on which program comes first.
        assert not report.keys() & {"ATOM", "ATOMG", "RED"}, name
        on_tensor_cores = report.get("HMMA", 0) + report.get("HGMMA", 0) > 0
        assert on_tensor_cores == (name.split()[1] in (IN_BLOCKS if numerics == "float32" else MULTIPLYING)), name
    if arch == 90:
        # Hopper's own, of four warps at a time, where tiles are large enough: those of weights.
        assert found[f"{MLP} block_step"].get("HGMMA")
