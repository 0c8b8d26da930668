"""The words of the report: from tables, verdicts and provenance, as text and never as markup."""

import base64
import csv
import io
import json
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest
from docutils.core import publish_parts
from PIL import Image
from pipeline import ROOT, TINY

from icl_transience.planning.plan import Plan
from icl_transience.report import captions, pictures
from icl_transience.report.captions import Captions
from icl_transience.specs.errors import StudyError
from icl_transience.specs.experiment import QUANTITIES, TIMES
from icl_transience.store import checksums

RUN = {
    "run": "l2.strength=0",
    "seeds": "3",
    "outcome": "transient",
    "evaluator": "icl",
    "metric": "in_context_accuracy",
    "chance": "0.5",
    "n_never": "0",
    "n_transient": "3",
    "n_persistent": "0",
    "n_diverged": "0",
    "emergence": "32000",
    "peak": "0.8",
    "peak_lower": "0.75",
    "peak_upper": "0.85",
    "peak_at": "704000",
    "half_life": "1200000",
    "n_half_life_censored": "0",
    "final": "0.66",
    "final_lower": "0.6",
    "final_upper": "0.72",
    "index": "0.467",
    **{f"n_{name}": "3" for name in QUANTITIES},
    **{f"n_{name}_censored": "0" for name in ("emergence", "peak_at")},
    "n_emergence_left_censored": "0",
    **{f"{name}_{end}": "" for name in (*TIMES, "index") for end in ("lower", "upper")},
}
LANE = {key: value for key, value in RUN.items() if key != "seeds" and not key.endswith(("lower", "upper"))}
LANE |= {f"{name}_censored": "False" for name in TIMES} | {"emergence_left_censored": "False"}
VERDICT = {
    "experiment": "l2",
    "claim": "kept",
    "text": "L2 keeps it",
    "source": "",
    "tested": "index: some < none",
    "statistic": "mean difference",
    "effect_of": "index: some < none",
    "effect": "-0.004",
    "lower": "",
    "upper": "",
    "confidence": "",
    "evidence": "fixed",
    "e_for": "1.5",
    "e_against": "0.5",
    "p_holm": "0.5",
    "p_against_holm": "0.5",
    "verdict": "undecided",
    "seeds": "2",
    "note": "",
}


CLAIM = "text: L2 keeps it, kind: trend, of: index, direction: falls, axis: optimizer.l2.strength"


@pytest.fixture
def plan(tmp_path, monkeypatch) -> Plan:
    """Of the study `tiny`, of which nothing is built."""
    (tmp_path / "workflow/studies").mkdir(parents=True)
    shutil.copytree(ROOT / "workflow/schemas", tmp_path / "workflow/schemas")
    (tmp_path / "workflow/studies/tiny.yaml").write_text(
        TINY.replace("l2: {axes", f"l2: {{claims: {{kept: {{{CLAIM}}}}}, axes")
    )
    monkeypatch.chdir(tmp_path)
    return Plan({"study": "tiny"}, Path())


def write(path: str, *rows: dict[str, str]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def build(plan: Plan, experiment: str, runs: list[dict[str, str]]) -> None:
    for path in map(Path, plan.targets.experiment(experiment)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    folder = plan.paths.experiment_folder(experiment)
    write(f"{folder}/runs.csv", *runs)
    ends = [{"run": run["run"], "seed": "0", "sequences_seen": "1920000"} for run in runs]
    write(f"{folder}/curves.csv", *ends)
    checksums.write_checksums(Path(folder), ("curves.csv", "transience.csv", "runs.csv"))


def tabulate(plan: Plan, name: str, *rows: dict[str, str]) -> None:
    write(f"{plan.paths.experiment_folder('l2')}/{name}", *rows)
    checksums.write_checksums(Path(plan.paths.experiment_folder("l2")), [name])


def page(caption: str) -> str:
    """The HTML that Snakemake makes of a caption."""
    return publish_parts(caption + "\n\n.. _tiny: javascript:nothing\n", writer="html")["body"]


def test_an_experiment_is_built_once_all_of_its_tables_and_figures_are_there(plan):
    build(plan, "l2", [RUN])
    assert captions.built(plan) == ["l2"]
    Path(plan.paths.experiment_folder("l2"), "comparison.png").unlink()
    assert captions.built(plan) == []


def test_each_run_is_said_in_a_sentence_and_many_are_counted(plan):
    build(plan, "l2", [RUN])
    said = page(Captions(plan).findings("l2"))
    assert "<strong>l2.strength=0</strong>: icl (in context accuracy, chance 0.5) peaks at 0.80 after 704k" in said
    build(plan, "l2", [RUN | {"run": f"r{number}"} for number in range(30)])
    said = page(Captions(plan).findings("l2"))
    assert said.count("<li>") == 13
    assert "of all 30: 30 transient" in said


def test_a_table_shows_intervals_and_says_what_is_a_bound_or_missing(plan):
    bound = {"half_life": "inf", "n_half_life": "2", "n_half_life_censored": "2"}
    none = {f"{part}{name}": value for name in ("half_life", "index") for part, value in (("", ""), ("n_", "0"))}
    tabulate(plan, "runs.csv", RUN, RUN | bound, RUN | none)
    said = page(Captions(plan).table("l2", "runs.csv"))
    levels = "<td>0.66 (0.60 to 0.72)</td><td>0.47</td>"
    assert f"<td>32k</td><td>0.80 (0.75 to 0.85)</td><td>704k</td><td>1.2M</td>{levels}" in said
    assert f"<td>704k</td><td>not reached (2 of 3 seeds, 2 censored)</td>{levels}" in said
    assert "<td>– (0 of 3 seeds)</td><td>0.66 (0.60 to 0.72)</td><td>– (0 of 3 seeds)</td>" in said


def test_a_table_of_lanes_knows_seeds_and_ends_where_a_page_does(plan):
    lanes = [LANE | {"seed": str(seed), "half_life_censored": "True"} for seed in range(1000)]
    tabulate(plan, "transience.csv", *lanes)
    said = page(Captions(plan).table("l2", "transience.csv"))
    assert "<th>run</th><th>seed</th><th>outcome</th>" in said
    assert "<td>199</td><td>transient</td><td>32k</td><td>0.80</td><td>704k</td><td>≥ 1.2M</td>" in said
    assert "<td>200</td>" not in said
    assert "800 rows more in the file" in said


def test_without_verdicts_nothing_is_said_of_claims(plan):
    assert Captions(plan).claims("l2") == ""
    assert Captions(plan).all_claims() == ""
    write("results/studies/tiny/verdicts.csv", VERDICT)
    assert Captions(plan).claims("transience") == ""


def test_a_claim_stands_with_its_verdict_effect_and_p(plan):
    ends = {"lower": "-0.1", "upper": "0.09", "confidence": "0.95", "source": "Fig. 5", "note": "few seeds"}
    write("results/studies/tiny/verdicts.csv", VERDICT, VERDICT | ends | {"verdict": "contradicted"})
    said = page(Captions(plan).claims("l2"))
    assert "<strong>undecided</strong>: L2 keeps it; tested: index: some &lt; none; effect -0.004 (mean diff" in said
    assert "<strong>contradicted</strong>: L2 keeps it (Fig. 5); " in said
    assert "effect -0.004, 95.0% interval -0.10 to 0.09 (mean difference); p = 0.5 after Holm" in said
    assert "seeds: 2; few seeds</li>" in said
    write("results/studies/tiny/verdicts.csv", VERDICT | {"effect_of": "peak > 0.6 (none)"})
    assert "least for it, peak &gt; 0.6 (none): effect -0.004 (mean diff" in page(Captions(plan).claims("l2"))
    bounded = {"effect": "", "lower": "700", "upper": "inf", "confidence": "0.96875"}
    write("results/studies/tiny/verdicts.csv", VERDICT | bounded)
    assert "effect only bounded, 96.9% interval 700.00 to ∞" in page(Captions(plan).claims("l2"))
    write("results/studies/tiny/verdicts.csv", VERDICT, VERDICT)
    assert page(Captions(plan).all_claims()).count("<li>") == 2


def test_damaged_tables_are_refused_by_name(plan):
    tabulate(plan, "runs.csv", RUN)
    write(f"{plan.paths.experiment_folder('l2')}/runs.csv", RUN | {"peak": "0.9"})
    with pytest.raises(StudyError, match=r"l2/runs\.csv: .*: unless a job is writing it now, delete it"):
        Captions(plan).table("l2", "runs.csv")
    # It may be a job's that has not yet written the checksum.
    assert Path(plan.paths.experiment_folder("l2"), "runs.csv").exists()
    for name in ("runs.csv", "transience.csv"):
        tabulate(plan, name, {"run": "a", "outcome": "never", "peak": "0.5"})
        with pytest.raises(StudyError, match=rf"{name}: lacks emergence, .*: delete it, and snakemake writes it again"):
            Captions(plan).table("l2", name)
    write("results/studies/tiny/verdicts.csv", {"experiment": "l2", "verdict": "supported"})
    with pytest.raises(StudyError, match=r"verdicts\.csv: lacks text, .*: delete it, and snakemake writes it again"):
        Captions(plan).claims("l2")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", "\u2028", "\x85", "\x0b"])
def test_no_text_leaves_its_place(plan, end):
    """Of what reStructuredText takes for the end of a line, each could begin a directive that reads a file."""
    text = f"a{end}{end}.. include:: workflow/studies/tiny.yaml{end}{end}<script>alert(1)</script>"
    write("results/studies/tiny/verdicts.csv", VERDICT | {"text": text, "note": text, "source": text})
    said = page(Captions(plan).claims("l2"))
    assert said.count(".. include:: workflow/studies/tiny.yaml") == 3
    assert "gaussian" not in said
    assert "<script>" not in said
    assert "system-message" not in said


def test_the_first_page_says_what_is_missing_and_what_is_out_of_date(plan):
    said = page(Captions(plan).overview())
    assert said.count("Not in this report") == 2
    assert "<h2>l2</h2>" in said
    assert "0 of 4 lanes are done" in said
    assert "provenance.json does not know this study yet" in said
    build(plan, "l2", [RUN])
    Image.new("RGB", (1200, 600), "white").save("results/studies/tiny/l2/curves.png")
    said = page(Captions(plan).overview())
    assert said.count("Not in this report") == 1
    # Heading and picture open the figure.
    opened = [unquote(address) for address in re.findall(r'href="javascript:(.*?)"', said)]
    assert len(opened) == 2
    assert all('resultPath: "results/studies/tiny/l2/curves.svg"' in one for one in opened)
    (source,) = re.findall(r'src="data:image/png;base64,(.*?)"', said, re.DOTALL)
    with Image.open(io.BytesIO(base64.b64decode(source))) as image:
        assert image.size == (pictures.WIDTH, pictures.WIDTH / 2)
    assert "explorer.html" not in said
    Path("results/studies/tiny/explorer.html").touch()
    assert '<a href="explorer.html">' in page(Captions(plan).overview())
    assert "Out of date: 4 of 4 lanes are not in it yet" in said
    assert "peaks at 0.80" in said


def test_the_first_page_says_with_what_and_where(plan):
    segment = {"with": "torch 2, cuda", "seconds": 7000.0}
    pack = {"lanes": [{}, {}], "segments": {"a": segment}, "seconds": 7000, "gpu_seconds": 90, "evaluation_seconds": 5}
    entry = {
        "date": "2026-01-01T00:00:00+00:00",
        "versions": {"torch": "2.13", "faiss-cpu": None},
        "git": {"commit": "abc", "dirty": True},
        "machine": {"cpu": "a <fast> one", "cores": 2, "memory_mb": 24000, "gpus": ["H200"], "platform": "Linux"},
        "packs": {"p": pack},
    }
    Path("results").mkdir()
    Path("results/provenance.json").write_text(json.dumps({"schema": 1, "studies": {"tiny": entry}}))
    said = page(Captions(plan).overview())
    assert "<td>torch 2.13</td>" in said
    assert "<td>abc and changes beyond it</td>" in said
    assert "<td>a &lt;fast&gt; one, 2 cores, 24,000 MB, H200, Linux</td>" in said
    assert "<td>2 lanes in 1 packs, 1 segments: 1.9 h, of which 1.5 min on GPUs</td>" in said
    assert "<td>5.0 s</td>" in said
    assert "experiments:\n  transience:" in said


def test_a_study_of_any_length_is_shown_whole(plan):
    text = plan.study_path.read_text()
    for long in ("# " + 30_000 * "x", "# " + 10_000 * "y z "):
        plan.study_path.write_text(f"{text}\n{long}\n# end\n")
        said = page(Captions(plan).overview())
        assert "system-message" not in said
        assert "does it come and go?" in said
        assert "# end\n" in said


def test_words_stand_in_the_configuration_as_nothing_that_json_does_not_know(plan):
    assert json.dumps({"captions": Captions(plan)}) == '{"captions": {}}'
