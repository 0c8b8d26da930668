"""What stands in the model is what runs: engines are held against it before a job, and segments name their code."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
import torch
from builders import TINY_BANK, pack, tiny_run
from test_care import base, planned, tiny, train  # noqa: F401 (fixtures)
from test_engines import EVENTFUL, SHAPES, shaped

from icl_transience.banks import bank as banks_bank
from icl_transience.engines import select, verify
from icl_transience.engines.answers import Answers
from icl_transience.engines.graph import GraphStep
from icl_transience.engines.native.engine import NativeStep
from icl_transience.engines.native.forward import NativeForward
from icl_transience.results import stale, status
from icl_transience.specs import code_digest
from icl_transience.specs.errors import StudyError
from icl_transience.store import hdf5
from icl_transience.training import segments

ROOT = Path(__file__).parents[1]
BANK = banks_bank.build(TINY_BANK).embeddings
EMBEDDINGS = torch.from_numpy(BANK)
CPU = torch.device("cpu")


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A cache without proofs; kernels are in it once they were compiled."""
    monkeypatch.setenv("ICL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# An engine that is right passes.


@pytest.mark.parametrize("numerics", ["float32", "tf32", "bfloat16"])
@pytest.mark.parametrize("name", SHAPES)
def test_the_native_engine_passes_with_room_to_spare(name, numerics):
    run = shaped(name, numerics=numerics)
    found = verify.check_step(pack(run), EMBEDDINGS, 0, "native")
    found += verify.check_answers(run, CPU, run.recipe.context, "native")
    assert {deviation.numerics for deviation in found} == {"float32"} | ({numerics} - {"tf32"})
    # Two thirds of what rounding may do are never reached: a check that refuses by bad luck would be switched off.
    assert max(deviation.excess for deviation in found) < 2 / 3


@pytest.mark.parametrize("changes", [*EVENTFUL.values(), {"recipe.input_noise": 0.5}])
def test_what_optimizers_recipes_and_interventions_do_is_no_deviation(changes):
    for start in (0, 96):
        assert verify.check_step(pack(tiny_run(**changes)), EMBEDDINGS, start, "native")


def test_large_models_are_compared_on_few_sequences():
    assert verify._sequences(tiny_run()) == 4
    assert verify._sequences(tiny_run(batch_size=256)) == 16
    assert verify._sequences(tiny_run(batch_size=32, **{"model.depth": 12, "model.width": 256})) == 2


def test_a_check_leaves_no_trace_in_random_numbers():
    before = torch.get_rng_state()
    verify.check_step(pack(), EMBEDDINGS, 0, "native")
    verify.check_answers(tiny_run(), CPU, 4, "native")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_graph_engine_is_held_against_the_reference_too(monkeypatch):
    """On a CPU, where the recorded work is done call by call."""

    assert verify.check_step(pack(), EMBEDDINGS, 0, "graph")
    train_step = GraphStep.train_step
    monkeypatch.setattr(GraphStep, "train_step", lambda step, x, labels: train_step(step, 1.01 * x, labels))
    with pytest.raises(StudyError, match=r"engine: graph does not compute what the model says: .*`engine: eager`"):
        verify.check_step(pack(), EMBEDDINGS, 0, "graph")


# One that is wrong is refused in words.


@pytest.mark.parametrize("numerics", ["float32", "bfloat16"])
def test_the_largest_deviation_is_named_with_its_parameter(numerics, monkeypatch, cache):
    train_step = NativeStep.train_step

    def wrong(step, batch):
        loss = train_step(step, batch)
        step.state.first_moments["blocks.1.attention.out"].mul_(1.001)
        return loss

    monkeypatch.setattr(NativeStep, "train_step", wrong)
    with pytest.raises(StudyError, match=r"in float32, the gradient of blocks\.1\.attention\.out is off by 0\.001 of"):
        verify.check_step(pack(tiny_run(numerics=numerics)), EMBEDDINGS, 0, "native")


@pytest.mark.parametrize("part", Answers.__dataclass_fields__)
def test_answers_that_are_off_are_refused_whichever_part_it_is(part, monkeypatch, cache):
    answer = NativeForward.__call__

    def wrong(forward, exemplars, labels):
        found = answer(forward, exemplars, labels)
        getattr(found, part).copy_(getattr(found, part).roll(1, dims=1))
        return found

    monkeypatch.setattr(NativeForward, "__call__", wrong)
    with pytest.raises(StudyError, match=f"does not compute what the model says: in float32, {part} is off by"):
        verify.check_answers(tiny_run(), CPU, 4, "native")


def test_an_engine_that_cannot_run_the_model_is_refused_in_words(monkeypatch, cache):
    def renamed(*arguments):
        raise KeyError("unembedding.bias")

    monkeypatch.setitem(select.STEPS, "native", renamed)
    with pytest.raises(StudyError, match=r"engine: native cannot compute the model as it stands \(KeyError"):
        verify.check_step(pack(), EMBEDDINGS, 0, "native")


def test_without_a_record_of_a_proof_no_file_is_blamed(cache, monkeypatch):
    monkeypatch.setattr(verify, "relative_error", lambda found, expected, least=0.0: 1.0)
    with pytest.raises(StudyError, match=r"There is no record of when it was last proven .*which file .* is not known"):
        verify.check_step(pack(), EMBEDDINGS, 0, "native")
    assert not list(cache.glob("proven*"))


def test_a_proof_names_every_file_of_model_and_engine(cache):
    verify.check_step(pack(), EMBEDDINGS, 0, "native")
    proof = json.loads((cache / "proven-native-step.json").read_text())
    assert {"model/transformer.py", "engines/native/kernels.cpp", "engines/native/attention.cpp"} <= proof[
        "files"
    ].keys()
    assert not [name for name in proof["files"] if name.split("/")[0] not in ("model", "engines")]


def test_weights_that_diverged_hide_no_wrong_engine_and_refuse_no_right_one(tmp_path):
    """The check has weights of its own, and a job goes on where its lanes are no longer numbers."""
    path = tmp_path / "segment.h5"
    spec = pack(tiny_run(**{"optimizer.learning_rate": 1e30}))
    segments.run_segment(segments.SegmentJob(path, spec, BANK, None, 0, 128))
    segments.run_segment(segments.SegmentJob(tmp_path / "next.h5", spec, BANK, path, 128, 256))
    with h5py.File(tmp_path / "next.h5") as file:
        assert file["diverged_at"][0] > 0


# On a copy of the library, through the command line.


class Library:
    """A copy of the library, its edits, and jobs that run by it."""

    def __init__(self, folder: Path):
        self.folder, self.package = folder, folder / "src/icl_transience"
        shutil.copytree(ROOT / "src/icl_transience", self.package, ignore=shutil.ignore_patterns("__pycache__"))
        banks_bank.save(banks_bank.build(TINY_BANK), folder / "bank.h5", TINY_BANK)

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.package / name
        text = path.read_text()
        assert text.count(old) == 1, (name, old)
        path.write_text(text.replace(old, new))

    def python(self, *arguments: str) -> subprocess.CompletedProcess:
        env = os.environ | {"PYTHONPATH": str(self.package.parent), "ICL_CACHE": str(self.folder / "cache")}
        return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=env, check=False)

    def train(self, engine: str = "auto") -> subprocess.CompletedProcess:
        arguments = ["--spec", pack().json, "--bank", str(self.folder / "bank.h5"), "--from", "0", "--to", "64"]
        output = ["--output", str(self.segment), "--engine", engine]
        return self.python("-m", "icl_transience", "train", *arguments, *output)

    @property
    def segment(self) -> Path:
        return self.folder / "pack/segment-000000000000-000000000064.h5"

    def forget(self) -> None:
        shutil.rmtree(self.segment.parent)


@pytest.fixture
def library(tmp_path) -> Library:
    library = Library(tmp_path)
    library.segment.parent.mkdir()
    return library


def refusal(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_an_edit_of_the_model_is_refused_by_its_file_before_anything_is_written(library):
    assert (done := library.train()).returncode == 0, done.stderr
    code = hdf5.read_attribute(library.segment, "made_training_code")
    library.forget()
    library.segment.parent.mkdir()
    library.edit("model/transformer.py", "scores = torch.bmm(", "scores = 2 * torch.bmm(")
    said = refusal(library.train())
    assert re.search(
        r"engine: native does not compute .* Changed since it was last proven \([\d-]+\): model/trans", said
    )
    assert "model/transformer.py. Set `engine: eager`, or mend the engine" in said
    assert [path.name for path in library.segment.parent.iterdir()] == [".lock"]

    assert (done := library.train("eager")).returncode == 0, done.stderr
    assert hdf5.read_attribute(library.segment, "made_training_code").split()[0] == "eager" != code.split()[0]


def test_a_wrong_constant_in_a_kernel_is_refused_by_its_file(library):
    assert (done := library.train()).returncode == 0, done.stderr
    library.forget()
    library.segment.parent.mkdir()
    # 2 sqrt(2/pi) of the GELU, in its fourth digit.
    library.edit("engines/native/kernels.cpp", "1.59576912160573071f", "1.59676912160573071f")
    said = refusal(library.train())
    assert "Changed since it was last proven" in said
    assert ": engines/native/kernels.cpp. Set" in said
    assert not library.segment.exists()


def changes_of(page: str) -> list[tuple[str, str, str]]:
    """(file, before, after) of each block that a page shows as a change."""
    found = []
    for block in re.findall(r"```diff\n(.*?)```", page, re.DOTALL):
        name, *lines = block.splitlines()
        before, after = ("".join(f"{line[1:]}\n" for line in lines if not line.startswith(sign)) for sign in "+-")
        found.append((name, before, after))
    return found


def without_numbers(text: str) -> str:
    """Return a refusal without the day and the sizes in it."""
    return re.sub(r"\(\d+-\d+-\d+\)|(?<= by )[\de.-]+", "#", text)


TEMPERATURE = """
import sys, torch
from icl_transience.banks import bank
from icl_transience.engines import select, verify
from icl_transience.engines.state import initial_state
from icl_transience.specs.errors import StudyError
sys.path.insert(0, sys.argv[1])
from builders import pack, tiny_run
spec = pack(tiny_run(**{"model.temperature": True}))
embeddings = torch.from_numpy(bank.build(spec.run.bank).embeddings)
print(select.chosen("auto", spec.run, torch.device("cpu")), select.chosen("auto", tiny_run(), torch.device("cpu")))
try:
    print("passed", bool(verify.check_step(spec, embeddings, 0, "native")))
except StudyError as error:
    print(error)
state = initial_state(spec)
assert all((state.parameters[f"blocks.{block}.attention.temperature"] == 1).all() for block in range(2))
step = select.step_for(spec, state, embeddings, "eager")
for loss in step.losses(0, 40):
    assert loss.isfinite().all()
for block in range(2):
    name = f"blocks.{block}.attention.temperature"
    print("gradient", bool((step.gradients[name] != 0).all()), "moved", bool((state.parameters[name] != 1).all()))
print("plain", bool(verify.check_step(pack(), embeddings, 0, "native")))
"""


def test_the_page_on_changing_the_model_is_right(library):
    page = (ROOT / "docs/change-the-model.md").read_text()
    *changes, said_once = changes_of(page)
    assert sum(after.count("\n") - before.count("\n") for _, before, after in [*changes, said_once]) + 1 == 9
    script = library.folder / "temperature.py"
    script.write_text(TEMPERATURE)
    # Proven before the edit.
    assert (done := library.train()).returncode == 0, done.stderr
    for change in changes:
        library.edit(*change)
    done = library.python(str(script), str(ROOT / "tests"))
    assert done.returncode == 0, done.stderr
    chosen, refused, *learned, plain = done.stdout.splitlines()
    (quoted,) = re.findall(r"^> (engine: native .*?mend the engine)$", page, re.MULTILINE | re.DOTALL)
    quoted = quoted.replace("\n> ", " ")
    assert without_numbers(refused) == without_numbers(quoted)
    assert learned == ["gradient True moved True"] * 2
    assert (chosen, plain) == ("native native", "plain True")
    library.edit(*said_once)
    done = library.python(str(script), str(ROOT / "tests"))
    assert done.stdout.splitlines()[0] == "eager native", done.stderr


# Segments name the code that trained them.


def test_a_segment_names_all_code_that_trained_its_lanes_and_that_is_no_content(tmp_path, monkeypatch):
    def segment(name: str, previous: Path | None, start: int, **more) -> Path:
        path = tmp_path / name / "segment-0.h5"
        path.parent.mkdir(exist_ok=True)
        segments.run_segment(segments.SegmentJob(path, pack(), BANK, previous, start, start + 64), **more)
        return path

    def code(path: Path) -> str:
        return hdf5.read_attribute(path, "made_training_code")

    now = code_digest.training_code("native")
    first = segment("first", None, 0)
    assert code(first) == now
    assert code(segment("second", first, 64)) == now
    monkeypatch.setattr(code_digest, "training_code", lambda engine: f"{engine} other")
    again, third = segment("again", None, 0), segment("third", first, 64)
    assert code(again) == "native other"
    assert code(third) == f"{now}, native other"
    assert hdf5.read_attribute(first, "checksum") == hdf5.read_attribute(again, "checksum")
    # A job that was stopped goes on under later code.
    asked = iter(range(10**6))
    with pytest.raises(segments.InterruptedTrainingError):
        segment("stopped", None, 0, stop=lambda: next(asked) > 3)
    monkeypatch.undo()
    assert code(segment("stopped", None, 0)) == f"native other, {now}"
    # One that was trained before code was recorded is not taken for trained by this.
    with h5py.File(first, "r+") as file:
        del file.attrs["made_training_code"]
    assert code(segment("fourth", first, 64)) == f"not recorded, {now}"


def delete(said: str) -> None:
    """Call the command that `stale` or `orphans` prints."""
    Path("config.yaml").write_text("study: tiny\nresults: results\nlanes_per_pack: 8\n")
    (command,) = re.findall(r"python -m icl_transience delete.*", said)
    subprocess.run(f"{command} --yes", shell=True, check=True)


def test_stale_lists_lanes_of_other_code_with_the_command_that_trains_them_again(tiny):  # noqa: F811
    assert stale.report(tiny).startswith("stale: every lane that has been trained was trained by the code as it stands")
    now, old = code_digest.training_code("native"), "native 0123456789ab"
    one, other = tiny.packs
    train(one, training_code=now)
    train(other, training_code=now)
    assert not list(stale.differences(tiny))
    kept = train(other, 1024, 2048, training_code=f"{old}, {now}")
    kept.parent.joinpath(".kept").mkdir()
    kept.rename(kept.parent / ".kept" / kept.name)

    (line,) = stale.differences(tiny)
    assert line.startswith(f"l2: lanes were trained by different code (2 by {old}; 2 by the code as it stands)")
    assert line in status.table(tiny)
    said = stale.report(tiny)
    assert said.count(old) == 2
    assert said.startswith("stale: 1 pack trained by other code than the code as it stands")
    delete(said)
    assert not list(Path("results/packs", other).rglob("*.h5"))
    assert list(Path("results/packs", one).rglob("*.h5"))
    assert Path("results/packs", other, "pack.json").exists()
    assert "every lane" in stale.report(tiny)


def test_lanes_trained_by_two_engines_of_one_code_do_not_differ(tiny):  # noqa: F811
    one, other = tiny.packs
    train(one, training_code=code_digest.training_code("native"))
    train(other, training_code=code_digest.training_code("eager"))
    assert not list(stale.differences(tiny))


def test_lanes_whose_code_was_not_recorded_are_listed_as_such(tiny):  # noqa: F811
    train(next(iter(tiny.packs)))
    assert "seed 0  not recorded" in stale.report(tiny)


def test_paths_in_the_command_are_quoted(base):  # noqa: F811
    plan = planned(results="my results; no")
    plan.register()
    folder = Path("my results; no/packs", next(iter(plan.packs)))
    with h5py.File(folder / "segment-000000000000-000000001024.h5", "w") as file:
        file.attrs["made_training_code"] = "native other"
    delete(stale.report(plan))
    assert not list(folder.glob("*.h5"))
