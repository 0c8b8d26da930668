"""Verdicts on claims, from tables that are made up."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from icl_transience.analysis import claim_notes, transience, verdicts
from icl_transience.specs.errors import StudyError
from icl_transience.specs.experiment import DIRECTIONS, QUANTITIES, TIMES
from icl_transience.specs.records import ClaimRecord
from icl_transience.store import checksums

SIX = [str(seed) for seed in range(6)]


def claim(kind: str = "difference", **keys) -> ClaimRecord:
    runs = {"difference": ("some", "none"), "trend": ("none", "some", "much"), "threshold": ("none",)}[kind]
    direction = {"difference": "less", "trend": "falls", "threshold": "above"}[kind]
    of_kind = {"levels": (0.0, 1e-5, 1e-4), "axis": "l2"} if kind == "trend" else {"value": 0.5}
    same = {"name": "one", "text": "it holds", "source": "a paper, Fig. 1", "experiment": "l2", "of": "index"}
    limits = {"evidence": "fixed", "confidence": 0.95, "alpha": 0.05}
    return ClaimRecord(**{**same, "kind": kind, "direction": direction, "runs": runs, **of_kind, **limits, **keys})


def lanes(index: dict[str, list[float]], **columns: dict[str, list]) -> pd.DataFrame:
    """transience.csv of runs with these indices, a seed each."""
    rows = [
        {
            "run": run,
            "seed": str(seed),
            "outcome": "transient",
            "index": value,
            "half_life": 100.0,
            "half_life_censored": False,
            "emergence": 50.0,
            "peak_at": 200.0,
        }
        for run, values in index.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows).assign(**columns)


def put(table: pd.DataFrame, run: str, seed: int, **cells) -> pd.DataFrame:
    changed = table.astype(object)
    for column, value in cells.items():
        changed.loc[(table["run"] == run) & (table["seed"] == str(seed)), column] = value
    return changed


def judged(table: pd.DataFrame, *of: ClaimRecord) -> pd.DataFrame:
    return verdicts.judge(of, dict.fromkeys(["l2"], table))


def only(table: pd.DataFrame, of: ClaimRecord) -> pd.Series:
    return judged(table, of).iloc[0]


def test_a_claim_may_be_about_the_difference_of_two_columns():
    risen = [0.11, 0.12, 0.13, 0.14, 0.15, 0.16]
    table = lanes({"none": [0.5] * 6}, final_ciwl=[0.6 + more for more in risen], at_peak_ciwl=[0.6] * 6)
    since = {"of": "final_ciwl", "minus": "at_peak_ciwl"}
    row = only(table, claim("threshold", **since, value=0.1))
    assert (row["of"], row["verdict"]) == ("final_ciwl - at_peak_ciwl", "supported")
    assert row["effect"] == pytest.approx(0.035)
    before = {"of": "at_peak_ciwl", "minus": "final_ciwl"}
    assert only(table, claim("threshold", **before, value=0))["verdict"] == "contradicted"
    gap = only(table.assign(at_peak_ciwl=[np.nan] + [0.6] * 5), claim("threshold", **since))
    assert (gap["seeds_used"], gap["excluded"]) == ("1 2 3 4 5", 1)


@pytest.mark.parametrize("evidence", ["fixed", "anytime"])
def test_claims_of_experiments_without_tables_make_the_others_no_easier_to_decide(evidence):
    first, second = (claim("trend", name=name, experiment=name, evidence=evidence) for name in ("l2", "later"))
    whole = verdicts.judge([first, second], {"l2": lanes(FALLS), "later": lanes(FALLS)}).iloc[0]
    so_far = verdicts.judge([first, second], {"l2": lanes(FALLS)})
    columns = ["p_holm", "p_against_holm"]
    # Both p are equal, so that at the end, too, Holm's factor is 2, the number of claims of the whole study.
    assert so_far.iloc[0][columns].tolist() == [min(1, 2 * whole[name]) for name in ("p", "p_against")]
    assert all(so_far.iloc[0][columns] >= whole[columns])
    assert so_far.iloc[1][["experiment", "verdict", "seeds"]].tolist() == ["later", verdicts.NOT_YET, 0]
    alone = verdicts.judge([first], {"l2": lanes(FALLS)}).iloc[0]
    assert alone["p_holm"] == alone["p"]


def test_a_claim_of_an_experiment_that_is_left_out_stays_undecided_and_costs_the_others_nothing():
    alone = only(lanes(FALLS), claim("trend"))
    table = judged(lanes(FALLS), claim("trend"), claim("threshold", experiment="words", left_out=True))
    pd.testing.assert_series_equal(table.iloc[0], alone, check_dtype=False)
    row = table.iloc[1]
    assert row[["experiment", "verdict", "seeds"]].tolist() == ["words", "undecided", 0]
    assert np.isnan(row["p_holm"])
    assert verdicts.sentence(row) == (
        "words, claim one, undecided: it holds (index > 0.5 (none); 0 seeds); not tested: the experiment is left out, "
        "as its source's files are not at hand"
    )


@pytest.mark.parametrize(
    ("asked", "tested"),
    [
        (claim("trend"), "index falls along l2 = 0, 1e-05, 0.0001"),
        (claim("difference"), "index: some < none"),
        (claim("threshold", direction="below", minus="peak"), "index - peak < 0.5 (none)"),
        (claim("threshold", runs=["none", "some", "much"] * 2), "index > 0.5 (none, some, much and 3 more)"),
        (
            claim("trend", runs=["l2=0,classes=9", "l2=1e-05,classes=9", "l2=0.0001,classes=9"]),
            "index falls along l2 = 0, 1e-05, 0.0001 (classes=9)",
        ),
    ],
    ids=["trend", "difference", "threshold", "runs", "grid"],
)
def test_a_verdict_says_what_was_tested(asked, tested):
    assert only(lanes(FALLS), replace(asked, left_out=True))["tested"] == tested


FALLS = {"none": [0.8, 0.7, 0.9, 0.6, 0.8, 0.7], "some": [0.5, 0.5, 0.7, 0.3, 0.6, 0.4], "much": [0.1, 0.2] * 3}


# Kinds of claims.


def test_a_difference_that_all_of_six_seeds_show_is_supported():
    row = only(lanes(FALLS), claim())
    assert (row["verdict"], row["p"], row["p_min"], row["seeds"]) == ("supported", 2 / 64, 2 / 64, 6)
    assert row["effect"] == pytest.approx(-0.25)
    # The smallest and the largest of the differences, of whose 63 means they are the ends.
    assert (row["lower"], row["upper"]) == (pytest.approx(-0.3), pytest.approx(-0.2))
    assert row["confidence"] == 1 - 2 / 64
    assert row["seeds_used"] == "0 1 2 3 4 5"
    assert (row["source"], row["note"], row["excluded"]) == ("a paper, Fig. 1", "", 0)


def test_the_opposite_of_what_is_claimed_is_contradicted():
    assert only(lanes(FALLS), claim(direction="greater"))["verdict"] == "contradicted"
    assert only(lanes(FALLS), claim(runs=["none", "some"]))["verdict"] == "contradicted"
    assert only(lanes(FALLS), claim("trend", direction="rises"))["verdict"] == "contradicted"
    assert only(lanes(FALLS), claim("threshold", direction="below"))["verdict"] == "contradicted"


def test_a_trend_is_supported_and_its_slope_told():
    row = only(lanes(FALLS), claim("trend"))
    assert (row["verdict"], row["effect"], row["p"]) == ("supported", -1, pytest.approx(2 / 6**6))
    # From none to much a level a step: half of the difference.
    means = [(some - none) / 2 for none, some in zip(FALLS["none"], FALLS["much"], strict=True)]
    assert (row["slope"], row["slope_per"]) == (pytest.approx(np.mean(means)), "level")
    assert row["slope_lower"] <= row["slope"] <= row["slope_upper"] < 0


@pytest.mark.parametrize(
    ("levels", "per", "size"),
    [([1e-6, 1e-5, 1e-4], "tenfold", -0.3), ([1, 2, 4], "level", -0.3), ([0, 1, 100], "level", -0.3)],
)
def test_a_slope_is_per_tenfold_where_levels_span_that(levels, per, size):
    table = lanes({"none": [0.8] * 2, "some": [0.5] * 2, "much": [0.2] * 2})
    row = only(table, claim("trend", levels=[float(level) for level in levels]))
    assert (row["slope_per"], row["slope"]) == (per, pytest.approx(size))


def test_a_threshold_for_every_run_is_kept_by_the_one_that_keeps_it_least():
    table = lanes({"none": [0.8] * 6, "some": [0.7, 0.6, 0.9, 0.8, 0.7, 0.4]})
    row = only(table, claim("threshold", runs=["none", "some"]))
    assert row["p"] == only(table, claim("threshold", runs=["some"]))["p"] > 2 / 64
    assert row["effect"] == pytest.approx(np.mean([0.2, 0.1, 0.4, 0.3, 0.2, -0.1]))


def test_a_threshold_for_every_run_is_contradicted_by_one_run_and_pays_for_the_choice():
    table = lanes({"none": [0.8] * 8, "some": [0.2] * 8})
    row = only(table, claim("threshold", runs=["none", "some"]))
    assert (row["verdict"], row["p"]) == ("contradicted", 2 * 2 / 2**8)


@pytest.mark.parametrize("kind", DIRECTIONS)
def test_a_claim_of_every_kind_on_noise_is_undecided(kind):
    noise = np.random.default_rng(5).normal(0.5, 0.1, size=(3, 8))
    table = lanes({run: list(values) for run, values in zip(("none", "some", "much"), noise, strict=True)})
    assert only(table, claim(kind))["verdict"] == "undecided"


# Seeds.


def test_no_claim_is_decided_by_one_seed_whatever_its_p():
    levels = [float(n) for n in range(1, 9)]
    table = lanes({f"r{n}": [n / 10] for n in range(8)})
    row = only(table, claim("trend", runs=[f"r{n}" for n in range(8)], levels=levels, direction="rises"))
    assert row["p"] < 1e-4
    assert row["verdict"] == "undecided"
    assert "1 seed: decides nothing" in row["note"]
    assert math.isnan(row["lower"])


def test_three_seeds_cannot_decide_a_difference_and_the_note_says_how_many_could():
    row = only(lanes({run: values[:3] for run, values in FALLS.items()}), claim())
    assert (row["verdict"], row["p"]) == ("undecided", 0.25)
    assert row["note"] == "3 seeds give no p below 0.25: take 6 or more"
    equal = only(lanes({run: [0.5] * 8 for run in ("none", "some", "much")}), claim("trend"))
    assert equal["note"] == "8 seeds give no p below 1, as values are missing, equal or only bounded"
    # Three seeds allow an interval of 75 %, which nobody asked for.
    assert all(math.isnan(row[name]) for name in ("lower", "upper", "confidence"))
    assert "interval" not in verdicts.sentence(row)


def test_seeds_that_suffice_alone_may_not_do_so_among_other_claims():
    alone, *_ = judged(lanes(FALLS), claim())["verdict"]
    table = judged(lanes(FALLS), claim(), claim(name="two", of="emergence"))
    assert (alone, *table["verdict"]) == ("supported", "undecided", "undecided")
    assert table["p_holm"].tolist() == [2 * 2 / 64, 1]
    assert "Holm's correction for 2 claims may ask for 0.025: 7 seeds or more can always give it" in table["note"][0]


def test_so_many_seeds_as_a_note_asks_for_are_enough_and_one_less_is_not():
    for kind, n in (("difference", 6), ("trend", 3)):
        of = claim(kind)
        assert claim_notes.enough(of, 0.05) == n
        enough = claim_notes.enough(of, 0.001)
        for seeds, decided in ((enough, "supported"), (enough - 1, "undecided")):
            table = lanes({run: [values[0]] * seeds for run, values in FALLS.items()})
            assert only(table, replace(of, alpha=0.001))["verdict"] == decided


def test_the_order_of_rows_does_not_matter():
    of = [claim(), claim("trend", name="b"), claim("threshold", name="c", runs=["none", "some"])]
    table = lanes(FALLS)
    shuffled = table.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(judged(table, *of), judged(shuffled, *of))


def test_seeds_with_many_lanes_missing_are_paired_by_name_and_not_by_place():
    table = lanes(FALLS)
    table = table[~((table["run"] == "some") & (table["seed"] == "0"))]
    row = only(table, claim())
    assert row["seeds_used"] == "1 2 3 4 5"
    assert row["effect"] == pytest.approx(np.mean([-0.2, -0.2, -0.3, -0.2, -0.3]))


# Lanes without a value.


def test_a_diverged_lane_takes_its_partner_along_in_a_difference_and_goes_alone_in_a_trend():
    table = put(lanes(FALLS), "some", 2, outcome="diverged", index=np.nan)
    row = only(table, claim())
    assert (row["seeds"], row["excluded"], row["seeds_used"]) == (5, 1, "0 1 3 4 5")
    assert "left out, diverged: some/2" in row["note"]
    row = only(table, claim("trend"))
    assert (row["seeds"], row["excluded"]) == (6, 1)
    # Five seeds of three levels and one of two.
    assert row["p"] == pytest.approx(2 / (6**5 * 2))


@pytest.mark.parametrize(
    ("diverged", "named"),
    [
        (5, "left out, diverged: none/0, none/1, none/2, none/3, none/4"),
        (6, "left out, diverged: none/0, none/1, none/2, none/3, none/4 and 1 more"),
        (8, "left out, diverged: none/0, none/1, none/2, none/3, none/4 and 3 more"),
    ],
)
def test_a_note_names_five_of_the_lanes_that_are_left_out_and_counts_the_others(diverged, named):
    table = lanes({"none": [0.8] * 10}, outcome=["diverged"] * diverged + ["transient"] * (10 - diverged))
    row = only(table, claim("threshold"))
    assert row["excluded"] == diverged
    assert named in row["note"].split("; ")


def test_a_lane_that_diverged_has_no_value_even_where_a_number_stands():
    table = put(lanes(FALLS), "some", 2, outcome="diverged")
    assert only(table, claim())["excluded"] == 1


def test_where_nothing_emerged_there_is_nothing_to_lose_and_emergence_is_past_the_horizon():
    never = {"outcome": "never", "index": np.nan, "emergence": 1000.0, "emergence_censored": True}
    table = put(lanes(FALLS, emergence_censored=False), "some", 2, **never)
    row = only(table, claim())
    assert (row["seeds"], row["excluded"]) == (5, 1)
    assert "left out, never emerged: some/2" in row["note"]
    row = only(table, claim(of="emergence", direction="greater"))
    assert (row["seeds"], row["excluded"]) == (6, 0)
    assert "of 1 time only a bound is known" in row["note"]
    assert (row["lower"], row["upper"]) == (0, math.inf)


PAST = {"half_life": [100.0] * 6 + [800.0] * 12, "half_life_censored": [False] * 6 + [True] * 12}


def test_a_half_life_past_the_horizon_is_longer_than_those_within_it():
    table = lanes(FALLS, **PAST)
    row = only(table, claim(of="half_life", direction="greater"))
    assert (row["verdict"], row["p"], row["lower"], row["upper"]) == ("supported", 2 / 64, 700, math.inf)
    # Two that are both past it are a tie.
    assert only(table, claim(of="half_life", runs=["some", "much"]))["p"] == 1
    # One of three pairs is open: of tau only bounds are known.
    trend = only(table, claim("trend", of="half_life", direction="rises"))
    assert np.isnan(trend["effect"])
    assert (trend["lower"], trend["upper"]) == pytest.approx((1 / 3, 1))


def test_a_fixed_test_does_not_take_what_is_seen_where_it_is_short_for_an_effect():
    """Half-lives as likely above 1,000 as below, of which long ones are seldom seen to the end."""
    generator, supported = np.random.default_rng(0), 0
    for _ in range(100):
        times, seen = generator.uniform(0, 2000, 16), generator.uniform(300, 900, 16)
        half_lives = {"half_life": np.minimum(times, seen), "half_life_censored": times > seen}
        table = lanes({"only": [0.5] * 16}, **half_lives)
        row = only(table, claim("threshold", of="half_life", direction="below", runs=["only"], value=1000))
        supported += row["verdict"] == "supported"
    assert supported <= 5


def test_no_effect_is_a_mean_of_bounds():
    """A longer horizon would make each of them larger."""
    table = lanes(FALLS, **PAST)
    row = only(table, claim(of="half_life", direction="greater"))
    assert np.isnan(row["effect"])
    assert "difference only bounded, 96.9% interval 700 to inf; p = 0.031" in verdicts.sentence(row)
    assert "of 6 times only a bound is known" in verdicts.sentence(row)
    assert np.isnan(only(table, claim("threshold", of="half_life", runs=["some"], value=50.0))["effect"])
    trend = only(table, claim("trend", of="half_life", direction="rises"))
    assert trend[["slope", "slope_lower", "slope_upper"]].isna().all()
    known = only(table, claim("threshold", of="half_life", runs=["none"], value=50.0))
    assert known["effect"] == 50


def test_what_emerged_before_the_first_snapshot_is_earlier_than_what_was_seen_to_and_by_how_much_nobody_knows():
    early = [True] * 6 + [False] * 12
    table = lanes(FALLS, emergence=[64.0] * 6 + [100.0] * 12, emergence_censored=False, emergence_left_censored=early)
    row = only(table, claim(of="emergence", direction="greater"))
    assert (row["verdict"], row["lower"], row["upper"]) == ("supported", 36, 100)
    assert np.isnan(row["effect"])
    assert only(table, claim("threshold", of="emergence", direction="below", value=64.0))["p"] == 1


def test_a_claim_on_lanes_all_of_which_diverged_is_undecided():
    table = lanes(FALLS, outcome="diverged")
    for kind in DIRECTIONS:
        row = only(table, claim(kind))
        assert (row["verdict"], row["p"], row["seeds"]) == ("undecided", 1, 0)
        assert "0 seeds: decides nothing" in row["note"]
        assert "no lane to tell from" in verdicts.sentence(row)


def test_everything_a_claim_can_be_about_is_what_lanes_are_summarised_by():
    assert set(QUANTITIES) == {*transience.LEVELS, *TIMES}


# Files.


def test_the_table_of_a_study_is_written_with_its_checksum_and_read_back_as_sentences(tmp_path):
    folder = tmp_path / "study"
    (folder / "l2").mkdir(parents=True)
    lanes(FALLS).to_csv(folder / "l2/transience.csv", index=False)
    checksums.write_checksums(folder / "l2", ["transience.csv"])
    verdicts.write_verdicts(folder, [claim(), claim("trend", name="two", direction="rises")])
    written = pd.read_csv(folder / "verdicts.csv")
    assert list(written.columns) == list(verdicts.COLUMNS)
    assert written["verdict"].tolist() == ["supported", "contradicted"]
    first, second = verdicts.claims_in_words(folder)
    assert first == (
        "l2, claim one, supported: it holds (index: some < none; difference -0.25, 96.9% interval -0.3 to -0.2; "
        "p = 0.031 after Holm; 6 seeds)"
    )
    assert second.startswith("l2, claim two, contradicted: it holds (index rises along l2 = 0, 1e-05, 0.0001; tau -1,")
    (folder / "verdicts.csv").write_text("not this")
    with pytest.raises(StudyError, match="contradict each other"):
        list(verdicts.claims_in_words(folder))


def test_tables_that_are_not_as_they_were_written_are_not_judged(tmp_path):
    (tmp_path / "l2").mkdir()
    lanes(FALLS).to_csv(tmp_path / "l2/transience.csv", index=False)
    checksums.write_checksums(tmp_path / "l2", ["transience.csv"])
    lanes({"none": [1.0]}).to_csv(tmp_path / "l2/transience.csv", index=False)
    with pytest.raises(StudyError, match="contradict each other"):
        verdicts.write_verdicts(tmp_path, [claim()])


def test_names_that_look_like_missing_values_are_names(tmp_path):
    (tmp_path / "nan").mkdir()
    lanes({"NA": FALLS["none"], "null": FALLS["some"]}).to_csv(tmp_path / "nan/transience.csv", index=False)
    checksums.write_checksums(tmp_path / "nan", ["transience.csv"])
    verdicts.write_verdicts(tmp_path, [claim(experiment="nan", name="null", runs=["null", "NA"])])
    (line,) = verdicts.claims_in_words(tmp_path)
    assert line.startswith("nan, claim null, supported: it holds (index: null < NA; difference -0.25")


def test_a_study_without_claims_has_a_table_without_rows(tmp_path):
    verdicts.write_verdicts(tmp_path, [])
    assert list(pd.read_csv(tmp_path / "verdicts.csv").columns) == list(verdicts.COLUMNS)
    assert list(verdicts.claims_in_words(tmp_path)) == []


def test_a_bound_of_one_of_two_times_is_a_bound_of_their_difference():
    of = claim(of="half_life", minus="emergence")
    table = lanes({"some": [0.1] * 6, "none": [0.2] * 6})
    exact = put(table, "some", 0, half_life=300.0)
    assert only(exact, of)["effect"] == pytest.approx(200 / 6)
    for flags in ({"half_life_censored": True}, {"emergence_left_censored": True}):
        row = only(put(exact, "some", 0, **flags), of)
        assert math.isnan(row["effect"])
        # Known of the others: no difference at all.
        assert (row["lower"], row["upper"]) == (0, np.inf)
        assert "of 1 time only a bound is known" in row["note"]
    # What is at most 200 may be less than nothing.
    row = only(put(exact, "some", 0, emergence_censored=True), of)
    assert (row["lower"], row["upper"]) == (-np.inf, 200)
