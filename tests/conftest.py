"""What every test shares: one thread, as a training job has, and the real drawings where they are at hand."""

import os
from pathlib import Path

import hypothesis
import pytest
import torch

torch.set_num_threads(1)

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
def tokens_folder() -> Path:
    """A folder with a real table of token embeddings: ICL_TOKENS, or ../shared/data/tokens beside the repository."""
    folder = _data_folder("tokens")
    if not list(folder.glob("*.safetensors")):
        pytest.skip(f"{folder} has no *.safetensors: name the folder of a checkpoint in ICL_TOKENS")
    return folder


def _data_folder(source: str) -> Path:
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "data" / source
    return Path(os.environ.get(f"ICL_{source.upper()}", beside))
