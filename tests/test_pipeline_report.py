"""The report, made by the real Snakemake and read in a real browser that clicks through all of it."""

import base64
import gzip
import html
import json
import re
from pathlib import Path

import pytest
from browser import Browser
from pipeline import TINY, Clone, made_once

from icl_transience.analysis import words

# What a stranger may ask: to end the page's script, to be markup, to be a template.
QUESTION = "</script><b id='evil'>does</b> it {{ 7 * 7 }} come & go? $x$"
SMALL = (
    TINY.replace("horizon: 2048", "horizon: 1024")
    .replace("seeds: [0, 1]", "seeds: [0]")
    .replace("does it come and go?", QUESTION)
)
# A claim of several lines, of which one would put a file into the page.
VERDICTS = (
    "experiment,claim,text,source,tested,statistic,effect_of,effect,lower,upper,confidence,evidence,e_for,e_against,"
    "p_holm,p_against_holm,verdict,seeds,note\n"
    'l2,kept,"L2 & time <keep> ICL\u2028\n\n.. include:: config.yaml\n",Fig. 5,'
    "index: some < none,mean difference,index: some < none,0.25,0.126,0.375,0.95,fixed,18,0.3,0.03,1,supported,6,"
    "a note\n"
)

# Notes what goes wrong from the first line on; then clicks on every category, and there on every eye and caption.
LISTEN = """<script>
const found = {errors: [], categories: {}, pictures: {}};
window.addEventListener("error", event => found.errors.push(event.message));
window.addEventListener("unhandledrejection", event => found.errors.push(String(event.reason)));
console.error = (...said) => found.errors.push(said.join(" "));
</script>"""
CLICK = """<script>
const wait = () => new Promise(done => setTimeout(done, 200));
const click = async link => { link.click(); await wait(); };
const item = name => [...document.querySelectorAll("nav li a")].find(link => link.textContent === name);
const rows = () => [...document.querySelectorAll("nav tbody tr")];
const crumb = name => [...document.querySelectorAll("nav a")].find(link => link.textContent === name);
async function look() {
    await wait();
    found.start = document.querySelector("#app .prose").innerText;
    for (const number of document.querySelectorAll("#app a.picture").keys()) {
        const link = document.querySelectorAll("#app a.picture")[number], image = link.querySelector("img");
        await image.decode();
        const text = link.previousElementSibling.getBoundingClientRect(), box = image.getBoundingClientRect();
        const entry = found.pictures[image.alt] = {beside: text.right <= box.left, top: box.top - text.top};
        entry.size = [image.naturalWidth, box.width];
        await click(link);
        await wait();
        const opened = document.querySelector("#app img[src^='data:image/svg']:not(nav img)");
        await opened.decode();
        entry.opened = opened.src === results[app.state.resultPath].data_uri && app.state.resultPath;
        entry.caption = document.querySelector("nav .prose").innerText;
        app.setView({navbarMode: "menu", content: "metadata"});
        await wait();
    }
    found.explorer = document.querySelector("#app .prose a[href='explorer.html']") !== null;
    await click(item("Statistics"));
    await wait();
    found.charts = document.querySelectorAll("#runtimes canvas, #timeline canvas").length;
    for (const name of Object.keys(categories)) {
        await click(item(name));
        const seen = found.categories[name] = {};
        for (const number of rows().keys()) {
            const entry = seen[rows()[number].cells[0].innerText] = {};
            const [eye, info] = rows()[number].querySelectorAll("a");
            if (eye.download) {
                entry.download = eye.download;
            } else {
                await click(eye);
                const image = document.querySelector("#app img[src^='data:image/svg']:not(nav img)");
                await image.decode();
                const box = image.getBoundingClientRect();
                entry.size = [image.naturalWidth, box.width, box.height];
            }
            await click(info);
            entry.caption = document.querySelector("nav .prose").innerText;
            entry.said = document.querySelector("nav").innerText.toLowerCase();
            await click(crumb(name));
        }
        await click(crumb("Results"));
    }
}
look().catch(error => found.errors.push(String(error))).finally(() => {
    const said = document.body.appendChild(document.createElement("pre"));
    said.id = "found";
    said.textContent = JSON.stringify(found);
});
</script>"""

# What it has noted, once it is through.
FOUND = (
    "new Promise((done) => { const look = () => { const found = document.getElementById('found');"
    " found ? done(found.textContent) : setTimeout(look, 50); }; look(); })"
)


def read(report: Path, folder: Path) -> dict:
    """What a browser shows of a report: errors, the first page, category -> entry -> caption and size of its figure."""
    page, (before, after) = folder / "page.html", report.read_text(encoding="utf-8").rsplit("</body>", 1)
    page.write_text(before.replace("<head>", "<head>" + LISTEN, 1) + CLICK + "</body>" + after, encoding="utf-8")
    browser = Browser(folder)
    try:
        browser.go(page.as_uri())
        return json.loads(browser.run(FOUND))
    finally:
        browser.close()


@pytest.fixture(scope="module")
def partly(tmp_path_factory) -> tuple[Clone, str]:
    """One experiment of two, and what was said when the report of it was made."""

    def make(folder: Path) -> str:
        return Clone.make(folder / "clone", SMALL).build("transience", "explore", "report")

    folder, said = made_once(tmp_path_factory, "partly", make)
    return Clone(folder / "clone"), said


@pytest.fixture(scope="module")
def wholly(partly, tmp_path_factory) -> tuple[Clone, str]:
    def make(folder: Path) -> str:
        clone = partly[0].copy(folder / "clone")
        (clone.folder / "results/studies/tiny/verdicts.csv").write_text(VERDICTS)
        return clone.build("all", "explore", "report")

    folder, said = made_once(tmp_path_factory, "wholly", make)
    return Clone(folder / "clone"), said


@pytest.fixture(scope="module")
def shown(wholly, tmp_path_factory) -> dict:
    report = wholly[0].path("studies/tiny/report.html")
    return made_once(tmp_path_factory, "browser", lambda folder: read(report, folder))[1]


@pytest.mark.parametrize("width", [360, 400])
def test_on_a_telephone_the_menu_and_what_it_leads_to_are_as_wide_as_the_screen(width, wholly, tmp_path):
    browser = Browser(tmp_path)
    browser.resize(width, 800)
    wait = "new Promise((done) => setTimeout(done, 300))"
    boxes = "[...document.querySelectorAll('#app > .flex > nav, #app > .flex > nav + div')].map((one) => {"
    boxes += " const box = one.getBoundingClientRect(); return [box.left, box.width, one.scrollWidth, box.height]; })"
    item = "[...document.querySelectorAll('nav li a')].find((link) => link.textContent === 'l2').click()"
    links = "document.querySelector('nav tbody tr').querySelectorAll('a')"
    try:
        browser.go(wholly[0].path("studies/tiny/report.html").as_uri())
        for click in ("", item, f"{links}[0].click()", f"{links}[1].click()"):
            browser.run(f"{click}; {wait}")
            assert [box[:3] for box in browser.run(boxes)] == [[0, width, width]] * 2
        # The menu can be closed.
        browser.run(f"document.querySelector('nav h1 a').click(); {wait}")
        assert browser.run(boxes)[0][3] == 0
    finally:
        browser.close()


def test_of_nothing_there_is_no_report(tmp_path):
    clone = Clone.make(tmp_path / "clone", SMALL)
    done = clone.snakemake("report")
    assert done.returncode != 0
    assert "nothing of study tiny is built yet: `snakemake all report` builds it first" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    # The same words without Snakemake.
    alone = clone.library("report", "--study", "tiny")
    assert alone.returncode == 1
    assert "nothing of study tiny is built yet" in alone.stderr
    assert not (clone.folder / "results").exists()


def test_a_report_of_a_part_says_what_is_missing(partly):
    clone, said = partly
    assert "report: results/studies/tiny/report.html" in said
    assert "not in it, for lack of tables or figures: l2" in said
    # What the second run of the second experiment takes, and its tables; the bank is there without its card.
    (jobs,) = re.findall(r"the study is not finished \((.*)\): `snakemake all report` finishes it", said)
    assert {"1 card", "1 train", "1 evaluate", "1 tables"} < set(jobs.split(", "))
    page = clone.path("studies/tiny/report.html").read_text()
    # One of them is the run of the other experiment.
    assert "Not in this report: 1 of 2 lanes are done." in page
    assert "results/studies/tiny/l2/curves.svg" not in page


def test_a_report_of_the_whole_study_misses_nothing(wholly):
    _, said = wholly
    assert said.rstrip().count("report: results/studies/tiny/report.html") == 1
    assert "not in it" not in said
    assert "not finished" not in said


def test_the_page_loads_and_is_clicked_through_without_errors(shown):
    assert shown["errors"] == []
    # When each job ran, and for how long.
    assert shown["charts"] == 2


def test_every_experiment_is_a_category_with_each_figure_really_shown(shown, wholly):
    categories = {name: set(entries) for name, entries in shown["categories"].items()}
    assert set(categories) == {"transience", "l2", "banks"}
    assert {"curves", "comparison"} <= categories["l2"]
    for name in ("transience", "l2"):
        drawn = {path.stem for path in wholly[0].folder.glob(f"results/studies/tiny/{name}/*.svg")}
        assert categories[name] == drawn | {"table of lanes", "table of runs"}
    assert categories["banks"] == {wholly[0].path("banks/*.svg").stem}
    figures = [entry for entries in shown["categories"].values() for entry in entries.values() if "size" in entry]
    assert len(figures) == len(list(wholly[0].folder.glob("results/**/*.svg")))
    for figure in figures:
        natural, width, height = figure["size"]
        assert natural > 300
        assert min(width, height) > 200


def test_the_first_page_shows_each_figure_beside_its_sentence(shown):
    assert set(shown["pictures"]) == {f"{name}, curves: open the figure" for name in ("transience", "l2")}
    for name, entry in shown["pictures"].items():
        assert entry["beside"]
        assert abs(entry["top"]) < 100
        natural, width = entry["size"]
        assert natural >= width > 300
        # It opens the figure itself, with its caption.
        assert entry["opened"] == f"results/studies/tiny/{name.split(',')[0]}/curves.svg"
        assert "What is plotted." in entry["caption"]


def test_parameters_of_jobs_are_not_printed_at_readers(shown):
    for entries in shown["categories"].values():
        for entry in entries.values():
            # Size and rule stand below the caption, and nothing below those.
            assert "snakemake rule" in entry["said"]
            assert "job parameters" not in entry["said"]
            assert '"experiment"' not in entry["said"]


def test_every_caption_says_what_is_plotted_and_what_to_see(shown):
    for category, entries in shown["categories"].items():
        for name, entry in entries.items():
            what = "What is in it." if name.startswith("table") else "What is plotted."
            assert what in entry["caption"], (category, name)
            assert "What to see." in entry["caption"]
            assert "System Message" not in entry["caption"]


def test_captions_say_what_came_out_and_the_verdict_on_each_claim(shown):
    curves = shown["categories"]["l2"]["curves"]["caption"]
    assert "l2.strength=0.001: icl (in context accuracy, chance 0.5)" in curves
    for entry in shown["categories"]["l2"].values():
        caption = " ".join(entry["caption"].split())
        assert "supported: L2 & time <keep> ICL .. include:: config.yaml (Fig. 5);" in caption
        assert (
            "tested: index: some < none; effect 0.25, 95.0% interval 0.13 to 0.38 (mean difference); p = 0.03"
            in caption
        )
    assert "supported" not in shown["categories"]["transience"]["curves"]["caption"]
    assert "supported: L2 & time <keep> ICL" in shown["start"]


def test_the_page_says_of_a_run_what_the_terminal_said(wholly):
    clone, said = wholly
    page = html.unescape(clone.path("studies/tiny/report.html").read_text())
    for experiment in ("transience", "l2"):
        for line in words.experiment_in_words(clone.folder / "results/studies/tiny" / experiment):
            sentence = line.split(": ", 1)[1].split("; figure")[0]
            assert sentence in said
            assert sentence in page


def test_a_question_is_text_whatever_stands_in_it(shown, wholly):
    for text in (shown["categories"]["transience"]["curves"]["caption"], shown["start"]):
        assert "</script><b id='evil'>does</b> it {{ 7 * 7 }} come & go? $x$" in text
    # No tag of it stands in the page, where the browser would read it before any script does.
    assert "<b id='evil'>" not in wholly[0].path("studies/tiny/report.html").read_text()


def test_tables_are_shown_and_can_be_saved(shown):
    for entries in (shown["categories"]["transience"], shown["categories"]["l2"]):
        assert entries["table of runs"]["download"] == "runs.csv"
        assert entries["table of lanes"]["download"] == "transience.csv"
    lanes = shown["categories"]["l2"]["table of lanes"]["caption"].split("run\tseed\toutcome")[1]
    assert re.findall(r"^(l2\.strength=\S+)\t0\t(?:never|transient|persistent)\t", lanes, re.MULTILINE) == [
        "l2.strength=0",
        "l2.strength=0.001",
    ]


def test_the_first_page_says_how_all_was_made(shown, wholly):
    start, clone = shown["start"], wholly[0]
    entry = json.loads((clone.folder / "results/provenance.json").read_text())["studies"]["tiny"]
    assert start.startswith("Study tiny")
    for said in (f"torch {entry['versions']['torch']}", "snakemake 9", entry["machine"]["cpu"], entry["date"]):
        assert said in start
    assert "2 lanes in 2 packs, 2 segments" in start
    assert "gaussian: {classes: 40," in start


def explorer_of(clone: Clone) -> dict:
    (packed,) = re.findall(r'id="data">(.*?)</script>', clone.path("studies/tiny/explorer.html").read_text())
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def test_an_explorer_of_a_part_says_what_is_missing(partly):
    clone, said = partly
    assert "explorer: results/studies/tiny/explorer.html" in said
    assert "not in it, for lack of tables: l2" in said
    data = explorer_of(clone)
    assert [one["name"] for one in data["experiments"]] == ["transience"]
    assert data["absent"] == {"l2": "1 of 2 lanes are done, and it has no tables yet"}


def test_the_explorer_is_made_again_where_a_table_changes_and_trains_nothing(wholly, shown, tmp_path):
    assert shown["explorer"]
    clone = wholly[0].copy(tmp_path / "clone")
    data = explorer_of(clone)
    assert [one["name"] for one in data["experiments"]] == ["transience", "l2"]
    assert [claim["verdict"] for claim in data["claims"]] == []
    before = times(clone)
    assert "explorer: results/studies/tiny/explorer.html" in clone.build("explore")
    assert times(clone) == before
    # It has no inputs: with a seed more there is nothing that it would train, and it says what its tables lack.
    clone.change("seeds: [0]", "seeds: [0, 7]")
    assert not {"train", "tables"} & set(clone.would_run("explore"))
    clone.build("explore")
    after, page = times(clone), clone.path("studies/tiny/explorer.html")
    assert after.pop(page) > before.pop(page)
    assert after == before
    (note,) = explorer_of(clone)["experiments"][0]["notes"]
    assert "Unfinished: baseline, seed 7 (missing)." in note
    # The same from the command line.
    assert clone.library("explore", "--study", "tiny").stdout == "explorer: results/studies/tiny/explorer.html\n"


def test_another_report_touches_nothing_else(wholly, tmp_path):
    """Not the locks of a Snakemake that runs beside it either."""
    clone = wholly[0].copy(tmp_path / "clone")
    locks = [clone.folder / f".snakemake/locks/0.{kind}.lock" for kind in ("input", "output")]
    locks[0].parent.mkdir(exist_ok=True)
    for lock in locks:
        lock.write_text("results/studies/tiny/l2/curves.svg\n")
    verdicts = clone.path("studies/tiny/verdicts.csv")
    verdicts.write_text(VERDICTS.replace("supported", "undecided"))
    before = times(clone)
    said = clone.build("report")
    after = times(clone)
    assert "report: results/studies/tiny/report.html" in said
    page = clone.path("studies/tiny/report.html")
    assert after.pop(page) > before.pop(page)
    assert after == before
    assert all(lock.exists() for lock in locks)
    assert "undecided</strong>: L2 &amp; time" in page.read_text()


def times(clone: Clone) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in clone.folder.glob("results/**/*") if path.is_file()}
