"""Figures of experiments that nobody ran."""

import itertools
import math
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
from icl_transience.report.figures import experiment, layout, placing, runs, style
from icl_transience.report.figures import lines as figure_lines
from icl_transience.report.figures.experiment import _curves, _grid, _plane, draw_experiment, draw_figure
from icl_transience.report.figures.summary import draw_summary
from icl_transience.report.figures.ticks import LinearTicks, LogTicks
from icl_transience.specs import evaluators
from icl_transience.specs.figures import drawn_by_default
from icl_transience.specs.records import ExperimentRecord
from icl_transience.store import tables_file
from icl_transience.store.tables_file import Tables

ROOT = Path(__file__).parents[1]
L2, DEPTH = "optimizer.l2.strength", "model.depth"


def tables_of(folder: Path, record: ExperimentRecord, curves: pd.DataFrame, diverged: tuple = ()) -> Tables:
    summaries.write_summaries(folder, record, curves, diverged)
    return Tables(curves, *(tables_file.read_csv(folder / name) for name in ("transience.csv", "runs.csv")))


def summarised(record: ExperimentRecord, curves: pd.DataFrame) -> list[pd.DataFrame]:
    """transience.csv and runs.csv."""
    with tempfile.TemporaryDirectory() as folder:
        tables = tables_of(Path(folder), record, curves)
    return [tables.lanes, tables.runs]


def asking(record: ExperimentRecord, **asked) -> ExperimentRecord:
    return replace(record, figures=replace(record.figures, **asked))


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


@pytest.mark.parametrize("name", ["curves", "comparison", "summary", "plane", "grid", "strategy"])
def test_equal_tables_give_equal_figures(tmp_path, record, curves, two_axes, name):
    if name == "grid":
        record, curves = two_axes
    tables, drawn = tables_of(tmp_path, record, curves), []
    for attempt in ("first", "second"):
        paths = [tmp_path / f"{attempt}.{kind}" for kind in ("svg", "png", "pdf")]
        draw_figure(name, record, tables, *paths)
        drawn.append([path.read_bytes() for path in paths])
    assert drawn[0] == drawn[1]
    assert drawn[0][0].startswith(b"<?xml")
    assert drawn[0][1].startswith(b"\x89PNG")
    assert drawn[0][2].startswith(b"%PDF")


@pytest.mark.parametrize("name", ["summary", "plane"])
def test_another_curve_gives_another_figure(tmp_path, record, curves, name):
    drawn = []
    for shift in (0.0, 0.05):
        shifted = curves.assign(value=curves["value"] + shift)
        draw_figure(name, record, tables_of(tmp_path, record, shifted), tmp_path / "a.svg")
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
    "two axes of three levels": (
        f"axes: {{{L2}: [0, 1.0e-5, 1.0e-4], {DEPTH}: [1, 2, 3]}}",
        [*ALONG_NUMBERS, "grid", "map"],
    ),
    "acquisition": (
        f"axes: {{{DEPTH}: [1, 2]}}, statistics: {{acquisition: true}}",
        [*ALONG_NUMBERS, "survival"],
    ),
    "three axes": (f"axes: {{{L2}: [0, 1.0e-4], {DEPTH}: [1, 2], model.width: [32, 64]}}", ALONG_NUMBERS),
    "named runs along one axis": ("runs: {a: {}, b: {model: {depth: 3}}}", ALONG_NUMBERS),
    "named runs in no order": ("runs: {a: {}, b: {model: {depth: 3}}, c: {batch_size: 16}}", NO_ORDER),
    "a strategy": ("evaluation: {strategy: {predictors: empirical}}", ["curves", "plane", "strategy"]),
    "without ICL": ("evaluation: {evaluators: [ciwl]}, statistics: {evaluator: ciwl}", ["curves"]),
    "without CIWL": (f"axes: {{{L2}: [0, 1]}}, evaluation: {{evaluators: [icl, iwl]}}", ALONG_NUMBERS),
}


def planned(folder: Path, experiment: str) -> Plan:
    (folder / "mine.yaml").write_text(f"experiments: {{a: {{{experiment}}}}}")
    return Plan({"study": str(folder / "mine.yaml"), "results": str(folder / "results")}, ROOT)


@pytest.mark.parametrize(("experiment", "expected"), KINDS.values(), ids=KINDS)
def test_every_kind_of_experiment_has_its_figures(tmp_path, experiment, expected):
    assert list(planned(tmp_path, experiment).targets.figures("a")) == expected


# Kind of experiment, what becomes of its lanes, and which figures are drawn.
FATES = [
    *((kind, "as usual", KINDS[kind][1]) for kind in ("one run", "words", "without ICL", "without CIWL")),
    ("two axes", "one lane diverged", ["summary", "plane", "grid"]),
    ("three axes", "as usual", ["summary"]),
    *(("a strategy", fate, ["curves", "strategy"]) for fate in ("as usual", "one lane diverged", "all diverged")),
    *(("numbers", fate, ALONG_NUMBERS) for fate in ("one lane diverged", "nothing emerged", "all diverged")),
]


@pytest.mark.parametrize(("kind", "fate", "names"), FATES, ids=[f"{kind}, {fate}" for kind, fate, _ in FATES])
def test_figures_can_be_drawn_whatever_becomes_of_the_lanes(tmp_path, kind, fate, names):
    plan = planned(tmp_path, KINDS[kind][0])
    record = plan.records.experiment("a", figures=True)
    level = [0.5] * len(SEEN) if fate == "nothing emerged" else RISES_AND_FALLS
    curves = make_curves(record, {run.name: level for run in record.runs})
    there = {*plan.study.experiments["a"].runs[0].sequence_set.curves, "training"}
    curves = curves[curves["evaluator"].isin(there)].copy()
    gone = {(run.name, lane.seed) for run in record.runs for lane in run.lanes}
    gone = {"one lane diverged": {min(gone)}, "all diverged": gone}.get(fate, set())
    for run, seed in gone:
        late = (curves["run"] == run) & (curves["seed"] == seed) & (curves["sequences_seen"] > 4000)
        curves.loc[late, "value"] = np.nan
    tables = tables_of(tmp_path, record, curves, gone)
    with matplotlib.rc_context(style.STYLE):
        for name in names:
            assert_inside(experiment._figure(name, record, tables))


def test_a_peak_is_marked_only_where_something_emerged(tmp_path, record):
    curves = make_curves(record, {"none": RISES_AND_FALLS, "some": [0.52] * len(SEEN)})
    marked, unmarked = _curves(record, tables_of(tmp_path, record, curves)).axes[:2]
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


# Of sequences seen from the first snapshot to 3k, 32k and 2M; of losses; of next to nothing.
SPANS = [(256, 3072), (1024, 32_000), (1024, 2e6), (0.02, 5), (0.002, 5), (1.35, 9), (2.1, 2.2), (1000, 1000.5)]


@pytest.mark.parametrize("inches", [1.2, 6.4])
@pytest.mark.parametrize(("lowest", "highest"), SPANS)
@pytest.mark.parametrize("scale", ["log", "linear"])
def test_an_axis_has_three_ticks_at_least_and_room_for_their_labels(scale, lowest, highest, inches):
    axes = Figure(figsize=(inches, 2)).subplots()
    axes.plot([lowest, highest], [0, 1])
    figure_lines.sequences_axis(axes, scale)
    axes.figure.draw_without_rendering()
    start, end = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if start <= tick <= end]
    assert len(ticks) >= 3
    assert len(ticks) <= max(8, axes.xaxis.get_tick_space())
    assert isinstance(axes.xaxis.get_major_locator(), LogTicks if scale == "log" else LinearTicks)


@pytest.mark.parametrize(
    ("lowest", "highest", "labelled"),
    [(0.02, 5, [0.03, 0.1, 0.3, 1, 3]), (0.002, 5, [0.01, 0.1, 1]), (256, 3072, [300, 1000, 3000])],
)
def test_powers_of_ten_are_labelled_and_what_is_between_them_where_they_are_few(lowest, highest, labelled):
    axes = Figure().subplots()
    axes.set(yscale="log", ylim=(lowest, highest))
    axes.yaxis.set_major_locator(LogTicks())
    assert list(axes.get_yticks()) == pytest.approx(labelled)


def assert_inside(figure: Figure) -> None:
    """No words of the title or the foot beyond the edge."""
    figure.draw_without_rendering()
    for text in (figure._suptitle, figure._supxlabel):
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width


def test_a_figure_shows_other_contexts_dashed_in_their_evaluators_colour(tmp_path, record, curves):
    def drawn(table: pd.DataFrame) -> Figure:
        asked = asking(
            record, evaluators=drawn_by_default(evaluators.in_order({*table["evaluator"]} - {"training", "strategy"}))
        )
        return _curves(asked, tables_of(tmp_path, asked, table))

    def dashed(table: pd.DataFrame) -> list:
        lines = drawn(table).axes[0].lines
        # A level of chance is dashed too, but has only two ends.
        return [line for line in lines if line.get_linestyle() == "--" and len(line.get_ydata()) > 2]

    assert dashed(curves) == []
    longer, shorter = dashed(at_other_contexts(curves))  # the first lies on top
    assert {line.get_color() for line in (shorter, longer)} == {runs.COLOURS["icl"]}
    assert shorter.get_ydata().tolist() == pytest.approx([value - 0.2 for value in RISES_AND_FALLS[1:]])
    assert longer.get_ydata().tolist() == pytest.approx([value - 0.1 for value in RISES_AND_FALLS[1:]])
    texts = [text.get_text() for text in drawn(at_other_contexts(curves)).axes[1].texts]
    assert "ICL, context 4 0.70" in texts
    assert "ICL, context 16 0.80" in texts


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


def test_the_path_in_the_plane_is_the_mean_of_icl_against_that_of_ciwl(tmp_path, record, curves):
    curves.loc[curves["evaluator"] == "ciwl", "value"] = curves["sequences_seen"] / SEEN[-1]
    panel = _plane(record, tables_of(tmp_path, record, curves)).axes[1]
    paths = [line for line in panel.lines if line.get_linewidth() == 2]
    assert [path.get_xdata().tolist() for path in paths] == [pytest.approx(RISES_AND_FALLS), pytest.approx(STAYS)]
    assert paths[0].get_ydata().tolist() == pytest.approx([seen / SEEN[-1] for seen in SEEN])
    assert panel.get_ylabel() == "CIWL: in-context accuracy"


def test_a_path_is_marked_at_powers_of_ten():
    assert figure_lines._powers_of_ten(pd.Index([0, 512, 1100, 9000, 12_000, 50_000])) == [1100, 9000]
    assert figure_lines._powers_of_ten(pd.Index([0, 512])) == figure_lines._powers_of_ten(pd.Index([])) == []


def test_a_grid_has_a_row_and_a_column_a_level_in_order(tmp_path, two_axes):
    record, curves = two_axes
    figure = _grid(record, tables_of(tmp_path, record, curves))
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
    figure = draw_summary(record, *summarised(record, curves))
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


def test_means_and_seeds_of_an_index_below_zero_lie_within_the_panel(record, curves):
    lanes, of_runs = summarised(record, curves)
    for table in (lanes, of_runs):
        table.loc[table["run"] == "some", "index"] = -0.4
    panel = panel_of(draw_summary(record, lanes, of_runs), "transience index")
    lowest = min(y for line in panel.lines if line.get_marker() in ("o", "_") for y in line.get_ydata())
    assert panel.get_ylim()[0] < lowest == -0.4


def test_half_lives_past_the_horizon_point_upwards_and_lanes_without_one_are_crosses(record, curves):
    curves.loc[(curves["run"] == "none") & (curves["seed"] == "0") & (curves["evaluator"] == "icl"), "value"] = 0.5
    lanes, of_runs = summarised(record, curves)
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
    lanes, of_runs = summarised(record, curves)
    assert lanes.groupby("run")["half_life"].mean().is_monotonic_decreasing
    panel = panel_of(draw_summary(record, lanes, of_runs), HALF_LIFE)
    assert all(np.isnan(line.get_ydata()).all() for line in joined(panel))
    # One mark a seed and one a level at the edge.
    assert [len(line.get_xdata()) for line in panel.lines if line.get_marker() == "^"] == [3, 3, 3, 1, 1, 1]
    assert not [line for line in panel.lines if line.get_marker() == "_" and len(line.get_xdata())]


def test_a_line_has_a_gap_where_a_median_is_not_reached_and_two_levels_have_none():
    record, curves = more_levels([RISES_AND_FALLS, RISES_AND_FALLS, STAYS, FALLS_LATE])
    (line,) = joined(panel_of(draw_summary(record, *summarised(record, curves)), HALF_LIFE))
    assert np.isfinite(line.get_ydata()).tolist() == [True, True, False, True]
    record, curves = more_levels([RISES_AND_FALLS, FALLS_LATE])
    assert not [line for panel in draw_summary(record, *summarised(record, curves)).axes for line in joined(panel)]


def test_times_have_an_interval_from_six_seeds_and_an_open_one_goes_up_to_the_edge():
    def bars(seeds: int) -> list:
        record, curves = more_levels([RISES_AND_FALLS, FALLS_LATE], seeds)
        # In two lanes of the second level nothing falls.
        kept = (curves["run"] == "l2=1") & (curves["seed"] < "2") & (curves["evaluator"] == "icl")
        curves.loc[kept, "value"] = STAYS * 2
        panel = panel_of(draw_summary(record, *summarised(record, curves)), HALF_LIFE)
        return [line for line in panel.lines if line.get_linestyle() == "-" and line.get_marker() == "_"], panel

    assert bars(5)[0] == []
    (closed, open_end), panel = bars(6)
    assert closed.get_ydata()[1] < 30_000
    assert open_end.get_ydata()[1] == panel.get_ylim()[1]
    assert (open_end.get_markevery(), closed.get_markevery()) == ([0], None)


def test_the_foot_of_a_figure_says_once_what_all_runs_share_and_for_each_what_is_its_own(record):
    note = "\n".join(layout.note_of(record, layout.of_curves(record, ["icl"])))
    assert note.count("same for all") == 1
    assert "none: none" in note
    assert "some: some" in note
    assert "Thin: seeds 0, 1, 2; thick: their mean; dotted: chance;" in note
    assert "band" not in note


def test_a_run_that_has_nothing_of_its_own_is_not_named_at_the_foot_of_a_figure(record):
    captions = ("same",), ("same", "L2")
    runs = tuple(replace(run, caption=caption) for run, caption in zip(record.runs, captions, strict=True))
    record = replace(record, runs=runs)
    assert layout.note_of(record, layout.of_paths(record))[-1] == "some: L2."


def test_where_axes_cross_the_foot_of_a_figure_says_what_belongs_to_each_level_once(record):
    def crossed(*captions):
        axes = [{"a": a, "b": b} for a in (1, 2) for b in (3, 4)]
        (run, *_), names = record.runs, [f"a={one['a']},b={one['b']}" for one in axes]
        runs = [replace(run, name=name, axes=at, caption=c) for name, at, c in zip(names, axes, captions, strict=True)]
        return layout.note_of(replace(record, runs=tuple(runs)), layout.of_paths(record))[-1]

    both = [("same", f"{a} heads", f"{b} layers") for a in (1, 2) for b in (3, 4)]
    assert crossed(*both) == "a=1: 1 heads. a=2: 2 heads. b=3: 3 layers. b=4: 4 layers."
    # A run that has something more is named, and so are all.
    assert crossed((*both[0], "alone"), *both[1:]).startswith("a=1,b=3: 1 heads; 3 layers; alone. a=1,b=4: 1 heads;")


# What a study asks its figures to show.


def test_every_evaluator_but_train_is_drawn_unless_a_study_names_others(tmp_path):
    asked = planned(tmp_path, "evaluation: {contexts: {icl: [4]}}").study.experiments["a"].figures
    assert asked.drawn == ("icl", "icl@4", "ciwl", "iwl", "flip", "icl_holdout", "icl_new_exemplar")
    named = planned(tmp_path, "figures: {evaluators: [train, icl_holdout]}").study.experiments["a"].figures
    assert named.drawn == ("train", "icl_holdout")


def test_an_evaluator_of_ones_own_is_drawn_with_a_colour_and_a_name(tmp_path, monkeypatch, record, curves):
    for module in (evaluators, runs):
        monkeypatch.setattr(module, "EVALUATORS", (*evaluators.EVALUATORS, "long_icl"))
    monkeypatch.setitem(evaluators.DEFAULT_METRIC, "long_icl", "in_context_accuracy")
    own = curves[curves["evaluator"] == "icl"].assign(evaluator="long_icl", value=0.42)
    record = asking(record, evaluators=("icl", "long_icl"))
    panel = _curves(record, tables_of(tmp_path, record, pd.concat([curves, own]))).axes[1]
    assert "long icl 0.42" in [text.get_text() for text in panel.texts]
    (line,) = thick(panel, runs.colour_of("long_icl"))
    assert set(line.get_ydata()) == {0.42}


def test_the_metric_that_is_asked_for_is_drawn_without_a_chance_or_peak_that_it_does_not_have(tmp_path, record, curves):
    losses = curves[curves["evaluator"] == "icl"].assign(metric="loss", value=2.5)
    record = asking(record, evaluators=("icl",), metric="loss")
    figure = _curves(record, tables_of(tmp_path, record, pd.concat([curves, losses])))
    panel = figure.axes[0]
    assert panel.get_ylabel() == "loss"
    assert panel.get_yscale() == "log"
    assert [line.get_ydata().tolist() for line in thick(panel, runs.COLOURS["icl"])] == [[2.5] * 6]
    assert [text.get_text() for text in panel.texts] == ["2.50"]
    assert not {"v", ":"} & {line.get_marker() for line in panel.lines}
    assert "ICL: loss." in figure._supxlabel.get_text()
    assert "chance" not in figure._supxlabel.get_text()


def test_on_a_linear_axis_curves_begin_at_the_start(tmp_path, record, curves):
    for scale, first in (("log", 1000), ("linear", 0)):
        asked = asking(record, x=scale)
        panel = _curves(asked, tables_of(tmp_path, asked, curves)).axes[0]
        assert panel.get_xscale() == scale
        assert thick(panel, runs.COLOURS["icl"])[0].get_xdata()[0] == first


def test_a_title_can_be_left_out_and_the_foot_stays(tmp_path, record, curves):
    asked = asking(record, title=False)
    figure = _curves(asked, tables_of(tmp_path, asked, curves))
    assert figure._suptitle is None
    assert "Study made_up." in figure._supxlabel.get_text()


def test_figures_are_drawn_in_the_formats_asked_for_and_those_from_before_are_removed(tmp_path, record, curves):
    tables = tables_of(tmp_path, record, curves)
    (tmp_path / "notes.png").touch()
    draw_experiment(asking(record, formats=("svg", "png")), tables, tmp_path)
    drawn = draw_experiment(asking(record, formats=("pdf",), evaluators=("icl",)), tables, tmp_path)
    assert [path.name for path in drawn] == ["curves.pdf", "comparison.pdf", "summary.pdf"]
    there = {path.name for kind in ("svg", "png", "pdf") for path in tmp_path.glob(f"*.{kind}")}
    assert there == {path.name for path in drawn} | {"notes.png"}


# What figures say is what tables say, and nothing is hidden.


def test_every_column_is_labelled_with_the_final_values_of_the_table(tmp_path, record, curves):
    """Of a lane that diverged the table has none, and the curve of its mean ends as the table says."""
    tables = tables_of(tmp_path, record, curves)
    tables.runs.loc[tables.runs["run"] == "none", "final_icl"] = 0.123
    for panel, run in zip(_curves(record, tables).axes, record.runs, strict=False):
        row = tables.run(run.name)
        values = {f"{row[f'final_{name}']:.2f}" for name in record.figures.drawn}
        assert values == {text.get_text().split()[-1] for text in panel.texts if text.get_text()[-3:-2] == "."}
    assert "0.12" in {text.get_text() for text in _curves(record, tables).axes[0].texts}


def test_the_peak_that_is_marked_is_the_tables(tmp_path, record, curves):
    tables = tables_of(tmp_path, record, curves)
    tables.runs.loc[tables.runs["run"] == "none", ["peak", "peak_at", "n_peak_at"]] = 0.77, 3210, 2
    panel = _curves(record, tables).axes[0]
    (mark,) = [line for line in panel.lines if line.get_marker() == "v"]
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (3210, 0.77)
    assert "peak 0.77\nat 3.21k (2 of 3)" in [text.get_text() for text in panel.texts]


@pytest.mark.parametrize(("seeds", "bands"), [(1, 0), (3, 0), (4, 0), (5, 1), (6, 1)])
def test_few_seeds_are_drawn_themselves_and_many_have_a_band_as_well(seeds, bands):
    record = make_record({"only": {}}, seeds)
    axes = Figure().subplots()
    icl = make_curves(record, {"only": RISES_AND_FALLS})
    line = figure_lines.draw_seeds(axes, icl[icl["evaluator"] == "icl"], "black", 0.95)
    assert len(axes.collections) == bands
    assert len(axes.lines) == (1 if seeds == 1 else seeds + 1)
    assert line is axes.lines[-1]


@pytest.mark.parametrize("name", ["curves", "comparison", "plane", "grid"])
def test_nothing_that_is_drawn_hides_curves(tmp_path, record, curves, two_axes, name):
    """Words have no background and lie below all lines; marks lie over curves at their edges alone."""
    if name == "grid":
        record, curves = two_axes
    with matplotlib.rc_context(style.STYLE):
        figure = experiment._figure(name, record, tables_of(tmp_path, record, curves))
    lines = [line for panel in figure.axes for line in panel.lines if line.get_linestyle() != "--"]
    lines = [line for line in lines if len(line.get_xdata()) > 2 or line.get_marker() != "None"]
    words = [text for panel in figure.axes for text in panel.texts]
    assert not [text for text in words if text.get_path_effects() or text.get_bbox_patch()]
    inside = [text for text in words if text.xycoords != text.axes.transAxes]
    assert max((text.get_zorder() for text in inside), default=0) < min(line.get_zorder() for line in lines)
    colours = [colour for line in lines for colour in (line.get_markerfacecolor(), line.get_markeredgecolor())]
    assert "#ffffff" not in {to_hex(colour) for colour in colours if not isinstance(colour, str) or colour != "none"}


@pytest.mark.parametrize(
    "shown", [("icl",), ("icl", "iwl"), ("icl", "iwl", "ciwl"), ("icl", "iwl", "ciwl", "flip", "icl_holdout")]
)
def test_the_legend_of_a_comparison_takes_a_panel_that_is_free_or_a_line_below_all(tmp_path, record, curves, shown):
    asked = asking(record, evaluators=shown)
    with matplotlib.rc_context(style.STYLE):
        figure = experiment._figure("comparison", asked, tables_of(tmp_path, asked, curves))
        figure.draw_without_rendering()
    n_panels = len(shown) + 1
    rows = -(-n_panels // 3)
    (legend,) = [panel.get_legend() for panel in figure.axes if panel.get_legend()]
    panels = [panel for panel in figure.axes if panel.axison]
    assert len(panels) == n_panels
    assert len(legend.get_lines()) == len(record.runs)
    box, boxes = legend.get_window_extent(), [panel.get_window_extent() for panel in panels]
    assert not [one for one in boxes if one.overlaps(box)]
    below_all = box.y1 < min(one.y0 for one in boxes)
    assert below_all == (n_panels % 3 == 0)
    assert len({round(one.y0) for one in boxes}) == rows
    assert len({panel.get_xlim() for panel in panels}) == 1


@pytest.mark.filterwarnings("error:constrained_layout not applied")
@pytest.mark.parametrize("length", [4, 24, 60, 100, 300])
@pytest.mark.parametrize("shown", [("icl",), ("icl", "iwl", "ciwl")])
def test_panels_of_a_comparison_are_as_wide_as_each_other_whatever_runs_are_called(tmp_path, shown, length):
    """A legend in the place of a panel is as wide as its words, and would push the others apart."""
    number = 36 if length == 24 else 2
    named = make_record({f"{n}{',recipe.burstiness=2' * 15}"[:length]: {} for n in range(number)})
    asked = asking(named, evaluators=shown)
    curves = make_curves(named, {run.name: STAYS for run in named.runs})
    with matplotlib.rc_context(style.STYLE):
        figure = experiment._figure("comparison", asked, tables_of(tmp_path, asked, curves))
        figure.draw_without_rendering()
    panels = [panel for panel in figure.axes if panel.axison]
    assert len({round(panel.get_window_extent().width) for panel in panels}) == 1
    (legend,) = [panel.get_legend() for panel in figure.axes if panel.get_legend()]
    around = [panel.get_tightbbox() for panel in panels]
    for words in (legend, *(panel.title for panel in panels)):
        box = words.get_window_extent()
        assert (box.x0 >= 0) & (box.x1 <= figure.bbox.x1)
    assert not [box for box in around if box.overlaps(legend.get_window_extent())]
    foot = min(figure.texts, key=lambda text: text.get_window_extent().y0)
    assert not foot.get_window_extent().overlaps(legend.get_window_extent())


@pytest.mark.parametrize("spread", [0.4, 0.01, 0.0])
def test_labels_of_the_plane_do_not_collide(tmp_path, spread):
    """However little a path moves between powers of ten."""
    record = make_record({"only": {}})
    seen = [0, *(10**power for power in range(3, 9))]
    share = dict(zip(seen, np.linspace(0, spread, len(seen)), strict=True))
    curves = make_curves(record, {"only": RISES_AND_FALLS})
    curves["sequences_seen"] = curves["sequences_seen"].map(dict(zip(SEEN, seen, strict=True)))
    for name in ("icl", "ciwl", "iwl"):
        rows = curves["evaluator"] == name
        curves.loc[rows, "value"] = 0.5 + curves.loc[rows, "sequences_seen"].map(share)
    with matplotlib.rc_context(style.STYLE):
        figure = _plane(record, tables_of(tmp_path, record, curves))
    for panel in figure.axes[1:]:
        boxes = [placing.box_of(text) for text in panel.texts]
        assert len(boxes) == 6
        assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]


def test_names_at_the_ends_of_curves_move_apart_as_little_as_can_be():
    assert placing.apart([0.1, 0.5, 0.9], 0.1) == [0.1, 0.5, 0.9]
    assert placing.apart([0.5, 0.5, 0.5], 0.1) == pytest.approx([0.4, 0.5, 0.6])
    assert placing.apart([0.0, 0.5, 0.52, 0.61], 0.1) == pytest.approx([0.0, 0.4433, 0.5433, 0.6433], abs=1e-3)


def test_words_are_placed_where_no_curve_is():
    axes = Figure(figsize=(4, 3), layout="constrained").subplots()
    axes.plot([0, 0.4], [0.5, 0.5])
    axes.set(xlim=(0, 1), ylim=(0, 1))
    words = placing.Words.none()
    words.add(axes, "chance", (0.01, 0.5), [*placing.along(0.5, -4)])
    words.settle(axes.figure)
    (text,) = axes.texts
    assert text.xy[0] == 0.5 or text.xy[0] == 0.99


def test_a_seed_without_a_point_at_the_horizon_stays_in_the_mean_and_one_that_diverged_does_not():
    """A horizon within a segment of one pack may be the end of another's."""
    values = {"0": [0.5, 0.7, 0.6], "1": [0.5, 0.9], "2": [0.5, math.nan, math.nan]}
    curve = pd.DataFrame(
        [(seen, seed, value) for seed, of in values.items() for seen, value in zip((1, 2, 3), of, strict=False)],
        columns=["sequences_seen", "seed", "value"],
    )
    mean = runs.mean_of(runs.of_seeds(curve))
    assert mean.to_dict() == pytest.approx({1: 0.5, 2: 0.8})
