"""Kernels on other processors and from other compilers: each gives what it gave here, on what it was given here.

tests/native/driver.cpp calls them. For AArch64 it is cross-compiled, and run under qemu.
"""

import functools
import json
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from builders import TINY_BANK, pack, tiny_run
from pipeline import ROOT, Clone, environment, python
from test_encoder import image_run, images_of

from icl_transience.banks import bank as banks_bank
from icl_transience.engines.native import compiler, program
from icl_transience.engines.native.engine import NativeStep
from icl_transience.engines.native.forward import NativeForward
from icl_transience.engines.native.resnet import NativeResNet
from icl_transience.engines.state import initial_state
from icl_transience.model import transformer
from icl_transience.planning import limits
from icl_transience.results import provenance
from icl_transience.store.cache import compiler_words
from icl_transience.system import cores, memory

DRIVER = Path(__file__).parent / "native/driver.cpp"
TYPES = {torch.float32: "f", torch.float64: "d", torch.int64: "l", torch.uint8: "B"}
GCC_AARCH64, QEMU_AARCH64 = "aarch64-linux-gnu-g++", "qemu-aarch64"
# Over the largest number of an array. A kernel's sums have at most some thousand terms, in an order that depends on the
# vectors' width, each rounded to half a unit: errors that add up at random are below sqrt(4096) / 2 units, and products
# of two such sums have two of them.
FLOAT32 = 64 * 2.0**-23


def content(storage: torch.UntypedStorage) -> bytes:
    return torch.empty(0, dtype=torch.uint8).set_(storage).numpy().tobytes()


def recorded(name: str, arguments: tuple, call: Callable[[], object]) -> bytes:
    """Call a kernel; what driver.cpp reads of it."""
    storages: dict[int, tuple[torch.UntypedStorage, str]] = {}
    for one in arguments:
        if isinstance(one, torch.Tensor):
            storages.setdefault(one.untyped_storage().data_ptr(), (one.untyped_storage(), TYPES[one.dtype]))
    places = {address: number for number, address in enumerate(storages)}
    before = [content(storage) for storage, _ in storages.values()]
    call()
    after = [content(storage) for storage, _ in storages.values()]
    parts = [struct.pack("<32sq", name.encode(), len(storages))]
    for (_, kind), old, new in zip(storages.values(), before, after, strict=True):
        parts += [struct.pack("<qq", ord(kind), len(old)), old, new]
    parts.append(struct.pack("<q", len(arguments)))
    for one in arguments:
        if isinstance(one, torch.Tensor):
            address = one.untyped_storage().data_ptr()
            parts.append(struct.pack("<qqq", ord("p"), places[address], one.data_ptr() - address))
        elif one is None:
            parts.append(struct.pack("<q", ord("0")))
        else:
            kind = "l" if isinstance(one, int) else "r"
            parts.append(struct.pack("<qq" if kind == "l" else "<qd", ord(kind), one))
    return b"".join(parts)


@functools.cache
def records(images: bool) -> tuple[bytes, set[str]]:
    """The calls of a training step and its answers, and their kernels' names: of a transformer or an image encoder."""
    calls: list[bytes] = []
    names: set[str] = set()
    with pytest.MonkeyPatch.context() as patched:

        def call_kernel(self: program.KernelCall) -> None:
            names.add(self.func.__name__)
            calls.append(recorded(self.func.__name__, self.arguments, lambda: functools.partial.__call__(self)))

        def call_encoder(self: NativeResNet, name: str, *arguments: object) -> None:
            names.add(name)
            calls.append(recorded(name, arguments, lambda: original(self, name, *arguments)))

        original = NativeResNet._call
        if images:
            patched.setattr(NativeResNet, "_call", call_encoder)
            run = image_run()
            bank = images_of(run)
        else:
            patched.setattr(program.KernelCall, "__call__", call_kernel)
            model = {"width": 16, "heads": 2, "mlp_ratio": 2, "depth": 2, "attention_bias": True}
            learned = {"model.positions.kind": "learned"}
            # More sequences than one vector has, and not whole vectors of them.
            run = tiny_run(**{f"model.{key}": value for key, value in model.items()}, **learned, batch_size=40)
            built = banks_bank.build(TINY_BANK)
            assert isinstance(built, banks_bank.Bank)
            bank = torch.from_numpy(built.embeddings)
        state = initial_state(pack(run))
        step = NativeStep(pack(run), state, bank)
        next(iter(step.losses(0, run.batch_size)))
        if not images:
            forward = NativeForward(run, 16, run.recipe.context)
            forward.load(state.parameters)
            forward(torch.randn(16, 5, bank.shape[-1]), torch.randint(1, 9, (16, 5)))
    return b"".join(calls), names


def kernels_of(images: bool) -> set[str]:
    parts = compiler._ENCODER_PARTS if images else compiler._PARTS
    return {name for part in parts for name in re.findall(r"^KERNEL (\w+)\(", part.read_text(), re.MULTILINE)}


def compared(
    images: bool, folder: Path, command: list[str], flags: list[str], emulator: list[str], **defines: str
) -> dict[str, float]:
    """Kernel -> its largest difference, compiled by `command` with `flags`, and run under `emulator`."""
    content, _ = records(images)
    (folder / "records").write_bytes(content)
    source, macros = compiler._PARTS[0], {"WIDTH": "16", "HEADS": "2", "TOKENS": "9"}
    macros["LAYER_NORM_EPSILON"] = f"{transformer.LAYER_NORM_EPSILON}f"
    if images:
        source, macros = compiler._ENCODER_PARTS[0], {"REAL": "float"}
    macros |= defines
    words = [*flags, *(f"-D{name}={value}" for name, value in macros.items())]
    for made in (
        [*command, *words, source, "-o", folder / "kernels.so"],
        [*command, "-O1", "-std=c++17", DRIVER, "-o", folder / "driver", "-ldl"],
    ):
        done = subprocess.run(made, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    real = "double" if images else "float"
    run = [*emulator, folder / "driver", folder / "kernels.so", folder / "records", real]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = (line.split() for line in done.stdout.splitlines())
    print(done.stdout)
    return {name: float(most) for name, _, most in lines}


def flags(*more: str) -> list[str]:
    return [flag for flag in compiler._FLAGS if "march" not in flag] + list(more)


@pytest.mark.parametrize("images", [False, True], ids=["transformer", "images"])
def test_every_kernel_is_recorded_and_here_it_gives_the_same_bits_again(images, tmp_path):
    assert records(images)[1] == kernels_of(images)
    found = compared(images, tmp_path, compiler_words(), flags("-march=native"), [])
    assert found == dict.fromkeys(kernels_of(images), 0.0)


def test_a_kernel_that_is_wrong_is_found(tmp_path):
    found = compared(False, tmp_path, compiler_words(), flags(), [], LAYER_NORM_EPSILON="1e-2f")
    assert {name for name, most in found.items() if most > FLOAT32} == {"norm"}


AARCH64 = pytest.mark.skipif(
    not (shutil.which(GCC_AARCH64) and shutil.which(QEMU_AARCH64)),
    reason="needs Debian's packages g++-aarch64-linux-gnu and qemu-user",
)


@pytest.mark.heavy
@AARCH64
@pytest.mark.parametrize("images", [False, True], ids=["transformer", "images"])
def test_every_kernel_is_right_on_aarch64(images, tmp_path):
    emulator = [QEMU_AARCH64, "-L", "/usr/aarch64-linux-gnu"]
    found = compared(images, tmp_path, [GCC_AARCH64], flags(), emulator)
    assert found.keys() == kernels_of(images)
    assert {name: most for name, most in found.items() if most > FLOAT32} == {}


@pytest.mark.skipif(not shutil.which("clang++"), reason="needs clang++")
@pytest.mark.parametrize("images", [False, True], ids=["transformer", "images"])
def test_every_kernel_is_right_from_clang(images, tmp_path):
    found = compared(images, tmp_path, ["clang++"], flags("-march=native"), [])
    assert found.keys() == kernels_of(images)
    assert {name: most for name, most in found.items() if most > FLOAT32} == {}


# The compiler here.


@pytest.mark.parametrize(
    ("refused", "expected"), [((), "-march=native"), (("march",), "-mcpu=native"), (("march", "mcpu"), None)]
)
def test_without_a_name_for_this_processor_kernels_are_compiled_for_any(refused, expected, tmp_path, monkeypatch):
    wrapper = tmp_path / "c++"
    tests = "".join(f'case "$*" in *-{name}=native*) exit 1;; esac\n' for name in refused)
    # GCC for x86-64 knows -mcpu under another name alone.
    words = 'for word; do shift; [ "$word" = -mcpu=native ] || set -- "$@" "$word"; done\nexec c++ "$@"\n'
    wrapper.write_text(f"#!/bin/sh\n{tests}{words}")
    wrapper.chmod(0o755)
    assert compiler._native((str(wrapper),)) == expected
    # Whatever starts it, as ccache does.
    assert compiler._native(("env", str(wrapper))) == expected
    monkeypatch.setenv("CXX", str(wrapper))
    monkeypatch.setenv("ICL_CACHE", str(tmp_path / "cache"))
    compiler.library.cache_clear()
    assert compiler.library(tiny_run().model, 4).norm
    compiler.library.cache_clear()


def test_the_driver_of_kernels_says_what_it_cannot_read(tmp_path):
    subprocess.run([*compiler_words(), "-std=c++17", DRIVER, "-o", tmp_path / "driver", "-ldl"], check=True)
    done = subprocess.run([tmp_path / "driver", "nowhere.so", "nothing", "float"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "nowhere.so" in done.stderr


def test_without_a_compiler_everything_works_and_the_call_says_what_it_costs(tmp_path, monkeypatch):
    clone = Clone.make(tmp_path / "clone")
    said = clone.snakemake("-n", CXX="no-such-compiler")
    assert said.returncode == 0
    assert (said.stdout + said.stderr).count("no C++ compiler (c++, or what CXX names) was found") == 1
    assert "take three times as long" in said.stdout + said.stderr
    assert "no C++ compiler" not in clone.build("-n")
    # Those who have chosen are left alone.
    monkeypatch.setenv("CXX", "no-such-compiler")
    for config in ({"engine": "eager", "device": "cpu"}, {"engine": "auto", "device": "cuda"}):
        assert limits.cost_of_no_compiler(config) == ""


# The container.


def test_the_container_has_the_pins_and_calls_the_workflow_in_any_folder(tmp_path):
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "-c envs/constraints.txt -r envs/requirements.txt" in text
    (version,) = re.findall(r"^FROM python:([\d.]+)-", text, re.MULTILINE)
    assert f"Python {version}" in (ROOT / "envs/constraints.txt").read_text().splitlines()[0]
    for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE):
        assert all((ROOT / name).exists() for name in line.split())
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)
    program, *arguments = json.loads(entry)
    assert program == "snakemake"
    here = [word.replace("/icl-transience", str(ROOT)) for word in arguments]
    call = python("snakemake", *here, "-n", "--config", "study=synthetic") | {"cwd": tmp_path, "env": environment()}
    done = subprocess.run(**call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout + done.stderr


# macOS, as far as another system can tell: its tools are BSD's, bash 3.2 and make 3.81, its clang has no OpenMP.

# What BSD's tools, bash 3.2 or make 3.81 do not know, or take for something else.
NOT_THERE = (
    r"\b(nproc|readlink -[fem]|realpath|tac|timeout \d|setsid|stat -c|date (-d|--)|xargs (-r|-d))\b",
    r"\b(mapfile|readarray|coproc|declare -[Agn]|local -n|wait -n)\b",
    r"&>>|\|&|;;&|\$\{\w+(,,?|\^\^?|@\w)\}",
    r"\bsed (-i|-r|--)|\bgrep -\w*P|\bcp -\w*[aux]|\bsort -\w*V|\bhead (-n ?)?-\d",
    r"\b(cp|mv|ln|rm|mkdir|ls|touch|sort|mktemp|head) --\w",
    r"^\.ONESHELL|\$\(file |^\w+ *(!=|::=)|^undefine\b|^define \w+ *[:?+]?=",
)


def what_is_typed() -> dict[str, str]:
    """Where commands stand that make, Snakemake or a reader calls, and their text; not those for Linux alone."""
    rules = (ROOT / "workflow").rglob("*.smk")
    found = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in (ROOT / "Makefile", *rules)}
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        blocks = re.findall(r"^```(?:bash)?\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        found[page.name] = "\n".join(blocks)
    return found


def test_no_command_asks_for_what_macos_tools_lack():
    assert re.search(NOT_THERE[0], "cores=$(nproc)")
    texts = what_is_typed()
    assert len(texts) > 15
    there = [
        (where, match[0])
        for where, text in texts.items()
        for pattern in NOT_THERE
        for match in re.finditer(pattern, "\n".join(line.split(" # ")[0] for line in text.splitlines()), re.MULTILINE)
    ]
    assert there == []


def test_a_make_that_takes_no_flags_for_its_shell_works_as_well(tmp_path):
    """3.81 calls it with -c, whatever .SHELLFLAGS says."""
    text, there = re.subn(r"^override \.SHELLFLAGS.*\n", "", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert there == 1
    (tmp_path / "Makefile").write_text(text)
    (tmp_path / ".venv").mkdir()
    for target, left in (("place", True), ("clean", False)):
        done = subprocess.run(["make", target], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / ".venv").exists() == left


def test_kernels_need_no_openmp():
    sources = "".join(part.read_text() for part in (*compiler._PARTS, *compiler._ENCODER_PARTS))
    assert "omp" not in re.findall(r"(?<=#pragma )\w+|(?<=#include <)\w+", sources)
    assert not [flag for flag in compiler._FLAGS if "openmp" in flag]


def test_what_linux_alone_has_is_not_needed(tmp_path, monkeypatch):
    monkeypatch.delattr("os.sched_getaffinity")
    assert cores.machine_cores() >= 1
    # No control groups, and nothing in /proc.
    assert memory.for_jobs(tmp_path) > 0
    read, is_file = Path.read_text, Path.is_file

    def without_proc(path: Path, **options: str) -> str:
        if path.is_relative_to("/proc"):
            raise FileNotFoundError(path)
        return read(path, **options)

    monkeypatch.setattr(Path, "read_text", without_proc)
    monkeypatch.setattr(Path, "is_file", lambda path: is_file(path) and not path.is_relative_to("/proc"))
    assert isinstance(compiler._processor(), str)
    assert provenance.machine()["cores"] >= 1
