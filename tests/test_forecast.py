"""Whether the copier's weight forecasts flip: forecasts from earlier seeds, and the evidence that they are better."""

import numpy as np
import pandas as pd
import pytest
from factories import SEEN, make_curves, make_record

from icl_transience.analysis import forecast
from icl_transience.analysis.forecast import squared_errors
from icl_transience.specs.evaluators import STRATEGY
from icl_transience.store import checksums, tables_file

SEEDS, POINTS = 14, 20


def series(*, leads: bool, seed: int = 0) -> np.ndarray:
    """Flip, its graded twin and the weight of lanes: flip follows the weight by a snapshot, or knows nothing of it."""
    random = np.random.default_rng(seed)
    weight = random.normal(size=(SEEDS, POINTS))
    noise = random.normal(size=(SEEDS, POINTS))
    flip = 0.1 * noise + (np.roll(weight, 1, axis=1) if leads else noise)
    return np.stack([flip, flip + 0.1 * random.normal(size=flip.shape), weight], axis=-1)


def graded_and_both(errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    graded, both = (errors[:, list(forecast.FORECASTS).index(name)] for name in ("graded", "both"))
    return graded, both


@pytest.mark.parametrize("deviation", [False, True])
def test_a_weight_that_leads_makes_every_forecast_of_the_next_snapshot_better(deviation):
    errors = squared_errors(series(leads=True), 1, deviation=deviation)
    assert errors.shape == (SEEDS - forecast.FIRST_FITTED, 4)
    graded, both = graded_and_both(errors)
    assert (both < 0.2 * graded).all()


def test_a_weight_that_knows_nothing_is_no_better_as_often_as_not():
    better = [squared_errors(series(leads=False, seed=n), 1, deviation=False) for n in range(20)]
    share = np.mean([(both < graded).mean() for graded, both in map(graded_and_both, better)])
    # It costs a little to fit what says nothing: under a half.
    assert 0.1 < share < 0.5


def test_no_forecast_depends_on_a_later_seed_or_on_what_is_forecast():
    known = series(leads=True)
    before = squared_errors(known, 2, deviation=True)
    later = known.copy()
    later[8:] += 5
    np.testing.assert_array_equal(squared_errors(later, 2, deviation=True)[:6], before[:6])
    # The last value that is forecast is in no fit and no input of its own forecast.
    other = known.copy()
    other[-1, -1] += 1000
    assert (squared_errors(other, 2, deviation=True)[:-1] == before[:-1]).all()


def test_a_weight_that_only_reads_flip_with_less_noise_adds_nothing_to_its_graded_twin():
    """One latent curve: flip counts it coarsely, the weight and the twin read it finely."""
    random = np.random.default_rng(1)
    shares = []
    for _ in range(20):
        latent = random.normal(size=(SEEDS, POINTS)).cumsum(axis=1)
        flip, twin, weight = (latent + noise * random.normal(size=latent.shape) for noise in (2.0, 0.01, 0.01))
        errors = squared_errors(np.stack([flip, twin, weight], axis=-1), 1, deviation=False)
        graded, both = graded_and_both(errors)
        shares.append([(both < graded).mean(), (both < errors[:, 0]).mean()])
    against_twin, against_count = np.mean(shares, axis=0)
    assert against_twin < 0.6 < 0.9 < against_count


def test_what_is_common_to_all_seeds_is_no_part_of_a_deviation():
    known = series(leads=True)
    shared = known + np.linspace(0, 50, POINTS)[None, :, None]
    np.testing.assert_allclose(
        squared_errors(shared, 1, deviation=True), squared_errors(known, 1, deviation=True), rtol=1e-6
    )


def with_twin(curves: pd.DataFrame) -> pd.DataFrame:
    """With a probability of what flip counts that tells nothing."""
    flips = curves[curves["evaluator"] == "flip"]
    told = flips["value"].where(flips["value"].isna(), 0.3)
    return pd.concat(
        [curves, flips.assign(metric=forecast.TWIN, value=told)],
        ignore_index=True,
    )


def write(folder, seeds: int, values: dict[str, np.ndarray]) -> pd.DataFrame:
    record = make_record({"one": {}}, seeds)
    curves = make_curves(record, {"one": [0.5] * 7})
    for name, of_name in values.items():
        rows = curves["evaluator"] == name
        curves.loc[rows, "value"] = of_name.ravel()
    curves = with_twin(curves)
    tables_file.write_csv(folder / "curves.csv", curves, digits=7)
    for name in ("transience.csv", "runs.csv"):
        (folder / name).write_text("run\none\n")
    checksums.write_checksums(folder, tables_file.TABLES)
    forecast.write_forecast(folder)
    return tables_file.read_csv(folder / "forecast.csv")


@pytest.mark.parametrize(
    ("p", "p_against", "answer"),
    [
        (0.05, 1.0, "it forecasts `flip`"),
        (0.051, 1.0, "whether it forecasts `flip` is undecided"),
        (1.0, 0.05, "it makes forecasts worse"),
    ],
)
def test_words_say_of_a_run_what_its_primary_row_does(p, p_against, answer):
    row = {"run": "a", "ahead": 4, "sequences_ahead": 128_000.0, "n_seeds": 10, "seeds_for": 7, "seeds_against": 2}
    row |= {"rmse_graded": 0.05, "rmse_both": 0.04, "e_for": 0.4, "e_against": 0.3}
    # What evidence once was decides, and not what later seeds took back.
    row |= {"p": p, "p_against": p_against}
    table = pd.DataFrame([row | {"primary": True}, row | {"primary": False, "ahead": 1}])
    (said,) = forecast.in_words(table)
    assert said.startswith("`a`: 4 snapshots ahead, some 128,000 sequences, the copier's weight lowers")
    assert "in 7 of 10 seeds, and raises it in 2, 1 neither (" in said
    assert said.endswith(answer)
    assert forecast.in_words(table.assign(primary=False)) == []


def test_the_table_has_a_row_a_run_kind_and_horizon_with_its_evidence(tmp_path):
    random = np.random.default_rng(0)
    weight = random.uniform(size=(12, 7))
    flip = np.roll(weight, 1, axis=1)
    table = write(tmp_path, 12, {"flip": flip, STRATEGY: weight})
    # Seven snapshots, of which the start is none.
    assert table[["about", "ahead"]].to_numpy().tolist() == [[a, h] for a in forecast.ABOUT for h in (1, 2)]
    first = table.iloc[0]
    assert (first["n_seeds"], first["n_snapshots"], first["seeds_for"], first["seeds_against"]) == (10, 5, 10, 0)
    # Ten seeds for it, none against: 2^11 times the integral of p^10 from 1/2 to 1.
    assert first["e_for"] == pytest.approx(2**11 / 11 * (1 - 2**-11))
    assert first["rmse_both"] < 1e-6 < first["rmse_graded"] == pytest.approx(first["rmse_flip"])
    # From 1,000 to 2,000, … and 16,000 to 32,000 sequences seen.
    assert table["sequences_ahead"].tolist() == [4000, 9000] * 2


def test_one_row_a_run_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(forecast, "PRIMARY_AHEAD", 2)
    weight = np.random.default_rng(0).uniform(size=(5, 7))
    table = write(tmp_path, 5, {"flip": np.roll(weight, 1, axis=1), STRATEGY: weight})
    assert table.loc[table["primary"], ["about", "ahead"]].to_numpy().tolist() == [["deviation", 2]]


def test_snapshots_that_a_later_seed_lacks_or_has_besides_change_no_forecast_of_an_earlier_one():
    curves = with_twin(make_curves(make_record({"one": {}}, 6), {"one": [0.5] * 7}))
    seen, known = forecast.series_of(curves)
    lacking = curves[(curves["seed"] != "4") | (curves["sequences_seen"] != 8000)]
    besides = curves[curves["seed"] == "5"].assign(sequences_seen=lambda table: table["sequences_seen"] + 1)
    for others, kept in ((lacking, [0, 1, 2, 3, 5]), (pd.concat([curves, besides]), range(6))):
        others_seen, found = forecast.series_of(others)
        assert others_seen.tolist() == seen.tolist() == SEEN[1:]
        np.testing.assert_array_equal(found, known[list(kept)])


@pytest.mark.parametrize("seeds", [1, 2])
def test_too_few_seeds_forecast_nothing(tmp_path, seeds):
    assert write(tmp_path, seeds, {}).empty


def test_a_seed_that_diverged_is_no_part_of_it(tmp_path):
    weight = np.random.default_rng(0).uniform(size=(5, 7))
    flip = np.roll(weight, 1, axis=1)
    flip[3] = np.nan
    assert set(write(tmp_path, 5, {"flip": flip, STRATEGY: weight})["n_seeds"]) == {2}


def test_seeds_are_read_in_ascending_order_of_their_numbers():
    record = make_record({"one": {}}, 11)
    curves = make_curves(record, {"one": [0.5] * 7})
    curves.loc[curves["evaluator"] == "flip", "value"] = curves["seed"].astype(float)
    assert forecast.series_of(with_twin(curves))[1][:, 0, 0].tolist() == list(range(11))
