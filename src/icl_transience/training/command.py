"""The subcommand that trains one segment of a pack."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from icl_transience.specs.compute import why_not_native
from icl_transience.specs.runs import PackSpec, seed_labels
from icl_transience.store import locks
from icl_transience.system import jobs

if TYPE_CHECKING:
    import torch


def add_commands(command: jobs.AddCommand) -> None:
    """Add this wing's subcommand."""
    train = command("train", _train, "Train one segment of a pack.")
    names = "spec", "bank", "output", "device", "gpu-percent", "engine", "threads", "tensorboard", "log"
    jobs.add_arguments(train, *names)
    train.add_argument("--from", dest="start", type=int, required=True, help="sequences seen at the beginning")
    train.add_argument("--to", dest="end", type=int, required=True, help="sequences seen at the end")
    train.add_argument(
        "--sources", nargs="*", type=Path, default=[], help="segments of other packs with the snapshots to start from"
    )
    train.add_argument("--previous", nargs="?", type=Path, help="the segment that ends where this begins; none at 0")

    check = command("selfcheck", _selfcheck, "Hold engines against the eager one on this machine's device.")
    jobs.add_arguments(check, "device", "engine", "threads")
    kinds = "float32", "tf32", "bfloat16"
    check.add_argument("--numerics", nargs="+", choices=kinds, help="default: all that the device computes")


def _selfcheck(options: argparse.Namespace) -> None:
    import torch

    from icl_transience.engines import selfcheck
    from icl_transience.specs.errors import StudyError

    jobs.set_up_torch(options)
    device = torch.device(options.device)
    tried = selfcheck.engines_tried(device)
    if options.engine not in ("auto", *tried):
        raise StudyError(f"--engine {options.engine}: expected auto, which checks all, or one of {', '.join(tried)}")
    engines = tried if options.engine == "auto" else (options.engine,)
    numerics = options.numerics or (
        ["float32", "tf32", "bfloat16"] if device.type == "cuda" else ["float32", "bfloat16"]
    )
    failed = 0
    for report in selfcheck.by_hand(device, engines, numerics):
        print(report.line, flush=True)
        failed += bool(report.problem)
    if failed:
        raise StudyError(f"{failed} of these checks failed: `engine: eager` trains without what differed")


def _train(options: argparse.Namespace) -> None:
    from icl_transience.store import bank_file, hdf5, layout
    from icl_transience.system import tensorboard
    from icl_transience.system.progress import Progress
    from icl_transience.training import segments

    jobs.set_up_torch(options)
    pack = PackSpec.from_json(options.spec)
    output = options.output
    waits = f"{output}: another process trains this pack: waiting for it"
    with locks.locked(output.parent / ".lock", wait=True, on_wait=lambda: jobs.say(options, waits)):
        if hdf5.restore(output, "segment", layout.segment_identity(pack.id, options.start, options.end)):
            jobs.say(options, f"{output}: finished before, taken from {layout.kept_name(output)}")
            return
        if options.engine == "auto" and (why := why_not_native(options.device, pack.run)):
            jobs.say(options, f"{output}: the eager engine trains it: native {why}")
        label = f"{pack.id.rsplit('-', 1)[-1][:6]} {seed_labels(pack)}"
        with (
            jobs.opened_log(options) as log,
            tensorboard.events(options.tensorboard, output.parent, pack) as events,
            jobs.told_to_stop() as stop,
        ):
            progress = Progress(label, options.start, options.end, len(pack.lanes), log)

            def report(seen: int, loss: "torch.Tensor | None") -> None:
                progress(seen, loss)
                if events:
                    events.training(seen, loss)

            job = segments.SegmentJob(
                output,
                pack,
                bank_file.load(options.bank, pack.run.bank),
                options.previous,
                options.start,
                options.end,
                options.device,
                options.engine,
                options.sources,
            )
            segments.run_segment(job, report, stop)
