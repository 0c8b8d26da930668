"""What benchmarks/gpu.sh runs; see there. Imports the library, torch, numpy and h5py, and nothing else.

Proofs run side by side, then cases alone on the machine; what is not reached in time is said. Cases of a shape run in
one process, one after the other, the most telling first, and are kept as they come: a kernel that breaks its process
costs that case alone. Ends with status 1 where a check failed: throughput.py then records nothing.
"""

import argparse
import importlib.util
import itertools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import throughput

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("tests/test_gpu.py", "tests/test_triton_device.py")
_TESTERS = 8
# What a worker prints of a case begins so.
_CASE = "case: "
# Of what is printed by steps and profiles, so many characters are kept.
_KEPT = 20_000
# What proofs may take of the time for everything. Most of theirs goes into compiling kernels.
_FOR_PROOFS = 0.6
# Seconds that training of a whole drawing may take, for it to be measured.
_DRAWING = 5.0
# Seconds that one has to say what it found, where they are over.
_LAST_WORDS = 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shapes", default="abcd")
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--numerics", nargs="+", default=["float32", "tf32", "bfloat16"])
    parser.add_argument("--engines", nargs="+", help="default: those that `auto` tries on the device")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long to measure a case")
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        for case in json.loads(options.worker):
            print(_CASE + json.dumps(measured(case, options)), flush=True)
        return 0
    if problem := device_problem(options.device):
        parser.error(f"--device {options.device}: {problem}")
    if problem := engines_problem(options):
        parser.error(f"--engines: {problem}")
    end = time.monotonic() + 60 * options.minutes
    found: dict[str, Any] = {"device": options.device.split(":")[0], "date": time.strftime("%Y-%m-%d")}
    found |= {"machine": throughput.machine_name(options.device), "versions": versions(), "code": code(options)}
    found |= {"cases": [], "failed": [], "left_out": []}
    write(options.output, found)  # where it cannot be, nothing need be measured
    found |= proofs(options)
    write(options.output, found)
    for group in groups(options):
        left = list(group)
        while left and time.monotonic() < end:
            cases = of_worker(left, options, end)
            found["cases"] += [case for case in cases if "rate" in case]
            found["failed"] += [case for case in cases if "error" in case]
            left = left[len(cases) :]
            write(options.output, found)
        found["left_out"] += left
    write(options.output, found)
    print("\n".join(throughput.table(found["cases"])))
    for name in ("failed", "left_out"):
        for case in found[name]:
            print(f"{name.replace('_', ' ')}: {case}")
    problems = throughput.problems(found)
    print(*(f"failed: {problem}" for problem in problems), sep="\n", file=sys.stderr)
    return bool(problems)


def device_problem(device: str) -> str:
    """Why nothing can be measured on a device here; "" where it can."""
    import torch

    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        return "expected cpu, cuda or cuda:N"
    seen = torch.cuda.device_count() if device != "cpu" else 0
    if device != "cpu" and int(device.partition(":")[2] or 0) >= seen:
        return f"torch {torch.__version__} sees {seen} GPU(s) here; `--device cpu` tries the script without one"
    return ""


def engines_problem(options: argparse.Namespace) -> str:
    """Which engines are none; "" where all are."""
    from icl_transience.specs.code_digest import STEPS

    unknown = sorted(set(engines(options)) - set(STEPS))
    return f"expected some of {', '.join(STEPS)}, got {', '.join(unknown)}" if unknown else ""


def code(options: argparse.Namespace) -> dict[str, str]:
    """Engine -> a hash of the code that is measured."""
    return {name: throughput.code_of(name) for name in engines(options)}


def versions() -> dict[str, str]:
    import torch

    known = {"python": sys.version.split()[0], "torch": torch.__version__, "cuda": str(torch.version.cuda)}
    if importlib.util.find_spec("triton"):
        import triton

        known["triton"] = triton.__version__
    return known


def write(path: Path, found: dict[str, Any]) -> None:
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def proofs(options: argparse.Namespace) -> dict[str, Any]:
    """Self-check and tests, side by side with what compiles kernels: a GPU is shared, and each takes a core."""
    programs = {"selfcheck": ["-m", "icl_transience", "selfcheck", "--device", options.device]}
    if importlib.util.find_spec("pytest"):
        # Without the project's settings, which name plug-ins.
        plain = ["-c", os.devnull, "--rootdir", str(ROOT), "--noconftest", "-p", "no:cacheprovider"]
        plain += ["-n", str(_TESTERS)] if importlib.util.find_spec("xdist") else []
        programs["tests"] = ["-m", "pytest", *plain, "-v", "-rsf", "--tb=short", "--durations=5", *TESTS]
    for group in groups(options):
        if group[0]["engine"] == "triton" and options.device != "cpu":
            # Kernels are the same whatever the number of lanes.
            one_lane = {case["numerics"]: case | {"lanes": 1, "only_compile": True} for case in group}
            programs[f"compiled ({group[0]['shape']})"] = worker_of(list(one_lane.values()), options)
    found = side_by_side(programs, _FOR_PROOFS * options.minutes)
    if "tests" not in programs:
        found["tests"] = {"status": None, "skipped": True, "seconds": 0.0, "output": "pytest is not installed"}
    compiled = {name: report for name, report in found.items() if name.startswith("compiled")}
    kept = {name: report for name, report in found.items() if name not in compiled}
    for name, report in kept.items():
        print(f"{name}, {report['seconds']:.0f} s: {report['output']}", flush=True)
    for name, report in compiled.items():
        said = "" if report["status"] == 0 else f": {report['output'][-300:]}"
        print(f"{name}: {report['seconds']:.0f} s{said}", flush=True)
    return kept | {"compiled": {name: report["seconds"] for name, report in compiled.items()}}


def side_by_side(programs: dict[str, list[str]], minutes: float) -> dict[str, Any]:
    """What Python programs say: exit status, None where one took too long, seconds, and the end of its output.

    One that takes too long is interrupted first, so that tests say which have failed so far, and why.
    """
    begun, found = time.monotonic(), dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        running, outputs = dict[str, subprocess.Popen](), dict[str, Any]()
        for number, (name, arguments) in enumerate(programs.items()):
            outputs[name] = stack.enter_context((Path(folder) / str(number)).open("w+", errors="replace"))
            command = [sys.executable, *arguments]
            running[name] = subprocess.Popen(command, cwd=ROOT, stdout=outputs[name], stderr=subprocess.STDOUT)
        while running:
            late = time.monotonic() - begun > 60 * minutes
            for process in running.values() if late else ():
                if process.poll() is None:
                    process.send_signal(signal.SIGINT)
            for name, process in list(running.items()):
                status = process.poll()
                if late and status is None:
                    try:
                        process.wait(_LAST_WORDS)
                    except subprocess.TimeoutExpired:
                        process.kill()
                        process.wait()
                if late or status is not None:
                    outputs[name].seek(0)
                    seconds, text = round(time.monotonic() - begun, 1), outputs[name].read()[-_KEPT:]
                    found[name] = {"status": status, "seconds": seconds, "output": text}
                    del running[name]
            time.sleep(0.1)
    return {name: found[name] for name in programs}


def groups(options: argparse.Namespace) -> list[list[dict[str, Any]]]:
    """Cases of a shape, an engine after the other; the first engine of all shapes first, eager last."""
    found = []
    for engine, shape in itertools.product(engines(options), options.shapes):
        # Eager as the yardstick alone.
        few = engine == "eager" and not options.engines
        lanes = options.lanes[:: max(len(options.lanes) - 1, 1)] if few else options.lanes
        numerics = options.numerics[:1] if few else options.numerics
        pairs = itertools.product(numerics, lanes)
        ends = {lanes[0], lanes[-1]}
        known = {"engine": engine, "shape": shape}
        found.append([known | {"numerics": kind, "lanes": count, "profiled": count in ends} for kind, count in pairs])
    return found


def engines(options: argparse.Namespace) -> list[str]:
    """Those named, or those that `auto` tries on the device."""
    from icl_transience.specs.compute import AUTOMATIC

    return list(options.engines or AUTOMATIC[options.device.split(":")[0]])


def worker_of(cases: list[dict[str, Any]], options: argparse.Namespace) -> list[str]:
    """Arguments of the interpreter with which this file measures cases."""
    command = [__file__, "--output", str(options.output), "--device", options.device]
    return [*command, "--seconds", str(options.seconds), "--worker", json.dumps(cases)]


def of_worker(cases: list[dict[str, Any]], options: argparse.Namespace, end: float) -> list[dict[str, Any]]:
    """Measure cases in a process of their own: as many as it gets through, and the one that ends it, with its error."""
    command = [sys.executable, *worker_of(cases, options)]
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, errors="replace")
        assert process.stdout
        # A kernel that never ends prints no line either.
        late = threading.Timer(max(end - time.monotonic(), 0), process.kill)
        late.start()
        try:
            for line in process.stdout:
                # A library may print what it likes, and a process may be killed within a line.
                if line.startswith(_CASE) and line.endswith("\n"):
                    found.append(json.loads(line.removeprefix(_CASE)))
                    print(throughput.table([found[-1]])[2], flush=True)
                else:
                    print(line, end="", file=log)
            status, ended = process.wait(), late.is_alive()
        finally:
            late.cancel()
            process.kill()
        log.seek(0)
        said = log.read().strip()
    # Below 0 it was ended by a signal: ours, where it was late.
    if ended and len(found) < len(cases):
        found.append(cases[len(found)] | {"error": said[-2000:] or f"status {status}"})
        print(f"failed: {cases[len(found) - 1]}: {said.splitlines()[-1] if said else status}", flush=True)
    return found


_ceilings: dict[str, tuple[float, float]] = {}


def measured(case: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """A case as throughput.py records it, with a profile of its steps."""
    import torch

    from icl_transience.engines.lanes import DRAW_BATCHES

    begun = time.perf_counter()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    given = argparse.Namespace(device=options.device, engine=case["engine"], numerics=case["numerics"])
    shape, lanes = throughput.SHAPES[case["shape"]], case["lanes"]
    on_gpu = options.device.startswith("cuda")
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(options.device)
    ours = throughput.Training(shape, lanes, given)
    ours(1)
    first_step = time.perf_counter() - begun
    if case.get("only_compile"):
        return case | {"first_step": first_step}
    # As in training, where it goes on without an end: of as many batches as a GPU draws together, drawing included. On
    # a CPU, which draws a lane at a time, of whole recordings of the loss.
    chunk = DRAW_BATCHES if on_gpu and ours(33) / 33 * DRAW_BATCHES < _DRAWING else 32
    ours(33)
    seconds = [ours(chunk) for _ in range(3)]
    while sum(seconds) < options.seconds:
        seconds.append(ours(chunk))
    step = statistics.median(seconds) / chunk
    memory = throughput._peak_memory(ours.device)
    if case["numerics"] not in _ceilings:
        _ceilings[case["numerics"]] = throughput.ceilings(ours.device, case["numerics"])
    gemm, copy = _ceilings[case["numerics"]]
    rate = throughput.BATCH * lanes / step
    numbers = {"rate": rate, "flops": rate * shape.flop(), "step": step, "gemm": gemm, "copy": copy}
    numbers |= {"memory": memory, "first_step": first_step, "jobs": 1, "against": None}
    return case | numbers | {"profile": profiled(ours, torch) if on_gpu and case["profiled"] else ""}


def profiled(ours: Any, torch: Any) -> str:
    """Where the device's time goes in 32 steps: the kernels that take most, and how many are launched."""
    kinds = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[kinds.CPU, kinds.CUDA]) as recorded:
        ours(32)
    return str(recorded.key_averages().table(sort_by="self_cuda_time_total", row_limit=15))[-_KEPT:]


if __name__ == "__main__":
    sys.exit(main())
