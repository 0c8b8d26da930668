"""What running jobs report as event files of TensorBoard, a folder a lane; nothing here reads them.

`tensorboard --logdir results/tensorboard` shows them. The package is optional; without `tensorboard: true` in
config.yaml nothing of it is imported.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, SupportsFloat

from icl_transience.specs.errors import StudyError
from icl_transience.specs.records import experiment_from
from icl_transience.specs.runs import PackSpec
from icl_transience.store import atomic

FOLDER = "tensorboard"
# A point of the training loss at most so often: on a GPU reading it makes the job wait.
SECONDS = 1.0


def refuse_missing(wanted: bool) -> None:
    """Raise StudyError where event files are wanted and the package that writes them is not there."""
    if wanted and find_spec("tensorboard") is None:
        raise StudyError(
            "config: `tensorboard` is true, but the Python package tensorboard is not installed: `pip install -c "
            "envs/constraints.txt tensorboard`, or say `tensorboard: false`"
        )


def lane_folders(pack_folder: Path, pack: PackSpec) -> list[Path]:
    """Return the folder of each lane of a pack: tensorboard/STUDY/EXPERIMENT/RUN/seed N below the results.

    Of the experiments that have the lane, the first in the order of names counts; of a lane that none has, the pack's
    id and the lane's index stand in place of their names.
    """
    results, pack_id = pack_folder.parents[1], pack_folder.name
    names: dict[int, Path] = {}
    for path in sorted(results.glob("studies/*/*/experiment.json")):
        record = experiment_from(atomic.read_planned(path))
        for run in record.runs:
            for lane in run.lanes:
                if lane.pack == pack_id:
                    names.setdefault(lane.place, Path(record.study, record.experiment, run.name, f"seed {lane.seed}"))
    folder = results / FOLDER
    return [folder / names.get(place, Path(pack_id, str(place))) for place in range(len(pack.lanes))]


class Events:
    """Write numbers of lanes against sequences seen."""

    def __init__(self, writers: Sequence[Any]):
        self.writers = writers
        self.begun: tuple[float, int] | None = None
        self.written_at = 0.0

    def training(self, sequences_seen: int, loss: Iterable[SupportsFloat] | None) -> None:
        """Write the training loss of every lane, [S], and their sequences a second, if it is time to."""
        now = time.monotonic()
        if self.begun is None:
            self.begun = now, sequences_seen
        if loss is None or now - self.written_at < SECONDS:
            return
        self.written_at = now
        seconds, seen = now - self.begun[0], sequences_seen - self.begun[1]
        for writer, value in zip(self.writers, loss, strict=True):
            writer.add_scalar("training/loss", float(value), sequences_seen)
            if seconds > 0 and seen:
                writer.add_scalar("training/sequences per second", seen / seconds, sequences_seen)

    def metrics(self, sequences_seen: Sequence[int], means: Mapping[str, Any]) -> None:
        """Write the metrics of snapshots. means: evaluator/metric -> numbers [n, S]."""
        for name, rows in means.items():
            for seen, row in zip(sequences_seen, rows, strict=True):
                for writer, value in zip(self.writers, row, strict=True):
                    writer.add_scalar(name, float(value), int(seen))


@contextmanager
def events(wanted: bool, pack_folder: Path, pack: PackSpec) -> Iterator[Events | None]:
    """Open the event files of a pack's lanes; None where they are not wanted."""
    if not wanted:
        yield None
        return
    refuse_missing(wanted)
    from torch.utils.tensorboard import SummaryWriter

    with ExitStack() as stack:
        yield Events([stack.enter_context(SummaryWriter(str(path))) for path in lane_folders(pack_folder, pack)])
