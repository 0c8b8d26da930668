"""Prove engines on the device that they are to train on, before a job: against eager, against themselves, in memory.

`verify` holds one step's loss and gradients against the float64 reference. Here a few steps are taken of a small pack,
so that optimizers, drawing and what is recorded count, too:

* 4 steps against the eager engine: losses, moments, and how far each array of weights has moved. How far apart may they
  be? The eager engine itself, begun with all weights rounded once, says how sensitive each is; an engine may be away
  from it by as many such amounts as `verify.allowed` gives, times sqrt(2), since both round. Moments begin as large as
  those of a model in training: from 0, Adam's first steps are the gradient's signs, which rounding turns over.
* 20 steps twice: equal bits. And 3 steps, then 17 on a new step object, as a segment resumes: equal bits again. An
  engine that takes many steps at a time takes them here.
* Memory: the most that 1 and 2 lanes take on the GPU, and so what the whole pack takes. There must be room for it: no
  other engine is tried where there is none, as the next ones take more.

Two lanes stand for a pack: the first, and one whose step takes other kernels, then or later, where there is one.

What passed is remembered for a machine, its GPU, versions and code. A job on a GPU whose engine `auto` fails goes on
with the next one of `specs.compute.AUTOMATIC`, and says what differed. A kernel that reads out of range ends all that
its process can do on the GPU: that is remembered, too, and jobs whose arrays have these sizes leave this engine out.
"""

import hashlib
import importlib.metadata
import inspect
import itertools
import json
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from icl_transience.engines import reports, select, verify
from icl_transience.engines.interface import DTYPES
from icl_transience.engines.reports import Report
from icl_transience.engines.state import NOT_DIVERGED, State
from icl_transience.engines.triton.tables import stores
from icl_transience.engines.verify import Deviation
from icl_transience.model import transformer
from icl_transience.specs import code_digest
from icl_transience.specs.banks import BankSpec, Gaussian
from icl_transience.specs.compute import (
    AUTOMATIC,
    MOST_PRODUCTS,
    attention_patterns,
    automatic_engines,
    engine_problem,
    engines_of_pack,
)
from icl_transience.specs.errors import StudyError
from icl_transience.specs.identity import round_up
from icl_transience.specs.model import Init, Model
from icl_transience.specs.recipes import Recipe
from icl_transience.specs.runs import Lane, PackSpec, Run, Seed
from icl_transience.specs.training import L2, Optimizer, Snapshots

LANES, STEPS, LONG, FIRST_PART = 2, 4, 20, 3
_ROUNDED_RUNS = 2


# (losses [batches, S], name of part and array -> [S, …])
Training = tuple[Tensor, dict[str, Tensor]]


def proven_engine(engine: str, pack: PackSpec, embeddings: Tensor, start: int) -> str:
    """Return the engine that is to train a pack from `start` on: `engine`, or for "auto" the first that passes.

    start: sequence number. embeddings [classes, exemplars, I], the bank, on the job's device. Raises StudyError where
    an engine that is named does not pass.
    """
    device = embeddings.device
    if device.type != "cuda":
        kind = select.chosen(engine, pack.run, device)
        verify.check_step(pack, embeddings, start, kind)
        return kind
    if engine != "auto":
        select.chosen(engine, pack.run, device)
        _refuse(check(pack, embeddings, start, engine))
        return engine
    names = engines_of_pack(str(device), pack)
    if "graph" not in names and all("graph" in automatic_engines(str(device), lane.run) for lane in pack.lanes):
        text = f"engine: graph has no room for {attention_patterns(pack):,} attention patterns a step"
        following = f"Training goes on with {' or '.join(names)}; lower `lanes_per_pack` for a faster one"
        warnings.warn(f"{text}, {MOST_PRODUCTS:,} at most. {following}", RuntimeWarning, stacklevel=2)
    return first_proven(names, pack, embeddings, start)


def first_proven(names: Sequence[str], pack: PackSpec, embeddings: Tensor, start: int) -> str:
    """Return the first of these engines that passes, or the last one; warn of what differed in those before it."""
    for name, following in itertools.pairwise(names):
        report = check(pack, embeddings, start, name)
        if not report.problem:
            return name
        text = f"engine: {name} did not pass its self-check on {embeddings.device}: {report.problem}."
        warnings.warn(f"{text} Training goes on with {following}", RuntimeWarning, stacklevel=2)
    return names[-1]


def _refuse(report: Report) -> None:
    if report.problem:
        raise StudyError(
            f"engine: {report.engine} did not pass its self-check: {report.problem}. Set `engine: auto`, or `eager`"
        )


def check(pack: PackSpec, embeddings: Tensor, start: int, engine: str, remembered: bool = True) -> Report:
    """Check an engine on two lanes of a pack from sequence number `start` on; eager is what others are held to.

    remembered: whether an earlier check, on this device and with this code, counts, and this one will. Whatever the
    engine raises is what differed, but for a lack of memory. Raises StudyError where the device computes nothing more
    in this process, and where it has no room for the whole pack, or for two lanes of it.
    """
    report = Report(engine=engine, numerics=pack.run.numerics)
    if engine == "eager":
        return report
    of_pack, of_sizes = (_key(pack, embeddings.device, engine, start, every_run=every) for every in (False, True))
    known = (reports.known(engine, of_pack) or reports.known(engine, of_sizes)) if remembered else None
    if known:
        report = known
    else:
        report = _checked(report, pack, embeddings, start)
        if report.problem and not _computes(embeddings.device):
            kept = reports.remember(of_sizes, report) if remembered else None
            raise _broken(report, kept, embeddings.device)
        if remembered and not report.problem:
            reports.remember(of_pack, report)
    if not report.problem and report.memory and (free := _free(embeddings.device)) < report.memory:
        raise StudyError(
            f"{len(pack.lanes)} lanes take {report.memory >> 20:,} MiB of {embeddings.device}, but {free >> 20:,} are "
            "free: lower `lanes_per_pack` or `gpu_memory`, or end what else is on the GPU"
        )
    return report


def _checked(report: Report, pack: PackSpec, embeddings: Tensor, start: int) -> Report:
    """Return the report with what a check found, but for whether there is room for the whole pack."""
    engine, device, begun = report.engine, embeddings.device, time.perf_counter()
    try:
        deviations = verify.check_step(pack, embeddings, start, engine)
        deviations += list(_against_eager(pack, embeddings, start, engine))
        worst = max(deviations, key=lambda one: one.excess)
        of_one, _ = _with_peak(lambda: _trained(_small(pack, start, 1), embeddings, start, engine, (LONG,)), device)
        of_two, whole = _with_peak(lambda: _trained(_small(pack, start), embeddings, start, engine, (LONG,)), device)
        problem = _excess(worst) or _bits(whole, pack, embeddings, start, engine)
    except torch.OutOfMemoryError as error:
        raise StudyError(
            f"engine: {engine}: {device} has no room for its self-check, which takes two lanes: end what else is on "
            f"the GPU, or train a smaller model ({error})"
        ) from error
    except Exception as error:
        # A kernel can fail in any way: every one means that this engine does not train here.
        said = str(error) if isinstance(error, StudyError) else f"{type(error).__name__}: {error}"
        return replace(report, problem=said, seconds=time.perf_counter() - begun)
    memory = None
    if of_one is not None and of_two is not None:
        memory = of_one + (len(pack.lanes) - 1) * max(of_two - of_one, 0)
    return replace(report, worst=worst, problem=problem, memory=memory, seconds=time.perf_counter() - begun)


def _broken(report: Report, kept: Path | None, device: torch.device) -> StudyError:
    """Return what to raise where a check ended all that its process can do on a device. kept: the file that says so."""
    tried = AUTOMATIC["cuda"]
    following = " or ".join(f"`engine: {name}`" for name in tried[tried.index(report.engine) + 1 :])
    later = f"`engine: auto` leaves it out from now on (delete {kept} to try it again): run the same command, or "
    return StudyError(
        f"engine: {report.engine} failed its self-check, and {device} computes nothing more in this process: "
        f"{report.problem}. {later if kept else ''}set {following}"
    )


def _computes(device: torch.device) -> bool:
    """Say whether a device still computes in this process: after an access out of range CUDA refuses everything."""
    try:
        return torch.ones(2, device=device).sum().item() == 2
    except torch.OutOfMemoryError:
        return True  # full, not broken
    except RuntimeError:
        return False


def _free(device: torch.device) -> int:
    """Return the bytes of a GPU that are free, what this process has kept for later among them."""
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0]


def _excess(worst: Deviation) -> str:
    if worst.excess < 1:
        return ""
    return f"{worst.part} is off by {worst.error:.2g} of its size, where rounding may move it by {worst.allowed:.2g}"


def _small(pack: PackSpec, start: int, lanes: int = LANES) -> PackSpec:
    """Return a pack of one or two lanes: the first, and the next, or the first whose step takes other kernels.

    One that takes them later stands as it is from then on. A pack of one lane stands twice, with other sequences.
    """
    first, *others = pack.lanes
    kinds = {lane: stores(lane.run.at(start).optimizer) for lane in pack.lanes}
    now = (lane for lane in others if kinds[lane] != kinds[first])
    later = (
        replace(lane, run=lane.run.at(seen))
        for lane in pack.lanes
        for seen in sorted(round_up(change.at, lane.run.batch_size) for change in lane.run.interventions)
        if seen > start and stores(lane.run.at(seen).optimizer) != kinds[first]
    )
    again = replace(first, seed=replace(first.seed, data=(first.seed.data + 1) % 2**32))
    second = next(itertools.chain(now, later, others, [again]))
    return PackSpec(lanes=(first, second)[:lanes])


def _state(pack: PackSpec, embeddings: Tensor, start: int, rounded: int = 0) -> State:
    """Return a state at `start` of weights that are normal everywhere and moments of a model in training.

    rounded: 0, or the number of a draw by which all weights are rounded once, by a unit of the numerics at most.
    """
    lanes, run = len(pack.lanes), pack.run
    generator, draw = (torch.Generator().manual_seed(seed) for seed in (3, 100 + rounded))
    unit = verify.UNIT[run.numerics] * bool(rounded)

    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator).to(like)

    weights: transformer.Parameters = {}
    first, second = dict[str, Tensor](), dict[str, Tensor]()
    for name, value in verify.normal_parameters(run, embeddings).items():
        several = value.expand(lanes, *value.shape[1:]) + 0.05 * normal(value.expand(lanes, *value.shape[1:]))
        by = 1 + unit * (2 * torch.rand(several.shape, generator=draw, dtype=torch.float64) - 1)
        weights[name] = (several.double() * by.to(several.device)).to(several)
        first[name] = 1e-3 * normal(several)
        second[name] = 1e-6 * (1 + normal(several).abs())
    return State(
        weights,
        first,
        second,
        start,
        embeddings.new_zeros(lanes),
        torch.full((lanes,), NOT_DIVERGED, device=embeddings.device),
    )


def _trained(
    pack: PackSpec, embeddings: Tensor, start: int, engine: str, parts: tuple[int, ...], rounded: int = 0
) -> Training:
    """Return (losses [batches, S], name of part and array -> [S, …] at the end), with a new step object for each part.

    Of weights, which end where they began but for a small part, that is how far they moved.
    """
    state, losses = _state(pack, embeddings, start, rounded), []
    before = {name: value.clone() for name, value in state.parameters.items()}
    for batches in parts:
        until = state.sequences_seen + batches * pack.run.batch_size
        step = select.STEPS[engine](pack, state, embeddings)
        losses += [loss.clone() for loss in step.losses(state.sequences_seen, until)]
        state.sequences_seen = until
    moved = {name: value - before[name] for name, value in state.parameters.items()}
    found = {_moved(name): value for name, value in moved.items()}
    for kind, part in (("first", state.first_moments), ("second", state.second_moments)):
        found |= {f"the {kind} moment of {name}": value for name, value in part.items()}
    return torch.stack(losses), {name: value.detach().clone() for name, value in found.items()}


def _against_eager(pack: PackSpec, embeddings: Tensor, start: int, engine: str) -> Iterator[Deviation]:
    """Yield how far an engine is from eager after STEPS steps, and how far rounding may bring it; see the top."""
    small, numerics = _small(pack, start), pack.run.numerics
    bank = embeddings.to(DTYPES[numerics])
    # Adding a step to a weight rounds it, which is much where it moves little.
    weights = {_moved(name): value.norm() for name, value in _state(small, bank, start).parameters.items()}
    stored = verify.UNIT["float64" if numerics == "float64" else "float32"] * STEPS**0.5
    expected, found, *others = (
        _named(*_trained(small, bank, start, kind, (STEPS,), rounded))
        for kind, rounded in (("eager", 0), (engine, 0), *(("eager", 1 + draw) for draw in range(_ROUNDED_RUNS)))
    )
    may = verify.allowed(pack.run.model, numerics) * 2**0.5
    of_eager = error_of_eager(small, embeddings.device, start)
    for part, value in expected.items():
        exact = value.double()
        moved = [verify.relative_error(other[part], exact) ** 2 for other in others]
        amount = max((sum(moved) / len(moved)) ** 0.5, verify.UNIT[numerics])
        if part in weights and exact.norm():
            amount += stored * float(weights[part] / exact.norm())
        allowed = may * amount + next((share for kind, share in of_eager.items() if part.startswith(kind)), 0.0)
        yield Deviation(part, verify.relative_error(found[part], exact), allowed, numerics)


def error_of_eager(pack: PackSpec, device: torch.device, start: int = 0) -> dict[str, float]:
    """Return by which share of themselves eager has moments and steps wrong at `start`, whatever a model rounds.

    On a GPU PyTorch's fused Adam takes 1 - beta of a beta in float32, unless all is in float64: that of .999 is 1.3e-5
    too small, and so are second moments. An engine that does the same is not told by this check from one that is right.
    """
    if device.type != "cuda" or pack.run.numerics == "float64":
        return {}
    optimizers = [lane.run.at(start).optimizer for lane in pack.lanes]
    first, second = (
        max(abs((1 - float(torch.tensor(beta))) / (1 - beta) - 1) for beta in betas)
        for betas in zip(*((one.beta1, one.beta2) for one in optimizers), strict=True)
    )
    return {"the first moment": first, "the second moment": second, "the step": first + second / 2}


def _moved(name: str) -> str:
    return f"the step of {name}"


def _named(losses: Tensor, parts: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"the loss": losses, **parts}


def _bits(whole: Training, pack: PackSpec, embeddings: Tensor, start: int, engine: str) -> str:
    """Return in what a training differs from the same again, or from one that is interrupted; "" in nothing.

    whole: what the training of LONG batches gave.
    """
    small = _small(pack, start)
    again, resumed = (
        _trained(small, embeddings, start, engine, parts) for parts in ((LONG,), (FIRST_PART, LONG - FIRST_PART))
    )
    # How far weights moved is not kept by a step, but both begin with the same ones.
    for other, what in ((again, "trained twice"), (resumed, f"interrupted after {FIRST_PART} batches")):
        found = _named(*other)
        for part, value in _named(*whole).items():
            if not torch.equal(value, found[part]):
                return f"{part} is not the same when {what}"
    return ""


def _with_peak(work: Callable[[], Training], device: torch.device) -> tuple[int | None, Training]:
    """Do the work and return the most bytes of a GPU that it took at a time, None elsewhere, and what it gave."""
    if device.type != "cuda":
        return None, work()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    given = work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before, given


def _key(pack: PackSpec, device: torch.device, engine: str, start: int, every_run: bool) -> str:
    """Return what a check holds for: device, versions, code, and what shapes a step.

    every_run: whether it holds for all runs whose arrays have these sizes and whose steps take the same kernels.
    """
    name = "cpu"
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        name = f"{platform.node()} {properties.name} {properties.major}.{properties.minor} {properties.total_memory}"
    triton = sorted(one.version for one in importlib.metadata.distributions(name="triton"))
    versions = torch.__version__, torch.version.cuda, triton, sys.version_info[:2]
    small, run = _small(pack, start).lanes, pack.run
    runs = [(lane.run.id, lane.run.at(start).id) for lane in small] + [len(pack.lanes)]
    model = replace(run.model, init=Init(), dropout=0.0)  # which give a model's arrays no other sizes
    sizes = [repr(part) for part in (model, run.bank.shape, run.recipe.context, run.batch_size, run.n_labels)]
    sizes += sorted({stores(lane.run.at(start).optimizer) for lane in small})
    code = code_digest.training_code(engine), code_digest.training_code("eager")
    checks = [inspect.getsource(module) for module in (sys.modules[__name__], verify)]
    said = json.dumps([name, versions, code, checks, sizes if every_run else runs, pack.run.numerics])
    return hashlib.sha256(said.encode()).hexdigest()[:16]


# By hand, without a job.


def engines_tried(device: torch.device) -> tuple[str, ...]:
    """Return the engines that are checked on a device; on a CPU graph's step too, which it cannot capture."""
    return ("native", "graph") if device.type == "cpu" else tuple(e for e in AUTOMATIC["cuda"] if e != "eager")


def by_hand(device: torch.device, engines: Iterable[str], numerics: Iterable[str]) -> Iterator[Report]:
    """Yield what checks of the engines find on small packs: attention alone, and with MLPs; a lane of each clips."""
    bank = Gaussian(classes=200, holdout_classes=0, exemplars=5, holdout_exemplars=0, dim=64, noise=0.1)
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(200, 5, 64, generator=generator).to(device)
    for engine in engines:
        for kind in numerics:
            for mlp_ratio in (0, 4):
                run = Run(
                    bank=BankSpec(seed=0, parameters=bank),
                    recipe=Recipe(context=8, burstiness=4),
                    model=Model(depth=3, width=64, heads=8, mlp_ratio=mlp_ratio),
                    optimizer=Optimizer(learning_rate=1e-3, l2=L2(strength=1e-3)),
                    batch_size=32,
                    numerics=kind,
                    snapshots=Snapshots(first=2**62, per_doubling=1, every=2**62),
                )
                clipped = replace(run, optimizer=replace(run.optimizer, clip=0.05))
                lanes = (Lane(run=one, seed=Seed(init=n, data=n)) for n, one in enumerate((run, clipped)))
                pack = PackSpec(lanes=tuple(lanes))
                if not engine_problem(engine, {"graph": "cuda"}.get(engine, device.type), run):
                    yield check(pack, embeddings, 0, engine, remembered=False)
