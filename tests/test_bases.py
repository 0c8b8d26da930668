"""Bases: what a study extends is as if it stood in the study, and is kept wherever the study is."""

import json
import re
import tarfile
from pathlib import Path

import pytest
import yaml
from pipeline import ROOT, TINY, Clone

from icl_transience.planning.plan import Plan
from icl_transience.results import referred
from icl_transience.specs.errors import StudyError
from icl_transience.study import load

TINY_BANK = "source: gaussian, gaussian: {classes: 20, holdout_classes: 4, exemplars: 5, holdout_exemplars: 2, dim: 8}"
BASE = f"""
description: shared by the studies below
defaults:
  bank: {{{TINY_BANK}}}
  optimizer: {{learning_rate: 0.25, l2: {{strength: 0.5}}}}
  seeds: [5, 6]
"""


def write(folder: Path, files: dict[str, str]) -> Path:
    """Files by their path; returns the study's, mine.yaml."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder / "mine.yaml"


def only_run(folder: Path, files: dict[str, str]):
    study = load.load(write(folder, files), {})
    ((experiment,),) = [tuple(study.experiments.values())]
    return study, experiment, experiment.runs[0].run


@pytest.mark.parametrize(
    ("said", "where"), [("one", "bases/one.yaml"), ("one.yaml", "one.yaml"), ("one.v-2+b", "bases/one.v-2+b.yaml")]
)
def test_a_base_is_beneath_the_studys_own_defaults_and_in_no_identity(said, where, tmp_path):
    own = "defaults: {optimizer: {l2: {strength: 0.125}}, horizon: 6400}"
    extending = f"extends: {said}\n{own}\nexperiments: {{a: {{}}}}"
    study, experiment, run = only_run(tmp_path, {"mine.yaml": extending, where: BASE})
    assert (run.optimizer.learning_rate, run.optimizer.l2.strength) == (0.25, 0.125)
    assert [seed.init for seed in experiment.seeds] == [5, 6]
    assert [base.name for base in study.bases] == [where]
    written = yaml.safe_load(BASE)["defaults"] | {"horizon": 6400}
    written["optimizer"]["l2"]["strength"] = 0.125
    whole = yaml.safe_dump({"defaults": written, "experiments": {"a": {}}})
    alone, experiment_alone, run_alone = only_run(tmp_path / "alone", {"mine.yaml": whole})
    assert run_alone.id == run.id
    assert experiment_alone == experiment
    assert alone.bases == ()


def test_a_base_extends_another_one_whose_defaults_are_beneath_its_own(tmp_path):
    study, _, run = only_run(
        tmp_path,
        {
            "mine.yaml": "extends: upper\ndefaults: {model: {heads: 2}}\nexperiments: {a: {}}",
            "bases/upper.yaml": "extends: lower.yaml\ndefaults: {model: {heads: 4, width: 32}, batch_size: 16}",
            "bases/lower.yaml": f"defaults: {{model: {{width: 48, depth: 3}}, bank: {{{TINY_BANK}}}}}",
        },
    )
    assert (run.model.heads, run.model.width, run.model.depth, run.batch_size) == (2, 32, 3, 16)
    assert [base.name for base in study.bases] == ["bases/upper.yaml", "bases/lower.yaml"]


REFUSED = {
    "a base that is not there": (
        {"mine.yaml": "extends: chen", "bases/chan.yaml": "", "bases/omniglot.yaml": ""},
        r"mine\.yaml: `extends` is 'chen', which is not in .* \(did you mean `chan`\?\) \(there are chan, omniglot; ",
    ),
    "no bases at all": ({"mine.yaml": "extends: chan"}, r"which is not in .*bases .*there is none"),
    "a file that is not there": (
        {"mine.yaml": "extends: own.yaml", "bases/own.yaml": ""},
        r"'own\.yaml', but there is no such file beside it",
    ),
    "a path to elsewhere": ({"mine.yaml": "extends: ../own.yaml"}, r"`extends`: '\.\./own\.yaml' does not match"),
    "a name that archives give the study": (
        {"mine.yaml": "extends: study.yaml", "study.yaml": "defaults: {}"},
        r"`extends` is 'study\.yaml', which is what archives call the study itself: rename the base",
    ),
    "groups that are not all described, named by a freeze": (
        {
            "mine.yaml": "extends: one",
            "bases/one.yaml": "defaults: {model: {embedder: resnet, resnet: {blocks: [1, 1], channels: [8]}}, "
            "freeze: {parameters: [encoder]}}",
        },
        r"`model\.resnet` has 1 `channels`, 2 `blocks` and 4 `strides`: expected one of each .* set all three",
    ),
    "itself": ({"mine.yaml": "extends: mine.yaml"}, r"comes back to itself \(mine\.yaml -> mine\.yaml\)"),
    "two that extend each other": (
        {"mine.yaml": "extends: one", "bases/one.yaml": "extends: two", "bases/two.yaml": "extends: one"},
        r"two\.yaml: `extends` comes back to itself \(mine\.yaml -> bases/one\.yaml -> bases/two\.yaml -> bases/one",
    ),
    "an unknown key in the base": (
        {"mine.yaml": "extends: one", "bases/one.yaml": "defaults: {models: {}}"},
        r"bases/one\.yaml: unknown key `defaults\.models` \(did you mean `model`\?\)",
    ),
    "experiments in the base": (
        {"mine.yaml": "extends: one", "bases/one.yaml": "experiments: {a: {}}"},
        r"one\.yaml: unknown key `experiments`.*\(allowed here: description, extends, defaults\)",
    ),
    "a base that is no YAML": ({"mine.yaml": "extends: one", "bases/one.yaml": "a: ["}, r"one\.yaml: not YAML: line"),
    "a value that is wrong together with the study's": (
        {"mine.yaml": "extends: one", "bases/one.yaml": "defaults: {model: {heads: 3}}"},
        r"`model\.heads` is 3, which does not divide `model\.width` 64",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_base_that_cannot_be_is_refused_with_the_file_and_a_remedy(name, tmp_path):
    files, expected = REFUSED[name]
    path = write(tmp_path, files | {"mine.yaml": files["mine.yaml"] + "\nexperiments: {a: {}}"})
    with pytest.raises(StudyError) as error:
        load.load(path, {})
    assert re.search(expected, str(error.value)), str(error.value)


def test_a_study_elsewhere_names_the_workflows_bases(tmp_path, monkeypatch):
    monkeypatch.delenv("ICL_OMNIGLOT", raising=False)
    path = write(tmp_path, {"mine.yaml": "extends: omniglot\nexperiments: {transience: {}}"})
    planned = Plan({"study": str(path), "results": str(tmp_path / "results")}, ROOT)
    assert [base.path for base in planned.study.bases] == [ROOT / "workflow/studies/bases/omniglot.yaml"]


def test_an_edited_base_is_an_edited_study_and_is_kept_with_it(tmp_path):
    defaults = yaml.safe_load(TINY)["defaults"] | {"horizon": 512, "seeds": [0]}
    alone = yaml.safe_dump({"defaults": defaults, "experiments": {"transience": {}}})
    clone = Clone.make(tmp_path / "clone", alone)
    before = clone.would_run()
    base = clone.study.parent / "bases/tiny.yaml"
    base.write_text(yaml.safe_dump({"defaults": defaults}))
    clone.study.write_text("extends: tiny\nexperiments: {transience: {}}")
    assert clone.would_run() == before
    clone.build("all", "archive")
    assert not clone.would_run()

    entry = json.loads((clone.folder / "results/provenance.json").read_text())["studies"]["tiny"]
    assert entry["bases"] == {"bases/tiny.yaml": base.read_text()}
    with tarfile.open(clone.folder / "results/archives/tiny.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    kept = load.load(tmp_path / "tiny/study.yaml", {})
    assert kept.experiments == load.load(clone.study, {}).experiments

    # What changes nothing makes nothing; another learning rate is another run.
    base.write_text("# a comment\n" + base.read_text())
    assert not clone.would_run()
    base.write_text(yaml.safe_dump({"defaults": defaults | {"optimizer": {"learning_rate": 0.125}}}))
    assert clone.would_run()["train"] == before["train"]


def test_what_is_not_at_hand_is_looked_for_in_bases_too(tmp_path):
    # Nobody knows what a study refers to whose source is missing: what may be its own is kept.
    path = write(tmp_path, {"mine.yaml": "extends: one\nexperiments: {a: {}}", "bases/one.yaml": BASE})
    assert referred._mentioned(path, tmp_path / "bases") == ("gaussian",)
    (tmp_path / "bases/one.yaml").unlink()
    assert referred._mentioned(path, tmp_path / "bases") == ()
