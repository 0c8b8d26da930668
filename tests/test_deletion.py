"""What `delete` removes of results, what it leaves because others need it, and what it says before."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from finished_study import finish
from pipeline import ROOT, TINY, made_once

from icl_transience.__main__ import main
from icl_transience.planning import made_for
from icl_transience.planning.plan import Plan
from icl_transience.results import command, deletion, orphans, removal, status
from icl_transience.specs.errors import StudyError
from icl_transience.store import atomic, layout, locks
from icl_transience.store.layout import KEPT

RUN = "l2/l2.strength=0.001"
OTHER = TINY.replace("l2: {axes: {optimizer.l2.strength: [0, 1.0e-3]}}", "l2: {optimizer: {l2: {strength: 1.0e-3}}}")


def make(folder: Path) -> None:
    """A checkout whose study `tiny` is finished; two packs, one of both experiments, one of `l2` alone."""
    (folder / "workflow/studies").mkdir(parents=True)
    shutil.copytree(ROOT / "workflow/schemas", folder / "workflow/schemas")
    (folder / "workflow/studies/tiny.yaml").write_text(TINY)
    settings = {"study": "tiny", "results": "results", "lanes_per_pack": 8, "segment_sequences": 1024}
    (folder / "config.yaml").write_text("".join(f"{key}: {value}\n" for key, value in settings.items()))
    here = Path.cwd()
    os.chdir(folder)
    try:
        finish(planned())
    finally:
        os.chdir(here)


@pytest.fixture
def base(tmp_path_factory, tmp_path, monkeypatch) -> Path:
    """A copy of it, in the working folder; files with two names keep both."""
    made, _ = made_once(tmp_path_factory, "finished", make)
    folder = tmp_path / "checkout"
    shutil.copytree(made, folder)
    for kept in folder.glob(f"results/packs/*/{KEPT}/*.h5"):
        atomic.link(kept, kept.parent.parent / kept.name)
    monkeypatch.chdir(folder)
    for source in ("TOKENS", "IMPORTED", "OMNIGLOT"):
        monkeypatch.delenv(f"ICL_{source}", raising=False)
    return folder


def planned(study: str = "tiny") -> Plan:
    return Plan({"lanes_per_pack": 8, "segment_sequences": 1024, "study": study}, Path())


def settings() -> dict:
    return {"study": "tiny", "lanes_per_pack": 8, "segment_sequences": 1024}


def packs(plan: Plan) -> tuple[Path, Path]:
    """The folders of the pack of both experiments and of that of `l2` alone."""
    shared, alone = plan.packs
    return Path(plan.paths.packs, shared), Path(plan.paths.packs, alone)


def tree() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path("results").rglob("*") if path.is_file()}


def delete(*arguments: str) -> int:
    return main(["delete", *arguments, "--yes"])


def tables_of(experiment: str) -> set[Path]:
    found = {path for path in Path("results/studies/tiny", experiment).rglob("*") if path.is_file()}
    assert {path.name for path in found} >= {"curves.csv", "experiment.json"}
    return found


def gone_after(*arguments: str) -> set[Path]:
    """The files that a call has removed; all others are as they were, but for locks."""
    before = tree()
    assert delete(*arguments) == 0
    after = tree()
    assert {path for path in after if path.name != ".lock"} <= before.keys()
    assert all(before[path] == content for path, content in after.items() if path in before)
    return before.keys() - after.keys()


def test_a_run_goes_under_both_names_and_the_tables_that_are_made_from_it_and_nothing_else(base, capsys):
    """Where its tables stayed, Snakemake would find them up to date and make nothing again."""
    shared, alone = packs(planned())
    names = {path.name for path in alone.glob("*.h5")}
    assert len(names) == 4
    tables = tables_of("l2")
    free = sum(path.stat().st_size for path in (*alone.glob("*.h5"), *tables))
    assert gone_after(RUN) == {folder / name for folder in (alone, alone / KEPT) for name in names} | tables
    # The index stays, so that the lanes train in the same pack again.
    assert sorted(path.name for path in alone.iterdir()) == [".lock", "pack.json"]
    said = capsys.readouterr().out
    assert f"that frees {removal.format_bytes(free)}" in said
    assert f"deleted: {removal.format_bytes(free)} are free" in said
    assert "makes 2 segments, 2 metrics files and tables and figures of l2 again" in said
    assert [row.state for row in status.rows(planned()) if row.pack == alone.name] == ["missing"] * 2
    assert [row.state for row in status.rows(planned()) if row.pack == shared.name] == ["done"] * 4
    # Nothing is left over, and nothing comes back.
    assert orphans.find(planned()) == ([], [])


def test_a_lane_does_not_go_while_another_lane_of_its_pack_is_needed(base, capsys):
    _, alone = packs(planned())
    assert gone_after(f"{RUN}/0") == set()
    said = capsys.readouterr().out
    assert (
        f"{alone} stays: it trains {RUN.replace('/', ' ')} seed 1 of study tiny, too (2 segments, each of all" in said
    )
    # Both together are all that the pack holds.
    tables = tables_of("l2")
    assert len(gone_after(f"{RUN}/0", f"{RUN}/1") - tables) == 8


def test_a_lane_of_its_own_pack_goes_alone(base):
    study = base / "workflow/studies/tiny.yaml"
    study.write_text(TINY.replace("seeds: [0, 1]", "seeds: [2, 3]"))
    config = Path("config.yaml")
    config.write_text(config.read_text().replace("lanes_per_pack: 8", "lanes_per_pack: 1"))
    plan = Plan({"study": "tiny", "lanes_per_pack": 1, "segment_sequences": 1024}, Path())
    finish(plan)
    folders = {path.parts[2] for path in gone_after(f"{RUN}/3") if path.parts[1] == "packs"}
    (pack_id,) = folders
    assert [lane.seed.label for lane in plan.packs[pack_id].spec.lanes] == ["3"]


def test_what_another_experiment_needs_stays(base, capsys):
    shared, _ = packs(planned())
    gone = gone_after("transience")
    assert {path.parts[:4] for path in gone} == {("results", "studies", "tiny", "transience")}
    assert f"{shared} stays: it trains l2 l2.strength=0 seed 0 of study tiny" in capsys.readouterr().out


def test_what_another_study_needs_stays(base, capsys):
    _, alone = packs(planned())
    (base / "workflow/studies/other.yaml").write_text(OTHER)
    assert gone_after(RUN) == set()
    assert (
        f"{alone} stays: it trains l2 baseline seed 0 of study other, l2 baseline seed 1 of" in capsys.readouterr().out
    )
    gone = gone_after("--all")
    assert {path.parts[1] for path in gone} == {"studies"}


def test_what_a_study_elsewhere_made_its_results_from_stays(base, tmp_path, capsys):
    _, alone = packs(planned())
    (tmp_path / "mine.yaml").write_text(OTHER)
    planned(str(tmp_path / "mine.yaml")).register()
    assert gone_after(RUN) == set()
    assert f"{alone} stays: it trains l2 baseline seed 0 of study mine" in capsys.readouterr().out
    # Its file is known; without it, what its results are made from.
    assert gone_after("--orphans") == set()
    (tmp_path / "mine.yaml").unlink()
    assert gone_after(RUN) == set()
    assert f"{alone} stays: it trains l2 baseline seed 0 of study mine" in capsys.readouterr().out
    assert "what only mine has is listed, since no such study is in workflow/studies" in orphans.listing(planned())
    shutil.rmtree("results/studies/mine")
    tables = tables_of("l2")
    assert len(gone_after(RUN) - tables) == 8


@pytest.mark.parametrize(
    ("name", "there"),
    [("l2", True), ("more", True), ("more", False)],
    ids=["an experiment of the same name", "another experiment", "another experiment, the file is gone"],
)
def test_what_a_study_of_the_same_name_in_another_folder_needs_stays(name, there, base, tmp_path, capsys):
    """The two write into one folder of results, the last one its records."""
    _, alone = packs(planned())
    twin = tmp_path / "another folder/tiny.yaml"
    twin.parent.mkdir()
    twin.write_text(OTHER.replace("  l2:", f"  {name}:"))
    planned(str(twin)).register()
    if name == "l2":
        # The records of this study, which ran last.
        planned().register()
    if not there:
        twin.unlink()
    for asked in (("l2",), ("--all",)):
        gone = gone_after(*asked)
        assert not [path for path in gone if "packs" in path.parts and alone.name in path.parts]
        said = capsys.readouterr().out
        assert f"{alone} stays: it trains {name} baseline seed 0 of study tiny" in said
        assert ("no study here has more: say `delete --orphans` first" in said) == (not there)
        assert not [path for path in gone if "more" in path.parts]
    if there:
        assert gone_after("--orphans") == set()


def test_copied_results_are_not_those_of_the_study_in_the_first_folder(base, tmp_path, monkeypatch):
    planned().register()
    shutil.copytree(base, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    assert list(made_for.noted(Path("results"))) == []
    assert gone_after(RUN)
    planned().register()
    assert list(made_for.noted(Path("results"))) == [(tmp_path / "copy/workflow/studies/tiny.yaml", "")]


@pytest.mark.parametrize("hidden", ["the note", "the study"])
def test_what_a_study_that_may_not_be_read_may_need_stays(hidden, base, tmp_path, monkeypatch, capsys):
    """As another user's; the tests may run as root, who may read all."""
    theirs = tmp_path / "their home/mine.yaml"
    theirs.parent.mkdir()
    theirs.write_text(OTHER)
    planned(str(theirs)).register()
    method = "read_text" if hidden == "the note" else "stat"
    real = getattr(Path, method)

    def refused(path: Path, *args: object, **options: object) -> object:
        if path == theirs or (path.parent.name == "mine" and path.name.startswith(".made-for-")):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **options)

    monkeypatch.setattr(Path, method, refused)
    assert any("Permission denied" in problem for _, problem in made_for.noted(Path("results")))
    shutil.rmtree("results/studies/mine/l2")  # which would tell what was made for it, too
    delete(RUN)
    said = capsys.readouterr().out
    assert "a study that cannot be loaded here may refer to it" in said
    assert "nothing to delete" in said
    assert "mine" in orphans.listing(planned())


def test_what_a_study_that_cannot_be_loaded_may_need_stays(base, capsys):
    (base / "workflow/studies/broken.yaml").write_text("a: [")
    assert gone_after(RUN) == set()
    assert "a study that cannot be loaded here may refer to it" in capsys.readouterr().out


def test_snapshots_from_which_other_lanes_start_stay(base, capsys):
    started = "  more: {start_from: {run: l2/l2.strength=0.001, at: end}}\n"
    (base / "workflow/studies/tiny.yaml").write_text(TINY + started)
    plan = planned()
    alone = next(
        Path(plan.paths.packs, name) for name, pack in plan.packs.items() if pack.spec.run.optimizer.l2.strength
    )
    plan.register()
    # What they answered is nobody's any more.
    tables = tables_of("l2")
    assert {path.name.split("-")[0] for path in gone_after(RUN) - tables} == {"metrics"}
    assert f"{alone} stays: other lanes start from its snapshots" in capsys.readouterr().out


def test_a_whole_study_takes_its_banks_and_sequences_and_leaves_no_file_but_the_index_of_packs(base):
    gone = gone_after("--all")
    assert {path.parts[1] for path in gone} == {"banks", "sequences", "packs", "studies"}
    assert {path.name for path in tree()} == {"pack.json", ".lock"}


def test_the_minimal_model_of_a_whole_study_is_said_to_be_made_again(base, capsys):
    (base / "workflow/studies/tiny.yaml").write_text(TINY + "minimal_model: {variants: {published: {}}}\n")
    delete("--all")
    assert "tables and figures of transience, l2, the minimal model and cards again" in capsys.readouterr().out


def test_banks_and_sequences_that_another_study_uses_stay(base):
    (base / "workflow/studies/other.yaml").write_text(OTHER.replace("seeds: [0, 1]", "seeds: [5]"))
    assert {path.parts[1] for path in gone_after("--all")} == {"packs", "studies"}


def test_packs_go_whoever_needs_them_where_that_is_asked_for_and_it_is_said_who_does(base, capsys):
    (base / "workflow/studies/other.yaml").write_text(OTHER)
    _, alone = packs(planned())
    tables = tables_of("l2")
    gone = gone_after(f"{RUN}/0", "--shared")
    assert gone > tables
    assert {path.parts[2] for path in gone - tables} == {alone.name}
    said = capsys.readouterr().out
    assert (
        "others that have lanes of these packs, and get them trained again: l2 baseline seed 0 of study other, " in said
    )
    assert f"{RUN.replace('/', ' ')} seed 1 of study tiny" in said


def test_nothing_goes_while_a_job_trains_one_of_the_packs(base, capsys):
    _, alone = packs(planned())
    before = tree()
    with locks.locked(alone / ".lock"):
        assert delete("--all") == 1
    assert (
        f"{alone}: a job is training this pack: wait for it or stop it; nothing was deleted" in capsys.readouterr().err
    )
    assert before.items() <= tree().items()


def test_nothing_goes_while_a_job_writes_beside_it(base, capsys):
    _, alone = packs(planned())
    before = tree()
    made = alone / layout.metrics_name("gaussian-40x3-000000000000", 0, 1024)
    with atomic.replacing(made):
        assert delete(RUN) == 1
    assert f"jobs are still at work on {made}: wait or stop them; nothing was deleted" in capsys.readouterr().err
    assert before.items() <= tree().items()


def test_nothing_goes_where_jobs_lock_nothing(base, monkeypatch, capsys):
    monkeypatch.setenv("ICL_LOCKS", "none")
    before = tree()
    assert delete(RUN) == 1
    assert "jobs at work lock nothing" in capsys.readouterr().err
    assert before.items() <= tree().items()


@pytest.mark.parametrize(("answer", "goes"), [("y", True), ("yes", True), ("n", False), ("", False), ("Y", True)])
def test_it_lists_and_asks_before(answer, goes, base, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(command.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: asked.append(capsys.readouterr().out) or answer)
    before = tree()
    assert main(["delete", RUN]) == 0
    (said,) = asked
    assert f"{packs(planned())[1]}  (2 lanes)" in said
    assert (before.items() <= tree().items()) != goes


HELD = """
import signal, time
import numpy  # which has threads of its own
from icl_transience.system import jobs
# What runs in the background of a shell may ignore them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
with jobs.signals_held():
    print("held", flush=True)
    until = time.monotonic() + 1
    while time.monotonic() < until:
        pass
    print("whole", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_process_comes_after_what_must_be_whole(number):
    """Sent from outside: the system gives it to whichever thread it likes."""
    call = [sys.executable, "-c", HELD]
    env = os.environ | {"OPENBLAS_NUM_THREADS": "2"}
    with subprocess.Popen(call, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        process.send_signal(number)
        said, problem = process.communicate()
    assert said == "whole\n"
    assert process.returncode == -number, problem


@pytest.mark.usefixtures("heeds_ctrl_c")
@pytest.mark.parametrize("asked", ["status", "cost", "stale", "orphans", "words", "explore"])
def test_what_asks_for_a_study_asks_for_its_results_where_it_is_told(asked, base, monkeypatch, capsys):
    Path("results").rename("moved there")
    monkeypatch.setattr("icl_transience.planning.plan.config_here", lambda: {**settings(), "results": "nowhere"})
    assert main([asked, "--results", "moved there"]) == 0
    there = capsys.readouterr().out
    assert not Path("nowhere").exists()
    assert main([asked, "--results", "empty"]) == (1 if asked == "explore" else 0)
    # Of these results nothing is finished, and nothing stale.
    assert capsys.readouterr().out != there or asked in ("stale", "words")


def test_a_report_and_an_archive_are_of_the_results_that_are_named(base, monkeypatch, capsys):
    for module, function, asked in (("page", "make_page", "report"), ("archive", "write_archive", "archive")):
        monkeypatch.setattr(f"icl_transience.report.{module}.{function}", lambda plan, snakefile: plan.paths.root)
        assert main([asked, "--results", "/data/moved there"]) == 0
        assert capsys.readouterr().out == "/data/moved there\n"


def interrupt(*_: object) -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture
def heeds_ctrl_c():
    """What runs in the background of a shell ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_at_the_question_is_said_in_one_line_and_nothing_goes(base, monkeypatch, capsys):
    monkeypatch.setattr(command.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", interrupt)
    before = tree()
    assert main(["delete", "--all"]) == 130
    assert capsys.readouterr().err == "icl_transience delete: stopped by Ctrl-C: nothing was deleted\n"
    assert before.items() <= tree().items()


@pytest.mark.usefixtures("heeds_ctrl_c")
@pytest.mark.parametrize("at", [1, 3, 8], ids=["first", "third", "eighth"])
def test_ctrl_c_while_files_are_removed_comes_when_all_are(at, base, monkeypatch, capsys):
    copy = base.parent / "copy"
    shutil.copytree(base, copy)
    monkeypatch.chdir(copy)
    expected = gone_after("l2")
    monkeypatch.chdir(base)
    capsys.readouterr()
    unlink, calls = Path.unlink, []

    def unlink_and_interrupt(path: Path, **options: bool) -> None:
        unlink(path, **options)
        calls.append(path)
        if len(calls) in (at, at + 1):
            interrupt()

    before = tree()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", unlink_and_interrupt)
        assert delete("l2") == 130
    said = capsys.readouterr()
    assert said.err == "icl_transience delete: stopped by Ctrl-C\n"
    assert said.out.splitlines()[-1].startswith("deleted: ")
    assert before.keys() - tree().keys() == expected


@pytest.mark.parametrize("asked", ["status", "cost", "orphans", "explore", "words"])
def test_ctrl_c_is_no_traceback(asked, monkeypatch, capsys):
    monkeypatch.setattr("icl_transience.planning.plan.config_here", interrupt)
    assert main([asked]) == 130
    assert capsys.readouterr().err == f"icl_transience {asked}: stopped by Ctrl-C\n"


def test_what_has_come_to_need_it_while_it_asked_stops_it(base, monkeypatch, capsys):
    def answer(question: str) -> str:
        (base / "workflow/studies/other.yaml").write_text(OTHER)
        return "y"

    monkeypatch.setattr(command.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", answer)
    before = tree()
    assert main(["delete", RUN]) == 1
    assert "studies or results have changed since the list was made: ask again" in capsys.readouterr().err
    assert before.items() <= tree().items()


def test_an_answer_that_does_not_come_is_none(base, monkeypatch):
    def end(question: str) -> str:
        raise EOFError

    monkeypatch.setattr(command.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", end)
    before = tree()
    assert main(["delete", RUN]) == 0
    assert before.items() <= tree().items()


def test_a_pack_that_is_a_link_stays_with_what_it_leads_to(base, capsys):
    _, alone = packs(planned())
    alone.rename(base / "elsewhere")
    alone.symlink_to(base / "elsewhere")
    assert not [path for path in gone_after(RUN) if alone in path.parents]
    assert f"{alone} stays: it is a link, to {base / 'elsewhere'}: delete that by hand" in capsys.readouterr().out
    assert len(list(Path("elsewhere").glob("*.h5"))) == 4


def test_without_a_terminal_it_wants_to_be_told(base, capsys):
    before = tree()
    assert main(["delete", RUN]) == 1
    assert "nobody is there to ask; say --yes" in capsys.readouterr().err
    assert tree() == before


@pytest.mark.parametrize("name", ["l3", "l2/l2.strength=1", f"{RUN}/7", "l2/", "", "../packs"])
def test_an_unknown_name_is_refused(name, base):
    with pytest.raises(StudyError, match="expected EXPERIMENT, EXPERIMENT/RUN or EXPERIMENT/RUN/SEED"):
        deletion.selected(planned(), [name])


def test_what_has_another_name_besides_frees_nothing(base):
    _, alone = packs(planned())
    (segment, *_) = sorted(alone.glob("segment-*.h5"))
    both = [segment, layout.kept_name(segment)]
    assert removal.freed([segment]) == 0
    assert removal.freed(both) == segment.stat().st_size
    os.link(segment, "elsewhere.h5")
    assert removal.freed(both) == 0


def test_of_a_link_to_a_folder_the_link_goes_and_the_folder_stays(base):
    Path("mine").mkdir()
    Path("mine/own.csv").write_text("mine")
    Path("results/studies/tiny/l2/more").symlink_to(Path("mine").resolve())
    assert delete("--all") == 0
    assert not Path("results/studies/tiny").exists()
    assert Path("mine/own.csv").read_text() == "mine"


def test_an_experiment_whose_record_cannot_be_read_stops_it(base):
    record = Path("results/studies/mine/l2/experiment.json")
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"packs": {}}))
    before = tree()
    assert delete(RUN) == 1
    assert before.items() <= tree().items()
