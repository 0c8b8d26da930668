"""The profiles, read by Snakemake itself: what a job gets under each."""

import os
import re
import shlex
from pathlib import Path

import pytest
import yaml
from pipeline import PLAIN, ROOT, Clone

from icl_transience.banks import bank as banks_bank
from icl_transience.planning.plan import Plan
from icl_transience.system import memory

SLURM = ("--workflow-profile", "profiles/slurm")

# Neither says where or on how much a job runs.
SHARED = ("rerun-triggers", "rerun-incomplete", "keep-going", "show-failed-logs", "scheduler")


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Clone:
    return Clone.make(tmp_path_factory.mktemp("profiles") / "clone")


def training(clone: Clone, *arguments: str, config: tuple[str, ...] = (), **env: str) -> str:
    """The resources of a training job, in Snakemake's words."""
    output = clone.build("-n", *arguments, config=config, **env)
    return re.search(r"^ *rule train:\n.*?^ +resources: (.*?)$", output, re.MULTILINE | re.DOTALL)[1]


@pytest.mark.parametrize(("visible", "gpu"), [("", 0), ("0,1", 1)])
def test_on_this_machine_a_job_waits_for_a_gpu_where_there_is_one(clone, visible, gpu):
    assert f" gpu={gpu}," in training(clone, config=("device=cuda",), CUDA_VISIBLE_DEVICES=visible)
    assert " gpu=0," in training(clone, CUDA_VISIBLE_DEVICES=visible)


def test_on_this_machine_jobs_share_its_memory(clone):
    """Snakemake lets a job ask for no more than there is of a resource, and so shows how much that is."""
    assert f"mem_mb={memory.for_jobs()}," in training(clone, "--set-resources", "train:mem_mb=1000000000")
    # On a cluster the memory is another machine's, and each job has its own.
    on_slurm = training(clone, "--workflow-profile", "profiles/slurm", "--set-resources", "train:mem_mb=1000000000")
    assert "mem_mb=1000000000," in on_slurm


def test_on_slurm_a_job_gets_the_gpu_that_the_profile_computes_on(clone):
    """Whatever the machine has that Snakemake is started on; and with `--config study=tiny` on the command line."""
    asked = training(clone, "--workflow-profile", "profiles/slurm", CUDA_VISIBLE_DEVICES="")
    assert " gpu=1, device=cuda," in asked


def test_the_command_line_comes_before_the_profiles_values_one_by_one(clone, tmp_path):
    own = clone.copy(tmp_path / "clone")
    with (own.folder / "profiles/slurm/execution.yaml").open("a") as file:
        file.write("segment_minutes: 60\n")
    asked = training(own, "--workflow-profile", "profiles/slurm", config=("device=cpu",))
    assert " gpu=0, device=cpu," in asked
    # The profile's own minutes still hold: a segment that the horizon ends.
    said = own.build("-n", "--workflow-profile", "profiles/slurm", config=("device=cpu",))
    assert "segment-000000000000-000000002048" in said


def test_on_slurm_segments_are_cut_to_the_partitions_time_limit(clone, tmp_path):
    own = clone.copy(tmp_path / "clone")
    own.settings = ("gflops=0.001", "lanes_per_pack=8")
    limits = own.folder / "profiles/slurm/execution.yaml"
    limits.write_text(limits.read_text().replace("time_limit: 1440", "time_limit: 25"))
    jobs = own.would_run("--workflow-profile", "profiles/slurm")
    limits.write_text(limits.read_text().replace("time_limit: 25", "time_limit: 1440"))
    assert jobs["train"] > own.would_run("--workflow-profile", "profiles/slurm")["train"]


def test_profiles_agree_on_what_makes_a_rule_run_again():
    default, slurm = (
        yaml.safe_load((ROOT / f"profiles/{name}/config.yaml").read_text()) for name in ("default", "slurm")
    )
    assert {key: default[key] for key in SHARED} == {key: slurm[key] for key in SHARED}


def test_a_cluster_that_wants_gres_is_asked_by_gres_alone(tmp_path):
    """By the lines that the profile has for it as comments; `sbatch` is one that notes what it is given and fails."""
    clone = Clone.make(tmp_path / "clone")
    profile = clone.folder / "profiles/slurm/config.yaml"
    text = profile.read_text(encoding="utf-8")
    (block,) = re.findall(r"^# set-resources:\n#   train:\n#     gres(?:.*\n#  .*)+\n", text, re.MULTILINE)
    profile.write_text(text.replace(block, re.sub(r"^# ?", "", block, flags=re.MULTILINE)), encoding="utf-8")
    (clone.folder / "bin").mkdir()
    sbatch = clone.folder / "bin/sbatch"
    sbatch.write_text(f"#!/bin/bash\nprintf '%s\\n' \"$@\" > {shlex.quote(str(tmp_path / 'asked'))}\nexit 1\n")
    sbatch.chmod(0o755)
    # Nothing but training is left to do.
    plan = Plan({"study": str(clone.study), "results": str(clone.folder / "results")}, clone.folder)
    for bank in plan.banks.values():
        banks_bank.save(banks_bank.build(bank), Path(plan.paths.bank(bank.id)), bank)
    segment = re.search(r"results/packs/\S*/segment-0{12}-\d{12}\.h5", clone.build("-n", *SLURM))
    path = f"{sbatch.parent}:{os.environ['PATH']}"
    options = ["--retries", "0", "--slurm-no-account", "--default-resources", "slurm_partition=gpu"]
    done = clone.snakemake(segment[0], *SLURM, *options, **PLAIN, PATH=path)
    assert done.returncode != 0
    asked = (tmp_path / "asked").read_text(encoding="utf-8").splitlines()
    assert "--gres=gpu:h200:1" in asked, done.stderr
    assert not [word for word in asked if word.startswith("--gpus")]
