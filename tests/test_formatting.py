"""Numbers, paths and tables as people read them."""

from pathlib import Path

import pytest

from icl_transience.system import formatting


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (999, "999"), (1000, "1k"), (131_072, "131k"), (1.28e6, "1.28M"), (1.6e9, "1.6G")]
)
def test_counts_are_written_short(number, text):
    assert formatting.format_count(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00k"),
        (1_600_000_000, "1.60G"),
        (999_999, "1.00M"),
        (12_345, "12.3k"),
        (10**26, "100Y"),
    ],
)
def test_large_numbers_have_three_digits(number, text):
    assert formatting.format_large_count(number) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1280, "1.3 kB"), (1_280_000, "1.3 MB"), (3 * 10**15, "3,000.0 TB")]
)
def test_sizes_are_in_their_largest_unit(size, text):
    assert formatting.format_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0 s"), (59.94, "59.9 s"), (90, "1.5 min"), (5400, "1.5 h"), (3600 * 2500, "2,500.0 h")]
)
def test_durations_are_in_their_largest_unit(seconds, text):
    assert formatting.format_duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3725, "1:02:05"), (360_000, "100:00:00")]
)
def test_a_clock_shows_hours_minutes_and_seconds(seconds, text):
    assert formatting.format_clock(seconds) == text


def test_a_path_takes_one_line():
    assert formatting.format_path(Path("results/é")) == "results/é"
    assert formatting.format_path(Path("a\nb")) == r"'a\nb'"


def test_a_table_is_aligned_and_no_line_ends_in_spaces():
    rows = [("run", "lanes", ""), ("baseline", "4", "x"), ("l2", "12", "")]
    assert formatting.format_table(rows) == ["run       lanes", "baseline      4  x", "l2           12"]
    assert formatting.format_table(rows, left=(0, 1)) == ["run       lanes", "baseline  4      x", "l2        12"]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (400, "6:40"), (7325, "122:05")])
def test_minutes_and_seconds_of_a_job(seconds, text):
    assert formatting.format_minutes(seconds) == text
