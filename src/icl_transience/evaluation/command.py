"""The subcommand that evaluates a segment's snapshots."""

import argparse
import json
from pathlib import Path

from icl_transience.specs.compute import context_of
from icl_transience.specs.evaluators import SequenceSet
from icl_transience.specs.identity import from_values
from icl_transience.specs.runs import PackSpec
from icl_transience.system import jobs


def add_commands(command: jobs.AddCommand) -> None:
    """Add this wing's subcommand."""
    evaluate = command("evaluate", _evaluate, "Evaluate a segment's snapshots on a set's evaluators.")
    jobs.add_arguments(evaluate, "spec", "output", "device", "engine", "threads")
    evaluate.add_argument("--set", required=True, help="canonical JSON of the evaluator set")
    evaluate.add_argument("--segment", type=Path, required=True, help="the segment's HDF5 file")
    evaluate.add_argument("--sequences", type=Path, required=True, help="the set's HDF5 file")


def _evaluate(options: argparse.Namespace) -> None:
    import torch

    from icl_transience.engines import select, verify
    from icl_transience.evaluation import evaluate
    from icl_transience.store import hdf5, layout, metrics_file

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
    evaluate.write_metrics(*arguments)
