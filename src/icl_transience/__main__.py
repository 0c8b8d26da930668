"""The command line: one subcommand a rule, each as it can be typed by hand.

python -m icl_transience train --spec "$(jq -c .spec results/packs/PACK/pack.json)" --bank results/banks/BANK.h5 \
    --from 0 --to 640000 --output results/packs/PACK/segment-000000000000-000000640000.h5
"""

import argparse
import json
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from icl_transience import files, packs, spec
from icl_transience.spec import StudyError


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        with _announced(options):
            options.action(options)
    except StudyError as error:
        _say(options, f"icl_transience {options.command}: {error}")
        return 1
    except Exception:
        _say(options, traceback.format_exc())
        return 1
    return 0


@contextmanager
def _announced(options: argparse.Namespace) -> Iterator[None]:
    """A job that makes a file can be seen at work while it does; see files.live_writers."""
    made = getattr(options, "output", None) or getattr(options, "vector", None)
    if made is None and hasattr(options, "experiment"):
        made = options.experiment.with_name(options.command)
    if made is None:
        yield
        return
    with files.announced(made):
        yield


def _say(options: argparse.Namespace, text: str) -> None:
    """To the terminal, and to the job's log where it keeps one of its own."""
    print(text, file=sys.stderr)
    if getattr(options, "log", None):
        with options.log.open("a", encoding="utf-8") as log:
            log.write(text + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m icl_transience", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, action, help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(action=action)
        return sub

    def add(sub: argparse.ArgumentParser, *names: str) -> None:
        known = {
            "spec": {"required": True, "help": "canonical JSON of what to make"},
            "bank": {"required": True, "type": Path, "help": "the bank's HDF5 file"},
            "files": {"default": "[]", "help": "paths of the source's files, if it has any: a JSON list"},
            "output": {"required": True, "type": Path, "help": "the file to write"},
            "device": {"default": "cpu", "help": "cpu, cuda:N, or cuda for a GPU that no other job holds"},
            "engine": {"default": "auto", "help": "auto, native, graph or eager; see engines.py"},
            "threads": {"type": int, "default": 1, "help": "CPU threads"},
            "log": {"type": Path, "help": "file for plain progress lines; the terminal then gets the bar alone"},
        }
        for name in names:
            sub.add_argument(f"--{name}", **known[name])

    download = command("download", _download, "Fetch a public file.")
    add(download, "output", "log")
    download.add_argument("--url", required=True, help="where it is")
    download.add_argument("--sha256", required=True, help="what it must be")

    bank = command("bank", _bank, "Embed exemplars and write a bank.")
    add(bank, "spec", "files", "output", "threads", "log")
    bank.add_argument("--encoder", type=Path, nargs="?", help="the file of an encoder trained for this bank")

    encoder = command("encoder", _encoder, "Train an encoder on a bank's training images.")
    add(encoder, "spec", "files", "output", "threads", "log")

    sequences = command("sequences", _sequences, "Draw the frozen sequences of a set's evaluators.")
    add(sequences, "spec", "bank", "output")

    train = command("train", _train, "Train one segment of a pack.")
    add(train, "spec", "bank", "output", "device", "engine", "threads", "log")
    train.add_argument("--from", dest="start", type=int, required=True, help="sequences seen at the beginning")
    train.add_argument("--to", dest="end", type=int, required=True, help="sequences seen at the end")
    train.add_argument("--previous", nargs="?", type=Path, help="the segment that ends where this begins; none at 0")

    evaluate = command("evaluate", _evaluate, "Evaluate a segment's snapshots on a set's evaluators.")
    add(evaluate, "spec", "output", "device", "engine", "threads")
    evaluate.add_argument("--set", required=True, help="canonical JSON of the evaluator set")
    evaluate.add_argument("--segment", type=Path, required=True, help="the segment's HDF5 file")
    evaluate.add_argument("--sequences", type=Path, required=True, help="the set's HDF5 file")

    export = command("export", _export, "Write a run's bank, evaluators and training sequences for the authors' code.")
    add(export, "spec", "bank", "output")
    export.add_argument("--sequences", type=Path, required=True, help="the HDF5 file of the run's evaluator set")
    export.add_argument("--bank-output", type=Path, required=True, help="the bank's file to write")

    tables = command("tables", _tables, "Write an experiment's curves.csv, transience.csv and runs.csv.")
    tables.add_argument("--experiment", type=Path, required=True, help="its experiment.json")
    tables.add_argument("--declared", type=Path, help="the file whose name says what tables are to be made from")
    tables.add_argument("--packs", type=Path, required=True, help="the folder results/packs")
    tables.add_argument("--folder", type=Path, required=True, help="the experiment's folder")

    verdicts = command("verdicts", _verdicts, "Judge the claims of a study from the tables of its experiments.")
    verdicts.add_argument("--claims", type=Path, required=True, help="the study's claims.json")
    verdicts.add_argument("--folder", type=Path, required=True, help="the study's folder")

    figure = command("figure", _figure, "Draw one figure of an experiment from its tables.")
    figure.add_argument("--experiment", type=Path, required=True, help="its experiment.json")
    figure.add_argument("--name", required=True, help="curves, comparison, summary, plane or grid")
    figure.add_argument("--folder", type=Path, required=True, help="the experiment's folder")

    card = command("card", _card, "Draw the quality card of a bank.")
    add(card, "bank")
    card.add_argument("--vocabulary", type=Path, nargs="?", help="vocab.txt, tokenizer.json or vocab.json of tokens")
    card.add_argument("--vector", type=Path, required=True, help="the SVG to write")
    card.add_argument("--raster", type=Path, required=True, help="the PNG to write")

    words = command(
        "words",
        _words,
        "Say how a study's claims stand and what its experiments show, the first one last.",
    )
    words.add_argument("--study", help="as in config.yaml, and instead of what stands there")

    for name, action, help in (
        ("status", _status, "Say how far a study is, a row a lane; writes nothing."),
        ("cost", _cost, "Say what a study would cost, an experiment a row; writes nothing."),
        ("orphans", _orphans, "List results that no study refers to, and the command that removes them."),
        ("report", _report, "Put all figures and tables that are built into one page, with what they say."),
        ("archive", _archive, "Put what a finished study says into one file."),
    ):
        sub = command(name, action, help)
        sub.add_argument("--study", help="as in config.yaml, and instead of what stands there")

    redraw = command("redraw", _redraw, "Draw every figure of an extracted archive again.")
    redraw.add_argument("--archive", type=Path, default=Path(), help="the folder of the extracted archive")
    redraw.add_argument("--folder", type=Path, required=True, help="the folder to draw into")

    command("writers", _writers, "Fail if a job is at work on results; for `make unlock`.")
    return parser


def _download(options: argparse.Namespace) -> None:
    from icl_transience.download import download

    with _log(options) as log:
        download(options.url, options.sha256, options.output, log)


def _bank(options: argparse.Namespace) -> None:
    from icl_transience import banks

    bank_spec, files = _sources(options)
    with _log(options) as log:
        bank = banks.build(bank_spec, files + ([options.encoder] if options.encoder else []), log)
    banks.save(bank, options.output, bank_spec)


def _encoder(options: argparse.Namespace) -> None:
    from icl_transience.banks import omniglot, trained
    from icl_transience.progress import Progress

    bank_spec, files = _sources(options)
    images, settings = omniglot.training_images(bank_spec, files), bank_spec.omniglot.trained
    with _log(options) as log:
        drawings = settings.epochs * images.shape[0] * images.shape[1]
        progress = Progress(f"encoder {bank_spec.slug}", 0, drawings, 1, log, unit="drawings")
        model, accuracy = trained.train(images, bank_spec.omniglot.dim, settings, bank_spec.seed, progress)
    trained.save(model, accuracy, options.output, bank_spec)


def _sources(options: argparse.Namespace) -> tuple[spec.BankSpec, list[Path]]:
    """The bank to make and its source files, once their content is what its identity says."""
    import torch

    from icl_transience.sources import file_digest

    torch.set_num_threads(options.threads)
    bank_spec = spec.from_values(spec.BankSpec, json.loads(options.spec))
    files = [Path(path) for path in json.loads(options.files)]
    for path, digest in zip(files, bank_spec.files, strict=True):
        if file_digest(path) != digest:
            raise StudyError(f"{path}: its SHA-256 is {file_digest(path)}, the bank is of {digest}")
    return bank_spec, files


@contextmanager
def _log(options: argparse.Namespace) -> Iterator[TextIO | None]:
    """The job's log, open to add to, or None where it keeps none."""
    if not options.log:
        yield None
        return
    with options.log.open("a", encoding="utf-8") as log:
        yield log


def _sequences(options: argparse.Namespace) -> None:
    from icl_transience import banks, evaluation

    sequence_set = spec.from_values(spec.SequenceSet, json.loads(options.spec))
    evaluation.write_sequences(options.output, sequence_set, banks.load(options.bank, sequence_set.bank))


def _train(options: argparse.Namespace) -> None:
    from icl_transience import banks, segments, store
    from icl_transience.progress import Progress

    _set_up(options)
    pack = packs.PackSpec.from_json(options.spec)
    output = options.output
    waits = f"{output}: another process trains this pack: waiting for it"
    with files.locked(output.parent / ".lock", wait=True, on_wait=lambda: _say(options, waits)):
        if store.restore(output, "segment", segments.identity(pack, options.start, options.end)):
            _say(options, f"{output}: finished before, taken from {store.kept_name(output)}")
            return
        label = f"{pack.id.rsplit('-', 1)[-1][:6]} {packs.seed_labels(pack)}"
        with _log(options) as log, _told_to_stop() as stop:
            segments.run_segment(
                output,
                pack,
                banks.load(options.bank, pack.run.bank),
                options.previous,
                options.start,
                options.end,
                options.device,
                Progress(label, options.start, options.end, len(pack.lanes), log),
                options.engine,
                stop,
            )


@contextmanager
def _told_to_stop() -> Iterator[Callable[[], bool]]:
    """Whether a signal to end has come; a second one ends at once.

    SIGTERM is what a queue sends that takes its machine back, SIGINT is Ctrl-C, SIGHUP a connection that is lost.
    """
    came = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}

    def note(number: int, frame: object) -> None:
        came.append(number)
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _evaluate(options: argparse.Namespace) -> None:
    from icl_transience import evaluation, store

    _set_up(options)
    sequence_set, output = spec.from_values(spec.SequenceSet, json.loads(options.set)), options.output
    identity = evaluation.metrics_identity(store.read_attribute(options.segment, "identity"), sequence_set.id)
    if store.restore(output, "metrics", identity, evaluation.made_of(options.segment, options.sequences)):
        _say(options, f"{output}: answered before, taken from {store.kept_name(output)}")
        return
    pack = packs.PackSpec.from_json(options.spec)
    arguments = output, pack, options.segment, sequence_set, options.sequences, options.device, options.engine
    evaluation.write_metrics(*arguments)


def _export(options: argparse.Namespace) -> None:
    from icl_transience import export

    exported = spec.from_values(spec.Export, json.loads(options.spec))
    export.write(options.output, options.bank_output, exported, options.bank, options.sequences)


def _set_up(options: argparse.Namespace) -> None:
    import torch

    from icl_transience import devices

    options.device = devices.taken(options.device)
    torch.set_num_threads(options.threads)
    # Moments of labels that are rarely seen fade to denormal numbers, with which many CPUs compute very slowly.
    torch.set_flush_denormal(True)


def _tables(options: argparse.Namespace) -> None:
    from icl_transience import code, tables

    experiment = _planned(options.experiment)
    # Another checkout may have declared another experiment of this name in the same results.
    if options.declared and not options.declared.name.endswith(f"-{code.declaration(experiment)}"):
        raise StudyError(
            f"{options.experiment}: another study of this name has been declared here meanwhile: give one of them "
            "another name or results folder, and run the same snakemake command again"
        )
    tables.write(options.folder, experiment, options.packs)


def _planned(path: Path) -> Any:
    """What snakemake wrote down when it started."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: cannot be read ({error}): run snakemake, which writes it when it starts") from error


def _verdicts(options: argparse.Namespace) -> None:
    from icl_transience import verdicts

    verdicts.write(options.folder, _planned(options.claims))


def _figure(options: argparse.Namespace) -> None:
    from icl_transience import figures, tables

    figures.draw(
        options.name,
        _planned(options.experiment),
        tables.read_curves(options.folder),
        tables.read_lanes(options.folder),
        options.folder / f"{options.name}.svg",
        options.folder / f"{options.name}.png",
    )


def _card(options: argparse.Namespace) -> None:
    from icl_transience import cards

    cards.draw(options.bank, options.vocabulary, options.vector, options.raster)


def _words(options: argparse.Namespace) -> None:
    from icl_transience import tables, verdicts

    plan = _plan(options)
    for folder in plan.judged_folder():
        for line in verdicts.in_words(Path(folder)):
            print(line)
    for folder in reversed(plan.finished_folders()):
        for line in tables.experiment_in_words(Path(folder)):
            print(line)


def _plan(options: argparse.Namespace):
    from icl_transience.plan import Plan

    return Plan(_config() | ({"study": options.study} if options.study else {}), Path())


def _status(options: argparse.Namespace) -> None:
    from icl_transience.care import status

    print(status.table(_plan(options)))


def _cost(options: argparse.Namespace) -> None:
    from icl_transience.care import cost

    print(cost.table(_plan(options)))


def _orphans(options: argparse.Namespace) -> None:
    from icl_transience.care import orphans

    print(orphans.report(_plan(options)))


def _report(options: argparse.Namespace) -> None:
    from icl_transience.care import report

    print(report.report(_plan(options), Path("Snakefile")))


def _archive(options: argparse.Namespace) -> None:
    from icl_transience.care import archive

    print(archive.write(_plan(options), Path("Snakefile")))


def _redraw(options: argparse.Namespace) -> None:
    from icl_transience.care import archive

    archive.redraw(options.archive, options.folder)


def _config() -> dict:
    """config.yaml of the working folder, as Snakemake reads it."""
    from icl_transience import schema

    return schema.read_yaml(Path("config.yaml"))


def _writers(options: argparse.Namespace) -> None:
    if writers := files.live_writers(Path(_config().get("results", "results"))):
        raise StudyError("jobs are still at work on " + ", ".join(map(str, writers)) + ": wait for them or stop them")


if __name__ == "__main__":
    # So that a job that is told to end removes what it has half made.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    sys.exit(main())
