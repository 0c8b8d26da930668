"""A study on a Slurm cluster, through profiles/slurm: killed jobs and a restarted controller change no bit of it."""

import re
import subprocess
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import psutil
import pytest
import yaml
from pipeline import PLAIN, TINY, Clone, made_once
from slurm.cluster import Cluster, missing, until

from icl_transience.store.locks import locked

# Long enough for a job to be caught while it trains.
STUDY = TINY.replace("horizon: 2048", "horizon: 524288").replace("every: 512", "every: 131072")
LENGTH = ("segment_sequences=262144",)
TARGET = "results/studies/tiny/l2/curves.csv"
# A limit, not a measurement, in seconds.
PATIENCE = 900


@dataclass
class Found:
    """What the two runs left, and the cluster's jobs."""

    here: Clone
    cluster: Clone
    jobs: list[dict[str, str]]
    killed: str
    cancelled: str

    def jobs_of(self, comment: str) -> list[dict[str, str]]:
        """In the order they were submitted."""
        return [job for job in self.jobs if re.search(comment, job["Comment"])]


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> Found:

    def make(folder: Path) -> dict:
        # One machine has one Slurm, whoever else tests on it.
        with locked(Path(tempfile.gettempdir(), "icl-transience-slurm.lock"), wait=True):
            if reason := missing():
                pytest.skip(reason)
            cluster = Cluster(folder / "cluster")
            try:
                cluster.start()
                return disturbed(cluster, folder)
            finally:
                cluster.stop()

    folder, values = made_once(tmp_path_factory, "slurm", make)
    return Found(Clone(folder / "here"), Clone(folder / "there"), **values)


def disturbed(cluster: Cluster, folder: Path) -> dict:
    """The fields of a Found, but for its clones."""
    here, there = Clone.make(folder / "here", STUDY), Clone.make(folder / "there", STUDY)
    configure(there)
    with running(there, "--workflow-profile", "profiles/slurm") as slurm, running(here) as local:
        killed = wait_for_training(there, slurm)
        killed.process.kill()
        cancelled = wait_for_training(there, slurm, but={killed.job})
        cluster.cancel(cancelled.job)
        # Their second attempts.
        wait_for_training(there, slurm, but={killed.job, cancelled.job})
        cluster.stop_controller()
        cluster.start_controller()
        slurm.wait(PATIENCE)
        local.wait(PATIENCE)
    for clone, process in ((there, slurm), (here, local)):
        assert process.returncode == 0, (clone.folder / "output").read_text()
    return {"jobs": cluster.jobs(), "killed": killed.job, "cancelled": cancelled.job}


def configure(clone: Clone) -> None:
    """The profile as the user of this cluster would edit it."""
    profile = clone.folder / "profiles/slurm/config.yaml"
    values = yaml.safe_load(profile.read_text())
    values["default-resources"]["slurm_partition"] = "gpu"
    values["set-resources"] = {rule: {"gpu": 1, "gpu_model": "fake"} for rule in ("train", "evaluate")}
    values |= {"slurm-no-account": True, "slurm-status-command": "squeue", "latency-wait": 5}
    # The shipped pace is for jobs of an hour.
    values |= {"slurm-init-seconds-before-status-checks": 2, "max-status-checks-per-second": 10}
    profile.write_text(yaml.safe_dump(values))
    # Both to be seen: what a job computes on here, and that the command line can change it.
    execution = {"device": "cpu", "segment_minutes": None, "memory": 8000, "segment_sequences": 640000}
    (clone.folder / "profiles/slurm/execution.yaml").write_text(yaml.safe_dump(execution))


@contextmanager
def running(clone: Clone, *arguments: str) -> Iterator[subprocess.Popen]:
    # Jobs of Slurm are no children of ours.
    call = clone.call(*arguments, TARGET, config=LENGTH, **PLAIN)
    with (clone.folder / "output").open("w") as output:
        process = subprocess.Popen(**call, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


@dataclass
class Training:
    process: psutil.Process
    job: str


def wait_for_training(clone: Clone, snakemake: subprocess.Popen, but: Collection[str] = ()) -> Training:
    """A process that is training, of a Slurm job that is not in `but`."""
    caught: list[Training] = []

    def seen() -> bool:
        assert snakemake.poll() is None, (clone.folder / "output").read_text()
        for process in psutil.process_iter():
            try:
                words = process.cmdline()
                if words[1:4] != ["-m", "icl_transience", "train"] or process.cwd() != str(clone.folder):
                    continue
                job, log = process.environ()["SLURM_JOB_ID"], Path(process.cwd(), words[words.index("--log") + 1])
            except psutil.Error:
                continue
            if job not in but and log.exists() and "left" in log.read_text():
                caught.append(Training(process, job))
        return bool(caught)

    until(seen, "a job trains", PATIENCE)
    return caught[0]


def contents(clone: Clone) -> dict[str, str]:
    """Path -> checksum of the content of every HDF5 file."""
    checksums = {}
    for path in sorted(clone.folder.glob("results/**/*.h5")):
        with h5py.File(path) as file:
            checksums[str(path.relative_to(clone.folder))] = file.attrs["checksum"]
    return checksums


def test_every_file_has_the_content_it_has_without_a_cluster(found):
    here, there = contents(found.here), contents(found.cluster)
    assert sum("/segment-" in path for path in here) == 2 * 2 * 2, "two packs, two segments, each kept a second time"
    assert sum("/metrics-" in path for path in here) == 2 * 2 * 2
    assert here == there


def test_what_was_cancelled_had_kept_its_training_and_went_on_from_there(found):
    """scancel sends SIGTERM, as a queue does that takes its machine back; kill -9 leaves nothing to go on from."""
    first_seen = {}
    for name in ("killed", "cancelled"):
        (job,) = (job for job in found.jobs if job["JobId"] == getattr(found, name))
        pack = re.search(r"segment_(.*)_0{12}_", job["Comment"])[1]
        log = found.cluster.folder / f"results/logs/packs/{pack}/segment-000000000000-000000262144.log"
        # The log of the second attempt: Snakemake has removed the first one's.
        first_seen[name] = int(re.search(r"([\d,]+) of 262,144 seen", log.read_text())[1].replace(",", ""))
    # The first line comes after the first stretch of batches that a job trains.
    stretch = 32 * 32
    assert first_seen["killed"] == stretch
    assert first_seen["cancelled"] > stretch


def test_every_table_is_the_same(found):
    names = ("curves.csv", "transience.csv", "runs.csv")
    tables = [
        [clone.path(f"studies/tiny/l2/{name}").read_bytes() for name in names] for clone in (found.here, found.cluster)
    ]
    assert tables[0] == tables[1]


def test_what_was_killed_was_submitted_again_with_twice_the_memory_and_time(found):
    by_id = {job["JobId"]: job for job in found.jobs}
    assert by_id[found.killed]["JobState"] == "FAILED"
    assert by_id[found.cancelled]["JobState"] == "CANCELLED"
    for first in (by_id[found.killed], by_id[found.cancelled]):
        again = next(job for job in found.jobs_of(first["Comment"]) if int(job["JobId"]) > int(first["JobId"]))
        assert megabytes(again) == 2 * megabytes(first)
        assert minutes(again) == 2 * minutes(first)


def test_no_other_job_ran_twice_though_the_controller_was_restarted(found):
    completed = [job["Comment"] for job in found.jobs if job["JobState"] == "COMPLETED"]
    assert sorted(completed) == sorted(set(completed))
    assert len(completed) == 2 + 2 * 2, "bank, sequences, two segments of two packs"
    assert {job["JobId"] for job in found.jobs if job["JobState"] != "COMPLETED"} == {found.killed, found.cancelled}


def test_a_segment_and_its_evaluation_are_one_job_with_one_gpu(found):
    segments = found.jobs_of("^rule_segment_.*_evaluate_train$")
    assert len({job["Comment"] for job in segments}) == 4
    assert all(job["TresPerJob"] == "gres:gpu:fake:1" for job in segments)
    assert not found.jobs_of("_(evaluate|train)_wildcards")


def test_jobs_without_a_gpu_ask_for_none(found):
    for rule in ("bank", "sequences"):
        (job,) = found.jobs_of(f"^rule_{rule}_")
        assert "TresPerJob" not in job


def test_jobs_ask_for_the_memory_time_and_cores_of_their_resources(found):
    (bank,) = found.jobs_of("^rule_bank_")
    # 400 MB of its own, and 300 of Snakemake; 10 minutes to start, and one.
    assert (megabytes(bank), minutes(bank), bank["NumCPUs"]) == (700, 11, "1")
    segment = found.jobs_of("^rule_segment_.*_000000262144_")[0]
    assert 900 <= megabytes(segment) < 1000
    assert minutes(segment) == 23, "12 of training and 11 of evaluation"


def test_tables_are_made_where_snakemake_runs(found):
    assert not found.jobs_of("tables")


def megabytes(job: dict[str, str]) -> int:
    return int(job["MinMemoryNode"].removesuffix("M"))


def minutes(job: dict[str, str]) -> int:
    hours, rest, _ = job["TimeLimit"].split(":")
    return 60 * int(hours) + int(rest)
