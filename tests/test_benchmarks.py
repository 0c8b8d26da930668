"""The benchmark runs, counts what it says it counts, and is what docs/performance.md shows."""

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from icl_transience.engines import eager
from icl_transience.model import transformer
from icl_transience.specs import code_digest
from icl_transience.specs.errors import StudyError
from icl_transience.specs.model import parameter_shapes
from icl_transience.store import atomic

ROOT = Path(__file__).resolve().parents[1]
BENCHMARK = ROOT / "benchmarks" / "throughput.py"


def loaded(path: Path):
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[path.stem] = module  # where dataclasses look
    module_spec.loader.exec_module(module)
    return module


throughput = loaded(BENCHMARK)
on_gpu = loaded(ROOT / "benchmarks" / "on_gpu.py")


@pytest.mark.parametrize("letter", "abcd")
def test_model_flop_are_those_of_the_products_a_step_needs(letter):
    """PyTorch's own counter, on the eager engine, which differs in two ways that can be told exactly."""
    shape = replace(throughput.SHAPES[letter], classes=48)
    run = throughput.pack_of(shape, 1, "float32").run
    shapes = parameter_shapes(run.model, shape.dim, shape.classes)
    parameters = {name: torch.randn(1, *size, requires_grad=True) for name, size in shapes.items()}
    exemplars = torch.randn(1, 3, shape.context + 1, shape.dim)
    labels = torch.randint(shape.classes, (1, 3, shape.context + 1))
    geometry = transformer.Geometry(run.model, run.recipe.context, torch.float32)
    with FlopCounterMode(display=False) as counter:
        eager.query_loss(parameters, run.model, geometry, exemplars, labels).sum().backward()
    tokens = 2 * shape.context + 1
    # Eager scores every pair of tokens, causal attention needs T(T+1)/2 of T^2; exemplars need no gradient.
    masked = 3 * (shape.depth - 1) * 2 * shape.width * tokens * (tokens - 1)
    no_gradient = 2 * (shape.context + 1) * shape.dim * shape.width
    assert counter.get_total_flops() == 3 * (shape.flop() + masked - no_gradient)


def test_the_benchmark_runs_against_a_peer():
    command = [sys.executable, BENCHMARK, "--shapes", "a", "--jobs", "1", "--seconds", "0"]
    peer = ["--against", ROOT / "benchmarks/peers/plain_pytorch.py"]
    done = subprocess.run([*command, *peer], capture_output=True, text=True, check=True)
    row = next(line for line in done.stdout.splitlines() if line.startswith("| (a) |"))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert len(cells) == len(throughput.COLUMNS)
    assert float(cells[5].replace(",", "")) > 0
    assert " times plain_pytorch" in row


def test_the_page_shows_what_was_measured():
    machines = json.loads((ROOT / "benchmarks" / "measured.json").read_text(encoding="utf-8"))
    assert machines
    assert throughput.page_section(machines) in (ROOT / "docs/performance.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_record_says_of_which_kind_of_device_it_is(tmp_path, monkeypatch, device):
    """And keeps those of before, of which some do not."""
    before = throughput.recorded()
    for name in ("docs/performance.md", "benchmarks/measured.json"):
        (tmp_path / name).parent.mkdir()
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.setattr(throughput, "HERE", tmp_path / "benchmarks")
    case, name = before[0]["cases"][0], f"{device}:1" if device == "cuda" else device
    throughput.record([case], "a machine", name, "2030-01-01")
    *kept, new = throughput.recorded()
    assert kept == before
    assert (new["machine"], new["device"], new["cases"]) == ("a machine", device, [case | {"date": "2030-01-01"}])
    assert throughput.page_section([*before, new]) in (tmp_path / "docs/performance.md").read_text(encoding="utf-8")
    # Of another case, recorded later; the first keeps its date.
    throughput.record([case | {"shape": "f"}, case | {"shape": "e"}], "a machine", name, "2031-01-01")
    *_, new = throughput.recorded()
    assert {one["shape"]: one["date"][:4] for one in new["cases"]} == {case["shape"]: "2030", "e": "2031", "f": "2031"}
    assert throughput.dates(new) == f"2031-01-01, ({case['shape']}) 2030-01-01"
    # Some of a shape again, and what is older than the rest.
    throughput.record([case | {"lanes": 99}, case | {"shape": "e", "lanes": 99}], "a machine", name, "2029-01-01")
    *_, new = throughput.recorded()
    some = f"some of ({case['shape']})"
    assert throughput.dates(new) == f"2031-01-01, {some} and some of (e) 2029-01-01, {some} 2030-01-01"
    assert new["date"] == "2031-01-01"


def copied(folder, monkeypatch):
    """Have what is recorded recorded in copies."""
    for name in ("docs/performance.md", "benchmarks/measured.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    monkeypatch.setattr(throughput, "HERE", folder / "benchmarks")


def test_processes_that_record_at_the_same_time_lose_nothing_of_each_other(tmp_path, monkeypatch):
    copied(tmp_path, monkeypatch)
    code = """
import sys
from pathlib import Path
import throughput
throughput.HERE = Path(sys.argv[2])
case = throughput.recorded()[0]["cases"][0]
for lanes in range(1, 11):
    throughput.record([case | {"lanes": lanes}], sys.argv[1], "cpu")
"""
    command = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(BENCHMARK.parent)}
    both = [subprocess.Popen([*command, name, throughput.HERE], env=environment) for name in ("A", "B")]
    while any(process.poll() is None for process in both):
        assert throughput.END in (tmp_path / "docs/performance.md").read_text(encoding="utf-8")
        throughput.recorded()
    assert [process.wait() for process in both] == [0, 0]
    assert {one["machine"]: len(one["cases"]) for one in throughput.recorded()[-2:]} == {"A": 10, "B": 10}


def test_nothing_is_recorded_unless_both_files_can_be_written(tmp_path, monkeypatch):
    copied(tmp_path, monkeypatch)
    before, page = throughput.recorded(), tmp_path / "docs/performance.md"
    page.write_text(page.read_text(encoding="utf-8").replace(throughput.END, ""), encoding="utf-8")
    with pytest.raises(SystemExit, match="between which the table stands"):
        throughput.record(before[0]["cases"][:1], "a machine", "cpu")
    copied(tmp_path, monkeypatch)
    case = {name: value for name, value in before[0]["cases"][0].items() if name != "step"}
    with pytest.raises(KeyError, match="step"):
        throughput.record([case], "a machine", "cpu")
    # The page is the second to be written.
    real = atomic.create

    def full(path):
        if path == page:
            raise OSError(28, "No space left on device")
        return real(path)

    monkeypatch.setattr(atomic, "create", full)
    with pytest.raises(StudyError, match=r"performance\.md"):
        throughput.record(before[0]["cases"][:1], "a machine", "cpu")
    assert throughput.recorded() == before


GOOD = {"selfcheck": {"status": 0, "output": ""}, "tests": {"status": 0, "output": ""}, "code": {}}
GOOD |= {"machine": "a machine", "device": "cuda", "date": "2030-01-01", "cases": []}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ("{", "is not what benchmarks/gpu.sh writes"),
        ("[]", "is not what benchmarks/gpu.sh writes"),
        (json.dumps({"cases": []}), r"is not what benchmarks/gpu.sh writes \(KeyError: 'selfcheck'\)"),
        (json.dumps(GOOD), "no case was measured"),
        (json.dumps(GOOD | {"tests": {"status": 1, "output": "1 failed"}}), "failed:\ntests, status 1: 1 failed"),
        # One that took too long: a kernel may hang.
        (json.dumps(GOOD | {"selfcheck": {"status": None, "output": "so far"}}), "selfcheck, status None: so far"),
    ],
)
def test_a_file_of_checks_that_failed_or_of_something_else_is_not_recorded(tmp_path, monkeypatch, found, said):
    copied(tmp_path, monkeypatch)
    before, path = throughput.recorded(), tmp_path / "gpu.json"
    path.write_text(found, encoding="utf-8")
    with pytest.raises(SystemExit, match=said):
        throughput.record_file(path)
    assert throughput.recorded() == before
    with pytest.raises(SystemExit, match="FileNotFoundError"):
        throughput.record_file(tmp_path / "nowhere.json")


ALONE = """
import sys
others = {"jsonschema", "matplotlib", "pandas", "PIL", "pygments", "yaml", "scipy", "snakemake", "pytest", "hypothesis"}
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in others else self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Without, sys.meta_path)
"""


def test_the_script_for_a_gpu_needs_nothing_but_torch_numpy_and_h5py_and_its_file_is_recorded(tmp_path, monkeypatch):
    """Without a GPU: on the CPU, as far as it goes there."""
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone/sitecustomize.py").write_text(ALONE)
    output = tmp_path / "gpu.json"
    command = [ROOT / "benchmarks/gpu.sh", output, "--device", "cpu", "--shapes", "a", "--lanes", "1", "2"]
    command += ["--numerics", "float32", "--engines", "native", "graph", "--seconds", "0", "--minutes", "10"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "alone"), "PYTHON": sys.executable}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    assert "native, float32: passed" in found["selfcheck"]["output"]
    assert found["tests"] == {"status": None, "skipped": True, "seconds": 0.0, "output": "pytest is not installed"}
    assert [(case["engine"], case["lanes"]) for case in found["cases"]] == [("native", 1), ("native", 2)]
    # A case that fails costs itself alone.
    assert [(case["engine"], case["lanes"]) for case in found["failed"]] == [("graph", 1), ("graph", 2)]
    assert all("graph is for device cuda" in case["error"] for case in found["failed"])
    copied(tmp_path, monkeypatch)
    throughput.record_file(output)
    new = throughput.recorded()[-1]
    assert [case["lanes"] for case in new["cases"] if case["step"] == found["cases"][0]["step"]] == [1]
    assert new["date"] == found["date"]
    assert {case["code"] for case in new["cases"] if "code" in case} == {code_digest.training_code("native")}
    assert all("profile" not in case for case in new["cases"])
    assert found["code"] == {name: code_digest.training_code(name) for name in ("native", "graph")}


def test_a_case_that_ends_its_process_by_a_signal_or_never_ends_costs_that_case_alone(monkeypatch, capsys):
    options = argparse.Namespace(device="cpu", output="-", seconds=0)
    cases = [{"engine": "native", "shape": "a", "numerics": "float32", "lanes": lanes} for lanes in (1, 2)]
    monkeypatch.setattr(on_gpu, "worker_of", lambda *given: ["-c", "import os; os.abort()"])
    (case,) = on_gpu.of_worker(cases, options, time.monotonic() + 60)
    assert case == cases[0] | {"error": f"status {-signal.SIGABRT}"}
    # What a library prints is none of a case, nor is a line that broke off.
    said = "import os; print('tuned'); print('case: {', end='', flush=True); os.abort()"
    monkeypatch.setattr(on_gpu, "worker_of", lambda *given: ["-c", said])
    (case,) = on_gpu.of_worker(cases, options, time.monotonic() + 60)
    assert case == cases[0] | {"error": "tuned\ncase: {"}
    # One that ends well and says nothing would be asked for ever.
    monkeypatch.setattr(on_gpu, "worker_of", lambda *given: ["-c", "print('no newline', end=''); print('case: 7')"])
    assert on_gpu.of_worker(cases, options, time.monotonic() + 60) == [cases[0] | {"error": "no newlinecase: 7"}]
    assert not list(ROOT.glob(".gpu-*"))
    monkeypatch.setattr(on_gpu, "worker_of", lambda *given: ["-c", "import time; time.sleep(600)"])
    assert on_gpu.of_worker(cases, options, time.monotonic()) == []


def test_a_check_that_takes_too_long_may_say_what_it_found_and_is_ended_all_the_same(monkeypatch):
    monkeypatch.setattr(on_gpu, "_LAST_WORDS", 5)
    speaks = "import time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('one failed so far')"
    deaf = (
        "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(60)"
    )
    begun = time.monotonic()
    found = on_gpu.side_by_side({"speaks": ["-c", speaks], "deaf": ["-c", deaf]}, minutes=2 / 60)
    assert {name: report["status"] for name, report in found.items()} == {"speaks": None, "deaf": None}
    assert {name: report["output"].strip() for name, report in found.items()} == {
        "speaks": "one failed so far",
        "deaf": "deaf",
    }
    assert time.monotonic() - begun < 30


def test_a_gpu_that_is_not_there_is_said_at_once():
    command = [sys.executable, ROOT / "benchmarks/on_gpu.py", "--output", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not torch.cuda.is_available():
        assert done.returncode == 2
        assert "--device cuda: torch" in done.stderr
        assert "sees 0 GPU(s) here" in done.stderr
    for arguments, problem in (
        (("--device", "tpu"), "expected cpu, cuda or cuda:N"),
        (("--device", "cpu", "--engines", "auto"), "expected some of native, graph, triton, eager, got auto"),
    ):
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        assert (done.returncode, problem in done.stderr) == (2, True)


def test_the_profile_tells_the_parts_of_a_step():
    command = [sys.executable, BENCHMARK, "--shapes", "a", "--profile"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    calls = {line.split()[0]: int(line.split()[1]) for line in lines[1:] if " calls" in line and "(" not in line}
    assert calls["attention"] == calls["attention_backward"] == calls["last_attention"] == calls["optimizer.step"] == 1
    assert calls["norm"] == calls["norm_backward"] == 3
    parts = sum(float(line.split()[-3].replace(",", "")) for line in lines[1:] if line.strip().endswith("%"))
    # Parts are rounded to whole microseconds.
    assert parts == pytest.approx(float(lines[0].split(": ")[1].split()[0].replace(",", "")), abs=len(lines))
