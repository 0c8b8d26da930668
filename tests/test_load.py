"""A study's results in Python: tables, lanes, snapshots, and the module that a snapshot is."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pandas as pd
import pytest
import safetensors
import safetensors.torch
import torch
from builders import tiny_run
from finished_study import finish, plan_of, put_peak
from pipeline import made_once
from test_house import loaded_by

from icl_transience import StudyResults, load
from icl_transience.access import module as modules
from icl_transience.access.forward import ForwardPass
from icl_transience.access.sequences import Sequences
from icl_transience.engines import verify
from icl_transience.engines.answers import EagerForward, answers
from icl_transience.model import transformer
from icl_transience.specs.errors import StudyError
from icl_transience.specs.evaluators import METRICS
from icl_transience.specs.runs import Run
from icl_transience.store import hdf5

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    """A checkout's folder with a finished study `laptop`; nobody changes a file of it."""
    made, _ = made_once(tmp_path_factory, "laptop", lambda folder: finish(plan_of(folder)))
    before = stats(made)
    yield made
    assert stats(made) == before, "reading results has changed files"


@pytest.fixture
def study(folder) -> StudyResults:
    return load("laptop", results=folder / "results")


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    """The results folder of a copy, to change."""
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy/results"


def stats(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*") if path.is_file()}


def test_a_lane_goes_to_another_process(study):
    lane = study.lane("l2", "l2.strength=0", 0)
    there = pickle.loads(pickle.dumps(lane))
    assert (there.name, there.snapshots, there.peak()) == (lane.name, lane.snapshots, lane.peak())


def test_training_what_a_state_dict_was_loaded_into_changes_no_snapshot(study):
    snapshot = study.lane("l2", "l2.strength=0", 0).at("end")
    before = {name: value.clone() for name, value in snapshot.parameters.items()}
    model = snapshot.module()
    model.load_state_dict(snapshot.state_dict(), assign=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in snapshot.parameters.items())


# Tables.


def test_tables_have_all_experiments_with_axes_as_columns(study, folder):
    assert study.experiments == ("l2", "transience")
    first = ["experiment", "run", "seed", "lane", "optimizer.l2.strength"]
    for table, name in ((study.curves, "curves"), (study.transience, "transience")):
        assert list(table)[:5] == first
        written = [pd.read_csv(path) for path in sorted(folder.glob(f"results/studies/laptop/*/{name}.csv"))]
        assert len(written) == 2
        assert len(table) == sum(map(len, written))
        assert set(table) == {"experiment", "lane", *written[0], *written[1]}
    assert list(study.runs)[:3] == ["experiment", "run", "optimizer.l2.strength"]
    strengths = study.transience.groupby("run")["optimizer.l2.strength"].first()
    assert strengths["l2.strength=0.001"] == 0.001
    assert np.isnan(strengths["baseline"])
    assert list(study.verdicts["claim"]) == ["kept"]


def test_what_is_done_to_a_table_stays_there(study):
    table = study.curves
    table["value"] = 0.0
    table.loc[0, "run"] = "another"
    assert study.curves["value"].any()
    assert "another" not in set(study.curves["run"])


def test_a_row_leads_to_its_lanes_weights(study):
    for row in study.transience.itertuples():
        lane = study.lane(row.lane)
        assert lane.id == row.lane
        same = study.lane(row.experiment, row.run, row.seed)
        for name, value in lane.at(512).parameters.items():
            assert torch.equal(value, same.at(512).parameters[name])
    of_seed = study.transience.groupby(["run", "seed"])["lane"].first()
    # The baseline and the run without L2 are one lane, trained once; its longer experiment is the one that is meant.
    assert of_seed["baseline", "1"] == of_seed["l2.strength=0", "1"]
    assert study.lane(of_seed["baseline", "1"]).horizon == 2048
    assert of_seed["l2.strength=0.001", "1"] != of_seed["l2.strength=0", "1"]


def test_a_table_that_is_not_as_it_was_written_is_refused_and_left_where_it_is(copy):
    path = copy / "studies/laptop/l2/curves.csv"
    path.write_text(path.read_text().replace("icl", "iwl", 1))
    study = load("laptop", results=copy)
    with pytest.raises(StudyError, match=r"curves\.csv and SHA256SUMS contradict each other"):
        _ = study.curves
    assert path.is_file()
    assert len(study.transience)
    verdicts = copy / "studies/laptop/verdicts.csv"
    verdicts.write_text(verdicts.read_text() + "\n")
    with pytest.raises(StudyError, match=r"verdicts\.csv and SHA256SUMS contradict each other"):
        _ = study.verdicts


def test_an_experiment_without_tables_is_left_out_aloud(copy):
    for path in (copy / "studies/laptop/l2").glob("*.csv"):
        path.unlink()
    (copy / "studies/laptop/verdicts.csv").unlink()
    study = load("laptop", results=copy)
    with pytest.warns(UserWarning, match=r"curves\.csv of l2 is not made yet: `snakemake l2 --config study=laptop"):
        assert set(study.curves["experiment"]) == {"transience"}
    with pytest.raises(StudyError, match="its claims are not judged yet: `snakemake all"):
        _ = study.verdicts
    with (
        pytest.warns(UserWarning, match=r"transience\.csv of l2"),
        pytest.raises(StudyError, match=r"l2\.strength=0, seed 0: transience\.csv, which says where the peak is"),
    ):
        study.lane("l2", "l2.strength=0", 0).at("peak")
    (copy / "studies/laptop/transience/curves.csv").unlink()
    with pytest.raises(StudyError, match=r"curves\.csv of l2, transience is not made yet"):
        _ = load("laptop", results=copy).curves


def test_a_study_without_claims_has_no_verdicts(copy):
    (copy / "studies/laptop/verdicts.csv").unlink()
    (copy / "studies/laptop/claims.json").write_text("[]")
    assert len(load("laptop", results=copy).verdicts) == 0


def test_lanes_that_a_study_no_longer_has_are_named(copy):
    path = copy / "studies/laptop/l2/experiment.json"
    record = json.loads(path.read_text())
    for run in record["runs"]:
        run["lanes"] = run["lanes"][:1]
    path.write_text(json.dumps(record))
    with pytest.raises(
        StudyError, match=r"the tables of l2 have a lane, run l2\.strength=0, seed 1, that the study no"
    ):
        _ = load("laptop", results=copy).curves


# Where results are.


def test_config_yaml_says_where_results_are_in_a_folder_below_too(copy, monkeypatch):
    checkout = copy.parent
    (checkout / "docs/notebooks").mkdir(parents=True)
    monkeypatch.chdir(checkout / "docs/notebooks")
    assert load("laptop").experiments == ("l2", "transience")
    (checkout / "config.yaml").write_text("results: elsewhere\n")
    message = r"elsewhere/studies \(there is none yet\).*`snakemake all --config study=laptop`"
    with pytest.raises(StudyError, match=message):
        load("laptop")
    copy.rename(checkout / "elsewhere")
    assert load("laptop").experiments == ("l2", "transience")


def test_a_study_that_is_not_there_is_refused_with_those_that_are(folder):
    message = r"did you mean `laptop`.*there are laptop.*`snakemake all --config study=laptpo"
    with pytest.raises(StudyError, match=message):
        load("laptpo", results=folder / "results")
    for name in ("", ".", "../studies/laptop", "laptop/l2"):
        with pytest.raises(StudyError, match="load: no study"):
            load(name, results=folder / "results")


@pytest.fixture
def archive(folder, tmp_path) -> Path:
    """Tables of the study as an archive has them; test_pipeline_care.py opens one that Snakemake made."""
    path = tmp_path / "laptop.tar.gz"
    study = folder / "results/studies/laptop"
    with tarfile.open(path, "w:gz") as tar:
        for file in sorted(study.glob("*/*")):
            tar.add(file, f"laptop/experiments/{file.parent.name}/{file.name}")
        for name in ("verdicts.csv", "evidence.csv", "SHA256SUMS"):
            tar.add(study / name, f"laptop/{name}")
    return path


def test_an_archive_has_the_same_tables_and_no_weights(archive, study, tmp_path):
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "extracted", filter="data")
    for path in (archive, str(archive), tmp_path / "extracted/laptop"):
        archived = load(path)
        assert archived.name == "laptop"
        for table in ("curves", "transience", "runs", "verdicts", "evidence"):
            pd.testing.assert_frame_equal(getattr(archived, table), getattr(study, table))
        with pytest.raises(StudyError, match="an archive has tables and figures, no weights"):
            archived.lane("l2", "l2.strength=0", 0)


def test_what_is_no_archive_is_refused(tmp_path):
    path = tmp_path / "some.tar.gz"
    with pytest.raises(StudyError, match="no archive can be read there"):
        load(path)
    path.write_bytes(b"text")
    with pytest.raises(StudyError, match="no archive can be read there"):
        load(path)
    with tarfile.open(path, "w:gz") as tar:
        tar.add(__file__, "laptop/experiments/../../../../escaped/curves.csv")
        tar.add(__file__, "laptop/experiments/../curves.csv")
    with pytest.raises(StudyError, match="it has no experiments"):
        load(path)


# Lanes and snapshots.


def test_every_point_of_a_curve_is_a_snapshot_with_its_metrics(study):
    """Accuracies of the model's own logits are those of curves.csv exactly, though another engine computed those."""
    curves = study.curves
    for experiment, run in (("transience", "baseline"), ("l2", "l2.strength=0.001")):
        lane = study.lane(experiment, run, seed=1)
        of_lane = curves[(curves["experiment"] == experiment) & (curves["run"] == run) & (curves["seed"] == "1")]
        evaluated = of_lane[of_lane["evaluator"] != "training"]
        assert lane.snapshots == sorted(evaluated["sequences_seen"].unique())
        for seen in lane.snapshots:
            snapshot = lane.at(seen)
            for evaluator in evaluated["evaluator"].unique():
                rows = evaluated[(evaluated["sequences_seen"] == seen) & (evaluated["evaluator"] == evaluator)]
                recorded = rows.set_index("metric")["value"]
                found = snapshot.metrics(evaluator)
                assert tuple(found) == METRICS
                for metric, value in found.items():
                    if "accuracy" in metric:
                        assert value == pytest.approx(recorded[metric], abs=1e-12), (seen, evaluator, metric)
                    else:
                        # float32 rounds; curves.csv has seven digits.
                        assert value == pytest.approx(recorded[metric], rel=1e-5, abs=1e-6), (seen, evaluator, metric)


def test_logits_are_of_all_labels_and_give_the_accuracy(study):
    snapshot = study.lane("l2", "l2.strength=0", seed=0).at(1024)
    sequences = snapshot.sequences("iwl")
    logits = snapshot.logits("iwl")
    assert logits.shape == (100, 40)
    correct = (logits.argmax(-1).numpy() == sequences.targets).mean()
    assert correct == snapshot.metrics("iwl")["accuracy"]
    assert torch.equal(logits, snapshot.run(sequences))


def test_peak_and_end_are_those_of_the_experiment(copy):
    put_peak(copy / "studies/laptop/l2", 1024)
    study = load("laptop", results=copy)
    assert study.lane("l2", "l2.strength=0", 0).at("peak").sequences_seen == 1024
    assert study.lane("l2", "l2.strength=0", 0).at("end").sequences_seen == 2048
    assert study.lane("transience", seed=0).at("end").sequences_seen == 1536
    with pytest.raises(StudyError, match="its `horizon` is 1,536"):
        study.lane("transience", seed=0).at(2048)
    with pytest.raises(StudyError, match="it has no peak"):
        study.lane("transience", seed=0).at("peak")
    with pytest.raises(StudyError, match="at: 'start', expected a number"):
        study.lane("transience", seed=0).at("start")


def test_a_snapshot_that_is_not_there_is_refused_with_the_nearest_and_what_makes_it(copy):
    command = "`snakemake l2 --config study=laptop results="
    lane = load("laptop", results=copy).lane("l2", "l2.strength=0", 0)
    message = rf"no snapshot at 700 .*nearest there are at 512 and 736\): `snapshots` in the study says.*{command}"
    with pytest.raises(StudyError, match=message):
        lane.at(700)
    message = rf"nearest there are at 2,048\): its `horizon` is 2,048; with a longer one in the study, {command}"
    with pytest.raises(StudyError, match=message):
        lane.at(4096)
    (segment,) = copy.glob(f"packs/{lane.id.split('/')[0]}/segment-000000001024-*.h5")
    segment.unlink()
    for where in (1536, "end"):
        with pytest.raises(StudyError, match=rf"is not there yet \(the nearest there are at 1,024\): {command}"):
            lane.at(where)
    assert lane.snapshots == [0, 256, 384, 512, 736, 1024]
    assert lane.at(1024).sequences_seen == 1024
    for path in segment.parent.glob("segment-*.h5"):
        path.unlink()
    lane = load("laptop", results=copy).lane("l2", "l2.strength=0", 0)
    assert lane.snapshots == []
    with pytest.raises(StudyError, match=rf"nothing of it is trained yet: {command}"):
        lane.at(0)


def test_names_that_are_not_there_are_refused_with_those_that_are(study):
    for names, message in (
        (("l3",), r"no experiment 'l3'.*there are l2, transience"),
        (("l2",), r"l2: which run\? There are l2\.strength=0, l2\.strength=0\.001"),
        (("l2", "l2.strength=1"), r"did you mean"),
        (("transience", "baseline"), r"transience, baseline: which seed\? There are 0, 1"),
        (("transience", "baseline", 2), r"no seed '2': there are 0, 1"),
        (("gaussian/0",), r"no lane 'gaussian/0', expected what stands in the column `lane`"),
    ):
        with pytest.raises(StudyError, match=message):
            study.lane(*names)
    with pytest.raises(StudyError, match=r"no sequences of evaluator 'ilc'.*there are train, icl, iwl"):
        study.lane("transience", seed=0).sequences("ilc")


def test_a_damaged_segment_is_refused_and_left_where_it_is_and_a_whole_one_hashed_once(copy, monkeypatch):
    hashed = []
    checksum = hdf5.checksum
    monkeypatch.setattr(hdf5, "checksum", lambda file: hashed.append(file.filename) or checksum(file))
    lane = load("laptop", results=copy).lane("l2", "l2.strength=0", 0)
    for seen in (0, 256, 512):
        lane.at(seen)
    assert len(hashed) == 1
    (segment,) = hashed
    with hdf5.h5py.File(segment, "r+") as file:
        file["snapshots/parameters/norm.scale"][0] += 1
    with pytest.raises(StudyError, match="its content does not match its checksum: unless a job is writing it now"):
        lane.at(0)
    assert Path(segment).is_file()


def test_bank_and_sequences_are_the_files_arrays(study):
    snapshot = study.lane("transience", seed=0).at(0)
    sequences = snapshot.sequences("icl")
    assert snapshot.bank.shape == (50, 5, 4)
    assert len(sequences) == 100
    assert sequences.examples.shape == (100, 9, 4)
    assert np.array_equal(sequences.examples, snapshot.bank[sequences.classes, sequences.exemplars])
    assert set(sequences.labels.ravel()) == {0, 1}
    # They are read once and shared.
    with pytest.raises(ValueError, match="read-only"):
        sequences.labels[0] = 0
    with pytest.raises(ValueError, match="read-only"):
        snapshot.bank[0] = 0


def test_ones_own_sequences_are_answered_if_the_model_can_read_them(study):
    snapshot = study.lane("transience", seed=0).at("end")
    frozen = snapshot.sequences("icl")
    # The other context length is another geometry.
    shorter = Sequences(examples=frozen.examples[:5, 4:], labels=frozen.labels[:5, 4:])
    assert snapshot.logits(shorter).shape == (5, 40)
    assert snapshot.attention(shorter, 0).shape == (5, 8, 9, 9)
    with pytest.raises(StudyError, match=r"expected \[N, C\+1, I\] and \[N, C\+1\]"):
        Sequences(examples=frozen.examples[:5], labels=frozen.labels)
    with pytest.raises(StudyError, match="examples have 3 coordinates, expected 4"):
        snapshot.logits(replace(frozen, examples=frozen.examples[..., :3]))
    with pytest.raises(StudyError, match=r"labels are 40 … 41, expected 0 … 39"):
        snapshot.logits(replace(frozen, labels=frozen.labels + 40))
    with pytest.raises(StudyError, match=r"there is no layer 2, expected one of 0 … 1"):
        snapshot.attention(frozen, 2)


# The module.


MODELS = {
    "sinusoid": {},
    "learned": {"model.positions.kind": "learned"},
    "rotary": {"model.positions.kind": "rotary"},
    "none": {"model.positions.kind": "none"},
    "sines, then cosines": {"model.positions.layout": "halves"},
    "biases everywhere": {"model.attention_bias": True},
    "without mlp": {"model.mlp_ratio": 0},
    "three blocks": {"model.depth": 3, "model.heads": 4},
    "dropout": {"model.dropout": 0.5},
    "float64": {"numerics": "float64"},
}


@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("context", [4, 2])
def test_a_module_gives_the_engines_logits_but_for_rounding(changes, context):
    """In float64 to 1e-9, in float32 within what an engine may be off: see engines/verify.py."""
    run = tiny_run(**changes)
    assert modules.held_against_model(run) < 1e-12
    generator = torch.Generator().manual_seed(0)
    dtype = torch.float64 if run.numerics == "float64" else torch.float32
    exemplars = torch.randn(32, context + 1, 6, generator=generator, dtype=dtype)
    labels = torch.randint(run.n_labels, (32, context + 1), generator=generator)
    parameters = verify.normal_parameters(run, exemplars)
    one = {name: value[0] for name, value in parameters.items()}
    with torch.no_grad():
        logits = modules.module_of(run, one)(exemplars, labels[:, :-1])
    apart = verify._answers_apart(run, context, parameters, exemplars, labels, answers(logits[None], labels))
    assert max(deviation.excess for deviation in apart) < 1
    forward = EagerForward(run.model, context, run.numerics)
    forward.load(parameters)
    (expected,) = forward.logits(exemplars, labels[:, :-1])
    assert verify.relative_error(logits, expected) < (1e-6 if dtype == torch.float32 else 1e-14)


@pytest.mark.parametrize("numerics", ["float32", "bfloat16", "float64"])
def test_a_snapshot_answers_in_its_runs_numerics_bit_for_bit_as_evaluation_does(numerics):
    run = tiny_run(numerics=numerics)
    dtype = torch.float64 if numerics == "float64" else torch.float32
    exemplars = torch.randn(80, 5, 6, generator=torch.Generator().manual_seed(0), dtype=dtype)
    labels = torch.arange(400).view(80, 5) % run.n_labels
    parameters = verify.normal_parameters(run, exemplars)
    forward = EagerForward(run.model, 4, numerics)
    forward.load(parameters)
    expected = torch.cat(
        [forward.logits(*part)[0] for part in zip(exemplars.split(64), labels[:, :-1].split(64), strict=True)]
    )
    one = {name: value[0] for name, value in parameters.items()}
    found = ForwardPass(run=run, parameters=one, intervention=None, others={}).logits(exemplars, labels)
    assert found.dtype == dtype
    assert torch.equal(found, expected)


def test_a_module_that_does_not_follow_the_model_is_refused(monkeypatch):
    run = tiny_run(**{"optimizer.learning_rate": 0.5})
    norm = transformer._norm
    monkeypatch.setattr(transformer, "_norm", lambda parameters, name, x: norm(parameters, name, 1.001 * x + 0.001))
    with pytest.raises(StudyError, match=r"its logits are off by .*make the same change in access/module\.py"):
        modules.module_of(run, {})
    shapes, more = Run.parameter_shapes.fget, {"blocks.0.attention.temperature": (2,)}
    monkeypatch.setattr(Run, "parameter_shapes", property(lambda run: shapes(run) | more))
    monkeypatch.setattr(transformer, "_norm", norm)
    with pytest.raises(StudyError, match=r"cannot be made of this model .*attention\.temperature"):
        modules.module_of(tiny_run(**{"optimizer.learning_rate": 0.25}), {})


def test_hooks_read_and_change_what_is_computed(study):
    snapshot = study.lane("l2", "l2.strength=0", seed=0).at("end")
    inputs = snapshot.sequences("icl").inputs()
    module = snapshot.module()
    seen = {}
    for name, part in module.named_modules():
        part.register_forward_hook(lambda _, inputs, output, name=name: seen.update({name: output}))
    logits = module(*inputs)
    assert torch.allclose(logits, snapshot.logits("icl"), atol=1e-5)
    assert seen["embedding"].shape == seen["blocks.0"].shape == (100, 17, 64)
    assert seen["blocks.1.attention.query"].shape == (100, 17, 64)
    assert torch.allclose(seen["blocks.1.attention.pattern"], snapshot.attention("icl", 1), atol=1e-6)
    pattern = snapshot.attention("icl", 0)
    assert pattern.shape == (100, 8, 17, 17)
    assert torch.allclose(pattern.sum(-1), torch.ones(100, 8, 17))
    assert not pattern.triu(1).any()
    assert torch.equal(snapshot.attention("icl", -1), snapshot.attention("icl", 1))
    # An attention that adds nothing is a block that changes nothing, where there is no MLP; here its MLP stays.
    module = snapshot.module()
    module.get_submodule("blocks.1.attention").register_forward_hook(lambda _, inputs, output: output * 0)
    assert not torch.allclose(module(*inputs), logits)
    # Gradients reach the exemplars, and the snapshot stays what it was.
    examples, labels = inputs
    module(examples.requires_grad_(), labels).sum().backward()
    assert examples.grad is not None
    assert examples.grad.abs().sum() > 0
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert torch.allclose(snapshot.module()(*inputs), logits)


# Place -> submodule whose output it is. The module adds positions in `embedding`.
SUBMODULES = {
    "block{}.queries": "blocks.{}.attention.query_rotation",
    "block{}.keys": "blocks.{}.attention.key_rotation",
    "block{}.values": "blocks.{}.attention.value",
    "block{}.pattern": "blocks.{}.attention.pattern",
    "block{}.attention": "blocks.{}.attention",
    "block{}.mlp": "blocks.{}.mlp",
    "residual{}": "blocks.{}",
}


def test_places_are_the_modules_submodules(study):
    snapshot = study.lane("l2", "l2.strength=0", seed=0).at("end")
    frozen = snapshot.sequences("ciwl")
    module, seen = snapshot.module(), {}
    for name, part in module.named_modules():
        part.register_forward_hook(lambda _, inputs, output, name=name: seen.update({name: output}))
    module(*frozen.inputs())
    names = {place.format(layer): part.format(layer) for place, part in SUBMODULES.items() for layer in (0, 1)}
    found = snapshot.activations(frozen, [*names, "embedding", "positions", "block1.head3"])
    for place, name in names.items():
        expected = seen[name]
        if place.endswith("values"):
            expected = expected.unflatten(-1, (8, 8)).transpose(1, 2)
        assert torch.allclose(found[place], expected, atol=1e-5), place
    assert torch.allclose(found["embedding"] + found["positions"], seen["embedding"], atol=1e-6)
    assert found["block1.head3"].shape == (100, 17, 8)
    (of_head,) = snapshot.activations(frozen, "block1.head3.pattern").values()
    assert torch.equal(of_head, found["block1.pattern"][:, 3])
    with pytest.raises(StudyError, match=r"block2\.pattern.*there are block0 … block1"):
        snapshot.activations("icl", "block2.pattern")


def test_interventions_are_those_of_a_study(study):
    lane = study.lane("l2", "l2.strength=0", seed=0)
    snapshot, start = lane.at("end"), lane.at(0)
    plain = snapshot.logits("icl")
    # An ablated head is a head that gives 0: a hook on the module says the same.
    ablated = snapshot.run("icl", {"ablate": "block0.head3"})
    module = snapshot.module()
    others = (torch.arange(64) // 8 != 3).float()
    module.get_submodule("blocks.0.attention.out").register_forward_pre_hook(lambda _, inputs: inputs[0] * others)
    assert torch.allclose(ablated, module(*snapshot.sequences("icl").inputs()), atol=1e-5)
    assert not torch.allclose(ablated, plain, atol=1e-3)
    assert torch.equal(snapshot.run("icl", {"ablate": {"place": "block0.*", "strength": 0}}), plain)
    clamped = snapshot.activations("icl", "block1.pattern", {"clamp": {"place": "block1.pattern", "to": "induction"}})
    row = clamped["block1.pattern"][:, 0, -1]
    right = torch.tensor(snapshot.sequences("icl").labels[:, :-1] == snapshot.sequences("icl").targets[:, None])
    assert torch.allclose(row[:, 1::2], right / right.sum(-1, keepdim=True))
    # All that comes after the last block is linear but for the norm: grafted there, the other's stream is all.
    graft = {"graft": {"place": "residual1", "from": "start"}}
    grafted = snapshot.run("icl", graft, others={"start": start})
    unembedding = replace(start, parameters=start.parameters | of_end(snapshot.parameters))
    assert torch.allclose(grafted, unembedding.logits("icl"), atol=1e-6)
    assert snapshot.metrics("icl", graft, {"start": start})["loss"] != snapshot.metrics("icl")["loss"]
    for intervention, message in (
        ({"ablate": "block0.head8"}, r"block0\.head8.*there are head0 … head7"),
        ({"ablat": "block0.*"}, r"unknown key `intervention\.ablat` \(did you mean `ablate`\?\)"),
        (graft, r"`graft\.from` is 'start'"),
    ):
        with pytest.raises(StudyError, match=message):
            snapshot.run("icl", intervention)


def of_end(parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What comes after the last block."""
    return {name: value for name, value in parameters.items() if name.startswith(("norm.", "unembedding."))}


def test_a_saved_snapshot_is_the_modules_state_and_says_what_it_is_of(study, tmp_path):
    snapshot = study.lane("l2", "l2.strength=0.001", seed=1).at(512)
    path = tmp_path / "snapshot.safetensors"
    snapshot.save(path)
    loaded = safetensors.torch.load_file(path)
    state = snapshot.module().state_dict()
    assert loaded.keys() == state.keys() == snapshot.state_dict().keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    with safetensors.safe_open(path, "pt") as file:
        about = file.metadata()
    assert json.loads(about.pop("spec"))["optimizer"]["l2"]["strength"] == 0.001
    assert about == {
        "study": "laptop",
        "experiment": "l2",
        "run": "l2.strength=0.001",
        "seed": "1",
        "sequences_seen": "512",
    }
    query = snapshot.parameters["blocks.0.attention.qkv"][:, :64]
    assert torch.equal(state["blocks.0.attention.query.weight"], query.T)
    with pytest.raises(StudyError, match=r"expected a name that ends in \.safetensors"):
        snapshot.save(tmp_path / "snapshot.pt")


# What it costs.


def test_importing_the_package_loads_nothing_and_opening_a_study_no_more_than_it_needs(folder):
    assert {name for name in loaded_by("import icl_transience") if name.startswith("icl_transience.")} == set()
    heavy = {"torch", "pandas", "numpy", "h5py", "scipy", "matplotlib", "snakemake", "safetensors"}
    assert not heavy & loaded_by("import icl_transience")
    opening = f"from icl_transience import load; study = load('laptop', results={str(folder / 'results')!r})"
    assert not heavy & loaded_by(opening)
    assert "torch" not in loaded_by(f"{opening}; study.curves, study.transience, study.runs, study.verdicts")
    lane = f"{opening}; lane = study.lane('transience', seed=0); lane.snapshots, lane.bank, lane.sequences('icl')"
    assert "torch" in loaded_by(f"{lane}; lane.at(0)")


def test_opening_a_study_of_two_hundred_lanes_reads_one_file_an_experiment(folder, tmp_path):
    """However many lanes, snapshots and packs there are."""
    record = json.loads((folder / "results/studies/laptop/transience/experiment.json").read_text())
    (run,) = record["runs"]
    many = tmp_path / "studies/many"
    for experiment in range(10):
        lanes = [{"seed": str(seed), "pack": f"pack-{experiment}-{seed}", "place": 0} for seed in range(20)]
        path = many / f"experiment{experiment}/experiment.json"
        path.parent.mkdir(parents=True)
        packs = {lane["pack"]: [*range(0, 25 * 1024, 1024)] for lane in lanes}
        text = json.dumps(record | {"runs": [run | {"lanes": lanes}], "packs": packs, "experiment": path.parent.name})
        path.write_text(text)
        for lane in lanes:
            (tmp_path / "packs" / lane["pack"]).mkdir(parents=True)
            (tmp_path / "packs" / lane["pack"] / "pack.json").write_text("{}")
    code = f"""
import sys
opened = []
sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
from icl_transience import load
print(load("many", results={str(tmp_path)!r}).__repr__().splitlines()[0])
print(*[path for path in opened if path.startswith({str(tmp_path)!r})], sep="\\n")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said, *opened = done.stdout.splitlines()
    assert said.endswith(": 200 lanes")
    assert sorted(opened) == sorted(str(path) for path in many.glob("*/experiment.json"))


# The page.


def test_the_page_runs_as_it_stands(copy):
    text = (ROOT / "docs/in-python.md").read_text(encoding="utf-8")
    blocks = [part.split("```")[0] for part in text.split("```python\n")[1:]]
    assert len(blocks) >= 2
    put_peak(copy / "studies/laptop/l2", 1024)
    code = "\n".join(blocks).replace("704_000", "512")
    done = subprocess.run([sys.executable, "-c", code], cwd=copy.parent, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert "l2, l2.strength=0, seed 0" in done.stdout
    assert (copy.parent / "l2-end.safetensors").is_file()


NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_on_a_small_study_and_its_outputs_are_committed(path, copy):
    for experiment in ("l2", "transience"):
        put_peak(copy / "studies/laptop" / experiment, 1024)
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, 1 + len(cells)))
    assert sum(len(cell.outputs) for cell in cells) >= len(cells) / 2
    assert not [output for cell in cells for output in cell.outputs if output.output_type in ("error", "stderr")]
    # Without them, so that what is there afterwards is what this run has said.
    for cell in cells:
        cell.outputs, cell.execution_count = [], None
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(copy.parent)}})
    client.execute()
    assert all(cell.execution_count for cell in cells)
