"""Marks in the panels of a figure: chance, peaks, names and values at the ends of curves."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.transforms import offset_copy

from icl_transience.report.figures.numbers import Peak
from icl_transience.report.figures.placing import Words, along, around
from icl_transience.report.figures.runs import GREY, chance_of, colour_of, is_at_other_context, name_of
from icl_transience.specs.records import ExperimentRecord, RunRecord


def mark_chance(
    axes: Axes, record: ExperimentRecord, runs: Sequence[RunRecord], shown: Sequence[str], words: Words | None = None
) -> None:
    """Draw a dotted line at each evaluator's chance level; one for those that share it.

    words: to which the levels' names are added, to be placed where no curve is.
    """
    levels: dict[float, dict[str, None]] = {}
    for run in runs:
        for name in shown:
            if (level := chance_of(record, run, name)) is not None:
                levels.setdefault(level, {})[name] = None
    for level, names in ((level, list(at_level)) for level, at_level in levels.items()):
        colour = colour_of(names[0]) if len(names) == 1 < len(shown) else GREY
        axes.axhline(level, color=colour, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
        if words is not None and level > 0.05:  # at 1/#labels the label would lie on the axis
            # Of many that share a level the first ones stand for all.
            of = f" {', '.join(map(name_of, names[:2]))}" + (", …" if len(names) > 2 else "") if len(shown) > 1 else ""
            words.add(
                axes,
                f"chance{of}",
                (0.01, level),
                along(level, 1.5),
                xycoords=axes.get_yaxis_transform(),
                fontsize=7,
                color=colour,
            )


def mark_peak(axes: Axes, record: ExperimentRecord, peak: Peak | None, words: Words | None = None) -> None:
    """Mark where the evaluator that is summarised is highest, if it is; words: to which its numbers are added."""
    if peak is None:
        return
    colour = colour_of(record.statistics.evaluator)
    size = 7
    figure = axes.figure
    # Its tip, and not its middle, is at the peak: it would hide the curves there.
    above = offset_copy(axes.transData, figure, y=size / 2, units="points")  # pyright: ignore[reportArgumentType]
    axes.plot([peak.at], [peak.value], marker="v", markersize=size, color=colour, linestyle="", transform=above)
    if words is not None:
        some = f" ({peak.seeds} of {peak.of})" if peak.seeds < peak.of else ""
        text = f"peak {peak.value:.2f}\n{peak.place}{some}"
        at = (peak.at, peak.value)
        words.add(axes, text, at, around(9, 16, 26, 40), ha="center", fontsize=8, color=colour)


def label_ends(
    axes: Axes, ends: Mapping[str, float | None], words: Words, *, names: bool = True, in_layout: bool = True
) -> None:
    """Write each curve's value at its right end, after its name.

    ends: evaluator -> value. names: whether the names are written. in_layout: take room from panels beside it.
    """
    labels = []
    for name, value in ends.items():
        if value is None:
            continue
        label = axes.annotate(
            f"{name_of(name)} {value:.2f}" if names else f"{value:.2f}",
            (1, value),
            xycoords=axes.get_yaxis_transform(),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=colour_of(name),
            fontweight="normal" if is_at_other_context(name) else "bold",
            annotation_clip=False,
        )
        label.set_in_layout(in_layout)
        labels.append(label)
    words.ends.append((axes, labels))


def mark_chance_of_plane(axes: Axes, record: ExperimentRecord, across: str, upwards: str) -> None:
    """Draw dotted lines at the chance levels of two evaluators that are drawn against each other."""
    for name, line in ((across, axes.axvline), (upwards, axes.axhline)):
        if (level := chance_of(record, record.runs[0], name)) is not None:
            line(level, color=GREY, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
