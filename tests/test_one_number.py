"""A finished study says one number for one thing: in sentences, tables, labels of figures and the report's page."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from docutils.core import publish_parts
from factories import SEEN, STAYS, make_curves
from pipeline import ROOT, TINY

from icl_transience.analysis import summaries, words
from icl_transience.planning.plan import Plan
from icl_transience.report.captions import Captions
from icl_transience.report.figures.experiment import draw_experiment
from icl_transience.store import checksums, tables_file

NONE, MUCH = "l2.strength=0", "l2.strength=0.001"
# Seeds that peak early, later and late, and all fall by half; and seeds that keep what they have, one of which never
# rises.
FALL = [
    [0.5, 0.7, 0.95, 0.9, 0.85, 0.8, 0.58],
    [0.5, 0.6, 0.7, 0.9, 0.85, 0.8, 0.6],
    [0.5, 0.55, 0.6, 0.7, 0.82, 0.75, 0.62],
]
KEEP = [[0.5, 0.5, 0.6, 0.7, 0.8, 0.9, 0.88], [0.5, 0.5, 0.55, 0.6, 0.7, 0.84, 0.82], [0.5] * 7]


@pytest.fixture
def plan(tmp_path, monkeypatch) -> Plan:
    """Of a study whose experiment `l2` has tables and figures, from curves that are made up."""
    (tmp_path / "workflow/studies").mkdir(parents=True)
    shutil.copytree(ROOT / "workflow/schemas", tmp_path / "workflow/schemas")
    study = TINY.replace("seeds: [0, 1]", "seeds: [0, 1, 2]\n  statistics: {smoothing: 1}")
    (tmp_path / "workflow/studies/tiny.yaml").write_text(study)
    monkeypatch.chdir(tmp_path)
    plan = Plan({"study": "tiny"}, Path())
    record = plan.records.experiment("l2", figures=True)
    curves = make_curves(record, {NONE: STAYS, MUCH: STAYS})
    for run, of_seeds in ((NONE, FALL), (MUCH, KEEP)):
        for seed, values in enumerate(of_seeds):
            rows = (curves["run"] == run) & (curves["seed"] == str(seed)) & (curves["evaluator"] == "icl")
            curves.loc[rows, "value"] = values
    folder = folder_of(plan)
    folder.mkdir(parents=True)
    tables_file.write_csv(folder / "curves.csv", curves, digits=7)
    summaries.write_summaries(folder, record, curves, ())
    checksums.write_checksums(folder, tables_file.TABLES)
    draw_experiment(record, tables_file.read_tables(folder), folder)
    for path in map(Path, plan.targets.experiment("l2")):
        path.touch()
    return plan


def folder_of(plan: Plan) -> Path:
    return Path(plan.paths.experiment_folder("l2"))


def runs_of(plan: Plan) -> pd.DataFrame:
    return tables_file.read_tables(folder_of(plan)).runs.set_index("run")


def page(caption: str) -> str:
    """The HTML that Snakemake makes of a caption."""
    return publish_parts(caption, writer="html")["body"]


def cells(plan: Plan, run: str) -> dict[str, str]:
    """Head -> cell, of a run's row on the page of the table of runs."""
    said = page(Captions(plan).table("l2", "runs.csv"))
    head = re.findall(r"<th>(.*?)</th>", said)
    row = next(row for row in re.findall(r"<tr>(.*?)</tr>", said) if f"<td>{run}</td>" in row)
    return dict(zip(head, re.findall(r"<td>(.*?)</td>", row), strict=True))


def labels(plan: Plan) -> list[str]:
    """What is written in the figure of curves: words are drawn as paths, and stand beside them as comments."""
    return re.findall(r"<!-- (.*?) -->", (folder_of(plan) / "curves.svg").read_text(encoding="utf-8"))


def test_of_seeds_that_peak_at_different_times_all_that_is_said_is_what_the_table_has(plan):
    row = runs_of(plan).loc[NONE]
    assert row["peak"] == pytest.approx(np.mean([max(values) for values in FALL]), abs=5e-3)
    assert (row["peak_at"], row["final"]) == (4000, pytest.approx(0.6))
    # The mean curve has others.
    mean = np.mean(FALL, axis=0)
    assert (SEEN[mean.argmax()], round(mean.max(), 2)) == (8000, 0.84)
    peak, at, half_life, final = "0.89", "4k", f"{row['half_life'] / 1000:.3g}k", "0.60"
    sentence = f"peaks at {peak} after {at} sequences and falls to {final} at 32k, half-life {half_life} ("
    assert sentence in next(words.experiment_in_words(folder_of(plan)))
    assert sentence in page(Captions(plan).findings("l2"))
    assert sentence in page(Captions(plan).overview())
    found = cells(plan, NONE)
    assert [found[name].split(" (")[0] for name in ("peak", "peak at", "half-life", "final")] == [
        *(peak, at, half_life, final)
    ]
    assert labels(plan)[labels(plan).index(f"peak {peak}") + 1] == f"at {at}"


def test_ends_of_curves_are_labelled_as_the_tables_have_them(plan):
    row = runs_of(plan).loc[MUCH]
    for name, evaluator in (("ICL", "icl"), ("CIWL", "ciwl"), ("IWL", "iwl"), ("flip", "flip")):
        assert f"{name} {row[f'final_{evaluator}']:.2f}" in labels(plan)
    assert cells(plan, MUCH)["final"].startswith(f"{row['final_icl']:.2f} (")


def test_where_more_l2_keeps_icl_no_half_life_is_shown_to_be_shorter(plan):
    """Those who keep it peak late: their bounds are smaller than the half-lives of those who lose it."""
    lanes, rows = tables_file.read_lanes(folder_of(plan)), runs_of(plan)
    bounds = lanes[(lanes["run"] == MUCH) & lanes["half_life"].notna()]
    assert bounds["half_life_censored"].astype(str).tolist() == ["True"] * 2
    assert bounds["half_life"].max() < rows["half_life"][NONE]
    assert rows["half_life"][NONE] < rows["half_life"][MUCH] == np.inf
    # Horizon or open: no end of an interval lies beyond.
    assert not (np.isfinite(rows["half_life_upper"]) & (rows["half_life_upper"] > SEEN[-1])).any()
    said = "half-life not reached (by 2 of 2 lanes) ("
    left_out = "place and half-life of 2 of 3 lanes, 1 never rose"
    sentence = list(words.experiment_in_words(folder_of(plan)))[1]
    assert said in sentence
    assert left_out in sentence
    assert said in page(Captions(plan).findings("l2"))
    found = cells(plan, MUCH)
    assert found["half-life"] == "not reached (2 of 3 seeds, 2 censored)"
    assert found["emergence"].endswith("(1 censored)")
    assert f"at {found['peak at'].split(' (')[0]} (2 of 3)" in labels(plan)
    lanes_said = page(Captions(plan).table("l2", "transience.csv"))
    assert "<td>≥ 16k</td>" in lanes_said
    assert "<td>≥ 32k</td>" in lanes_said
