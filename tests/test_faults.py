"""What goes wrong on real machines, done on purpose: after each fault the same command again gives the same results."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import h5py
import pandas as pd
import pytest
from pipeline import PLAIN, TINY, Clone, made_once

from icl_transience.specs.errors import StudyError
from icl_transience.store import hdf5, segment_file
from icl_transience.training import segments

HERE = Path(__file__).parent

# One experiment of one lane.
STUDY = TINY.replace("seeds: [0, 1]", "seeds: [0]").split("experiments:")[0] + "experiments:\n  transience: {}\n"


def content(clone: Clone) -> dict[str, object]:
    """What is in every result: of HDF5 files the checksum of their content, of others their bytes."""
    found: dict[str, object] = {}
    for path in sorted((clone.folder / "results").rglob("*")):
        if path.suffix == ".h5":
            found[str(path.relative_to(clone.folder))] = hdf5.read_attribute(path, "checksum")
        elif path.suffix in (".csv", ".svg", ".png", ".json") or path.name == "SHA256SUMS":
            found[str(path.relative_to(clone.folder))] = path.read_bytes()
    return {name: value for name, value in found.items() if "provenance" not in name}


def temporaries(clone: Clone) -> set[str]:
    return {path.name for path in (clone.folder / "results").rglob(".*.tmp")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Clone:
    folder, _ = made_once(tmp_path_factory, "undisturbed", lambda folder: Clone.make(folder / "clone", STUDY).build())
    return Clone(folder / "clone")


@pytest.fixture
def clone(tmp_path) -> Clone:
    return Clone.make(tmp_path / "clone", STUDY)


@pytest.fixture
def finished(undisturbed, tmp_path) -> Clone:
    return undisturbed.copy(tmp_path / "clone")


def failing(clone: Clone, *arguments: str, config: tuple[str, ...] = (), **env: str) -> str:
    done = clone.snakemake(*arguments, config=config, **env)
    assert done.returncode != 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def fault(kind: str, pattern: str, told: Path | None = None) -> dict[str, str]:
    path = os.pathsep.join([str(HERE / "faults"), os.environ.get("PYTHONPATH", "")])
    return {"PYTHONPATH": path, "FAULT": kind, "FAULT_AT": pattern, "FAULT_SIGNAL": str(told)}


def wait_for(condition, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# Killed.


def test_jobs_killed_in_the_middle_of_each_kind_of_file(clone, undisturbed):
    """Each call goes on where the one before was killed, and is killed at the next kind of file."""
    for pattern in (
        *("gaussian-*.h5", "segment-000000000000-*.h5", "segment-000000001024-*.h5", "metrics-*-000000001024-*.h5"),
        *("curves.csv", "runs.csv", "SHA256SUMS", "curves.svg", "curves.png"),
    ):
        failing(clone, **fault("kill", pattern))
        results = clone.folder / "results"
        assert [path for path in results.glob(f"[!.]*/**/{pattern}") if path.parent.name != ".kept"] == [], pattern
        assert any(re.fullmatch(r"\..*\.tmp", name) for name in temporaries(clone)), pattern
    clone.build()
    assert content(clone) == content(undisturbed)
    assert temporaries(clone) == set()


def test_a_job_killed_right_after_its_file_got_its_name_is_not_done_again(clone, undisturbed, tmp_path):
    """Snakemake removes the file, since the job failed; it has another name that Snakemake does not know."""
    for pattern in ("segment-000000000000-*.h5", "metrics-*-000000000000-*.h5"):
        failing(clone, **fault("kill after", pattern, tmp_path / "told"))
        assert list((clone.folder / "results/packs").glob(f"*/{pattern}")) == []
    clone.build()
    for pattern, said in (("segment-0000", "finished before"), ("metrics-*-0000", "answered before")):
        (log,) = clone.folder.glob(f"results/logs/packs/*/{pattern}00000000-*.log")
        assert said in log.read_text()
    assert content(clone) == content(undisturbed)


@pytest.mark.parametrize("pattern", ["pack.json", "experiment.json"])
def test_snakemake_killed_while_it_writes_its_plans_down(pattern, clone, undisturbed):
    failing(clone, **fault("kill", pattern))
    assert "LockException" in failing(clone)
    assert clone.library("writers").returncode == 0
    clone.build("--unlock")
    clone.build()
    assert content(clone) == content(undisturbed)
    assert temporaries(clone) == set()


def started(clone: Clone, segment_sequences: int = 1024, **env: str) -> subprocess.Popen:
    """Snakemake in a session of its own."""
    call = clone.call(config=(f"segment_sequences={segment_sequences}",), **env)
    return subprocess.Popen(**call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def test_snakemake_killed_while_a_job_trains(clone, undisturbed, tmp_path):
    told = tmp_path / "told"
    process = started(clone, **fault("wait", "segment-000000000000-*.h5", told))
    wait_for(told.exists)
    process.kill()
    process.wait()
    # The job lives on: unlocking now would let a second one write the same file.
    refused = clone.library("writers")
    assert refused.returncode == 1
    assert re.search(r"jobs are still at work on .*results/packs/.*segment-000000000000-.*wait for", refused.stderr)
    assert "LockException" in failing(clone)
    told.write_text("go on")
    wait_for(lambda: clone.library("writers").returncode == 0)
    clone.build("--unlock")
    clone.build()
    assert content(clone) == content(undisturbed)
    # What the orphaned job had finished was not trained again.
    (log,) = clone.folder.glob("results/logs/packs/*/segment-000000000000-*.log")
    assert "finished before" in log.read_text()


def test_a_queue_that_takes_its_machine_back(tmp_path):
    """SIGTERM to every process of the job, Snakemake included, as Slurm sends it 30 seconds before SIGKILL."""
    # Some seconds of training, in one segment.
    study = STUDY.replace("horizon: 2048", "horizon: 200_000").replace("every: 512", "every: 50_000")
    clone, other = (Clone.make(tmp_path / name, study) for name in ("clone", "other"))
    long = ("segment_sequences=200000",)
    # With plain interpreters, which all are in the session that the signal goes to.
    process = started(clone, 200_000, **PLAIN)

    def logs() -> str:
        return "".join(log.read_text() for log in clone.folder.glob("results/logs/packs/*/segment-*.log"))

    wait_for(lambda: "left" in logs())
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=30) != 0
    wait_for(lambda: "they are kept: run the same snakemake command again to go on from there" in logs(), 30)
    (unfinished,) = clone.folder.glob("results/packs/*/.kept/unfinished-*.h5")
    seen = int(hdf5.read_attribute(unfinished, "sequences_seen"))
    assert 0 < seen < 200_000
    assert temporaries(clone) == set()
    if clone.snakemake("-n", config=long).returncode:
        clone.build("--unlock")
    clone.build(config=long)
    # Snakemake has removed the first job's log; the second one's first line is beyond what the first one did.
    assert int(re.search(r"([\d,]+) of 200,000 seen", logs())[1].replace(",", "")) > seen
    other.build(config=long)
    assert content(clone) == content(other)


# Damaged.


def flip_a_bit(path: Path) -> None:
    """Of content: a dataset's for HDF5, any for others."""
    place = path.stat().st_size // 2
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            datasets: list[h5py.Dataset] = []
            file.visititems(lambda _, item: datasets.append(item) if isinstance(item, h5py.Dataset) else None)
            largest = max(datasets, key=lambda dataset: dataset.nbytes).id
            # Snapshots lie in chunks.
            place = largest.get_offset() or largest.get_chunk_info(0).byte_offset
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 4]))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def make_older(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = 0
        file.attrs["checksum"] = hdf5.checksum(file)


# Kind of file, what happens to it, and what is deleted and asked for, so that it is read again. The last in the flow of
# data come first: what is made from a file that was made again is made again too.
DAMAGES = [
    ("studies/tiny/transience/runs.csv", truncate, "studies/tiny/transience/curves.svg"),
    ("studies/tiny/transience/SHA256SUMS", truncate, "studies/tiny/transience/curves.svg"),
    ("studies/tiny/transience/curves.csv", flip_a_bit, "studies/tiny/transience/curves.svg"),
    ("packs/*/metrics-*-000000000000-*.h5", truncate, "studies/tiny/transience/runs.csv"),
    ("packs/*/segment-000000001024-*.h5", make_older, "packs/*/metrics-*-000000001024-*.h5"),
    ("packs/*/segment-000000000000-*.h5", flip_a_bit, "packs/*/metrics-*-000000000000-*.h5"),
    ("sequences/*.h5", truncate, "packs/*/metrics-*-000000000000-*.h5"),
    ("banks/*.h5", flip_a_bit, "sequences/*.h5"),
]


def test_damaged_files_are_named_and_the_same_command_makes_them_again(finished, undisturbed):
    for pattern, damage, read_again in DAMAGES:
        path = finished.path(pattern)
        # Damage leaves file times as they are.
        times = path.stat().st_atime_ns, path.stat().st_mtime_ns
        damage(path)
        os.utime(path, ns=times)
        removed = finished.path(read_again)
        (removed.parent / ".kept" / removed.name).unlink(missing_ok=True)
        removed.unlink()
        target = str(removed.relative_to(finished.folder))
        said = failing(finished, target)
        name = path.relative_to(finished.folder)
        assert re.search(rf"{name}: .*moved to {name}.damaged: run the same snakemake command again", said), said
        assert "Traceback" not in said
        finished.build(target)
    finished.build()
    assert content(finished) == content(undisturbed)
    assert temporaries(finished) == set()
    assert finished.would_run() == {}


# Two at once, divergence, clocks.


def test_two_snakemakes_on_one_results_folder(tmp_path, undisturbed):
    results = tmp_path / "shared results"
    clones = [Clone.make(tmp_path / name, STUDY) for name in ("one", "two")]
    for clone in clones:
        config = (clone.folder / "config.yaml").read_text()
        (clone.folder / "config.yaml").write_text(config.replace("results: results", f"results: {results}"))
    made = tmp_path / "made"
    both = [started(clone, **fault("note", "segment-*.h5", made)) for clone in clones]
    ended = [process.wait(timeout=600) for process in both]
    for clone, code in zip(clones, ended, strict=True):
        # A job whose input the other Snakemake was just making anew may have failed; nothing else may be wrong.
        if code:
            clone.build(**fault("note", "segment-*.h5", made))
    assert len(made.read_text().split()) == 2, "each of the two segments was trained once"
    for clone in clones:
        clone.build()
        assert clone.would_run() == {}
    (clones[0].folder / "results").symlink_to(results)
    assert content(clones[0]) == content(undisturbed)
    assert temporaries(clones[0]) == set()


def test_a_lane_that_diverges_is_recorded_and_the_others_are_as_they_were(clone, undisturbed):
    runs = "  transience: {runs: {baseline: {}, wild: {optimizer: {learning_rate: 1.0e+15}}}}\n"
    clone.study.write_text(STUDY.replace("  transience: {}\n", runs))
    # Both in one pack, so that they train side by side.
    clone.build(config=("packing=shape",))
    assert len(list(clone.folder.glob("results/packs/*/pack.json"))) == 1
    rows = pd.read_csv(clone.path("studies/tiny/transience/runs.csv")).set_index("run")
    assert rows.loc["wild", "outcome"] == "diverged"
    curves = [pd.read_csv(c.path("studies/tiny/transience/curves.csv")) for c in (clone, undisturbed)]
    ours = curves[0].query("run == 'baseline'").reset_index(drop=True)
    pd.testing.assert_frame_equal(ours[list(curves[1].columns)], curves[1], check_exact=True)
    assert clone.would_run(config=("packing=shape",)) == {}


@pytest.mark.parametrize("jump", [-10, 10], ids=["back", "forward"])
def test_a_clock_that_jumps_years_between_files_makes_nothing_again(jump, finished):
    for number, path in enumerate(sorted((finished.folder / "results").rglob("*.*"))):
        if number % 2:
            os.utime(path, (time.time() + jump * 31_557_600,) * 2)
    assert finished.would_run() == {}
    finished.change("seeds: [0]", "seeds: [0, 1]")
    assert finished.would_run() == {"train": 2, "evaluate": 2, "declare": 1, "tables": 1, "figures": 1}


# Disks.


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a file system of so many KiB on a folder."""
    mounted = []

    def mount(folder: Path, kibibytes: int) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", folder],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"file systems cannot be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    if shutil.which("mount") is None:
        pytest.skip("there is no `mount` here")
    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path, leave: int) -> Path:
    """Fills a disk but for `leave` KiB."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        file.write(b"\0" * (shutil.disk_usage(folder).free - leave * 1024))
    return filler


def test_a_disk_that_fills_up_while_a_segment_is_written(small_disk, tmp_path, undisturbed):
    """Room for the whole segment was there when it began; another program takes it meanwhile."""
    from builders import TINY_BANK, pack

    from icl_transience.banks import bank as banks_bank

    spec, bank = pack(), banks_bank.build(TINY_BANK).embeddings
    disk = small_disk(tmp_path / "disk", 4096)
    path = disk / "segment-000000000000-000000004096.h5"
    fillers = []
    with pytest.raises(StudyError, match=r"segment-.*: cannot be written .No space left on device.*: make room"):
        segments.run_segment(
            segments.SegmentJob(path, spec, bank, None, 0, 4096),
            on_progress=lambda seen, loss: fillers or fillers.append(fill(disk, 0)),
        )
    assert {found.name for found in disk.iterdir()} == {"filler"}
    fillers[0].unlink()
    segments.run_segment(segments.SegmentJob(path, spec, bank, None, 0, 4096))
    with segment_file.opened(path, spec):
        pass


def test_a_full_disk_ends_the_job_with_a_reason_and_the_same_command_goes_on(small_disk, clone, undisturbed):
    disk = small_disk(clone.folder / "results", 8192)
    clone.build("--until", "sequences")
    filler = fill(disk, 200)
    said = failing(clone)
    assert re.search(r"segment-.*h5: takes about .* MiB, but its disk has .* MiB left: make room", said), said
    assert "Traceback" not in said
    filler.unlink()
    clone.build()
    assert content(clone) == content(undisturbed)
    assert temporaries(clone) == set()


def test_results_that_cannot_be_written_to(small_disk, finished, undisturbed):
    disk, results = finished.folder / "disk", finished.folder / "results"
    small_disk(disk, 32768)
    shutil.copytree(results, disk, dirs_exist_ok=True)
    shutil.rmtree(results)
    results.symlink_to(disk)
    finished.study.write_text(STUDY + "  again: {}\n")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert finished.would_run() == {"declare": 1, "tables": 1, "figures": 1}
    said = failing(finished)
    assert re.search(r"results/.*: cannot be written .Read-only file system.*make the disk writable", said)
    assert "Traceback" not in said
    # Where results are to be replaced, Snakemake itself says so.
    finished.change("seeds: [0]", "seeds: [0, 1]")
    assert "Write-protected output files" in failing(finished)
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    finished.change("seeds: [0, 1]", "seeds: [0]")
    finished.build()
    old, new = content(undisturbed), content(finished)
    assert {name: new[name] for name in old} == old
    assert finished.would_run() == {}


def test_a_temporary_folder_without_room_makes_no_difference(small_disk, tmp_path, clone, undisturbed):
    """Not even to the compiler, which is called for: the cache is empty."""
    full = small_disk(tmp_path / "tmp", 64)
    fill(full, 0)
    clone.build(TMPDIR=str(full), ICL_CACHE=str(tmp_path / "cache"))
    assert list((tmp_path / "cache").glob("native-*.so"))
    assert content(clone) == content(undisturbed)
