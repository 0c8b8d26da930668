"""Figures of experiments that nobody ran."""

import itertools
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from factories import RISES_AND_FALLS, SEEN, STAYS, at_other_contexts, make_curves, make_record
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from icl_transience.analysis import summaries, transience
from icl_transience.planning.plan import Plan
from icl_transience.report.figures import experiment, layout, runs, style
from icl_transience.report.figures import lines as figure_lines
from icl_transience.report.figures.experiment import _curves, _grid, _plane, draw_experiment
from icl_transience.report.figures.summary import draw_summary
from icl_transience.specs.records import ExperimentRecord
from icl_transience.store import tables_file

ROOT = Path(__file__).parents[1]
L2, DEPTH = "optimizer.l2.strength", "model.depth"


def tables_of(record: ExperimentRecord, curves: pd.DataFrame, diverged: tuple = ()) -> list[pd.DataFrame]:
    """transience.csv and runs.csv."""
    with tempfile.TemporaryDirectory() as folder:
        summaries.write_summaries(Path(folder), record, curves, diverged)
        return [tables_file.read_csv(Path(folder, name)) for name in ("transience.csv", "runs.csv")]


@pytest.fixture
def record() -> ExperimentRecord:
    return make_record({"none": {L2: 0.0}, "some": {L2: 1e-5}})


@pytest.fixture
def curves(record) -> pd.DataFrame:
    return make_curves(record, {"none": RISES_AND_FALLS, "some": STAYS})


@pytest.fixture
def two_axes() -> tuple[ExperimentRecord, pd.DataFrame]:
    """Runs in no order; every one's ICL ends elsewhere."""
    places = list(itertools.product([4, 2], [1e-4, 0.0, 1e-5]))
    record = make_record({f"{depth}/{l2:g}": {DEPTH: depth, L2: l2} for depth, l2 in places})
    icl = {run.name: [*STAYS[:-1], 0.6 + 0.01 * n] for n, run in enumerate(record.runs)}
    return record, make_curves(record, icl)


@pytest.mark.parametrize("name", ["curves", "comparison", "summary", "plane", "grid"])
def test_equal_tables_give_equal_figures(tmp_path, record, curves, two_axes, name):
    if name == "grid":
        record, curves = two_axes
    tables, drawn = tables_of(record, curves), []
    for attempt in ("first", "second"):
        paths = [tmp_path / f"{attempt}.{kind}" for kind in ("svg", "png")]
        draw_experiment(name, record, curves, *tables, *paths)
        drawn.append([path.read_bytes() for path in paths])
    assert drawn[0] == drawn[1]
    assert drawn[0][0].startswith(b"<?xml")
    assert drawn[0][1].startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["summary", "plane"])
def test_another_curve_gives_another_figure(tmp_path, record, curves, name):
    drawn = []
    for shift in (0.0, 0.05):
        shifted = curves.assign(value=curves["value"] + shift)
        draw_experiment(name, record, shifted, *tables_of(record, shifted), tmp_path / "a.svg", tmp_path / "a.png")
        drawn.append((tmp_path / "a.svg").read_bytes())
    assert drawn[0] != drawn[1]


def test_drawing_and_tabulating_load_no_library_that_few_seeds_do_not_need():
    """scipy.stats takes longer to import than all the rest of a job that makes a figure or tables."""
    code = "import sys, icl_transience.analysis.curves, icl_transience.report.figures.experiment; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"scipy.stats", "matplotlib.pyplot", "torch", "faiss"} & set(loaded)


ALONG_NUMBERS = ["curves", "comparison", "summary", "plane"]
NO_ORDER = ["curves", "comparison", "plane"]
KINDS = {
    "one run": ("", ["curves", "plane"]),
    "numbers": (f"axes: {{{L2}: [0, 1.0e-4]}}", ALONG_NUMBERS),
    "words": ("axes: {recipe.zipf.ranks: [permuted, identity]}, recipe: {zipf: {alpha: 1}}", NO_ORDER),
    "truths": ("axes: {recipe.distractor: [true, false]}", NO_ORDER),
    "two axes": (f"axes: {{{L2}: [0, 1.0e-4], recipe.distractor: [true, false]}}", [*ALONG_NUMBERS, "grid"]),
    "three axes": (f"axes: {{{L2}: [0, 1.0e-4], {DEPTH}: [1, 2], model.width: [32, 64]}}", ALONG_NUMBERS),
    "named runs along one axis": ("runs: {a: {}, b: {model: {depth: 3}}}", ALONG_NUMBERS),
    "named runs in no order": ("runs: {a: {}, b: {model: {depth: 3}}, c: {batch_size: 16}}", NO_ORDER),
    "without ICL": ("evaluation: {evaluators: [ciwl]}, statistics: {evaluator: ciwl}", ["curves"]),
    "without CIWL": (f"axes: {{{L2}: [0, 1]}}, evaluation: {{evaluators: [icl, iwl]}}", ALONG_NUMBERS),
}


def planned(folder: Path, experiment: str) -> Plan:
    (folder / "mine.yaml").write_text(f"experiments: {{a: {{{experiment}}}}}")
    return Plan({"study": str(folder / "mine.yaml"), "results": str(folder / "results")}, ROOT)


@pytest.mark.parametrize(("experiment", "expected"), KINDS.values(), ids=KINDS)
def test_every_kind_of_experiment_has_its_figures(tmp_path, experiment, expected):
    assert planned(tmp_path, experiment).targets.figures("a") == expected


# Kind of experiment, what becomes of its lanes, and which figures are drawn.
FATES = [
    *((kind, "as usual", KINDS[kind][1]) for kind in ("one run", "words", "without ICL", "without CIWL")),
    ("two axes", "one lane diverged", ["summary", "plane", "grid"]),
    ("three axes", "as usual", ["summary"]),
    *(("numbers", fate, ALONG_NUMBERS) for fate in ("one lane diverged", "nothing emerged", "all diverged")),
]


@pytest.mark.parametrize(("kind", "fate", "names"), FATES, ids=[f"{kind}, {fate}" for kind, fate, _ in FATES])
def test_figures_can_be_drawn_whatever_becomes_of_the_lanes(tmp_path, kind, fate, names):
    plan = planned(tmp_path, KINDS[kind][0])
    record = plan.records.experiment("a", figures=True)
    level = [0.5] * len(SEEN) if fate == "nothing emerged" else RISES_AND_FALLS
    curves = make_curves(record, {run.name: level for run in record.runs})
    evaluators = {*plan.study.experiments["a"].runs[0].sequence_set.evaluators, "training"}
    curves = curves[curves["evaluator"].isin(evaluators)].copy()
    gone = {(run.name, lane.seed) for run in record.runs for lane in run.lanes}
    gone = {"one lane diverged": {min(gone)}, "all diverged": gone}.get(fate, set())
    for run, seed in gone:
        late = (curves["run"] == run) & (curves["seed"] == seed) & (curves["sequences_seen"] > 4000)
        curves.loc[late, "value"] = np.nan
    lanes, of_runs = tables_of(record, curves, gone)
    tables = {"summary": [lanes, of_runs], "curves": [curves, of_runs], "grid": [curves, of_runs]}
    with matplotlib.rc_context(style.STYLE):
        for name in names:
            draw = draw_summary if name == "summary" else getattr(experiment, f"_{name}")
            assert_inside(draw(record, *tables.get(name, [curves])))


def test_a_peak_is_marked_only_where_something_emerged(record):
    curves = make_curves(record, {"none": RISES_AND_FALLS, "some": [0.52] * len(SEEN)})
    marked, unmarked = _curves(record, curves, tables_of(record, curves)[1]).axes[:2]
    assert [line.get_marker() for line in marked.lines].count("v") == 1
    assert [line.get_marker() for line in unmarked.lines].count("v") == 0


@pytest.mark.parametrize(
    ("level", "label"),
    [
        (0, "0"),
        (1e-5, "1e-5"),
        (3e-4, "3e-4"),
        (1e-3, "1e-3"),
        (0.01, "0.01"),
        (0.25, "0.25"),
        (1.5, "1.5"),
        (1000, "1000"),
    ],
)
def test_levels_on_an_axis_take_little_room(level, label):
    assert figure_lines.short(level) == label


@pytest.mark.parametrize(("lowest", "labelled"), [(0.02, ["0.02", "0.05", "0.1"]), (0.002, ["0.01", "0.1", "1"])])
def test_a_loss_over_many_decades_is_labelled_at_powers_of_ten(lowest, labelled):
    axes = Figure().subplots()
    axes.plot([1, 2], [lowest, 5])
    figure_lines.loss_axis(axes)
    axes.set_ylim(lowest, 5)
    axes.figure.draw_without_rendering()
    shown = [tick.label1.get_text() for tick in axes.yaxis.get_major_ticks() if lowest <= tick.get_loc() <= 5]
    assert [text for text in shown if text][:3] == labelled


def assert_inside(figure: Figure) -> None:
    """No words of the title or the foot beyond the edge."""
    figure.draw_without_rendering()
    for text in (figure._suptitle, figure._supxlabel):
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width


def test_a_figure_shows_other_contexts_dashed_in_their_evaluators_colour(record, curves):
    def dashed(table: pd.DataFrame) -> list:
        lines = _curves(record, table, tables_of(record, table)[1]).axes[0].lines
        # A level of chance is dashed too, but has only two ends.
        return [line for line in lines if line.get_linestyle() == "--" and len(line.get_ydata()) > 2]

    assert dashed(curves) == []
    shorter, longer = dashed(at_other_contexts(curves))
    assert {line.get_color() for line in (shorter, longer)} == {runs.COLOURS["icl"]}
    assert shorter.get_ydata().tolist() == pytest.approx([value - 0.2 for value in RISES_AND_FALLS[1:]])
    assert longer.get_ydata().tolist() == pytest.approx([value - 0.1 for value in RISES_AND_FALLS[1:]])
    table = at_other_contexts(curves)
    texts = [text.get_text() for text in _curves(record, table, tables_of(record, table)[1]).axes[1].texts]
    assert "ICL, context 4: 0.70" in texts
    assert "ICL, context 16: 0.80" in texts


def test_levels_of_an_axis_are_dark_to_light_whatever_the_order_of_runs():
    record = make_record({name: {L2: level} for name, level in (("b", 1e-5), ("c", 1e-4), ("a", 0.0))})
    colours = runs.colours_of_runs(record)
    brightness = [sum(to_rgb(colours[name])) for name in "abc"]
    assert brightness == sorted(brightness)
    assert list(runs.words_of_runs(record)[1].values()) == ["0", "1e-05", "0.0001"]


def test_runs_in_no_order_have_colours_as_different_as_can_be():
    record = make_record({name: {"recipe.labels": name} for name in ("classes", "copied", "swapped")})
    assert list(runs.colours_of_runs(record).values()) == list(runs.UNORDERED[:3])


def test_a_band_is_the_interval_of_the_tables():
    values = np.array([[0.5, 0.6, 0.8], [0.1, 0.3, 0.3]])
    lower, upper = figure_lines._band(values, 0.9, logarithmic=False)
    for number in (0, 1):
        assert (lower[number], upper[number]) == pytest.approx(transience.interval(values[number], 0.9))
    lower, upper = figure_lines._band(values, 0.9, logarithmic=True)
    ends = np.exp(transience.interval(np.log(values[0]), 0.9))
    assert (lower[0], upper[0]) == pytest.approx(tuple(ends))


def test_the_path_in_the_plane_is_the_mean_of_icl_against_that_of_ciwl(record, curves):
    curves.loc[curves["evaluator"] == "ciwl", "value"] = curves["sequences_seen"] / SEEN[-1]
    panel = _plane(record, curves).axes[1]
    paths = [line for line in panel.lines if line.get_linewidth() == 2]
    assert [path.get_xdata().tolist() for path in paths] == [pytest.approx(RISES_AND_FALLS), pytest.approx(STAYS)]
    assert paths[0].get_ydata().tolist() == pytest.approx([seen / SEEN[-1] for seen in SEEN])
    assert panel.get_ylabel() == "CIWL: in-context accuracy"


def test_a_path_is_marked_at_powers_of_ten():
    assert figure_lines._powers_of_ten(pd.Index([0, 512, 1100, 9000, 12_000, 50_000])) == [1100, 9000]
    assert figure_lines._powers_of_ten(pd.Index([0, 512])) == figure_lines._powers_of_ten(pd.Index([])) == []


def test_a_grid_has_a_row_and_a_column_a_level_in_order(two_axes):
    record, curves = two_axes
    figure = _grid(record, curves, tables_of(record, curves)[1])
    axes = np.array(figure.axes).reshape(2, 3)
    assert [panel.get_title() for panel in axes[0]] == [
        "l2.strength = 0",
        "l2.strength = 1e-05",
        "l2.strength = 0.0001",
    ]
    assert [panel.get_ylabel() for panel in axes[:, 0]] == ["model.depth = 2\naccuracy", "model.depth = 4\naccuracy"]
    ends = {run.name: 0.6 + 0.01 * number for number, run in enumerate(record.runs)}
    for row, depth in enumerate((2, 4)):
        for column, l2 in enumerate((0, 1e-5, 1e-4)):
            (icl,) = thick(axes[row, column], runs.COLOURS["icl"])
            assert icl.get_ydata()[-1] == pytest.approx(ends[f"{depth}/{l2:g}"])


def thick(panel, colour: str) -> list:
    return [line for line in panel.lines if line.get_linewidth() == 2 and to_hex(line.get_color()) == colour.lower()]


def test_a_summary_shows_means_at_their_levels_a_line_a_level_of_the_other_axis(tmp_path, two_axes):
    record, curves = two_axes
    figure = draw_summary(record, *tables_of(record, curves))
    index = next(panel for panel in figure.axes if panel.get_ylabel() == "transience index")
    assert index.get_xlabel() == L2
    assert index.get_xscale() == "symlog"
    assert [f"{tick:g}" for tick in index.get_xticks()] == ["0", "1e-05", "0.0001"]
    lines = joined(index)
    ends = {run.name: 0.6 + 0.01 * number for number, run in enumerate(record.runs)}
    # A lane's peak is 0.9 and its end `ends`, both shifted alike by seed.
    expected = {d: [(0.9 - ends[f"{d}/{l2:g}"]) / 0.4 for l2 in (0, 1e-5, 1e-4)] for d in (2, 4)}
    assert [line.get_ydata().tolist() for line in lines] == [pytest.approx(expected[d], abs=0.01) for d in (2, 4)]


@pytest.mark.parametrize(
    ("levels", "scale"), [([1, 2, 4], "linear"), ([1e-5, 1e-4], "log"), ([0, 1, 100], "symlog"), ([-1, 1], "linear")]
)
def test_an_axis_is_logarithmic_where_its_levels_span_tenfold(levels, scale):
    axes = Figure().subplots()
    figure_lines.levels_axis(axes, L2, levels)
    assert axes.get_xscale() == scale


def joined(panel) -> list:
    """The lines along the axis; those of intervals go up."""
    return [line for line in panel.lines if line.get_linestyle() == "-" and line.get_marker() == "None"]


def panel_of(figure: Figure, label: str):
    return next(panel for panel in figure.axes if panel.get_ylabel() == label)


HALF_LIFE = "half-life (sequences)"


def test_half_lives_past_the_horizon_point_upwards_and_lanes_without_one_are_crosses(record, curves):
    curves.loc[(curves["run"] == "none") & (curves["seed"] == "0") & (curves["evaluator"] == "icl"), "value"] = 0.5
    lanes, of_runs = tables_of(record, curves)
    figure = draw_summary(record, lanes, of_runs)
    half_life = panel_of(figure, HALF_LIFE)
    shown = {marker: [line for line in half_life.lines if line.get_marker() == marker] for marker in "o^x_"}
    # `some` stays: a seed an arrow, at its bound, and the median's at the edge. Of `none` one lane never rises.
    bounds, (median,) = shown["^"][:3], shown["^"][3:]
    assert [line.get_xydata().tolist() for line in bounds] == [[[1e-5, 28_000]]] * 3
    assert (median.get_xydata().tolist(), median.get_markerfacecolor()) == ([[1e-5, 1]], "white")
    assert {x for line in shown["o"] for x in line.get_xdata()} == {0}
    assert [line.get_xdata().tolist() for line in shown["x"] if len(line.get_xdata())] == [[0]]
    (dash,) = [line.get_xydata().tolist() for line in shown["_"]]
    assert dash == [[0, pytest.approx(of_runs["half_life"][0])]]
    (legend,) = [legend for panel in figure.axes if (legend := panel.get_legend())]
    words = ["seed: at least", "median not reached", "seed without the quantity"]
    assert [text.get_text() for text in legend.get_texts()] == words


def more_levels(icl: list[list[float]], seeds: int = 3) -> tuple[ExperimentRecord, pd.DataFrame]:
    """Runs at levels of L2, from less to more, each with ICL as given."""
    record = make_record({f"l2={level}": {L2: 10.0 ** (level - 6)} for level in range(len(icl))}, seeds)
    return record, make_curves(record, {f"l2={level}": values for level, values in enumerate(icl)})


FALLS_LATE = [0.5, 0.6, 0.8, 0.9, 0.9, 0.8, 0.6]


def test_nothing_is_drawn_through_bounds():
    """A mean of them would fall from level to level here, where no lane loses anything."""
    later = [
        [0.5, 0.6, 0.8, 0.9, 0.9, 0.9, 0.9],
        [0.5, 0.6, 0.7, 0.8, 0.9, 0.9, 0.9],
        [0.5, 0.6, 0.7, 0.7, 0.8, 0.9, 0.9],
    ]
    record, curves = more_levels(later)
    lanes, of_runs = tables_of(record, curves)
    assert lanes.groupby("run")["half_life"].mean().is_monotonic_decreasing
    panel = panel_of(draw_summary(record, lanes, of_runs), HALF_LIFE)
    assert all(np.isnan(line.get_ydata()).all() for line in joined(panel))
    # One mark a seed and one a level at the edge.
    assert [len(line.get_xdata()) for line in panel.lines if line.get_marker() == "^"] == [3, 3, 3, 1, 1, 1]
    assert not [line for line in panel.lines if line.get_marker() == "_" and len(line.get_xdata())]


def test_a_line_has_a_gap_where_a_median_is_not_reached_and_two_levels_have_none():
    record, curves = more_levels([RISES_AND_FALLS, RISES_AND_FALLS, STAYS, FALLS_LATE])
    (line,) = joined(panel_of(draw_summary(record, *tables_of(record, curves)), HALF_LIFE))
    assert np.isfinite(line.get_ydata()).tolist() == [True, True, False, True]
    record, curves = more_levels([RISES_AND_FALLS, FALLS_LATE])
    assert not [line for panel in draw_summary(record, *tables_of(record, curves)).axes for line in joined(panel)]


def test_times_have_an_interval_from_six_seeds_and_an_open_one_goes_up_to_the_edge():
    def bars(seeds: int) -> list:
        record, curves = more_levels([RISES_AND_FALLS, FALLS_LATE], seeds)
        # In two lanes of the second level nothing falls.
        kept = (curves["run"] == "l2=1") & (curves["seed"] < "2") & (curves["evaluator"] == "icl")
        curves.loc[kept, "value"] = STAYS * 2
        panel = panel_of(draw_summary(record, *tables_of(record, curves)), HALF_LIFE)
        return [line for line in panel.lines if line.get_linestyle() == "-" and line.get_marker() == "_"], panel

    assert bars(5)[0] == []
    (closed, open_end), panel = bars(6)
    assert closed.get_ydata()[1] < 30_000
    assert open_end.get_ydata()[1] == panel.get_ylim()[1]
    assert (open_end.get_markevery(), closed.get_markevery()) == ([0], None)


def test_the_foot_of_a_figure_says_once_what_all_runs_share_and_for_each_what_is_its_own(record):
    note = layout.note_of(record, 10, layout.OF_CURVES)
    assert note.count("same for all") == 1
    assert "none: none" in note
    assert "some: some" in note
    assert "Thin: seeds 0, 1, 2; thick: their mean; band, from 3 seeds: its 95% interval." in note


def test_a_run_that_has_nothing_of_its_own_is_not_named_at_the_foot_of_a_figure(record):
    captions = ("same",), ("same", "L2")
    runs = tuple(replace(run, caption=caption) for run, caption in zip(record.runs, captions, strict=True))
    record = replace(record, runs=runs)
    assert layout.note_of(record, 10, layout.OF_PATHS).splitlines()[-1] == "some: L2."
