"""Verdicts by evidence that may be read after every seed, from tables that are made up; and claims of several parts."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from test_verdicts import FALLS, claim, judged, lanes, only, put

from icl_transience.analysis import eprocess, verdicts
from icl_transience.report.figures import evidence
from icl_transience.specs.errors import StudyError
from icl_transience.specs.experiment import Part
from icl_transience.specs.identity import canonical, from_values, identity_values
from icl_transience.specs.records import ClaimRecord, claims_from, text_of
from icl_transience.store import checksums


def anytime(kind: str = "difference", **keys) -> ClaimRecord:
    return claim(kind, **{"evidence": "anytime", **keys})


def conjunction(*parts: ClaimRecord, **keys) -> ClaimRecord:
    own = [Part(**{name: getattr(part, name) for name in Part.__dataclass_fields__}) for part in parts]
    runs = tuple(dict.fromkeys(run for part in own for run in part.runs))
    return replace(anytime(), kind="all_of", of="", direction="", value=0.0, runs=runs, all_of=tuple(own), **keys)


def seeds_of(table: pd.DataFrame, n: int) -> pd.DataFrame:
    """Return the first n seeds."""
    return table[table["seed"].astype(int) < n]


MANY = {"none": [0.8 + n / 100 for n in range(12)], "some": [0.5] * 12, "much": [0.2] * 12}


# By how much evidence.


def test_a_claim_is_supported_once_its_evidence_reaches_one_over_alpha():
    """E of n seeds that agree is (2^(n+1) - 1) / (n + 1): 18.1 after 6, 31.9 after 7."""
    row = only(seeds_of(lanes(MANY), 6), anytime())
    assert (row["verdict"], row["seeds_needed"], row["seeds_for"], row["seeds_against"]) == ("undecided", 1, 6, 0)
    assert row["note"] == "about 1 more seed at this effect would support it"
    row = only(seeds_of(lanes(MANY), 7), anytime())
    assert (row["verdict"], row["note"], row["seeds"]) == ("supported", "", 7)
    assert (row["e_for"], row["p"], row["e_against"]) == pytest.approx((255 / 8, 8 / 255, 1 / 8))
    assert row["p"] == pytest.approx(row["p_min"])
    assert pd.isna(row["seeds_needed"])
    # The fixed-sample test stands beside it, and decides nothing.
    assert row["p_fixed"] == 2 / 2**7


@pytest.mark.parametrize("kind", ["difference", "trend", "threshold"])
def test_the_opposite_of_what_is_claimed_is_contradicted(kind):
    opposite = {"difference": "greater", "trend": "rises", "threshold": "below"}[kind]
    row = only(lanes(MANY), anytime(kind, direction=opposite))
    assert (row["verdict"], row["seeds_against"]) == ("contradicted", 12)
    mirrored = only(lanes(MANY), anytime(kind))
    assert (row["e_for"], row["p"]) == (mirrored["e_against"], mirrored["p_against"])


def test_holm_corrects_over_claims_and_not_over_their_parts():
    eight = seeds_of(lanes(MANY), 8)
    alone = only(eight, anytime("threshold"))
    parts = conjunction(anytime("threshold"), anytime("threshold", value=0.6), anytime(), name="parts")
    table = judged(eight, parts, anytime("threshold", name="two"))
    assert table["p"].tolist() == [alone["p"]] * 2
    assert table["p_holm"].tolist() == pytest.approx([2 * alone["p"]] * 2)
    assert table["verdict"].tolist() == ["supported"] * 2


def test_how_many_more_seeds_are_needed_depends_on_how_many_claims_are_still_open():
    six = seeds_of(lanes(MANY, peak=[0.5, 0.7] * 18), 6)
    others = [anytime("threshold", name=f"other{n}", of="peak", value=0.6) for n in range(9)]
    # 7 seeds give 20, 11 give 200.
    assert only(six, anytime())["seeds_needed"] == 1
    assert judged(six, anytime(), *others)["seeds_needed"][0] == 5


def test_a_later_verdict_takes_no_earlier_one_back():
    turning = {"none": [0.8] * 8 + [0.4] * 30, "some": [0.5] * 38}
    rows = [only(seeds_of(lanes(turning), n), anytime()) for n in (8, 20, 38)]
    assert [row["verdict"] for row in rows] == ["supported", "supported", "both"]
    assert rows[2]["p"] == rows[1]["p"] == rows[0]["p"]
    assert rows[2]["e_for"] < 1
    assert "(56.8 at its highest) for it" in verdicts.sentence(rows[2])


def test_each_part_may_have_been_at_its_highest_after_another_seed():
    turns, comes = [0.8] * 8 + [0.4] * 12, [0.5] * 6 + [0.7] * 14
    parts = conjunction(anytime("threshold"), anytime("threshold", of="peak", value=0.6), name="parts")
    (one,) = verdicts.judge_all([parts], {"l2": lanes({"none": turns}, peak=comes)})
    row, rows = verdicts.table_of([one], [parts]).iloc[0], verdicts.evidence_of([one])
    of_parts = rows[rows["part"].notna()].groupby("part")["e_for"].max()
    assert len(of_parts) == 2
    assert 1 / row["p"] == pytest.approx(of_parts.min())
    assert row["e_for"] < of_parts.min()
    assert f"({of_parts.min():.3g} with each part at its highest) for it" in verdicts.sentence(row)


@pytest.mark.parametrize("kind", ["difference", "trend", "threshold"])
def test_a_claim_on_noise_is_undecided(kind):
    noise = np.random.default_rng(5).normal(0.5, 0.1, size=(3, 16))
    table = lanes({run: list(values) for run, values in zip(("none", "some", "much"), noise, strict=True)})
    assert only(table, anytime(kind))["verdict"] == "undecided"


def test_noise_is_seldom_called_an_effect_though_rows_stand_in_the_order_of_what_they_show():
    """From the tables on, and not from signs alone as in test_eprocess.py."""
    rng, verdicts_found = np.random.default_rng(6), []
    for _ in range(100):
        noise = dict(zip(("none", "some"), rng.normal(0.5, 0.1, size=(2, 16)).round(2), strict=True))
        table = lanes({run: list(values) for run, values in noise.items()})
        falls = pd.Series(noise["some"] - noise["none"], index=map(str, range(16)))
        table = table.loc[table["seed"].map(falls).sort_values().index]
        verdicts_found.append(only(table, anytime())["verdict"])
    # Of 100 claims each of which is decided with a probability of 0.05, more than 12 are in one case of 700.
    assert verdicts_found.count("supported") <= 12
    assert verdicts_found.count("contradicted") <= 12


def test_both_ways_of_deciding_may_stand_in_one_study():
    table = judged(lanes(MANY), anytime(), claim(name="two"), anytime(name="three", direction="greater"))
    assert table["evidence"].tolist() == ["anytime", "fixed", "anytime"]
    assert table["verdict"].tolist() == ["supported", "supported", "contradicted"]
    assert table["p"][1] == table["p_fixed"][1] == 2 / 2**12


# Seeds.


def test_seeds_are_read_in_ascending_order_up_to_the_first_that_is_not_finished():
    table = lanes(MANY)
    without = table[~((table["run"] == "some") & (table["seed"] == "9"))]
    row = only(without, anytime())
    assert (row["seeds"], row["seeds_used"]) == (9, "0 1 2 3 4 5 6 7 8")
    assert "not read: 9, 10, 11" in row["note"]
    assert row["e_for"] == only(seeds_of(table, 9), anytime())["e_for"]
    # Numbers, not texts: 10 comes after 9.
    assert only(table, anytime())["seeds_used"] == " ".join(map(str, range(12)))


def test_the_order_of_rows_does_not_matter():
    table, of = (
        lanes(MANY),
        [anytime(), anytime("trend", name="b"), anytime("threshold", name="c", runs=["none", "some"])],
    )
    pd.testing.assert_frame_equal(judged(table, *of), judged(table.sample(frac=1, random_state=1), *of))


def test_a_lane_without_a_value_counts_against_a_claim_and_against_its_opposite():
    table = put(lanes(MANY), "some", 3, outcome="diverged", index=np.nan)
    row, opposite = only(table, anytime()), only(table, anytime(direction="greater"))
    expected = float(eprocess.e_value(np.array(11), np.array(1)))
    assert (row["e_for"], opposite["e_against"]) == pytest.approx((expected, expected))
    both = float(eprocess.e_value(np.array(0), np.array(12)))
    assert (row["e_against"], opposite["e_for"]) == pytest.approx((both, both))
    assert (row["seeds"], row["seeds_for"], row["seeds_against"], row["excluded"]) == (12, 11, 0, 1)
    assert "without a value, diverged: some/3" in row["note"]
    assert "1 seed without a value in some lane counts against the claim and against its opposite" in row["note"]


def test_a_seed_all_of_whose_lanes_diverged_bets_nothing():
    table = put(lanes(MANY), "some", 3, outcome="diverged", index=np.nan)
    table = put(table, "none", 3, outcome="never", index=np.nan)
    row = only(table, anytime())
    assert row["e_for"] == only(seeds_of(lanes(MANY), 11), anytime())["e_for"]
    assert (row["seeds"], row["seeds_for"]) == (12, 11)


def test_a_run_in_which_nothing_emerges_does_not_contradict_by_having_no_index():
    table = lanes(MANY)
    for seed in range(12):
        table = put(table, "some", seed, outcome="never", index=np.nan)
    for direction in ("less", "greater"):
        row = only(table, anytime(direction=direction))
        assert (row["verdict"], math.isnan(row["effect"])) == ("undecided", True)
        assert "no seed is known to go either way" in row["note"]


def test_without_a_finished_seed_nothing_is_said():
    row = only(seeds_of(lanes(MANY), 0), anytime())
    assert (row["verdict"], row["seeds"], row["p"], row["p_against"]) == ("undecided", 0, 1, 1)
    assert row["note"] == "no seed is finished in all lanes"
    assert "no lane to tell from" in verdicts.sentence(row)


def test_times_past_the_horizon_count_as_far_as_they_tell_lanes_apart():
    past = {"half_life": [100.0] * 12 + [800.0] * 24, "half_life_censored": [False] * 12 + [True] * 24}
    row = only(lanes(MANY, **past), anytime(of="half_life", direction="greater"))
    assert (row["verdict"], row["lower"], row["upper"]) == ("supported", 700, math.inf)
    assert math.isnan(row["effect"])
    is_open = only(lanes(MANY, **past), anytime(of="half_life", runs=["some", "much"]))
    assert (is_open["e_for"], is_open["seeds_for"]) == (pytest.approx(float(eprocess.e_value(0, 12))), 0)
    assert is_open["e_against"] == is_open["e_for"]
    assert is_open["note"] == (
        "no seed is known to go either way; of 24 times only a bound is known, which counts as far as it tells lanes "
        "apart: 12 seeds may go either way and count against the claim and its opposite"
    )


# Effects and intervals.


def test_the_interval_is_that_of_the_median_and_there_is_none_at_another_level():
    row = only(lanes(MANY), anytime())
    assert (row["effect"], row["confidence"]) == (pytest.approx(-0.355), 0.95)
    assert row["lower"] <= row["effect"] <= row["upper"] < 0
    few = only(seeds_of(lanes(MANY), 7), anytime())
    assert few["verdict"] == "supported"
    assert all(math.isnan(few[name]) for name in ("lower", "upper", "confidence"))
    assert ", no interval; 7 as claimed and 0 the other way;" in verdicts.sentence(few)


def test_a_trend_has_the_median_of_tau_and_of_the_slope():
    row = only(lanes(MANY), anytime("trend"))
    assert (row["verdict"], row["effect"], row["slope_per"]) == ("supported", -1, "level")
    assert row["slope"] == pytest.approx(-(np.median(MANY["none"]) - 0.2) / 2)
    assert row["slope_lower"] <= row["slope"] <= row["slope_upper"] < 0


# Claims of several parts.


def test_a_claim_of_several_parts_is_as_sure_as_the_least_sure_of_them():
    table = lanes(MANY, peak=[0.9] * 11 + [0.5] + [0.9] * 24)
    parts = [anytime("threshold"), anytime("threshold", of="peak", value=0.6)]
    each = judged(table, *(replace(part, name=f"part{n}") for n, part in enumerate(parts)))
    row = only(table, conjunction(*parts))
    assert row["p"] == max(each["p"])
    assert row["e_against"] == pytest.approx(each["e_against"].mean())
    assert (row["kind"], row["of"], row["tested"]) == (
        "all_of",
        "index, peak",
        "index > 0.5 (none) and peak > 0.6 (none)",
    )
    assert row["effect_of"] == "peak > 0.6 (none)"
    assert "peak > 0.6 (none); least for it, peak > 0.6 (none): median difference from the value 0.3" in (
        verdicts.sentence(row)
    )
    assert row["effect"] == each["effect"][1]
    assert row["seeds_for"] == 11


def test_one_part_that_fails_contradicts_a_claim_of_several():
    table = lanes({"none": [0.8] * 20, "some": [0.2] * 20})
    row = only(table, conjunction(anytime("threshold"), anytime("threshold", runs=("some",))))
    assert (row["verdict"], row["p"]) == ("contradicted", 1)
    assert row["effect_of"] == "index > 0.5 (some)"


def test_of_parts_that_say_as_much_the_effect_is_of_a_comparison():
    table = lanes({"none": [0.8] * 12, "some": [0.2] * 12}, peak=[0.9] * 24)
    row = only(table, conjunction(anytime("threshold"), anytime("difference")))
    assert (row["effect_of"], row["effect"]) == ("index: some < none", pytest.approx(-0.6))


def test_of_parts_that_nothing_speaks_for_the_effect_is_of_the_one_that_most_speaks_against():
    table = lanes({"none": [0.2] * 12, "some": [math.nan] * 12})
    row = only(table, conjunction(anytime("difference"), anytime("threshold")))
    assert (row["verdict"], row["effect_of"]) == ("contradicted", "index > 0.5 (none)")


def test_the_part_that_speaks_least_is_that_of_the_largest_p_though_another_fell_back_further():
    first = [0.8] * 7 + [0.2] * 6
    second = [0.8, 0.2] * 4 + [0.8] * 5
    table = lanes({"none": first, "some": second})
    row = only(table, conjunction(*(anytime("threshold", runs=(run,)) for run in ("none", "some"))))
    each = [only(table, anytime("threshold", runs=(run,))) for run in ("none", "some")]
    assert each[0]["p"] < each[1]["p"] == row["p"]
    assert each[0]["e_for"] < each[1]["e_for"]
    assert row["effect_of"] == "index > 0.5 (some)"
    # Evidence is what stands now, which p need not be of.
    assert row["e_for"] == each[0]["e_for"]


def test_a_threshold_for_several_runs_is_a_claim_with_a_part_a_run():
    table = lanes({"none": [0.8] * 12, "some": [0.7] * 11 + [0.4]})
    runs = only(table, anytime("threshold", runs=("none", "some")))
    parts = only(table, conjunction(*(anytime("threshold", runs=(run,)) for run in ("none", "some"))))
    for column in ("e_for", "e_against", "p", "p_against", "p_fixed", "effect", "seeds_for"):
        assert runs[column] == parts[column]


def test_the_fixed_test_of_several_parts_takes_the_largest_p_or_pays_for_choosing_the_contrary_one():
    table = lanes({"none": [0.8, 0.9, 0.7, 0.6, 0.8, 0.4, 0.7, 0.9], "some": [0.2] * 8})
    parts = [claim("threshold"), claim(direction="less"), claim("threshold", runs=("some",), direction="below")]
    each = [only(table, part)["p"] for part in parts]
    holds = only(table, replace(conjunction(*parts), evidence="fixed"))
    assert holds["p"] == max(each) == each[0] > min(each)
    contrary = [claim("threshold"), claim("threshold", runs=("some",))]
    row = only(table, replace(conjunction(*contrary), evidence="fixed"))
    assert (row["verdict"], row["p"]) == ("contradicted", 2 * 2 / 2**8)


def test_a_claim_of_several_parts_goes_through_the_file_that_jobs_read():
    written = [conjunction(anytime("threshold"), anytime("trend")), anytime(), claim("trend")]
    text = text_of(written)
    assert claims_from(json.loads(text)) == [from_values(ClaimRecord, identity_values(one)) for one in written]
    assert canonical(json.loads(text)) == text
    assert [one.evidence for one in claims_from(json.loads(text))] == ["anytime", "anytime", "fixed"]


# Files and the figure.


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "l2").mkdir()
    lanes(MANY).to_csv(tmp_path / "l2/transience.csv", index=False)
    checksums.write_checksums(tmp_path / "l2", ["transience.csv"])
    parts = conjunction(anytime("threshold"), anytime("threshold", value=0.9), name="parts")
    left_out = anytime(name="gone", experiment="words", left_out=True)
    verdicts.write_verdicts(tmp_path, [anytime(), claim("trend", name="two"), parts, left_out])
    return tmp_path


def test_seeds_are_whole_numbers_beside_a_claim_that_is_left_out(folder):
    said = list(verdicts.claims_in_words(folder))
    assert len(said) == 4
    assert " 12 as claimed and 0 the other way; " in said[0]
    assert not [one for one in said if ".0 as claimed" in one or ".0 the other way" in one]


def test_evidence_is_written_seed_by_seed_for_claims_and_their_parts(folder):
    found = pd.read_csv(folder / "evidence.csv")
    assert list(found.columns) == list(verdicts.EVIDENCE_COLUMNS)
    assert found.groupby("claim").size().to_dict() == {"one": 12, "two": 12, "parts": 36}
    own = found[found["part"].isna()]
    last = own.groupby("claim").last()
    table = pd.read_csv(folder / "verdicts.csv").set_index("claim")
    for column in ("e_for", "e_against"):
        for name in last.index:
            assert last.loc[name, column] == pytest.approx(table.loc[name, column])
    parts = found[found["claim"] == "parts"]
    assert set(parts.loc[parts["part"].notna(), "tested"]) == {"index > 0.5 (none)", "index > 0.9 (none)"}
    assert found.loc[found["claim"] == "one", "goes"].unique().tolist() == ["as claimed"]
    checksums.check_checksums(folder, ["verdicts.csv", "evidence.csv"])


def test_a_line_a_tested_claim_and_the_thresholds_are_drawn(folder):
    table, found = (pd.read_csv(folder / name) for name in ("verdicts.csv", "evidence.csv"))
    figure = evidence.draw("tiny", table, found)
    panels = [axes for axes in figure.axes if axes.get_title(loc="left") or axes.get_title()]
    assert len(panels) == 2
    for panel, side in zip(panels, ("e_for", "e_against"), strict=True):
        curves = [line for line in panel.lines if len(line.get_xdata()) == 13]
        assert len(curves) == 3
        of_one = found.loc[found["claim"] == "one", side]
        np.testing.assert_allclose(curves[0].get_ydata(), [1, *of_one.clip(lower=0.05)])
        levels = {float(line.get_ydata()[0]) for line in panel.lines if len(set(line.get_ydata())) == 1}
        assert {1.0, 20.0, 60.0} <= levels
    legend = [text.get_text() for axes in figure.axes if axes.get_legend() for text in axes.get_legend().get_texts()]
    assert legend == ["one (supported)", "two (supported)", "parts (contradicted)"]


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        (1, "Grey, dotted: what decides the claim, 1 / alpha = 20; what once reached it counts."),
        (2, "what decides the last claim, 1 / alpha = 20; dashed: the first of 2 claims (Holm); what once"),
    ],
)
def test_what_thresholds_are_is_said_of_one_claim_as_of_several(claims, expected, tmp_path):
    (tmp_path / "l2").mkdir()
    lanes(MANY).to_csv(tmp_path / "l2/transience.csv", index=False)
    checksums.write_checksums(tmp_path / "l2", ["transience.csv"])
    verdicts.write_verdicts(tmp_path, [anytime(name=f"claim{number}") for number in range(claims)])
    figure = evidence.draw("tiny", *(pd.read_csv(tmp_path / name) for name in ("verdicts.csv", "evidence.csv")))
    dashed = [line for axes in figure.axes for line in axes.lines if line.get_linestyle() == "--"]
    assert bool([line for line in dashed if set(line.get_ydata()) == {20 * claims}]) == (claims > 1)
    said = " ".join(" ".join(text.get_text().split()) for text in figure.findobj(Text))
    assert expected in said


def test_equal_tables_give_equal_figures_and_damaged_ones_none(folder, tmp_path):
    drawn = [evidence.draw_from_tables("tiny", folder, folder).read_bytes() for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert (folder / "evidence.png").stat().st_size > 10_000
    (folder / "evidence.csv").write_text("experiment\n")
    with pytest.raises(StudyError, match="contradict each other"):
        evidence.draw_from_tables("tiny", folder, folder)


def test_a_study_whose_claims_are_all_left_out_has_an_empty_figure(tmp_path):
    verdicts.write_verdicts(tmp_path, [anytime(left_out=True)])
    evidence.draw_from_tables("tiny", tmp_path, tmp_path)
    assert (tmp_path / "evidence.svg").exists()


def test_a_sentence_says_how_much_speaks_for_a_claim_and_against_it():
    line = verdicts.sentence(only(seeds_of(lanes(MANY), 8), anytime()))
    assert line == (
        "l2, claim one, supported: it holds (index: some < none; median difference -0.335, 95.0% interval -0.37 to "
        "-0.3; 8 as claimed and 0 the other way; evidence 56.8 for it, 0.111 against; p = 0.018 after Holm; 8 seeds)"
    )
    against = verdicts.sentence(only(seeds_of(lanes(MANY), 8), anytime(direction="greater")))
    assert "evidence 0.111 for it, 56.8 against; p = 0.018 of the opposite after Holm; 8 seeds)" in against
    assert only(lanes(FALLS), anytime())["statistic"] == "median difference, evidence of its sign"
