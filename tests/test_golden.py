"""What a change of layout must not change: identities of every shipped study, and the losses of a small pack.

`python tests/test_golden.py` writes both anew: where a change is meant to alter them, and nowhere else.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from builders import changed, pack, tiny_run

from icl_transience.banks import bank as banks_bank
from icl_transience.engines import select
from icl_transience.engines.state import initial_state
from icl_transience.planning.plan import Plan
from icl_transience.study.sources import resolve

ROOT = Path(__file__).parents[1]
RECORDED = Path(__file__).parent / "data" / "golden.json"
STUDIES = sorted(path.stem for path in (ROOT / "workflow/studies").glob("*.yaml"))
# Header alone: what planning reads of a checkpoint. Its tensors are a hole in the file.
TABLES = {
    "": ("word_embeddings.weight", 30_522, 384),
    "llama-7b": ("model.embed_tokens.weight", 32_000, 4096),
    "llama-13b": ("model.embed_tokens.weight", 32_000, 5120),
    "llama-30b": ("model.embed_tokens.weight", 32_000, 6656),
    "llama-65b": ("model.embed_tokens.weight", 32_000, 8192),
}
STEPS = 64


def write_sources(folder: Path) -> dict[str, str]:
    """Stand-ins for the files that studies read, as far as planning looks into them; the keys of config.yaml."""
    for name, (tensor, rows, width) in TABLES.items():
        header = json.dumps({tensor: {"dtype": "F16", "shape": [rows, width], "data_offsets": [0, 2 * rows * width]}})
        path = folder / "tokens" / name / "model.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header.encode())
            file.truncate(8 + len(header) + 2 * rows * width)
    (folder / "imported").mkdir()
    with h5py.File(folder / "imported" / "transience-baseline.bank.h5", "w") as file:
        file["embeddings"] = np.zeros((1936, 20, 64), np.float32)
    return {source: str(folder / source) for source in ("tokens", "imported")}


def identities(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Ids of the banks, sets, runs and packs of a shipped study, its source files standing as hashes of their names."""
    monkeypatch.delenv("ICL_OMNIGLOT", raising=False)
    public = resolve.digest
    monkeypatch.setattr(
        resolve,
        "digest",
        lambda path: public(path) if path.parent == Path() else hashlib.sha256(path.name.encode()).hexdigest(),
    )
    config = {"study": name, "results": str(folder / "results"), "lanes_per_pack": 8, "memory": 10**6}
    # As `paper` is planned: its default segments are more than Snakemake plans.
    plan = Plan(config | {"segment_sequences": 64_000_000} | write_sources(folder), ROOT)
    assert not plan.study.left_out
    return {
        "banks": sorted(plan.banks),
        "sets": sorted(plan.sets),
        "runs": {
            f"{experiment.name}/{named.name}": named.run.id
            for experiment in plan.study.experiments.values()
            for named in experiment.runs
        },
        "packs": sorted(plan.packs),
    }


def losses(engine: str) -> list[list[str]]:
    """The loss of each of two lanes at each step, to the last bit."""
    bank = {"classes": 64, "holdout_classes": 8, "exemplars": 4, "dim": 16}
    run = tiny_run(batch_size=32, **{"recipe.context": 8, "recipe.burstiness": 3, "model.width": 32})
    run = changed(run, {f"bank.gaussian.{name}": value for name, value in bank.items()})
    two = pack(run, changed(run, {"optimizer.l2.strength": 1e-4}))
    state = initial_state(two)
    embeddings = torch.from_numpy(banks_bank.build(run.bank).embeddings)
    step = select.step_for(two, state, embeddings, engine)
    return [[value.hex() for value in loss.tolist()] for loss in step.losses(0, STEPS * run.batch_size)]


def machine() -> str:
    """What bits depend on beside the code: processor, torch, compiler."""
    processor = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    lines = [line for line in processor.splitlines() if line.startswith(("flags", "model name"))][:2]
    compiler = subprocess.run(["c++", "--version"], capture_output=True, text=True, check=False).stdout
    text = "\n".join([*lines, torch.__version__, *compiler.splitlines()[:1]])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.fixture(scope="module")
def recorded() -> dict:
    return json.loads(RECORDED.read_text())


@pytest.mark.parametrize("name", STUDIES)
def test_no_identity_of_a_shipped_study_has_changed(name, recorded, tmp_path, monkeypatch):
    assert identities(name, tmp_path, monkeypatch) == recorded["identities"][name]


def test_every_shipped_study_is_recorded(recorded):
    assert sorted(recorded["identities"]) == STUDIES


@pytest.mark.parametrize("engine", ["native", "eager"])
def test_the_first_losses_are_those_recorded(engine, recorded, record_property):
    found, expected = losses(engine), recorded["losses"][engine]
    here = machine() == recorded["machine"]
    record_property("compared", "bit for bit" if here else "to 1e-5, as processor, torch or compiler are others")
    if here:
        assert found == expected
    else:
        numbers = [[[float.fromhex(value) for value in loss] for loss in of] for of in (found, expected)]
        assert numbers[0] == [pytest.approx(loss, rel=1e-5) for loss in numbers[1]]


def _record() -> None:
    import tempfile

    found = {}
    for name in STUDIES:
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            found[name] = identities(name, Path(folder), patch)
    torch.set_num_threads(1)
    engines_recorded = {engine: losses(engine) for engine in ("native", "eager")}
    content = {"machine": machine(), "losses": engines_recorded, "identities": found}
    RECORDED.write_text(json.dumps(content, indent=0) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    _record()
