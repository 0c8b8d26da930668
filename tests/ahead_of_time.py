"""Compile the launches of engine `triton` without a GPU: `python ahead_of_time.py ARCH NUMERICS SHAPE…` prints JSON.

A process of its own, since the interpreter replaces the compiler in the one that the tests run in. SHAPE: depth, width,
heads, MLP ratio, context, labels, exemplar width, joined by commas; `store` behind them stores gradients.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from builders import changed, pack, tiny_run
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from icl_transience.engines.state import State
from icl_transience.engines.triton.engine import TritonStep
from icl_transience.engines.triton.layout import Layout
from icl_transience.specs.model import Model, parameter_shapes
from icl_transience.specs.recipes import Recipe
from icl_transience.specs.runs import Run

PROGRAMS = Path(triton.__file__).parent / "backends/nvidia/bin"
TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.int32: "*i32"}
INSTRUCTIONS = ("HGMMA", "HMMA", "FFMA", "LDL", "STL", "ATOM", "ATOMG", "RED")


def run_of(shape: str, numerics: str) -> Run:
    depth, width, heads, ratio, context, labels, dim = (int(part) for part in shape.split(",")[:7])
    return changed(
        tiny_run(),
        {
            "model": Model(depth=depth, width=width, heads=heads, mlp_ratio=ratio),
            "recipe": Recipe(context=context, burstiness=1),
            "bank.gaussian.classes": labels,
            "bank.gaussian.holdout_classes": 0,
            "bank.gaussian.dim": dim,
            "batch_size": 32,
            "numerics": numerics,
        },
    )


def step_of(run: Run, capability: tuple[int, int], lanes: int = 2) -> TritonStep:
    """A step on meta tensors, which have shapes alone."""
    shape = run.bank.shape
    shapes = parameter_shapes(run.model, shape.width, run.n_labels, run.recipe.context)
    parts = [{name: torch.empty(lanes, *size, device="meta") for name, size in shapes.items()} for _ in range(3)]
    state = State(*parts, 0, torch.zeros(lanes), torch.zeros(lanes))
    bank = torch.empty(shape.n_classes, shape.n_exemplars, shape.width, device="meta")
    return TritonStep(pack(*[run] * lanes), state, bank, Layout(run, capability))


def source_of(kernel, arguments: dict, constants: dict) -> ASTSource:
    """What the JIT would compile: pointers and integers that 16 divides are known to be so, and a 1 is a constant."""
    signature, known, attributes = {}, dict(constants), {}
    for number, name in enumerate(kernel.arg_names):
        value = arguments.get(name)
        if name in constants:
            signature[name] = "constexpr"
        elif isinstance(value, torch.Tensor):
            signature[name] = TYPES[value.dtype]
            attributes[number,] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[name] = "fp32"
        elif value == 1 and name not in (kernel.do_not_specialize or ()):
            signature[name], known[name] = "constexpr", 1
        else:
            signature[name] = "i32"
            if value % 16 == 0 and name not in (kernel.do_not_specialize or ()):
                attributes[number,] = [["tt.divisibility", 16]]
    return ASTSource(fn=kernel, signature=signature, constexprs=known, attrs=attributes)


def report(kernel, arguments: dict, constants: dict, options: dict, arch: int) -> dict:
    """Registers a thread, bytes of its stack (spilled registers) and of shared memory, instructions of some kinds."""
    source = source_of(kernel, arguments, constants)
    made = triton.compile(source, GPUTarget("cuda", arch, 32), options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        usage = _said(PROGRAMS / "cuobjdump", "--dump-resource-usage", file.name)
        code = _said(PROGRAMS / "nvdisasm", file.name)
    found = {key: int(value) for key, value in re.findall(r"(REG|STACK):(\d+)", usage)}
    counts = {name: len(re.findall(rf"\b{name}\b", code)) for name in INSTRUCTIONS}
    found |= {"triton": triton.__version__, "shared": made.metadata.shared, "warps": options["num_warps"]}
    return found | {name: count for name, count in counts.items() if count}


def _said(*command: object) -> str:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout


def main() -> None:
    arch, numerics, *shapes = sys.argv[1:]
    found = {}
    for shape in shapes:
        step = step_of(run_of(shape, numerics), divmod(int(arch), 10))
        for kernel, _, arguments, constants, options, *_ in step.launches(shape.endswith("store")):
            name = f"{shape} {kernel.__name__}"
            if name not in found:
                found[name] = report(kernel, arguments, constants, options, int(arch))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
