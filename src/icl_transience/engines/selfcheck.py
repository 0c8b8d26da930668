"""Prove engines on the device that they are to train on, before a job: against eager, against themselves, in memory.

`verify` holds one step's loss and gradients against the float64 reference. Here a few steps are taken of a small pack,
so that optimizers, drawing and what is recorded count, too:

* 4 steps against the eager engine: losses, moments, and how far each array of weights has moved. How far apart may they
  be? The eager engine itself, begun with all weights rounded once, says how sensitive each is; an engine may be away
  from it by as many such amounts as `verify.allowed` gives, times sqrt(2), since both round. Moments begin as large as
  those of a model in training: from 0, Adam's first steps are the gradient's signs, which rounding turns over.
* 20 steps twice: equal bits. And 3 steps, then 17 on a new step object, as a segment resumes: equal bits again. An
  engine that takes many steps at a time takes them here.
* Memory: the most that 1 and 2 lanes take on the GPU, and so what the whole pack takes; there must be room for it.

What passed is remembered for a device, versions and code. A job on a GPU whose engine `auto` fails goes on with the
next one of `specs.compute.AUTOMATIC`, and says what differed.
"""

import hashlib
import itertools
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from icl_transience.engines import select, verify
from icl_transience.engines.interface import DTYPES
from icl_transience.engines.state import NOT_DIVERGED, State
from icl_transience.engines.verify import Deviation
from icl_transience.model import transformer
from icl_transience.specs import code_digest
from icl_transience.specs.banks import BankSpec, Gaussian
from icl_transience.specs.compute import AUTOMATIC, automatic_engines, engine_problem
from icl_transience.specs.errors import StudyError
from icl_transience.specs.model import Model
from icl_transience.specs.recipes import Recipe
from icl_transience.specs.runs import Lane, PackSpec, Run, Seed
from icl_transience.specs.training import L2, Optimizer, Snapshots
from icl_transience.store import atomic
from icl_transience.store.cache import cache_folder

LANES, STEPS, LONG, FIRST_PART = 2, 4, 20, 3
_ROUNDED_RUNS = 2


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a check of an engine found.

    problem: what differed; "" where nothing did. worst: the deviation that came nearest to what is allowed. memory:
    bytes that the whole pack takes on the GPU, as measured on 1 and 2 lanes; None elsewhere. seconds: of the check; 0
    where it was remembered.
    """

    engine: str
    numerics: str
    problem: str = ""
    worst: Deviation | None = None
    memory: int | None = None
    seconds: float = 0.0

    @property
    def line(self) -> str:
        """Return the report in words."""
        text = f"{self.engine}, {self.numerics}: {self.problem or 'passed'}"
        if self.worst and not self.problem:
            text += f"; {self.worst.part} off by {self.worst.error:.2g}, allowed {self.worst.allowed:.2g}"
        if self.memory is not None:
            text += f"; {self.memory / 2**20:,.0f} MiB"
        return f"{text}; {self.seconds:.1f} s" if self.seconds else f"{text}; known from an earlier check"


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
    able = [set(automatic_engines(str(device), lane.run)) for lane in pack.lanes]
    names = [name for name in AUTOMATIC[device.type] if all(name in one for one in able)]
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
    """Check an engine on the first lanes of a pack from sequence number `start` on; eager is what others are held to.

    remembered: whether a check that passed before, on this device and with this code, counts. Whatever the engine
    raises is what differed, but for a lack of memory.
    """
    report = Report(engine=engine, numerics=pack.run.numerics)
    if engine == "eager":
        return report
    key = _key(pack, embeddings.device, engine)
    if remembered and (known := _known(key)) is not None:
        return replace(report, memory=known)
    begun, differing = time.perf_counter(), list[str]()
    try:
        found = verify.check_step(pack, embeddings, start, engine)
        found += list(_against_eager(pack, embeddings, start, engine))
        report = replace(report, worst=max(found, key=lambda one: one.excess))
        assert report.worst
        problem = _excess(report.worst)
        peak = _peak(lambda: _trained(_small(pack, 1), embeddings, start, engine, (LONG,)), embeddings.device)
        of_two = _peak(lambda: differing.append(_bits(pack, embeddings, start, engine)), embeddings.device)
        memory = None if peak is None or of_two is None else peak + (len(pack.lanes) - 1) * max(of_two - peak, 0)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        # A kernel can fail in any way: every one means that this engine does not train here.
        said = str(error) if isinstance(error, StudyError) else f"{type(error).__name__}: {error}"
        return replace(report, problem=said, seconds=time.perf_counter() - begun)
    problem = problem or differing[0]
    if memory is not None and memory > (free := torch.cuda.mem_get_info(embeddings.device)[0]) and not problem:
        problem = (
            f"{len(pack.lanes)} lanes take {memory >> 20:,} MiB, but {free >> 20:,} are free: lower lanes_per_pack"
        )
    report = replace(report, problem=problem, memory=memory, seconds=time.perf_counter() - begun)
    if not problem:
        _remember(key, report)
    return report


def _excess(worst: Deviation) -> str:
    if worst.excess < 1:
        return ""
    return f"{worst.part} is off by {worst.error:.2g} of its size, where rounding may move it by {worst.allowed:.2g}"


def _small(pack: PackSpec, lanes: int = LANES) -> PackSpec:
    """Return a pack of so many lanes: the first ones, again from the beginning where there are fewer."""
    found = [pack.lanes[number % len(pack.lanes)] for number in range(lanes)]
    # Of other sequences, or they were one lane.
    return PackSpec(
        lanes=tuple(
            replace(one, seed=replace(one.seed, data=(one.seed.data + number // len(pack.lanes)) % 2**32))
            for number, one in enumerate(found)
        )
    )


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
) -> tuple[Tensor, dict[str, Tensor]]:
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
    small, numerics = _small(pack), pack.run.numerics
    bank = embeddings.to(DTYPES[numerics])
    # Adding a step to a weight rounds it, which is much where it moves little.
    weights = {_moved(name): value.norm() for name, value in _state(small, bank, start).parameters.items()}
    stored = verify.UNIT["float64" if numerics == "float64" else "float32"] * STEPS**0.5
    expected, found, *others = (
        _named(*_trained(small, bank, start, kind, (STEPS,), rounded))
        for kind, rounded in (("eager", 0), (engine, 0), *(("eager", 1 + draw) for draw in range(_ROUNDED_RUNS)))
    )
    may = verify.allowed(pack.run.model, numerics) * 2**0.5
    of_eager = error_of_eager(pack, embeddings.device)
    for part, value in expected.items():
        exact = value.double()
        moved = [verify.relative_error(other[part], exact) ** 2 for other in others]
        amount = max((sum(moved) / len(moved)) ** 0.5, verify.UNIT[numerics])
        if part in weights and exact.norm():
            amount += stored * float(weights[part] / exact.norm())
        allowed = may * amount + next((share for kind, share in of_eager.items() if part.startswith(kind)), 0.0)
        yield Deviation(part, verify.relative_error(found[part], exact), allowed, numerics)


def error_of_eager(pack: PackSpec, device: torch.device) -> dict[str, float]:
    """Return by which share of themselves eager has moments and steps wrong, whatever is rounded in a model.

    On a GPU PyTorch's fused Adam takes 1 - beta of a beta in float32, unless all is in float64: that of .999 is 1.3e-5
    too small, and so are second moments. An engine that does the same is not told by this check from one that is right.
    """
    if device.type != "cuda" or pack.run.numerics == "float64":
        return {}
    optimizers = [lane.run.optimizer for lane in pack.lanes]
    first, second = (
        max(abs((1 - float(torch.tensor(beta))) / (1 - beta) - 1) for beta in betas)
        for betas in zip(*((one.beta1, one.beta2) for one in optimizers), strict=True)
    )
    return {"the first moment": first, "the second moment": second, "the step": first + second / 2}


def _moved(name: str) -> str:
    return f"the step of {name}"


def _named(losses: Tensor, parts: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"the loss": losses, **parts}


def _bits(pack: PackSpec, embeddings: Tensor, start: int, engine: str) -> str:
    """Return in what two equal trainings differ, or one that is interrupted from one that is not; "" in nothing."""
    small = _small(pack)
    whole, again, resumed = (
        _named(*_trained(small, embeddings, start, engine, parts))
        for parts in ((LONG,), (LONG,), (FIRST_PART, LONG - FIRST_PART))
    )
    # How far weights moved is not kept by a step, but both begin with the same ones.
    for other, what in ((again, "trained twice"), (resumed, f"interrupted after {FIRST_PART} batches")):
        for part, value in whole.items():
            if not torch.equal(value, other[part]):
                return f"{part} is not the same when {what}"
    return ""


def _peak(work: Callable[[], object], device: torch.device) -> int | None:
    """Do the work and return the most bytes of a GPU that it took at a time; None elsewhere."""
    if device.type != "cuda":
        work()
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


# What is remembered.


def _key(pack: PackSpec, device: torch.device, engine: str) -> str:
    """Return what a check that passed holds for: device, versions, code, and everything that shapes a step."""
    name = "cpu"
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        name = f"{properties.name} {properties.major}.{properties.minor} {properties.total_memory}"
    versions = torch.__version__, torch.version.cuda, sys.version_info[:2]
    runs = [lane.run.id for lane in pack.lanes[:LANES]]
    code = code_digest.training_code(engine), code_digest.training_code("eager")
    said = json.dumps([name, versions, code, runs, pack.run.numerics, len(pack.lanes)])
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _known(key: str) -> int | None:
    """Return the memory, 0 for none, of a check that passed; None where there was none, or it cannot be read."""
    try:
        return int(json.loads((cache_folder() / f"selfcheck-{key}.json").read_text(encoding="utf-8"))["memory"] or 0)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # checked anew


def _remember(key: str, report: Report) -> None:
    try:
        path = cache_folder() / f"selfcheck-{key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(path, json.dumps(asdict(report), indent=1) + "\n")
    except (OSError, StudyError) as error:
        # It costs the next job a check, and nothing else.
        print(f"the self-check of engine {report.engine} cannot be kept ({error})", file=sys.stderr)


# By hand, without a job.


def engines_tried(device: torch.device) -> tuple[str, ...]:
    """Return the engines that are checked on a device; on a CPU graph's step too, which it cannot capture."""
    return ("native", "graph") if device.type == "cpu" else tuple(e for e in AUTOMATIC["cuda"] if e != "eager")


def reports(device: torch.device, engines: Iterable[str], numerics: Iterable[str]) -> Iterator[Report]:
    """Yield what checks of the engines find on small packs: attention alone, and with MLPs. Nothing is remembered."""
    bank = Gaussian(classes=200, holdout_classes=0, exemplars=5, holdout_exemplars=0, dim=64, noise=0.1)
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(200, 5, 64, generator=generator).to(device)
    for engine in engines:
        for kind in numerics:
            for mlp_ratio in (0, 4):
                run = Run(
                    bank=BankSpec(seed=0, parameters=bank),
                    recipe=Recipe(context=8, burstiness=4),
                    model=Model(depth=2, width=64, heads=8, mlp_ratio=mlp_ratio),
                    optimizer=Optimizer(learning_rate=1e-3, l2=L2(strength=1e-3)),
                    batch_size=32,
                    numerics=kind,
                    snapshots=Snapshots(first=2**62, per_doubling=1, every=2**62),
                )
                pack = PackSpec(lanes=tuple(Lane(run=run, seed=Seed(init=n, data=n)) for n in range(LANES)))
                if not engine_problem(engine, {"graph": "cuda"}.get(engine, device.type), run):
                    yield check(pack, embeddings, 0, engine, remembered=False)
