"""Measure how fast training is, against the ceiling of the machine it runs on and against other code.

    python benchmarks/throughput.py                         # shapes a and c, a pack of 1, on one core and on all
    python benchmarks/throughput.py --shapes abcdef --lanes 1 4 16 64 --jobs 1
    python benchmarks/throughput.py --shapes ac --profile   # where a step's time goes
    python benchmarks/throughput.py --shapes ac --against benchmarks/peers/plain_pytorch.py
    python benchmarks/throughput.py --device cuda --shapes abcd --lanes 1 4 16 64
    python benchmarks/throughput.py --record                # keep what was measured, and renew docs/performance.md
    python benchmarks/throughput.py --record gpu.json       # keep what benchmarks/gpu.sh measured elsewhere

What is timed is `training.train`: drawing sequences, gathering exemplars, forward, backward, Adam, recording the
loss; a whole job adds start and snapshots (its own rate stands in every segment, `made_sequences_per_second`). Every
case runs in processes of its own, one thread each, `--jobs` of them side by side. The ceiling is a large matrix
product and a large copy in the same processes and precision, right after. A file given to --against defines
`step_for(shape, lanes, device)`, which returns a function that trains on one batch of every lane; ours and it take
turns, and the ratio is the median over turns.

Model FLOP a sequence are those of icl_transience.specs.compute.training_flop: what the model as written down needs.
"""

import argparse
import importlib.util
import itertools
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

STARTED = time.perf_counter()

# What a job imports counts in its first step.
from icl_transience.planning.benchmark_shapes import BATCH, SHAPES, Shape, pack_of  # noqa: E402

HERE = Path(__file__).resolve().parent


class Training:
    """A pack in training, in amounts of whole batches."""

    def __init__(self, shape: Shape, lanes: int, options: argparse.Namespace):
        import torch

        from icl_transience.engines import select
        from icl_transience.engines.interface import DTYPES
        from icl_transience.engines.state import initial_state

        self.pack = pack_of(shape, lanes, options.numerics)
        self.device = torch.device(options.device)
        bank = self.pack.run.bank.shape
        generator = torch.Generator().manual_seed(0)
        if images := self.pack.run.bank.images:
            # Drawings are ink of one darkness on a fifth of the paper, about.
            drawn = bank.n_classes // images.views, bank.n_exemplars, images.side, images.side, images.channels
            ink = torch.rand(drawn, generator=generator) < 0.2
            self.embeddings = (ink.to(torch.uint8) * 255).to(self.device)
        else:
            embeddings = torch.randn(bank.n_classes, bank.n_exemplars, bank.width, generator=generator)
            self.embeddings = embeddings.to(self.device, DTYPES[options.numerics])
        self.state = repeated(initial_state(pack_of(shape, 1, options.numerics), options.device), lanes)
        self.engine = select.chosen(options.engine, self.pack.run, self.device)
        # Made once, as in a segment, where it lasts for hundreds of thousands of batches.
        self.step = select.step_for(self.pack, self.state, self.embeddings, self.engine)

    def __call__(self, batches: int) -> float:
        """Seconds that `batches` batches of every lane take."""
        return timed(self._train, batches, self.device)

    def _train(self, batches: int) -> None:
        from icl_transience.training import loop

        until = self.state.sequences_seen + batches * BATCH
        loop.train(self.pack, self.state, self.embeddings, until, lambda state: None, step=self.step)


def repeated(state, lanes: int):
    """The state of one lane, so many times: drawing weights takes a second a lane of (d), and their values no time."""
    for part in (state.parameters, state.statistics, state.first_moments, state.second_moments):
        part.update({name: value.repeat(lanes, *[1] * (value.dim() - 1)) for name, value in part.items()})
    state.loss_sum, state.diverged_at = state.loss_sum.repeat(lanes), state.diverged_at.repeat(lanes)
    return state


def timed(work, amount: int, device) -> float:
    synchronize(device)
    begun = time.perf_counter()
    work(amount)
    synchronize(device)
    return time.perf_counter() - begun


def synchronize(device) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


def worker(options: argparse.Namespace) -> None:
    """Measures one case; says "ready" when warm and begins at the line that answers."""
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as training jobs do
    shape, (lanes,) = SHAPES[options.shapes], options.lanes
    ours = Training(shape, lanes, options)
    ours(1)
    first_step = time.perf_counter() - STARTED
    ours(2)
    # As many batches at a time as take about half a second, in whole recordings of the loss.
    chunk = max(1, round(0.5 / ours(8) * 8 / 32)) * 32 if ours(8) < 4 else 8
    memory = _peak_memory(ours.device)
    peer = _peer(options.against, shape, lanes, options.device) if options.against else None
    print("ready", flush=True)
    sys.stdin.readline()
    seconds, of_peer, begun = [], [], time.perf_counter()
    while time.perf_counter() - begun < options.seconds or len(seconds) < 3:
        seconds.append(ours(chunk) / chunk)
        if peer:
            peer_chunk = max(chunk // 8, 1)
            of_peer.append(timed(peer, peer_chunk, ours.device) / peer_chunk)
    gemm, copy = ceilings(ours.device, options.numerics)
    step = statistics.median(seconds)
    rate = BATCH * lanes / step
    measured = {
        "engine": ours.engine,
        "step": step,
        "rate": rate,
        "flops": rate * shape.flop(),
        "gemm": gemm,
        "copy": copy,
        "memory": memory,
        "first_step": first_step,
        "against": statistics.median(p / s for p, s in zip(of_peer, seconds, strict=True)) if peer else None,
    }
    print(json.dumps(measured), flush=True)


def _peer(path: str, shape: Shape, lanes: int, device: str):
    module_spec = importlib.util.spec_from_file_location("peer", path)
    if module_spec is None or module_spec.loader is None:
        raise SystemExit(f"--against: {path} is no Python file")
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    step = module.step_for(shape, lanes, device)
    step()

    def steps(amount: int) -> None:
        for _ in range(amount):
            step()

    return steps


def ceilings(device, numerics: str) -> tuple[float, float]:
    """(FLOP/s of a large matrix product, bytes/s of a large copy, read plus written), medians of 5."""
    import torch

    from icl_transience.engines.interface import tensor_cores

    dtype = {"bfloat16": torch.bfloat16, "float64": torch.float64}.get(numerics, torch.float32)
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    product, source = torch.empty_like(a), torch.randn(2**26, device=device)
    target = torch.empty_like(source)

    def median(work) -> float:
        work(1)
        return statistics.median(timed(work, 1, device) for _ in range(5))

    with tensor_cores(numerics):
        gemm = median(lambda _: torch.mm(a, b, out=product))
    copy = median(lambda _: target.copy_(source))
    return 2 * size**3 / gemm, 2 * source.nbytes / copy


def _peak_memory(device) -> int:
    """Bytes: of the device, or of the process."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def measure(shape: str, lanes: int, jobs: int, options: argparse.Namespace) -> dict:
    """One case: `jobs` workers at the same time, their rates and ceilings summed."""
    command = [sys.executable, __file__, "--worker", "--shapes", shape, "--lanes", str(lanes)]
    for name in ("device", "engine", "numerics", "seconds", "against"):
        if (value := getattr(options, name)) is not None:
            command += [f"--{name}", str(value)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen(command, **pipes) for _ in range(jobs)]
    for process in workers:
        if not process.stdout or process.stdout.readline().strip() != "ready":
            raise SystemExit(f"({shape}) with {lanes} lanes failed: see above")
    for process in workers:
        if process.stdin:
            process.stdin.write("\n")
            process.stdin.flush()
    found = [json.loads(process.communicate()[0]) for process in workers]
    case = {"shape": shape, "lanes": lanes, "jobs": jobs, "numerics": options.numerics}
    case |= {name: sum(one[name] for one in found) for name in ("rate", "flops", "gemm", "copy")}
    case |= {name: max(one[name] for one in found) for name in ("step", "memory", "first_step")}
    return case | {"engine": (engine := found[0]["engine"]), "against": found[0]["against"], "code": code_of(engine)}


def code_of(engine: str) -> str:
    """A hash of the code by which an engine trains."""
    from icl_transience.specs.code_digest import training_code

    return training_code(engine)


COLUMNS = {
    "shape": lambda case: f"({case['shape']})",
    "engine": lambda case: f"{case['engine']}, {case['numerics']}",
    "lanes a pack": lambda case: str(case["lanes"]),
    "jobs": lambda case: str(case["jobs"]),
    "step": lambda case: f"{case['step'] * 1e3:.3g} ms",
    "sequences/s": lambda case: f"{case['rate']:,.0f}",
    "model GFLOP/s": lambda case: f"{case['flops'] / 1e9:.0f}",
    "of ceiling": lambda case: f"{case['gemm'] / 1e9:,.0f}: {case['flops'] / case['gemm']:.0%}",
    "copy GB/s": lambda case: f"{case['copy'] / 1e9:.0f}",
    "peak memory": lambda case: f"{case['memory'] / 2**20:,.0f} MiB",
    "first step after": lambda case: f"{case['first_step']:.1f} s",
}


def table(cases: list[dict]) -> list[str]:
    """Lines of a Markdown table."""
    rows = [[text(case) for text in COLUMNS.values()] for case in cases]
    return [f"| {' | '.join(row)} |" for row in [list(COLUMNS), ["---"] * len(COLUMNS), *rows]]


def profile(shape: str, options: argparse.Namespace) -> list[str]:
    """Where the time of a step of one lane goes: calls a step, microseconds a step, share."""
    import torch

    from icl_transience.engines.native.engine import NativeStep
    from icl_transience.engines.optimizers import LaneOptimizer

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    ours = Training(SHAPES[shape], 1, options)
    ours(8)
    if ours.engine != "native":
        activities = [torch.profiler.ProfilerActivity.CPU]
        if ours.device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=activities) as recorded:
            ours(32)
        return str(recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=20)).splitlines()
    whole, batches, spent, count = ours(256) / 256, 256, {}, {}
    step, start = ours.step, ours.state.sequences_seen
    if not isinstance(step, NativeStep):
        raise SystemExit(f"({shape}): expected the native engine's step, got {type(step).__name__}")

    def timed_call(call, name=None):
        name = name or getattr(getattr(call, "func", call), "__name__", str(call))

        def run(*arguments):
            begun = time.perf_counter()
            call(*arguments)
            spent[name] = spent.get(name, 0) + (time.perf_counter() - begun) / batches
            count[name] = count.get(name, 0) + 1 / batches

        return run

    step.calls = [[timed_call(call) for call in calls] for calls in step.calls]
    parts = ("add_l2", "clip_gradients", "step")
    with ExitStack() as stack:
        for part in parts:
            method = getattr(LaneOptimizer, part)
            stack.callback(setattr, LaneOptimizer, part, method)
            setattr(LaneOptimizer, part, timed_call(method, f"optimizer.{part}"))
        for _ in step.losses(start, start + batches * BATCH):
            pass
    spent["(draw, gather, record)"] = whole - sum(spent.values())
    lines = [f"({shape}) {ours.engine}, {options.numerics}: {whole * 1e6:,.0f} us a step"]
    for name, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        lines.append(f"  {name:26}{count.get(name, 0):5.0f} calls{seconds * 1e6:10,.0f} us{seconds / whole:7.1%}")
    return lines


BEGIN, END = "<!-- benchmark: python benchmarks/throughput.py --record -->", "<!-- end of benchmark -->"


def recorded() -> list[dict]:
    """What stands in measured.json: machines, each with its cases."""
    return json.loads((HERE / "measured.json").read_text(encoding="utf-8"))


def page_section(machines: list[dict]) -> str:
    """What docs/performance.md holds between its two marks."""
    parts = [BEGIN]
    for machine in machines:
        parts += ["", f"{machine['machine']}, {dates(machine)}:", "", *table(machine["cases"])]
    return "\n".join([*parts, "", END])


def dates(machine: dict) -> str:
    """When a machine's cases were measured: the date of most of them, and which shapes have cases of another one."""
    found, shapes = {}, {}
    for case in machine["cases"]:
        date = case.get("date", machine["date"])
        found.setdefault(date, []).append(case["shape"])
        shapes.setdefault(case["shape"], set()).add(date)
    first, *others = sorted(found, key=lambda date: (len(found[date]), date), reverse=True)
    said = [first]
    for date in others:
        of_date = [f"{'' if shapes[one] == {date} else 'some of '}({one})" for one in sorted(set(found[date]))]
        said.append(f"{' and '.join(of_date)} {date}")
    return ", ".join(said)


def problems(found: dict) -> list[str]:
    """What checks failed, of what benchmarks/gpu.sh wrote: rates of an engine that is wrong are not to be published.

    One that took too long has the status None: a kernel may hang in it.
    """
    failed = [name for name in ("selfcheck", "tests") if found[name]["status"] != 0 and not found[name].get("skipped")]
    return [f"{name}, status {found[name]['status']}: {found[name]['output'][-500:]}" for name in failed]


def record_file(path: Path) -> None:
    """Records what benchmarks/gpu.sh wrote, but for profiles and what was said."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        wrong, machine, device, date = problems(found), found["machine"], found["device"], found["date"]
        cases = [
            {name: value for name, value in case.items() if name not in ("profile", "profiled")}
            | {"code": found["code"].get(case["engine"])}
            for case in found["cases"]
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SystemExit(f"{path}: is not what benchmarks/gpu.sh writes ({type(error).__name__}: {error})") from error
    if wrong:
        raise SystemExit("\n".join([f"{path}: nothing is recorded, as these failed:", *wrong]))
    if not cases:
        raise SystemExit(f"{path}: no case was measured, so nothing is recorded")
    record(cases, machine, device, date)


def record(cases: list[dict], machine: str, device: str, date: str | None = None) -> None:
    """Puts cases in place of earlier ones of their kind in measured.json, and renews the table of docs/performance.md.

    device: cpu or cuda, whatever its number; records without it are of the time when there were CPUs only. date: of the
    measurement, None for today. One process records at a time; neither file is written unless both can be.
    """
    from icl_transience.store import atomic, flock

    def kind(case: dict) -> tuple:
        return case["shape"], case["numerics"], case["engine"], case["lanes"], case["jobs"]

    own, date, page = Path(__file__), date or time.strftime("%Y-%m-%d"), HERE.parent / "docs/performance.md"
    with flock.opened(own) as alone:
        flock.take(alone, own, wait=True)
        machines = recorded()
        known = next((one for one in machines if one["machine"] == machine), {"cases": [], "date": date})
        earlier = [{"date": known["date"]} | case for case in known["cases"]]
        kept = {kind(case): case for case in [*earlier, *({**case, "date": date} for case in cases)]}
        known = {"machine": machine, "device": device.split(":")[0], "date": max(date, known["date"])}
        known |= {"cases": [kept[key] for key in sorted(kept)]}
        machines = [one for one in machines if one["machine"] != machine] + [known]
        text = page.read_text(encoding="utf-8")
        if not 0 <= text.find(BEGIN) < text.find(END):
            raise SystemExit(f"{page}: has no lines {BEGIN} and {END}, between which the table stands")
        shown = text.split(BEGIN)[0] + page_section(machines) + text.split(END)[1]
        with atomic.replacing(HERE / "measured.json") as numbers, atomic.replacing(page) as written:
            numbers.write_text(json.dumps(machines, indent=1) + "\n", encoding="utf-8")
            written.write_text(shown, encoding="utf-8")


def machine_name(device: str) -> str:
    import torch

    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {cores()} cores, torch {torch.__version__}"


def cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="ac", help="letters out of abcdef (default: ac)")
    parser.add_argument("--lanes", type=int, nargs="+", default=[1], help="lanes a pack (default: 1)")
    parser.add_argument("--jobs", type=int, nargs="+", help="jobs side by side (default: 1, and on CPU one a core)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--numerics", default="float32")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long to measure a case")
    parser.add_argument("--against", help="file of a peer; see above")
    parser.add_argument("--profile", action="store_true", help="print where a step's time goes, and nothing else")
    said = (
        "renew measured.json and docs/performance.md, by what is measured now or stands in a file of benchmarks/gpu.sh"
    )
    parser.add_argument("--record", nargs="?", const=True, type=Path, metavar="FILE", help=said)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options)
        return
    if isinstance(options.record, Path):
        record_file(options.record)
        return
    if options.profile:
        for shape in options.shapes:
            print("\n".join(profile(shape, options)))
        return
    jobs = options.jobs or ([1, cores()] if options.device == "cpu" else [1])
    cases = []
    print("model FLOP a sequence:", ", ".join(f"({s}) {SHAPES[s].flop() / 1e6:.2f}e6" for s in options.shapes))
    for shape, lanes, side_by_side in itertools.product(options.shapes, options.lanes, jobs):
        case = measure(shape, lanes, side_by_side, options)
        cases.append(case)
        against = f"; {case['against']:.2f} times {Path(options.against).stem}" if options.against else ""
        print(table([case])[2] + against, flush=True)
    print("\n" + "\n".join(table(cases)))
    if options.record:
        record(cases, machine_name(options.device), options.device)


if __name__ == "__main__":
    main()
