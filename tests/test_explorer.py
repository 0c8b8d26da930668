"""The explorer in a real browser: numbers of the tables, controls that change the picture, addresses that hold it."""

import base64
import gzip
import json
import re
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import Browser
from finished_study import LAPTOP, plan_of

from icl_transience.analysis.transience import t_half_width
from icl_transience.report import captions
from icl_transience.report.explorer import contents, page
from icl_transience.report.figures.runs import mean_of, of_seeds
from icl_transience.specs.evaluators import METRICS, default_metric
from icl_transience.specs.records import ClaimRecord, LaneRecord, experiment_from
from icl_transience.store import checksums, tables_file
from icl_transience.store.tables_file import Tables

ROOT = Path(__file__).parents[1]
DATA = ROOT / "docs/data"
EVIL = "</script><img src=x onerror='document.title=1'>"
VERDICT = {
    "experiment": "l2",
    "claim": "kept",
    "text": f"less is lost {EVIL}",
    "source": "Fig. 5",
    "tested": "index",
    "statistic": "mean difference",
    "effect_of": "index",
    "effect": "0.25",
    "lower": "0.1",
    "upper": "0.4",
    "confidence": "0.95",
    "evidence": "fixed",
    "e_for": "18",
    "e_against": "0.3",
    "p_holm": "0.03",
    "p_against_holm": "1",
    "verdict": "supported",
    "seeds": "6",
    "note": "",
}


def explored(folder: Path, **changes) -> contents.Explored:
    record = experiment_from(json.loads((folder / "experiment.json").read_text()))
    return contents.Explored(record=record, tables=tables_file.read_tables(folder), **changes)


def with_six_seeds(one: contents.Explored) -> contents.Explored:
    """Three seeds more in the first run, of which the last diverges: enough for a band, and something to leave out."""
    record, curves, lanes = one.record, one.tables.curves, one.tables.lanes
    run = record.runs[0]
    more_curves, more_lanes = [curves], [lanes]
    for number, lane in enumerate(run.lanes):
        seed = str(number + 3)
        its = curves.loc[(curves["run"] == run.name) & (curves["seed"] == lane.seed)].assign(seed=seed)
        its["value"] *= 0.97
        row = lanes.loc[(lanes["run"] == run.name) & (lanes["seed"] == lane.seed)].assign(seed=seed)
        if number == 2:
            its.loc[its["sequences_seen"] > 100_000, "value"] = np.nan
            row["outcome"] = "diverged"
        more_curves.append(its)
        more_lanes.append(row)
    more = tuple(LaneRecord(seed=str(number + 3), pack="p", place=number) for number in range(3))
    record = replace(record, runs=(replace(run, lanes=run.lanes + more), *record.runs[1:]))
    curves = pd.concat(more_curves, ignore_index=True)
    # What the pipeline writes of each evaluator too; the data of docs/ do without.
    losses = curves.loc[curves["evaluator"] != "training"].assign(metric="loss")
    losses["value"] = 2.1 - 2 * losses["value"]
    curves, lanes = pd.concat([curves, losses], ignore_index=True), pd.concat(more_lanes, ignore_index=True)
    tables = Tables(curves, lanes, one.tables.runs)
    return replace(one, record=record, tables=tables)


def made_up_heads(one: contents.Explored) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    seen = sorted(set(one.tables.curves["sequences_seen"]))
    rows = [
        (run.name, lane.seed, at, evaluator, layer, head, measure, rng.random())
        for run in one.record.runs
        for lane in run.lanes
        for evaluator in ("icl", "ciwl")
        for measure in ("induction", "previous_token")
        for layer in (0, 1)
        for head in (0, 1, 2)
        for at in seen
    ]
    columns = ["run", "seed", "sequences_seen", "evaluator", "layer", "head", "measure", "value"]
    return pd.DataFrame(rows, columns=columns)


@pytest.fixture(scope="module")
def shown() -> list[contents.Explored]:
    l2 = with_six_seeds(explored(DATA / "laptop/l2", notes=("These tables are older than the study.",)))
    circuits = explored(DATA / "circuits/transience")
    circuits = replace(circuits, record=replace(circuits.record, question=f"what is inside? {EVIL}"))
    return [l2, replace(circuits, heads=made_up_heads(circuits))]


@pytest.fixture(scope="module")
def text(shown) -> str:
    claim = ClaimRecord(
        name="kept",
        text="less is lost",
        source="Fig. 5",
        kind="difference",
        direction="less",
        of="final_ciwl",
        runs=("l2.strength=0.0001",),
        experiment="l2",
    )
    (kept,) = contents.claims([claim], {("l2", "kept"): VERDICT})
    kept |= {"html": captions.claim_in_html(VERDICT)}
    absent = {"later": "0 of 4 lanes are done, and it has no tables yet"}
    return page.page(contents.study("laptop", "two of them", shown, [kept], absent))


@pytest.fixture(scope="module")
def address(text, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("explorer ü") / "explorer.html"
    path.write_text(text, encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


@pytest.fixture
def opened(browser, address):
    browser.errors.clear()
    browser.prefer("light")
    browser.open(address)
    yield browser
    assert browser.errors == []
    assert browser.run("document.getElementById('problem').hidden")


# Texts and shapes of the picture.
DRAWN = "document.getElementById('picture').innerHTML + document.getElementById('left-out').textContent"

# All of what is drawn: what is on each canvas, and the rest of the page but the controls.
PICTURE = """[...document.querySelectorAll("#picture canvas")].map((one) => one.toDataURL()).join()
    + document.getElementById("picture").innerHTML + getComputedStyle(document.body).backgroundColor"""


def picture(browser: Browser) -> str:
    # uPlot draws at the end of the task that asks for it.
    browser.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return browser.run(PICTURE)


def choose(browser: Browser, key: str, value: str) -> None:
    where = f"document.getElementById({json.dumps(key)})"
    browser.run(f"{where}.value = {json.dumps(value)}; {where}.dispatchEvent(new Event('change'))")


def click(browser: Browser, key: str) -> None:
    browser.run(f"document.getElementById({json.dumps(key)}).click()")


# What it does.


def test_it_loads_by_itself_without_a_network(opened, address):
    assert opened.requests == [address]
    # And may ask for nothing.
    policy = opened.run("document.querySelector('meta[http-equiv]').content")
    assert policy.startswith("default-src 'none'")
    assert opened.run("fetch('https://example.org/').then(() => 'asked', () => 'refused')") == "refused"
    assert opened.run("document.querySelectorAll('#picture canvas').length") == 4


def test_texts_of_a_study_are_texts(opened, text):
    click(opened, "experiment:transience")
    assert EVIL in opened.run("document.getElementById('heading').textContent")
    assert EVIL in opened.run("document.getElementById('claims').textContent")
    assert opened.run("document.querySelectorAll('#body img').length") == 0
    assert "onerror=" not in text


@pytest.mark.parametrize(
    ("view", "same"),
    [
        # A diverged seed is in no mean; accuracies are linear in the figures; and the system is light.
        ("", {("seed:5", None), ("y", "linear"), ("theme", "light")}),
        ("metric=loss", {("seed:5", None), ("y", "log"), ("theme", "light")}),
        ("view=plane", {("seed:5", None), ("metric", "in_context_accuracy"), ("theme", "light")}),
        ("view=heads&experiment=transience", {("theme", "light")}),
    ],
)
def test_every_control_changes_the_picture(opened, address, view, same):
    """Each list to each of its values, each box, each button, from the view that the address says."""
    opened.open(f"{address}#{view}")
    start = opened.run("fragment()")
    found = set()
    controls = opened.run(
        "[...document.querySelectorAll('#controls input, #controls select, #controls button')].map((one) =>"
        " [one.id, one.tagName,"
        " [...(one.options || [])].filter((other) => !other.selected).map((other) => other.value)])"
    )
    assert len(controls) > 7
    for key, kind, values in controls:
        for value in values or [None]:
            opened.run(f"location.hash = {json.dumps(start)}; readFragment(); render()")
            if key.endswith("-all"):
                # What shows all may be shown already.
                click(opened, key.replace("-all", "-none"))
            before = picture(opened)
            if kind == "SELECT":
                choose(opened, key, value)
            else:
                click(opened, key)
            if picture(opened) == before:
                found.add((key, value))
    assert found == same


def test_an_address_holds_the_view(opened, address):
    click(opened, "experiment:transience")
    click(opened, "run:l2/l2.strength=0")
    click(opened, "seed:1")
    click(opened, "evaluator:flip")
    for key, value in (("metric", "loss"), ("x", "linear"), ("y", "linear"), ("show", "seeds"), ("loss", "hidden")):
        choose(opened, key, value)
    choose(opened, "panels", "evaluator")
    state, seen, sent = opened.run("JSON.stringify(state)"), picture(opened), opened.run("location.href")
    opened.open(sent)
    assert opened.run("JSON.stringify(state)") == state
    assert picture(opened) == seen
    # A list without any member is not one of which nothing was said.
    click(opened, "evaluator-none")
    opened.open(opened.run("location.href"))
    assert opened.run("state.evaluator") == []
    # Another address in the same page, as a reader who pastes one has.
    opened.run(f"new Promise((done) => {{ addEventListener('hashchange', done); location.href = {json.dumps(sent)} }})")
    assert opened.run("JSON.stringify(state)") == state


def test_an_address_of_another_study_shows_what_is_there(opened, address):
    opened.open(f"{address}#experiment=gone&experiment=l2&view=nowhere")
    assert opened.run("state.experiment") == ["l2"]
    assert opened.run("state.view") == "curves"


@pytest.mark.parametrize("view", ["curves", "plane", "heads"])
@pytest.mark.parametrize("bad", ["garbage", "__proto__", "toString", "constructor"])
def test_what_an_address_names_and_is_not_there_is_the_default(opened, address, view, bad):
    """Each part of it in turn; the rest of the address stays."""
    good = f"experiment=transience&view={view}&theme=dark&x=linear"
    opened.open(f"{address}#{good}")
    state = opened.run("state")
    for key in state:
        kept = "&".join(one for one in good.split("&") if not one.startswith(f"{key}="))
        opened.run(f"location.hash = {json.dumps(f'{kept}&{key}={bad}')}; readFragment(); render()")
        default = opened.run("initialState()")[key]
        assert opened.run("state") == state | {key: default}
        assert opened.run("document.getElementById('picture').childElementCount") > 0 or key == "experiment"
    opened.open(f"{address}#view={bad}")
    assert opened.run("state.view") == "curves"
    assert opened.run("document.querySelectorAll('#picture canvas').length") == 4


def with_curves(one: contents.Explored, curves: pd.DataFrame) -> contents.Explored:
    return replace(one, tables=Tables(curves, one.tables.lanes, one.tables.runs))


def without_icl(one: contents.Explored) -> contents.Explored:
    return with_curves(one, one.tables.curves.loc[one.tables.curves["evaluator"].isin(["ciwl", "flip", "training"])])


def at_the_start_alone(one: contents.Explored) -> contents.Explored:
    assert one.heads is not None
    heads = one.heads.loc[one.heads["sequences_seen"] == 0]
    return replace(with_curves(one, one.tables.curves.loc[one.tables.curves["sequences_seen"] == 0]), heads=heads)


def lacking_one(one: contents.Explored) -> contents.Explored:
    """The first seed of the first run, which comes before those that have it, lacks an evaluator."""
    curves, run = one.tables.curves, one.record.runs[0]
    lane = (curves["run"] == run.name) & (curves["seed"] == run.lanes[0].seed)
    return with_curves(one, curves.loc[~(lane & (curves["evaluator"] == "ciwl"))])


def diverged(one: contents.Explored) -> contents.Explored:
    assert one.heads is not None
    return replace(with_curves(one, one.tables.curves.assign(value=np.nan)), heads=one.heads.assign(value=np.nan))


def without_heads(one: contents.Explored) -> contents.Explored:
    assert one.heads is not None
    return replace(one, heads=one.heads.iloc[:0])


@pytest.mark.parametrize("change", [without_icl, at_the_start_alone, lacking_one, diverged, without_heads])
def test_poor_tables_are_no_failure(browser, shown, tmp_path, change):
    """Whatever is chosen, there is a picture or a sentence, and no number that is none."""
    one = change(replace(shown[0], heads=made_up_heads(shown[0])))
    path = tmp_path / "explorer.html"
    path.write_text(page.page(contents.study("poor", "", [one])), encoding="utf-8")
    browser.errors.clear()
    for view in ("curves", "plane", "heads"):
        browser.open(f"{path.as_uri()}#view={view}")
        for metric in ("default", "loss"):
            for show in ("mean", "seeds"):
                for x in ("log", "linear"):
                    browser.run(f"set({json.dumps({'metric': metric, 'show': show, 'x': x})})")
                    assert browser.run("document.getElementById('picture').textContent.trim()")
                    assert not re.search("NaN|Infinity|undefined", browser.run(f"{DRAWN}"))
    assert browser.errors == []
    assert browser.run("document.getElementById('problem').hidden")
    browser.run("set({view: 'plane', metric: 'default', show: 'seeds'})")
    paths = browser.run("document.querySelectorAll('.moving').length")
    assert paths == {without_icl: 9, lacking_one: 8, without_heads: 9, at_the_start_alone: 9, diverged: 0}[change]
    if change is without_icl:
        assert browser.run("[across(), upwards()]") == ["flip", "ciwl"]
    if change is without_heads:
        assert browser.run("document.getElementById('view-heads')") is None


def test_a_study_without_tables_to_show_says_why(browser, tmp_path):
    absent = {"l2": "its tables are of other lanes than the study has now"}
    path = tmp_path / "explorer.html"
    path.write_text(page.page(contents.study("old", "", [], [], absent)), encoding="utf-8")
    browser.errors.clear()
    for view in ("curves", "plane", "heads"):
        browser.open(f"{path.as_uri()}#view={view}&x=linear")
        assert "has tables that can be shown" in browser.run("document.getElementById('picture').textContent")
        assert f"l2 ({absent['l2']})" in browser.run("document.getElementById('left-out').textContent")
    assert browser.errors == []
    assert browser.run("document.getElementById('problem').hidden")


def test_it_starts_with_the_axis_of_the_figures(shown):
    record = shown[0].record
    linear = replace(shown[0], record=replace(record, figures=replace(record.figures, x="linear")))
    assert [contents.experiment(one)["x"] for one in (shown[0], linear)] == ["log", "linear"]


def test_an_axis_of_the_figures_is_that_of_the_start(opened):
    opened.run("DATA.experiments[0].x = 'linear'; readFragment(); render()")
    assert opened.run("document.getElementById('x').value") == "linear"
    opened.run("set({x: 'log'})")
    assert opened.run("location.hash") == "#x=log"


def test_its_numbers_are_those_of_the_tables(text, shown):
    (packed,) = re.findall(r'id="data">(.*?)</script>', text)
    data = json.loads(gzip.decompress(base64.b64decode(packed)))
    metrics = list(data["names"]["metrics"])
    for one, given in zip(data["experiments"], shown, strict=True):
        found = {}
        columns = (one["series"][name] for name in ("lane", "evaluator", "metric", "points", "values"))
        for lane, evaluator, metric, points, values in zip(*columns, strict=True):
            run, seed = one["runs"][one["lanes"][lane]["run"]]["name"], one["lanes"][lane]["seed"]
            name = [*one["evaluators"], "training"][evaluator]
            for seen, value in zip(one["points"][points], values, strict=True):
                found[run, seed, seen, name, metrics[metric]] = value
        rows = given.tables.curves
        assert len(found) == len(rows)
        keys = ["run", "seed", "sequences_seen", "evaluator", "metric"]
        for *key, value in rows[[*keys, "value"]].itertuples(index=False):
            assert found[tuple(key)] == (None if np.isnan(value) else float(f"{value:.4g}"))


def test_means_and_bands_are_those_of_the_figures(opened, shown):
    """Of six seeds one diverged: the other five have the mean, and the band."""
    record, curves = shown[0].record, shown[0].tables.curves
    run = record.runs[0]
    for evaluator in ("icl", "training"):
        logarithmic = evaluator == "training"
        metric = "loss" if logarithmic else default_metric(evaluator)
        curve = curves.loc[
            (curves["run"] == run.name) & (curves["evaluator"] == evaluator) & (curves["metric"] == metric)
        ]
        by_seed = of_seeds(curve)
        mean, alive = mean_of(by_seed), by_seed.dropna(axis=1).to_numpy()
        values = np.log(alive) if logarithmic else alive
        low = values.mean(axis=1) - t_half_width(values, record.statistics.confidence)
        (line,) = opened.run(f"linesOf(DATA.experiments[0], DATA.experiments[0].runs[0], '{evaluator}', {{}})")
        assert line["n"] == 5
        assert line["xs"] == list(mean.index)
        # Means of numbers of four digits.
        np.testing.assert_allclose(line["ys"], mean, rtol=5e-4)
        np.testing.assert_allclose(line["low"], np.exp(low) if logarithmic else low, rtol=5e-3)
    two = "linesOf(DATA.experiments[0], DATA.experiments[0].runs[1], 'icl', {})[0]"
    assert opened.run(f"{two}.n") == 3
    assert opened.run(f"{two}.low") is None


def test_the_pointer_and_the_arrow_keys_read_values(opened, shown):
    curves = shown[0].tables.curves
    last = int(curves["sequences_seen"].max())
    panel = "document.querySelector('#picture .uplot')"
    assert opened.run(f"{panel}.tabIndex") == 0
    opened.run(f"{panel}.focus()")
    for _ in range(2):
        opened.press("ArrowLeft", 37)
    said = opened.run("document.getElementById('reading').textContent")
    before_last = sorted(x for x in set(curves["sequences_seen"]) if x < last)[-1]
    icl = opened.run("linesOf(DATA.experiments[0], DATA.experiments[0].runs[0], 'icl', {})[0]")
    value = icl["ys"][icl["xs"].index(before_last)]
    assert re.match(r"at [\d.]+M: ", said)
    assert f"ICL {float(f'{value:.4g}'):g} (" in said
    # All panels read the same point, that of the training loss too.
    values = opened.run("[...document.querySelectorAll('.values')].map((one) => one.textContent)")
    assert len({one.split(":")[0] for one in values}) == 1
    assert any("training loss" in one for one in values)
    box = opened.run(
        f"(({{x, y, width, height}}) => [x, y, width, height])"
        f"({panel}.querySelector('.u-over').getBoundingClientRect())"
    )
    opened.point(box[0] + box[2] / 3, box[1] + box[3] / 2)
    opened.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    pointed = opened.run("document.querySelector('.values').textContent")
    assert pointed != values[0]
    assert pointed.startswith("at ")


def test_panels_are_in_step(opened, address):
    """The training loss has no point at 0, and one experiment is longer than the other."""
    opened.open(f"{address}#experiment=l2&experiment=transience&x=linear")
    spans = opened.run("drawn.map((one) => [one.scales.x.min, one.scales.x.max])")
    # One of them has no training loss in the data of docs/.
    assert spans == [[0, opened.run("points().at(-1)")]] * 5
    # What is enlarged in one is so in it alone, and comes back.
    opened.run("drawn[0].setScale('x', {min: 1000, max: 200000}); new Promise((done) => setTimeout(done))")
    assert opened.run("[drawn[0].scales.x.min, drawn[0].scales.x.max]") == [1000, 200000]


def test_the_slider_moves_a_point_a_run(opened, address, shown):
    opened.open(f"{address}#view=plane")
    points = "[...document.querySelectorAll('.moving')].map((one) => [one.getAttribute('cx'), one.getAttribute('cy')])"
    end = opened.run(points)
    assert len(end) == len(shown[0].record.runs)
    slider = "document.getElementById('time')"
    opened.run(f"{slider}.focus()")
    opened.press("Home", 36)
    assert opened.run(points) != end
    # The first snapshot too: no axis here is logarithmic in time.
    assert opened.run("state.at") == min(shown[0].tables.curves["sequences_seen"]) == 0
    sent, there = opened.run("location.href"), opened.run(points)
    opened.open(sent)
    assert opened.run(points) == there
    # It plays to the end, and stops there.
    click(opened, "play")
    opened.run("new Promise((done) => { const look = () => (playing ? setTimeout(look, 20) : done()); look(); })")
    assert opened.run(points) == end


def test_heat_maps_show_each_head_at_each_snapshot(opened, address, shown):
    opened.open(f"{address}#view=heads&experiment=transience&measure=induction&of=1")
    heads = shown[1].heads
    its = heads.loc[(heads["seed"] == "1") & (heads["evaluator"] == "icl") & (heads["measure"] == "induction")]
    cells = opened.run("document.querySelectorAll('#picture svg rect:not(.frame)').length")
    assert cells == len(its.loc[its["sequences_seen"] > 0])
    opened.run("document.querySelector('#picture svg').focus()")
    opened.press("ArrowDown", 40)
    said = opened.run("document.querySelector('.values').textContent")
    last = its.loc[(its["sequences_seen"] == its["sequences_seen"].max()) & (its["layer"] == 0) & (its["head"] == 1)]
    assert said.startswith("head 0.1 at ")
    assert float(said.rsplit(": ")[1]) == float(f"{last['value'].item():.4g}")


@pytest.mark.parametrize("width", [360, 400])
def test_on_a_telephone_nothing_is_beyond_the_edge_and_words_are_apart(width, opened, address):
    opened.resize(width, 800)
    try:
        for view in ("curves", "plane", "heads"):
            opened.open(f"{address}#view={view}&experiment=l2&experiment=transience")
            pressed = opened.run("document.querySelector('nav [aria-pressed=true]').textContent")
            assert pressed.lower().endswith(view)
            assert opened.beyond() == []
            assert opened.run("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
            sizes = opened.run(
                "[...document.querySelectorAll('#picture svg')].map((one) =>"
                " 12 * one.getBoundingClientRect().width / one.viewBox.baseVal.width)"
            )
            assert bool(sizes) == (view != "curves")
            assert all(size > 8 for size in sizes)
        opened.open(f"{address}#experiment=l2&x=log")
        places = opened.run(
            "(() => { const x = drawn[0].axes[0]; return x._splits.map((one) => drawn[0].valToPos(one, 'x')); })()"
        )
        assert len(places) >= 4
        assert min(np.diff(places)) >= 40
    finally:
        opened.resize(0, 0)


def test_a_claim_leads_to_its_figure(opened):
    claim = "document.querySelector('.claim')"
    assert opened.run(f"{claim}.textContent").startswith("supported: less is lost")
    click(opened, "experiment:transience")
    click(opened, "view-plane")
    click(opened, "claim:l2/kept")
    assert opened.run("[state.view, state.experiment, state.run, state.evaluator]") == [
        *("curves", ["l2"], ["l2/l2.strength=0.0001"], ["icl", "ciwl"]),
    ]
    assert opened.run("document.activeElement.id") == "figure"
    assert opened.run(f"{claim}.getAttribute('aria-current')") == "true"


def test_it_says_what_it_leaves_out(opened):
    said = opened.run("document.getElementById('left-out').textContent")
    assert "1 of 9 lanes diverged and are in no mean: l2.strength=0, seed 5" in said
    assert "Student's t interval of that mean (95%), drawn from 5 seeds on" in said
    assert "These tables are older than the study." in said
    assert "later (0 of 4 lanes are done, and it has no tables yet)" in said
    assert "no place for the snapshot at 0" in said


def test_every_control_has_a_name_and_a_place_in_the_order_of_keys(opened, address):
    for view in ("", "#view=plane", "#view=heads&experiment=transience"):
        opened.open(address + view)
        nameless = opened.run(
            "[...document.querySelectorAll('input, select, button, .uplot, #picture svg')].filter((one) =>"
            " !(one.labels?.[0]?.textContent || one.getAttribute('aria-label') || one.textContent).trim()).length"
        )
        assert nameless == 0
        assert opened.run("document.querySelectorAll('input, select, button').length") > 10
        ids = opened.run("[...document.querySelectorAll('[id]')].map((one) => one.id)")
        assert len(ids) == len(set(ids))


def test_a_control_keeps_the_focus_when_it_is_used(opened):
    opened.run("document.getElementById('evaluator:flip').focus()")
    opened.press(" ", 32)
    opened.run("document.getElementById('evaluator:flip').click()")
    assert opened.run("document.activeElement.id") == "evaluator:flip"


def contrast(first: str, second: str) -> float:
    """Of WCAG 2.1; colours as #rrggbb."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_it_is_dark_where_the_system_is_and_lines_are_seen_there(opened, address, shown):
    light = opened.run("getComputedStyle(document.body).backgroundColor")
    opened.prefer("dark")
    opened.open(address)
    dark = opened.run("getComputedStyle(document.body).backgroundColor")
    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(21, 24, 28)")
    colours = opened.run(
        "[...Object.values(DATA.names.evaluators), ...DATA.experiments.flatMap((one) => one.runs)]"
        ".map((one) => one.colour[1])"
    )
    assert min(contrast(colour, "#15181c") for colour in colours) > 3


# What it is put together from.


def test_its_scripts_and_styles_are_installed_with_the_library():
    shipped = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"][
        "icl_transience"
    ]
    library = ROOT / "src/icl_transience"
    installed = {path for pattern in shipped for path in library.glob(pattern)}
    assert {
        path for path in (library / "report/explorer").iterdir() if path.is_file() and path.suffix != ".py"
    } < installed


def test_the_licence_of_uplot_goes_with_it(text):
    assert "Copyright (c) 2022 Leon Sorokin" in text
    assert "v1.6.32" in text


# How large it is.


@pytest.mark.slow
def test_a_study_of_two_hundred_lanes_fits_into_four_megabytes():
    """Seven evaluators of eight metrics, 60 snapshots; numbers as rough as those of 2,000 sequences."""
    given = explored(DATA / "laptop/l2")
    lanes = tuple(LaneRecord(seed=str(seed), pack="p", place=seed) for seed in range(97))
    record = replace(given.record, runs=tuple(replace(run, lanes=lanes) for run in given.record.runs))
    rng = np.random.default_rng(0)
    evaluators = [name for name in dict.fromkeys(given.tables.curves["evaluator"]) if name != "training"]
    kinds = [(evaluator, metric) for evaluator in evaluators for metric in METRICS] + [("training", "loss")]
    assert len(kinds) == 57
    seen = np.unique(np.geomspace(4096, 704_000, 60).astype(int))
    keys = [(run.name, lane.seed) for run in record.runs for lane in lanes]
    rows = pd.DataFrame(
        [(*lane, *kind) for lane in keys for kind in kinds], columns=["run", "seed", "evaluator", "metric"]
    )
    curves = rows.loc[rows.index.repeat(len(seen))].reset_index(drop=True)
    curves["sequences_seen"] = np.tile(seen, len(rows))
    curves["value"] = rng.random(len(curves))
    of_sequences = curves["metric"].str.endswith("accuracy")
    curves.loc[of_sequences, "value"] = (curves.loc[of_sequences, "value"] * 2000).round() / 2000
    summaries = pd.concat([given.tables.lanes.iloc[[0]].assign(run=run, seed=seed) for run, seed in keys])
    tables = Tables(curves, summaries, given.tables.runs)
    text = page.page(contents.study("large", "", [contents.Explored(record=record, tables=tables)]))
    assert len(tables.lanes) == 194
    # Values without any order, which compress worse than curves.
    assert 1e6 < len(text.encode()) < 4e6


def test_tables_that_are_older_than_the_study_show_what_they_have(shown):
    one = shown[0]
    more = (LaneRecord(seed="99", pack="p", place=0),)
    run = one.record.runs[0]
    record = replace(one.record, runs=(replace(run, lanes=run.lanes + more), replace(run, name="new", lanes=more)))
    kept = contents.of_tables(record, one.tables)
    assert kept is not None
    assert [(run.name, len(run.lanes)) for run in kept.runs] == [(run.name, 6)]
    assert contents.of_tables(replace(record, runs=record.runs[1:]), one.tables) is None


def planned(folder: Path, monkeypatch, text: str = LAPTOP):
    """A plan of which the tables of `l2` alone are there, those of docs/."""
    monkeypatch.chdir(folder)
    plan = plan_of(folder, text)
    its = Path(plan.paths.experiment_folder("l2"))
    shutil.copytree(DATA / "laptop/l2", its, dirs_exist_ok=True)
    checksums.write_checksums(its, tables_file.TABLES)
    return plan


def test_it_is_written_where_its_bytes_differ_alone(tmp_path, monkeypatch):
    plan = planned(tmp_path, monkeypatch)
    said = page.explore(plan)
    path = page.path_of(plan)
    assert said == f"explorer: {path}\nnot in it, for lack of tables: transience"
    made, time = path.read_bytes(), path.stat().st_mtime_ns
    page.explore(plan)
    assert path.stat().st_mtime_ns == time
    # A page that was cut off, or that other code made.
    path.write_bytes(made[:3000])
    page.explore(plan)
    assert path.read_bytes() == made
    asset = page._asset
    monkeypatch.setattr(page, "_asset", lambda name: asset(name) + ("/* new */" if name == "page.css" else ""))
    page.explore(plan)
    assert b"/* new */" in path.read_bytes()


def test_where_all_tables_are_of_other_lanes_it_is_said(tmp_path, monkeypatch):
    plan = planned(tmp_path, monkeypatch, LAPTOP.replace("seeds: [0, 1]", "seeds: [7, 8]"))
    said = page.explore(plan).splitlines()
    assert said[1:] == [
        "not in it, for lack of tables: transience",
        "not in it, since its tables are of other lanes than the study has now: l2",
        "so it has no curves",
    ]
