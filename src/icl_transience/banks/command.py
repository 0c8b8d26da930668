"""Subcommands that make banks: download, encoder, bank."""

import argparse
import json
from pathlib import Path

from icl_transience.specs.banks import BankSpec
from icl_transience.specs.errors import StudyError
from icl_transience.specs.identity import from_values
from icl_transience.system import jobs


def add_commands(command: jobs.AddCommand) -> None:
    """Add the subcommands of this room."""
    download = command("download", _download, "Fetch a public file.")
    jobs.add_arguments(download, "output", "log")
    download.add_argument("--url", required=True, help="where it is")
    download.add_argument("--sha256", required=True, help="what it must be")

    bank = command("bank", _bank, "Embed exemplars and write a bank.")
    jobs.add_arguments(bank, "spec", "files", "output", "threads", "log")
    bank.add_argument("--encoder", type=Path, nargs="?", help="the file of an encoder trained for this bank")

    encoder = command("encoder", _encoder, "Train an encoder on a bank's training images.")
    jobs.add_arguments(encoder, "spec", "files", "output", "threads", "log")


def _download(options: argparse.Namespace) -> None:
    from icl_transience.system.download import download

    with jobs.opened_log(options) as log:
        download(options.url, options.sha256, options.output, log)


def _bank(options: argparse.Namespace) -> None:
    from icl_transience.banks import bank

    spec, files = _checked_sources(options)
    with jobs.opened_log(options) as log:
        built = bank.build(spec, files + ([options.encoder] if options.encoder else []), log)
    bank.save(built, options.output, spec)


def _encoder(options: argparse.Namespace) -> None:
    from icl_transience.banks import pictures, trained
    from icl_transience.system.progress import Progress

    spec, files = _checked_sources(options)
    parameters = spec.pictures
    settings = parameters.trained if parameters else None
    if parameters is None or settings is None:
        raise StudyError(f"{spec.slug}: has no encoder `trained`, and no other has a network to train")
    images = pictures.training_images(spec, files)
    with jobs.opened_log(options) as log:
        drawings = settings.epochs * images.shape[0] * images.shape[1]
        progress = Progress(f"encoder {spec.slug}", 0, drawings, 1, log, unit="drawings")
        model, accuracy = trained.train(images, parameters.dim, settings, spec.seed, progress)
    trained.save(model, accuracy, options.output, spec)


def _checked_sources(options: argparse.Namespace) -> tuple[BankSpec, list[Path]]:
    """Return the bank to make and its source files, once their content is what its identity says."""
    import torch

    from icl_transience.store.checksums import source_digest

    torch.set_num_threads(options.threads)
    spec = from_values(BankSpec, json.loads(options.spec))
    files = [Path(path) for path in json.loads(options.files)]
    for path, digest in zip(files, spec.files, strict=True):
        if source_digest(path) != digest:
            raise StudyError(f"{path}: its SHA-256 is {source_digest(path)}, the bank is of {digest}")
    return spec, files
