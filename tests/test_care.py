"""How far a study is, what is left over, how it was made: read from names and attributes of files."""

import hashlib
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
from builders import OMNIGLOT_BANK
from pipeline import ROOT, TINY

from icl_transience.banks import bank as banks_bank
from icl_transience.planning.plan import Plan
from icl_transience.planning.targets import Targets
from icl_transience.report import archive, page
from icl_transience.report.figures import bank_card
from icl_transience.results import orphans, provenance, removal, status
from icl_transience.specs.banks import BankSpec, Gaussian, Tokens
from icl_transience.specs.errors import StudyError
from icl_transience.specs.evaluators import METRICS
from icl_transience.specs.identity import canonical, from_values, identity_values
from icl_transience.specs.runs import Run
from icl_transience.store import atomic, hdf5, layout, locks

OTHER = TINY.replace("dim: 4", "dim: 5")


@pytest.fixture
def base(tmp_path, monkeypatch) -> Path:
    """A workflow of one study, in the working folder."""
    (tmp_path / "workflow/studies").mkdir(parents=True)
    shutil.copytree(ROOT / "workflow/schemas", tmp_path / "workflow/schemas")
    (tmp_path / "workflow/studies/tiny.yaml").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    for source in ("TOKENS", "IMPORTED", "OMNIGLOT"):
        monkeypatch.delenv(f"ICL_{source}", raising=False)
    return tmp_path


def planned(study: str = "tiny", **config) -> Plan:
    """Two packs of two lanes, (0, 1024, 2048): one of both experiments, one of `l2` alone."""
    return Plan({"study": study, "lanes_per_pack": 8, "segment_sequences": 1024} | config, Path())


@pytest.fixture
def tiny(base) -> Plan:
    plan = planned()
    plan.register()
    return plan


def folder(pack_id: str) -> Path:
    return Path("results/packs", pack_id)


def train(pack_id: str, start: int = 0, end: int = 1024, *, diverged_at=(-1, -1), rate=100.0, **made) -> Path:
    """A finished segment, as far as this module's claims reach."""
    path = folder(pack_id) / layout.segment_name(start, end)
    path.parent.mkdir(parents=True, exist_ok=True)
    made = {"in_seconds": 2.0, "with": "torch 2, 1 thread(s), cpu, native engine", "on": "here", "at": "now"} | made
    with h5py.File(path, "w") as file:
        file.attrs["made_sequences_per_second"] = rate
        for name, value in made.items():
            file.attrs[f"made_{name}"] = value
        file["diverged_at"] = np.array(diverged_at)
    return path


def evaluate(plan: Plan, pack_id: str, start: int = 0, end: int = 1024) -> Path:
    (set_id,) = plan.sets
    path = folder(pack_id) / layout.metrics_name(set_id, start, end)
    with h5py.File(path, "w") as file:
        file.attrs["metrics"] = METRICS
        file["sequences_seen"] = [end]
        file["icl/mean"] = np.full((1, 2, len(METRICS)), 2.0)
    return path


def finish(plan: Plan) -> None:
    for pack_id, pack in plan.packs.items():
        for segment in pack.segments(2048):
            train(pack_id, *segment)
            evaluate(plan, pack_id, *segment)


def states(plan: Plan, experiment: str = "transience") -> list[tuple[str, int]]:
    return [(row.state, row.sequences_seen) for row in status.rows(plan) if row.experiment == experiment]


def first_row(plan: Plan) -> status.Row:
    return next(status.rows(plan))


def tree() -> dict[Path, tuple[int, bytes | None]]:
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in Path("results").rglob("*")
    }


# Status.


def test_what_has_not_begun_is_missing_and_of_unknown_speed(tiny):
    assert states(tiny) == [("missing", 0)] * 2
    assert first_row(tiny).seconds_left is None
    assert first_row(tiny).note == "2 of 2 segments to train"


def test_before_the_first_run_everything_is_missing(base):
    assert states(planned()) == [("missing", 0)] * 2
    assert not Path("results").exists()


def test_what_is_trained_and_evaluated_is_done(tiny):
    finish(tiny)
    assert states(tiny) == [("done", 2048)] * 2
    assert states(tiny, "l2") == [("done", 2048)] * 4


def test_what_is_trained_but_not_evaluated_is_missing(tiny):
    finish(tiny)
    (pack_id, *_) = tiny.packs
    evaluate(tiny, pack_id, 1024, 2048).unlink()
    assert states(tiny) == [("missing", 2048)] * 2
    assert first_row(tiny).note == "1 of 2 segments to evaluate"


def test_a_segment_that_is_kept_need_not_be_trained_again(tiny):
    finish(tiny)
    (pack_id, *_) = tiny.packs
    segment = folder(pack_id) / layout.segment_name(0, 1024)
    atomic.link(segment, segment.parent / ".kept" / segment.name)
    segment.unlink()
    assert states(tiny) == [("done", 2048)] * 2


def test_time_left_follows_from_the_speed_of_the_last_segment(tiny):
    (pack_id, *_) = tiny.packs
    train(pack_id, rate=100.0)
    row = first_row(tiny)
    assert (row.state, row.sequences_seen) == ("missing", 1024)
    # Two lanes share a hundred sequences a second.
    assert row.sequences_per_second == 50
    assert row.seconds_left == 1024 / 50


def test_a_pack_that_has_not_begun_is_as_fast_as_those_of_its_shape(tiny):
    # The two packs differ in the strength of L2 alone.
    first, second = tiny.packs
    train(first, rate=100.0)
    (row,) = {row.sequences_per_second for row in status.rows(tiny) if row.pack == second}
    assert row == 50


def test_a_pack_whose_lock_is_held_is_running_and_its_log_says_how_far(tiny):
    (pack_id, *_) = tiny.packs
    train(pack_id, rate=100.0)
    log = Path("results/logs/packs", pack_id, "segment-000000001024-000000002048.log")
    log.parent.mkdir(parents=True)
    log.write_text(
        "5c63bf seeds 0 1: 0:09 left, 400 sequences/s, 1,100 of 2,048 seen\n"
        "5c63bf seeds 0 1: 0:02 left, 500 sequences/s, 1,548 of 2,048 seen\n"
    )
    assert states(tiny) == [("missing", 1024)] * 2
    with locks.locked(folder(pack_id) / ".lock"):
        row = first_row(tiny)
    assert (row.state, row.sequences_seen, row.sequences_per_second, row.seconds_left) == ("running", 1548, 250, 2)


def test_a_job_that_has_written_no_log_yet_is_running_too(tiny):
    (pack_id, *_) = tiny.packs
    with locks.locked(folder(pack_id) / ".lock"):
        assert states(tiny) == [("running", 0)] * 2
        assert states(tiny, "l2") == [("running", 0)] * 2 + [("missing", 0)] * 2


def test_a_job_that_was_told_to_stop_is_interrupted_where_it_saved(tiny):
    (pack_id, *_) = tiny.packs
    train(pack_id)
    saved = folder(pack_id) / ".kept/unfinished-000000001024-000000002048.h5"
    saved.parent.mkdir()
    with h5py.File(saved, "w") as file:
        file.attrs["sequences_seen"] = 1500
    assert states(tiny) == [("interrupted", 1500)] * 2
    assert first_row(tiny).note == "saved at 1,500"
    with locks.locked(folder(pack_id) / ".lock"):
        assert states(tiny) == [("running", 1500)] * 2


def test_a_lane_that_diverged_says_where_and_its_pack_mate_goes_on(tiny):
    (pack_id, *_) = tiny.packs
    train(pack_id, diverged_at=(-1, 512))
    assert [state for state, _ in states(tiny)] == ["missing", "diverged"]
    assert [row.note for row in status.rows(tiny)][1] == "at 512"


def test_a_lane_that_diverged_after_the_last_mean_of_its_loss_is_said_to_be_what_tables_call_it(tiny):
    """Training takes that mean every so many batches: of what diverges later its files say nothing."""
    finish(tiny)
    (pack_id, *_), (set_id,) = tiny.packs, tiny.sets
    path = folder(pack_id) / layout.metrics_name(set_id, 1024, 2048)
    with h5py.File(path, "r+") as file:
        file["icl/mean"][-1, 1, METRICS.index("loss")] = np.nan
        file["sequences_seen"][:] = 2000
    assert states(tiny)[:2] == [("done", 2048), ("diverged", 2048)]
    assert [row.note for row in status.rows(tiny)][:2] == ["", "by 2,048"]
    path.write_bytes(b"no HDF5")
    assert [row.state for row in status.rows(tiny)][:2] == ["done", "done"]
    assert f"{path} cannot be read" in first_row(tiny).note


def test_a_lane_that_diverged_beyond_an_experiments_horizon_is_done(base):
    base.joinpath("workflow/studies/tiny.yaml").write_text(TINY + "  short: {horizon: 1024}\n")
    plan = planned()
    plan.register()
    finish(plan)
    (pack_id, *_) = plan.packs
    train(pack_id, 1024, 2048, diverged_at=(-1, 1500))
    assert states(plan) == [("done", 2048), ("diverged", 2048)]
    assert states(plan, "short") == [("done", 1024)] * 2


def test_a_segment_that_cannot_be_read_is_named_and_stops_nothing(tiny):
    finish(tiny)
    (pack_id, *_) = tiny.packs
    broken = folder(pack_id) / layout.segment_name(1024, 2048)
    broken.write_bytes(b"no HDF5")
    assert f"{broken} cannot be read" in first_row(tiny).note
    assert broken.exists()


def test_status_writes_nothing(tiny):
    finish(tiny)
    before = tree()
    status.table(tiny)
    assert tree() == before


def test_the_table_has_a_line_a_lane_and_the_time_of_a_pack_counts_once(tiny):
    first, _ = tiny.packs
    train(first, rate=1024.0)
    lines = status.table(tiny).splitlines()
    assert len(lines) == 1 + 2 + 4 + 1 + 2
    cells = "transience baseline 0 missing 1,024 2,048 50% 512 0:00:02 1 of 2 segments to train"
    assert lines[1].split() == cells.split()
    # Half of one pack, 2 s; all of the other, 4 s.
    total = "l2: 4 lanes, 4 missing; 2,048 of 8,192 sequences (25%); 0:00:06 of training left, job after job"
    assert lines[-1] == total


# Orphans.


def found(plan: Plan) -> dict[str, str]:
    return {str(one.path): one.reason for one in orphans.find(plan)[0]}


def touch(*paths: str) -> None:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(b"12345")


def test_results_that_a_study_refers_to_are_no_orphans(tiny):
    finish(tiny)
    (bank,), (set_id,), pack_id = tiny.banks, tiny.sets, next(iter(tiny.packs))
    touch(
        *(f"results/banks/{bank}.{kind}" for kind in ("h5", "svg", "png")),
        f"results/encoders/{bank}.h5",
        f"results/sequences/{set_id}.h5",
        f"results/logs/banks/{bank}-card.log",
        f"results/logs/packs/{pack_id}/{Path(layout.metrics_name(set_id, 0, 1024)).stem}.log",
        f"results/benchmarks/sequences/{set_id}.tsv",
        "results/studies/tiny/l2/curves.csv",
        "results/studies/tiny/report.html",
        "results/logs/studies/tiny/l2/tables.log",
        "results/exports/tiny/baseline.h5",
        "results/exports/tiny/baseline.bank.h5",
        "results/exports/tiny/l2-l2.strength=0.h5",
        "results/sources/images_background.zip",
        "results/archives/forgotten.tar.gz",
        "results/README.md",
    )
    assert orphans.find(tiny) == ([], [])
    assert "nothing" in orphans.listing(tiny)


ORPHANS = [
    "results/banks/gaussian-9x9-000000000000.h5",
    "results/banks/gaussian-9x9-000000000000.svg",
    "results/encoders/omniglot-9x9-000000000000.h5",
    "results/sequences/gaussian-9x9-000000000000.h5",
    "results/packs/gaussian-9x9-2x16-000000000000",
    "results/logs/banks/gaussian-9x9-000000000000-card.log",
    "results/logs/packs/gaussian-9x9-2x16-000000000000",
    "results/benchmarks/packs/gaussian-9x9-2x16-000000000000",
    "results/benchmarks/sequences/gaussian-9x9-000000000000.tsv",
    "results/studies/gone",
    "results/studies/tiny/gone",
    "results/logs/studies/tiny/gone",
    "results/exports/gone",
    "results/exports/tiny/gone.h5",
    "results/exports/tiny/gone.bank.h5",
    "results/logs/exports/tiny/gone.log",
]


@pytest.mark.parametrize("path", ORPHANS)
def test_what_no_study_refers_to_is_an_orphan(path, tiny):
    finish(tiny)
    touch(path if Path(path).suffix else f"{path}/file")
    assert found(tiny) == {path: orphans.ORPHAN}


def test_metrics_of_a_set_that_no_study_asks_for_are_orphans_with_their_logs_and_kept_names(tiny):
    finish(tiny)
    (pack_id, *_) = tiny.packs
    name = layout.metrics_name("gaussian-40x3-000000000000", 0, 1024)
    paths = {
        f"results/packs/{pack_id}/{name}",
        f"results/packs/{pack_id}/.kept/{name}",
        f"results/logs/packs/{pack_id}/{Path(name).stem}.log",
    }
    touch(*paths)
    assert found(tiny) == dict.fromkeys(paths, orphans.ORPHAN)


def test_segments_beyond_every_horizon_are_listed_apart(base, tiny):
    finish(tiny)
    study = base / "workflow/studies/tiny.yaml"
    study.write_text(TINY.replace("horizon: 2048", "horizon: 1024"))
    shorter = planned()
    (set_id,) = shorter.sets
    names = (layout.segment_name(1024, 2048), layout.metrics_name(set_id, 1024, 2048))
    beyond = {str(folder(pack_id) / name) for pack_id in shorter.packs for name in names}
    assert found(shorter) == dict.fromkeys(beyond, orphans.BEYOND)
    touch("results/banks/gaussian-9x9-000000000000.h5")
    first, second = orphans.listing(shorter).split("finished, but beyond every horizon")
    assert "packs" not in first
    assert "delete --orphans" in first
    assert second.count("  results/packs/") == 4
    assert "delete --beyond" in second
    # Another study that trains on wants them.
    (base / "workflow/studies/longer.yaml").write_text(TINY)
    assert set(found(shorter).values()) == {orphans.ORPHAN}


def test_what_any_study_in_the_folder_refers_to_is_no_orphan(base, tiny):
    (base / "elsewhere.yaml").write_text(OTHER)
    plan = planned(str(base / "elsewhere.yaml"))
    plan.register()
    finish(plan)
    touch("results/studies/elsewhere/l2/curves.csv")
    # The study elsewhere is known as long as its file is where it was.
    assert found(plan) == found(tiny) == {}
    (base / "elsewhere.yaml").rename(base / "moved.yaml")
    gone = {*(str(folder(pack_id)) for pack_id in plan.packs), "results/studies/elsewhere"}
    assert set(found(tiny)) == gone
    shutil.copy(base / "moved.yaml", base / "workflow/studies/elsewhere.yaml")
    assert found(tiny) == {}


TOKENS = "defaults: {bank: {source: tokens}}\nexperiments: {words: {}}\n"


def test_nothing_is_listed_that_a_study_which_cannot_be_loaded_may_own(base, tiny):
    (base / "workflow/studies/words.yaml").write_text(TOKENS)
    touch(
        "results/banks/tokens-9x9-000000000000.h5",
        "results/packs/tokens-9x9-2x16-000000000000/pack.jsonl",
        "results/studies/words/words/curves.csv",
        "results/banks/gaussian-9x9-000000000000.h5",
    )
    one, (sentence,) = orphans.find(tiny)
    assert [str(each.path) for each in one] == ["results/banks/gaussian-9x9-000000000000.h5"]
    assert "study words cannot be loaded whole, so nothing of the sources that it mentions (tokens) is" in sentence
    assert "ICL_TOKENS" in sentence


def test_what_an_experiment_that_is_left_out_may_own_is_not_listed(base, tiny):
    text = TINY + "  words: {optional: true, bank: {source: tokens}}\n"
    (base / "workflow/studies/more.yaml").write_text(text)
    touch(
        "results/banks/tokens-9x9-000000000000.h5",
        "results/studies/more/words/curves.csv",
        "results/banks/gaussian-9x9-000000000000.h5",
    )
    one, (sentence,) = orphans.find(tiny)
    assert [str(each.path) for each in one] == ["results/banks/gaussian-9x9-000000000000.h5"]
    assert "study more cannot be loaded whole, so nothing of the sources that it mentions (tokens) is" in sentence
    # Its source may be that of the defaults.
    experiments = "{drawn: {bank: {source: gaussian}}, words: {optional: true, bank: {seed: 1}}}"
    text = f"defaults: {{bank: {{source: tokens}}}}\nexperiments: {experiments}\n"
    (base / "workflow/studies/more.yaml").write_text(text)
    assert orphans.find(tiny)[1] == [sentence]


def test_the_table_says_what_is_left_out(base):
    (base / "workflow/studies/tiny.yaml").write_text(TINY + "  words: {optional: true, bank: {source: tokens}}\n")
    assert "ICL_TOKENS" in status.table(planned()).splitlines()[-1]


@pytest.mark.parametrize("text", ["a: [", "experiments: {words: {model.width: 3}}\n", "- 1\n"])
def test_a_study_that_does_not_say_what_it_reads_may_own_anything(text, base, tiny):
    (base / "workflow/studies/broken.yaml").write_text(text)
    touch(*(f"results/banks/{source}-9x9-000000000000.h5" for source in ("gaussian", "tokens", "omniglot")))
    one, (sentence,) = orphans.find(tiny)
    assert one == []
    assert "study broken cannot be loaded whole" in sentence
    # Damaged files are nobody's.
    touch("results/banks/gaussian-9x9-000000000000.h5.damaged")
    assert list(found(tiny).values()) == ["damaged"]


def test_damaged_files_and_abandoned_temporaries_may_go_but_not_those_being_written(tiny):
    finish(tiny)
    touch("results/banks/b.h5.damaged", "results/banks/.b.h5.1234abcd.tmp", "results/banks/.b.h5.1234abcd.link")
    with atomic.replacing(Path("results/banks/c.h5")):
        assert found(tiny) == {
            "results/banks/b.h5.damaged": "damaged",
            "results/banks/.b.h5.1234abcd.tmp": "temporary",
        }
    os.utime("results/banks/.b.h5.1234abcd.link", (0, 0))
    assert found(tiny)["results/banks/.b.h5.1234abcd.link"] == "temporary"


def test_a_pack_that_is_training_is_not_listed(tiny):
    pack = Path("results/packs/gaussian-9x9-2x16-000000000000")
    pack.mkdir()
    with locks.locked(pack / ".lock"):
        assert found(tiny) == {}
    assert found(tiny) == {str(pack): orphans.ORPHAN}


def test_a_file_with_two_names_counts_once(tiny):
    path = "results/packs/gaussian-9x9-2x16-000000000000/metrics-set-000000000000-000000001024.h5"
    touch(path)
    atomic.link(Path(path), Path(path).parent / ".kept" / Path(path).name)
    assert removal.size([Path(path).parent]) == 5
    assert "(5 B)" in orphans.listing(tiny)


@pytest.mark.parametrize("name", ["plain", "it's two words", 'a "quoted" $HOME', "two\nlines", "-rf", "*"])
def test_the_command_removes_exactly_what_is_listed(name, tiny):
    finish(tiny)
    Path("config.yaml").write_text("study: tiny\nresults: results\nlanes_per_pack: 8\n")
    touch(f"results/studies/{name}/l2/curves.csv", "results/studies/tiny/l2/curves.csv")
    listed = orphans.listing(tiny)
    before = set(tree())
    (command,) = (line.strip() for line in listed.splitlines() if "delete" in line)
    assert command == "python -m icl_transience delete --orphans"
    subprocess.run(["bash", "-c", f"{command} --yes"], check=True)
    gone = {Path("results/studies", name, *rest) for rest in ((), ("l2",), ("l2", "curves.csv"))}
    assert before - set(tree()) == gone


def test_the_command_names_study_and_results_that_are_not_those_of_the_configuration(base):
    Path("config.yaml").write_text("study: tiny\nresults: results\n")
    (base / "it's mine.yaml").write_text(TINY)
    plan = planned("it's mine.yaml", results="my results; no")
    touch("my results; no/banks/gaussian-9x9-000000000000.h5")
    (line,) = (line for line in orphans.listing(plan).splitlines() if "delete" in line)
    subprocess.run(["bash", "-c", f"{line} --yes"], check=True)
    assert not Path("my results; no/banks/gaussian-9x9-000000000000.h5").exists()


def test_several_studies_that_cannot_be_loaded_are_one_line(base, tiny):
    (base / "workflow/studies/words.yaml").write_text(TOKENS)
    (base / "workflow/studies/mine.yaml").write_text(TOKENS.replace("tokens", "imported"))
    (line,) = orphans.listing(tiny).splitlines()[2:]
    assert line.startswith("studies mine, words cannot be loaded whole, so nothing of the sources that they mention ")
    assert "(imported, tokens) is listed; make them loadable, or move the files away, and ask again: " in line
    assert line.endswith("(and 1 more)")


@pytest.mark.parametrize("unreadable", ["an unknown key", "a newer schema"])
def test_a_pack_that_cannot_be_read_is_named_in_one_line_and_nothing_of_it_is_listed(unreadable, base, tiny):
    finish(tiny)
    (base / "elsewhere.yaml").write_text(OTHER)
    other = planned(str(base / "elsewhere.yaml"))
    other.register()
    (leftover, kept) = other.packs
    document = json.loads((folder(leftover) / "pack.json").read_text())
    if unreadable == "an unknown key":
        for run in document["spec"]["runs"].values():
            run["model"]["temperature"] = 2.0
        content = {key: value for key, value in document.items() if key != "checksum"}
        document["checksum"] = hashlib.sha256(canonical(content).encode()).hexdigest()
    else:
        document["schema"] = 2
    (folder(leftover) / "pack.json").write_text(json.dumps(document))
    touch(
        f"{folder(leftover)}/segment-000000000000-000000001024.h5.damaged",
        f"results/logs/packs/{leftover}/segment-000000000000-000000001024.log",
    )
    plan = planned()
    assert plan.packs == tiny.packs
    (skipped,) = plan.skipped
    assert skipped.folder == folder(leftover)
    assert status.table(plan).splitlines()[-1] == str(skipped)
    # Of the study elsewhere, nobody refers to the other pack once its file is gone.
    text = (base / "elsewhere.yaml").read_text()
    (base / "elsewhere.yaml").unlink()
    assert found(plan) == {str(folder(kept)): orphans.ORPHAN, "results/studies/elsewhere": orphans.ORPHAN}
    listed = orphans.listing(plan).splitlines()
    assert listed[-1] == f"{skipped}; nothing in it is listed"
    assert not any(leftover in line for line in listed[:-1])
    # The study whose own lanes were to train there is told.
    (base / "elsewhere.yaml").write_text(text)
    with pytest.raises(StudyError, match=r"lanes of this study are to train there, but .*use the software"):
        planned(str(base / "elsewhere.yaml"))


# Provenance.

PROVENANCE = Path("results/provenance.json")


def test_an_entry_says_what_was_asked_for_from_what_and_with_which_software(tiny):
    finish(tiny)
    entry = provenance.record(tiny)
    assert json.loads(PROVENANCE.read_text())["studies"] == {"tiny": entry}
    assert entry["file"] == TINY
    runs = entry["experiments"]["l2"]["runs"]
    assert runs["l2.strength=0.001"]["axes"] == {"optimizer.l2.strength": 0.001}
    for run_id, values in entry["runs"].items():
        assert from_values(Run, values).id == run_id
    assert {run["run"] for run in runs.values()} == set(entry["runs"])
    assert entry["versions"]["h5py"] == h5py.__version__
    trained = {f"training/{engine}" for engine in ("native", "triton", "graph", "eager")}
    inside = {"circuits", "peaks", "circuits_tables", "circuits_figures"}
    theory = {"minimal_model", "minimal_model_figure"}
    judged = {"verdicts", "evidence"}
    tables = {"tables", "acquisition", "forecast"}
    assert set(entry["code"]) == {"metrics", "figures", "cards"} | tables | judged | inside | theory | trained
    assert entry["machine"]["cores"] == os.cpu_count()
    assert entry["git"] is None


def test_banks_are_recorded_with_the_digests_of_their_source_files(base):
    base.joinpath("data").mkdir()
    with h5py.File(base / "data/embeddings.h5", "w") as file:
        file["embeddings"] = np.zeros((12, 8, 8))
    sizes = "{classes: 10, holdout_classes: 2, exemplars: 4, dim: 8, scale: raw}"
    study = TINY.replace("bank: {source: gaussian", f"bank: {{source: imported, imported: {sizes}")
    (base / "workflow/studies/tiny.yaml").write_text(study)
    (bank,) = provenance.record(planned(imported="data"))["banks"].values()
    digest = subprocess.run(["sha256sum", "data/embeddings.h5"], capture_output=True, text=True, check=True).stdout
    assert bank == {"source": "imported", "files_sha256": [digest.split()[0]]}


def test_seconds_are_summed_over_segments_and_gpu_seconds_over_those_on_gpus(tiny):
    (pack_id, *_) = tiny.packs
    train(pack_id, 0, 1024, in_seconds=2.0, device="cuda:1")
    train(pack_id, 1024, 2048, in_seconds=3.0, device="cpu")
    benchmarks = Path("results/benchmarks/packs", pack_id)
    touch(f"{benchmarks}/segment-000000000000-000000001024.tsv")
    for number, seconds in enumerate((1.25, 2.5)):
        (benchmarks / f"metrics-{number}.tsv").write_text(f"s\th:m:s\n{seconds}\t0:00:01\n")
    pack = provenance.record(tiny)["packs"][pack_id]
    assert (pack["seconds"], pack["gpu_seconds"], pack["evaluation_seconds"]) == (5.0, 2.0, 3.75)
    assert [lane["init"] for lane in pack["lanes"]] == [0, 1]
    assert len(pack["segments"]) == 2


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1"])
def test_the_device_of_an_older_segment_stands_among_what_made_it(device, tiny):
    (pack_id, *_) = tiny.packs
    train(pack_id, **{"with": f"torch 2.13.0, 1 thread(s), {device}, eager engine"})
    (segment,) = provenance.record(tiny)["packs"][pack_id]["segments"].values()
    assert segment["device"] == device


def test_every_study_keeps_its_entry(base, tiny):
    (base / "workflow/studies/other.yaml").write_text(OTHER)
    one, other = provenance.record(tiny), provenance.record(planned("other"))
    assert json.loads(PROVENANCE.read_text())["studies"] == {"tiny": one, "other": other}


def test_a_run_that_changed_nothing_changes_no_byte(tiny):
    finish(tiny)
    provenance.record(tiny)
    before = tree()
    provenance.record(tiny)
    assert {path for path, state in tree().items() if before[path] != state} <= {Path("results/.provenance.json.lock")}


def test_segments_are_read_again_only_where_they_have_changed(tiny):
    (pack_id, *_) = tiny.packs
    segment = train(pack_id)
    first = provenance.record(tiny)
    segment.write_bytes(b"no HDF5")
    os.utime(segment, (0, 0))
    assert provenance.record(tiny) == first
    os.utime(segment)
    (entry,) = provenance.record(tiny)["packs"][pack_id]["segments"].values()
    assert "cannot be read" in entry["problem"]


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 1}', '{"schema": 1, "studies": {"tiny": 3}}', "\xff"])
def test_a_damaged_record_is_moved_aside(text, tiny, capsys):
    PROVENANCE.write_bytes(text.encode("latin-1"))
    entry = provenance.record(tiny)
    assert json.loads(PROVENANCE.read_text())["studies"] == {"tiny": entry}
    assert Path("results/provenance.json.damaged").read_bytes() == text.encode("latin-1")
    assert "moved to results/provenance.json.damaged" in capsys.readouterr().err


def test_a_record_of_newer_software_is_left_as_it_is(tiny):
    PROVENANCE.write_text('{"schema": 2, "studies": {}}')
    with pytest.raises(StudyError, match="schema version 2, expected 1: use the software that made it"):
        provenance.record(tiny)
    assert PROVENANCE.read_text() == '{"schema": 2, "studies": {}}'


def test_two_runs_that_end_at_once_write_one_after_the_other(base, tiny):
    (base / "workflow/studies/other.yaml").write_text(OTHER)
    other = threading.Thread(target=provenance.record, args=(planned("other"),))
    with locks.locked(Path("results/.provenance.json.lock")):
        other.start()
        other.join(timeout=0.2)
        assert other.is_alive()
        assert not PROVENANCE.exists()
    other.join(timeout=10)
    provenance.record(tiny)
    assert set(json.loads(PROVENANCE.read_text())["studies"]) == {"tiny", "other"}


def test_the_last_run_is_not_mistaken_for_todays_software(tiny, monkeypatch):
    first = provenance.record(tiny)
    monkeypatch.setattr(provenance, "versions", lambda: {"torch": "another"})
    assert provenance.last(tiny) == first
    assert provenance.record(tiny)["versions"] == {"torch": "another"}


def test_git_says_which_commit_and_whether_anything_differs_from_it(tmp_path):
    def run(*arguments: str) -> str:
        settings = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        return subprocess.run(
            ["git", *settings, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    (tmp_path / "Snakefile").touch()
    run("init")
    # A results folder inside somebody else's repository is not in it.
    assert provenance.git(tmp_path) is None
    run("add", "Snakefile")
    run("commit", "-m", "one")
    assert provenance.git(tmp_path) == {"commit": run("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "Snakefile").write_text("changed")
    assert provenance.git(tmp_path)["dirty"] is True


# The archive.


def _token_bank() -> BankSpec:
    tokens = Tokens(
        classes=10, holdout_classes=2, exemplars=3, holdout_exemplars=1, dim=6, file="", scale="standard",
        tensor="wte.weight", skip_rows=0, rows="all", clusters=12, members="nearest", encoder="pca",
    )  # fmt: skip
    return BankSpec(seed=0, parameters=tokens, files=("0" * 64,))


@pytest.mark.parametrize(
    ("of", "vocabulary"),
    [
        (OMNIGLOT_BANK, None),
        (_token_bank(), None),
        (_token_bank(), "vocab.txt"),
    ],
    ids=["images", "tokens", "words"],
)
def test_a_card_is_drawn_the_same_from_the_little_that_is_archived_of_its_bank(of, vocabulary, tmp_path):
    generator, shape = np.random.default_rng(0), of.shape
    embeddings = generator.standard_normal((shape.n_classes, shape.n_exemplars, shape.width)).astype(np.float32)
    extra = {}
    if of.source == "omniglot":
        rows, columns = (len(part) for part in banks_bank.contact_sheet(shape))
        extra["contact"] = generator.integers(0, 256, (rows, columns, 35, 35), dtype=np.uint8)
    if of.source == "tokens":
        tokens = generator.permutation(shape.n_classes * shape.n_exemplars).reshape(shape.n_classes, shape.n_exemplars)
        extra["exemplar_table"] = {"token": tokens}
    bank = tmp_path / "bank.h5"
    sizes = {"n_train_classes": shape.n_train_classes, "n_train_exemplars": shape.n_train_exemplars}
    banks_bank.save(banks_bank.Bank(embeddings=embeddings, **sizes, **extra), bank, of)
    words = [f"word {row}" for row in range(shape.n_classes * shape.n_exemplars)]
    whole = [tmp_path / vocabulary] if vocabulary else []
    for path in whole:
        path.write_text("\n".join(words))
    little = tmp_path / "little.h5"
    kept = archive.write_card_data(bank, str(whole[0]) if whole else None, little)
    assert (kept is None) == (vocabulary is None)
    some = tmp_path / "words.json"
    if kept is not None:
        some.write_text(json.dumps({"added_tokens": kept}))
        # 10 classes of 3 exemplars are on the sheet; the other words are not the archive's business.
        assert len(kept) == 30
    bank_card.draw_bank_card(bank, whole[0] if whole else None, tmp_path / "a.svg", tmp_path / "a.png")
    bank_card.draw_bank_card(little, some if kept is not None else None, tmp_path / "b.svg", tmp_path / "b.png")
    for kind in ("svg", "png"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_words_that_are_halves_of_characters_are_archived(tmp_path):
    (tmp_path / "words.json").write_bytes(archive._words([{"id": 3, "content": "\ud83d"}, {"id": 4, "content": "ä🙂"}]))
    assert bank_card.read_vocabulary(tmp_path / "words.json") == {3: "\ud83d", 4: "ä🙂"}


def test_what_is_archived_of_a_large_bank_is_little(tmp_path):
    changed = Gaussian(classes=1000, holdout_classes=0, exemplars=40, holdout_exemplars=0, dim=64, noise=0.5)
    of = BankSpec(seed=0, parameters=changed)
    embeddings = np.ones((1000, 40, 64), dtype=np.float32)
    with h5py.File(tmp_path / "bank.h5", "w") as file:
        file.attrs["kind"], file.attrs["schema"], file.attrs["identity"] = "bank", 1, of.id
        file.attrs["spec"] = canonical(identity_values(of))
        file["embeddings"] = embeddings
        file.create_group("quality")
        file.attrs["checksum"] = hdf5.checksum(file)
    archive.write_card_data(tmp_path / "bank.h5", None, tmp_path / "little.h5")
    assert (tmp_path / "bank.h5").stat().st_size > 10_000_000
    assert (tmp_path / "little.h5").stat().st_size < 100_000


def test_an_archive_goes_without_a_report_that_cannot_be_made(tiny, monkeypatch, capsys):
    def no_records(*arguments) -> str:
        raise StudyError("no records")

    monkeypatch.setattr(page, "snakemake", no_records)
    monkeypatch.setattr(Targets, "all", lambda targets: ["results/packs"])
    assert archive._page(tiny, Path("Snakefile")) is None
    assert "goes without report.html: no records" in capsys.readouterr().err


def test_a_folder_that_is_no_archive_is_refused(tmp_path):
    with pytest.raises(StudyError, match="no archive of a study: name the folder"):
        archive.redraw(tmp_path, tmp_path / "redrawn")
