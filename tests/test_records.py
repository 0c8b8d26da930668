"""Experiments and claims as files keep them: what is written is read back as it was."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from factories import make_record

from icl_transience.planning.plan import Plan
from icl_transience.specs.errors import StudyError
from icl_transience.specs.records import ClaimRecord, claims_from, experiment_from, text_of

ROOT = Path(__file__).parents[1]
RECORD = make_record({"none": {"optimizer.l2.strength": 0.0}, "some": {"optimizer.l2.strength": 1e-5}})
CLAIM = ClaimRecord(
    name="one",
    text="it holds",
    source="",
    kind="trend",
    of="index",
    direction="falls",
    runs=("none", "some"),
    axis="optimizer.l2.strength",
    levels=(0.0, 1e-5),
    experiment="l2",
    confidence=0.95,
    alpha=0.05,
)


@pytest.mark.parametrize("study", ["laptop", "claims"])
def test_what_is_planned_is_read_back_as_it_was(study):
    plan = Plan({"study": study}, ROOT)
    for name in plan.study.experiments:
        for figures in (True, False):
            text = plan.records.experiment_text(name, figures=figures)
            assert experiment_from(json.loads(text)) == plan.records.experiment(name, figures=figures)
    assert claims_from(json.loads(plan.records.claims_text())) == plan.records.claims()


def test_tables_are_told_nothing_that_figures_alone_say():
    plain = RECORD.for_tables()
    assert experiment_from(json.loads(text_of(plain))) == plain
    assert not {"question", "figures", "caption"} & {
        *json.loads(text_of(plain)),
        *json.loads(text_of(plain))["runs"][0],
    }
    assert replace(RECORD, question="another").for_tables() == plain


def test_no_tag_of_html_begins_in_what_snakemake_writes_into_a_page():
    text = text_of(replace(RECORD, question="<script>"))
    assert "<" not in text
    assert experiment_from(json.loads(text)).question == "<script>"


def test_a_claim_that_is_left_out_has_no_limits_and_says_so():
    left_out = replace(CLAIM, confidence=0.0, alpha=0.0, left_out=True)
    tested, untested = json.loads(text_of([CLAIM, left_out]))
    assert tested == {
        "alpha": 0.05,
        "axis": "optimizer.l2.strength",
        "confidence": 0.95,
        "direction": "falls",
        "experiment": "l2",
        "kind": "trend",
        "levels": [0, 1e-5],
        "name": "one",
        "of": "index",
        "runs": ["none", "some"],
        "source": "",
        "text": "it holds",
        "value": 0,
    }
    limits = {"alpha", "confidence"}
    assert untested == {key: value for key, value in tested.items() if key not in limits} | {"left_out": True}


@pytest.mark.parametrize("values", [[], {}, {"study": "a"}, "text", None, json.loads(text_of(RECORD)) | {"more": 1}])
def test_another_softwares_experiment_is_refused_in_words(values):
    with pytest.raises(StudyError, match=r"not an experiment that this software knows .*: run it again"):
        experiment_from(values)


@pytest.mark.parametrize("values", [[{}], [{"name": "one"}], None, [json.loads(text_of([CLAIM]))[0] | {"more": 1}]])
def test_another_softwares_claims_are_refused_in_words(values):
    with pytest.raises(StudyError, match=r"not claims that this software knows .*: run it again"):
        claims_from(values)
