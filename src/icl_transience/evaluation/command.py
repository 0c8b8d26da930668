"""The subcommands that evaluate a segment's snapshots, and that look inside them."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from icl_transience.specs.compute import context_of
from icl_transience.specs.evaluators import SequenceSet, metrics_of
from icl_transience.specs.identity import from_values
from icl_transience.specs.runs import PackSpec
from icl_transience.system import jobs

if TYPE_CHECKING:
    import numpy as np


_BANK = "the bank's HDF5 file, where it holds images"


def add_commands(command: jobs.AddCommand) -> None:
    """Add this wing's subcommand."""
    evaluate = command("evaluate", _evaluate, "Evaluate a segment's snapshots on a set's evaluators.")
    jobs.add_arguments(evaluate, "spec", "output", "device", "gpu-percent", "engine", "threads", "tensorboard")
    evaluate.add_argument("--set", required=True, help="canonical JSON of the evaluator set")
    evaluate.add_argument("--segment", type=Path, required=True, help="the segment's HDF5 file")
    evaluate.add_argument("--sequences", type=Path, required=True, help="the set's HDF5 file")
    evaluate.add_argument("--bank", type=Path, nargs="?", help=_BANK)

    circuits = command("circuits", _circuits, "Measure what is inside a segment's snapshots, and intervene on it.")
    jobs.add_arguments(circuits, "spec", "output", "device", "gpu-percent", "threads")
    circuits.add_argument("--circuits", required=True, help="canonical JSON of what to measure")
    circuits.add_argument("--segment", type=Path, required=True, help="the segment's HDF5 file")
    circuits.add_argument("--sequences", type=Path, required=True, help="the set's HDF5 file")
    circuits.add_argument("--bank", type=Path, nargs="?", help=_BANK)
    circuits.add_argument("--others", type=Path, nargs="*", default=[], help="segments from which grafts come")
    circuits.add_argument("--peaks", type=Path, nargs="?", help="the file that says where the lanes have their peaks")


def _evaluate(options: argparse.Namespace) -> None:
    import torch

    from icl_transience.engines import select, verify
    from icl_transience.evaluation import evaluate
    from icl_transience.store import hdf5, layout, metrics_file
    from icl_transience.system import tensorboard

    jobs.set_up_torch(options)
    sequence_set, output = from_values(SequenceSet, json.loads(options.set)), options.output
    identity = metrics_file.metrics_identity(hdf5.read_attribute(options.segment, "identity"), sequence_set.id)
    if hdf5.restore(output, "metrics", identity, evaluate.made_of(options.segment, options.sequences)):
        jobs.say(options, f"{output}: answered before, taken from {layout.kept_name(output)}")
        return
    pack = PackSpec.from_json(options.spec)
    device = torch.device(options.device)
    for context in {context_of(sequence_set, name) for name in sequence_set.evaluators}:
        verify.check_answers(pack.run, device, context, select.chosen(options.engine, pack.run, device, context))
    arguments = output, pack, options.segment, sequence_set, options.sequences, options.device, options.engine
    evaluate.write_metrics(*arguments, bank=_images(options, pack))
    with tensorboard.events(options.tensorboard, output.parent, pack) as events:
        if events:
            found = metrics_file.read_metrics(output, identity)
            means = {
                f"{evaluator}/{metric}": mean[:, :, column]
                for evaluator, (mean, _) in found.values.items()
                for column, metric in enumerate(metrics_of(evaluator))
            }
            events.metrics(found.sequences_seen.tolist(), means)


def _circuits(options: argparse.Namespace) -> None:
    from icl_transience.evaluation import inside
    from icl_transience.specs.circuits import CircuitsSpec
    from icl_transience.store import hdf5, layout

    jobs.set_up_torch(options)
    pack, spec = PackSpec.from_json(options.spec), from_values(CircuitsSpec, json.loads(options.circuits))
    peaks = json.loads(options.peaks.read_text(encoding="utf-8")) if options.peaks else [None] * len(pack.lanes)
    at = {other.name: peaks if other.at is None else [other.at] * len(pack.lanes) for other in spec.others}
    others = inside.other_snapshots(pack, at, options.others, options.device)
    files = options.segment, options.sequences
    job = inside.CircuitsJob(
        pack=pack,
        spec=spec,
        segment=files[0],
        sequences=files[1],
        others=others,
        device=options.device,
        bank=_images(options, pack),
    )
    if hdf5.restore(options.output, "circuits", job.identity, job.made_of_all):
        jobs.say(options, f"{options.output}: measured before, taken from {layout.kept_name(options.output)}")
        return
    counts = inside.write_circuits(options.output, job)
    jobs.say(options, f"{options.output}: {counts['measured']} measured, {counts['taken']} taken from earlier files")


def _images(options: argparse.Namespace, pack: PackSpec) -> "np.ndarray | None":
    from icl_transience.store import bank_file

    return bank_file.load(options.bank, pack.run.bank) if options.bank else None
