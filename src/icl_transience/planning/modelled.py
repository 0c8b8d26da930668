"""How fast a GPU trains a pack where nobody has measured it: a model from counts, of an NVIDIA H100.

    step = max(kernels x time of a launch, bytes / bandwidth + FLOP / rate of products)
    kernels = 68 + (33 + 23 with MLPs) x blocks
    bytes   = lanes x [48 x parameters + 4 x batch x tokens x width x blocks x (107 + 19 x MLP ratio)]

Kernels, and the bytes of activations, were counted on the graph engine's step traced on meta tensors (as by
tests/launches.py; eight shapes agree to 15 %); of a parameter Adam reads and writes 28 bytes, and passes about 20. A
replayed kernel takes 2.5 us at least; one that Python launches takes the host some 10 us, and the eager engine takes a
third more of them and 6 more a lane for its optimizer. 2.6 TB/s is what copies reach of 3.35, and products reach about
half of the peaks: 40 TFLOP/s in float32, 200 in tf32, 400 in bfloat16, 20 in float64. Nothing here was measured on
training. Engine triton is taken for graph. Clipping and unsquared L2 cost graph half as many kernels again, which do
not count. Of an image encoder the FLOP and the parameters count, its kernels and activations do not: too fast there.
"""

from icl_transience.specs.compute import n_parameters, training_flop, training_passes
from icl_transience.specs.runs import PackSpec

GPU = "NVIDIA H100"
LAUNCH_SECONDS = {"graph": 2.5e-6, "eager": 1e-5}
BYTES_PER_SECOND = 2.6e12
PRODUCTS = {"float32": 4e13, "tf32": 2e14, "bfloat16": 4e14, "float64": 2e13}
FORMULA = "step = max(kernels x launch, bytes / 2.6 TB/s + FLOP / rate), planning/modelled.py"


def step_seconds(pack: PackSpec, engine: str) -> float:
    """Return the modelled seconds of one batch of every lane, on a GPU of the kind above."""
    kernels, work = _kernels_and_work(pack, engine)
    return max(kernels * LAUNCH_SECONDS.get(engine, LAUNCH_SECONDS["graph"]), work)


def busy_share(pack: PackSpec, engine: str) -> float:
    """Return in which share of a step the GPU has something to do: less than 1 where it waits for the host's launches.

    So much is left for other jobs. Replayed graphs leave nothing: a GPU runs one process at a time.
    """
    kernels, work = _kernels_and_work(pack, engine)
    return max(kernels * LAUNCH_SECONDS["graph"], work) / step_seconds(pack, engine)


def _kernels_and_work(pack: PackSpec, engine: str) -> tuple[float, float]:
    """Return (kernels of a step, seconds of its bytes and FLOP)."""
    run, lanes = pack.run, len(pack.lanes)
    model, passes = run.model, training_passes(run)
    kernels = passes * (68 + (33 + 23 * bool(model.mlp_ratio)) * model.depth)
    if engine == "eager":
        kernels = 1.35 * kernels + 6 * lanes
    numbers = 48 * n_parameters(run)
    tokens = run.batch_size * (2 * run.recipe.context + 1)
    numbers += 4 * passes * tokens * model.width * model.depth * (107 + 19 * model.mlp_ratio)
    flop = lanes * run.batch_size * training_flop(run)
    return kernels, lanes * numbers / BYTES_PER_SECOND + flop / PRODUCTS[run.numerics]
