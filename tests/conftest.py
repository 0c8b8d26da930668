"""What every test shares: one thread, as a training job has; the order; the real drawings where they are at hand."""

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

# As a training job has it; programs side by side would take the cores from one another. Before torch reads it.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
# A program that is started some hundreds of times is compiled once.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import hypothesis
import pytest
import torch
from pipeline import Clone, made_once

torch.set_num_threads(1)
# Triton asks once, when it is imported, and more than its own tests import it: without a GPU its kernels are
# interpreted.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# A shell has what it starts in the background ignore Ctrl-C, and that is passed on to all that tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The files that take longest come first, so that no process is left with one of them at the end.
LONGEST = (
    *("test_pipeline_slurm", "test_faults", "test_pipeline_incremental", "test_pipeline_end_to_end"),
    *("test_pipeline_report", "test_pipeline_care", "test_security", "test_resources", "test_makefile", "test_paper"),
    *("test_fuzzed_studies", "test_training", "test_engines", "test_triton_compiled", "test_triton_step"),
)
# What `make test-quick` leaves out, as names begin: pipelines that run, and tests of some seconds each. What stays of
# training and engines are their short tests and the recorded losses (test_golden.py).
SLOW = (
    *("test_pipeline_", "test_faults", "test_resources", "test_makefile", "test_paper", "test_fuzzed_studies"),
    "test_triton_step",
    "test_bad_studies.py::test_snakemake_says_what_is_wrong_and_leaves_nothing_behind",
    "test_bad_studies.py::test_a_bad_setting_on_the_command_line_is_refused_likewise",
    "test_engines.py::test_a_hundred_native_steps_stray_from_the_reference_no_further_than_eager_ones",
    "test_engines.py::test_native_steps_of_every_kind_stray_from_the_reference_no_further_than_eager_ones",
    "test_load.py::test_a_notebook_runs_on_a_small_study_and_its_outputs_are_committed",
    "test_load.py::test_the_page_runs_as_it_stands",
    "test_security.py::test_no_job_is_submitted_from_where_a_shell_would_read_its_path",
    "test_security.py::test_words_from_a_study_run_nothing_wherever_they_stand",
    "test_training.py::test_a_job_",
    "test_training.py::test_a_lane_learns_in_a_pack_what_it_learns_alone",
    "test_training.py::test_a_second_trainer_",
    "test_training.py::test_going_on_takes_no_more_memory_than_beginning",
    "test_training.py::test_more_of_training_is_what_torch_optim_makes_of_it",
    "test_training.py::test_resumed_equals_uninterrupted_bit_for_bit",
    "test_training.py::test_training_is_adam_on_the_cross_entropy_plus_l2",
    "test_training.py::test_whatever_happens_in_training_resumed_equals_uninterrupted_bit_for_bit",
    "test_while_training.py::test_l2_clipping_and_moments_are_those_of_training_what_moves_alone",
    "test_while_training.py::test_lanes_learn_in_a_pack_what_they_learn_alone_bit_for_bit",
    "test_while_training.py::test_resumed_equals_uninterrupted_bit_for_bit",
)


def pytest_configure(config: pytest.Config) -> None:
    # Set before pytest-xdist starts its processes, which must agree on the order.
    os.environ.setdefault("TEST_ORDER", str(random.randrange(1000)))


def pytest_report_header(config: pytest.Config) -> str:
    return f"order of tests: TEST_ORDER={os.environ['TEST_ORDER']}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Shuffle the tests of each file, and the files that are not among the longest; mark what is slow."""
    order = random.Random(int(os.environ["TEST_ORDER"]))
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
        if f"{item.path.name}::{item.name}".startswith(SLOW):
            item.add_marker(pytest.mark.slow)
    shuffled = order.sample(sorted(files), len(files))
    shuffled.sort(key=lambda path: LONGEST.index(path.stem) if path.stem in LONGEST else len(LONGEST))
    items[:] = [item for path in shuffled for item in order.sample(files[path], len(files[path]))]


# How long an example takes says how busy the machine is, not whether the code is right.
hypothesis.settings.register_profile("steady", deadline=None)
hypothesis.settings.load_profile("steady")

OMNIGLOT_ZIPS = ("images_background_small1.zip", "images_background_small2.zip")


@pytest.fixture(scope="session")
def omniglot_folder() -> Path:
    """The folder of the two small Omniglot zips: ICL_OMNIGLOT, or ../shared/data/omniglot beside the repository."""
    folder = _data_folder("omniglot")
    missing = [name for name in OMNIGLOT_ZIPS if not (folder / name).is_file()]
    if missing:
        pytest.skip(f"{folder} has no {', '.join(missing)}: name the folder of the Omniglot zips in ICL_OMNIGLOT")
    return folder


@pytest.fixture(autouse=True)
def denormals_are_numbers():
    """A job flushes them to zero for speed; a test that runs one in this process must not leave them so."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def finished_tiny(tmp_path_factory) -> Iterator[tuple[Clone, str]]:
    """The study `tiny`, built once a run of the tests, and what Snakemake said; nobody changes a file of it."""
    folder, said = made_once(tmp_path_factory, "tiny", lambda folder: Clone.make(folder / "clone").build())
    clone = Clone(folder / "clone")
    before = _stats(clone.folder)
    yield clone, said
    assert _stats(clone.folder) == before, "a test has changed files of the finished study: it is to copy them first"


def _stats(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def tokens_folder() -> Path:
    """A folder with a real table of token embeddings: ICL_TOKENS, or ../shared/data/tokens beside the repository."""
    folder = _data_folder("tokens")
    if not list(folder.glob("*.safetensors")):
        pytest.skip(f"{folder} has no *.safetensors: name the folder of a checkpoint in ICL_TOKENS")
    return folder


def _data_folder(source: str) -> Path:
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "data" / source
    return Path(os.environ.get(f"ICL_{source.upper()}", beside))
