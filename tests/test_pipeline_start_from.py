"""A run that starts from another run's snapshot, under interventions and partly frozen, through the command line."""

import json

import h5py
import numpy as np
from pipeline import Clone

from icl_transience.specs.runs import PackSpec

PIPELINE = """
defaults:
  bank: {source: gaussian, gaussian: {classes: 40, holdout_classes: 10, exemplars: 3, holdout_exemplars: 2, dim: 4}}
  model: {width: 16, heads: 2}
  snapshots: {first: 256, every: 512}
  evaluation: {sequences: 64}
  horizon: 2048
  seeds: [0, 1]
experiments:
  transience: {}
  l2:
    horizon: 1024
    start_from: {run: transience/baseline, at: 1024}
    freeze: {parameters: [embedder], until: 512}
    activation_interventions:
      clamped: {clamp: {place: block1.head0.pattern, to: induction}, strength: [[0, 1], [512, 0]]}
"""


def test_a_run_is_trained_from_another_ones_snapshot_and_only_again_where_that_is_another(tmp_path):
    clone = Clone.make(tmp_path / "clone", PIPELINE)
    once = {"train": 3, "evaluate": 3}
    counts = clone.would_run()
    assert {rule: counts[rule] for rule in once} == once
    log = clone.build("--cores", "2")
    assert "MissingInput" not in log
    assert clone.would_run() == {}

    # The target's first weights are the source's at its snapshot; what is frozen stays so until it may move.
    found = {}
    for path in clone.folder.glob("results/packs/*/segment-000000000000-000000001024.h5"):
        with h5py.File(path) as file:
            is_target = bool(PackSpec.from_json(str(file.attrs["spec"])).run.start_from)
            points = np.asarray(file["snapshots/sequences_seen"]).tolist()
            parameters = {name: np.asarray(values) for name, values in file["snapshots/parameters"].items()}
            found[is_target] = points, parameters, str(file.attrs["made_with"])
    (points, target, made), (of_source, source, _) = found[True], found[False]
    for name, values in target.items():
        assert np.array_equal(values[0], source[name][of_source.index(1024)]), name
    table = target["label_embedding"]
    assert [bool(np.array_equal(one, table[0])) for one in table] == [at <= 512 for at in points]

    # It is said which engine trains it, and why; and what it started from.
    assert "eager engine" in made
    said = "the eager engine trains it: native trains without activation_interventions"
    logs = clone.folder.glob("results/logs/packs/*/segment-*.log")
    assert sum(said in path.read_text() for path in logs) == 1
    entry = json.loads((clone.folder / "results/provenance.json").read_text())["studies"]["tiny"]
    (sources,) = [pack["sources"] for pack in entry["packs"].values() if "sources" in pack]
    assert [(one["init"], one["at"], one["segment"]) for one in sources] == [
        (0, 1024, "segment-000000000000-000000001024.h5"),
        (1, 1024, "segment-000000000000-000000001024.h5"),
    ]
    assert {one["run"] for one in sources} <= entry["runs"].keys()
    assert "results/packs" not in clone.build("orphans")

    # A longer source trains on, and nothing else does; from another snapshot, it is another run.
    clone.change("  transience: {}", "  transience: {horizon: 3072}")
    longer = clone.would_run()
    assert (longer["train"], longer["evaluate"]) == (1, 1)
    clone.change("  transience: {horizon: 3072}", "  transience: {}")
    clone.change("at: 1024", "at: 512")
    other = clone.would_run()
    assert (other["train"], other["evaluate"]) == (1, 1)
