"""Weights, banks and frozen sequences as a results folder has them; read, checked once, never moved or changed."""

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from icl_transience.access.sequences import Sequences
from icl_transience.specs.banks import BankSpec
from icl_transience.specs.evaluators import SequenceSet, in_order
from icl_transience.specs.identity import from_values
from icl_transience.specs.runs import PackSpec
from icl_transience.store import bank_file, hdf5
from icl_transience.store.layout import Paths

if TYPE_CHECKING:
    import torch

# Of an evaluator's sequences; Sequences says what each is.
PARTS = ("examples", "labels", "classes", "exemplars")


class ResultFiles:
    """The files below a results folder. Arrays are read once and cannot be written to."""

    def __init__(self, root: Path):
        self.root = root
        self._paths = Paths(str(root), "")
        self._packs: dict[str, PackSpec] = {}
        self._banks: dict[str, np.ndarray] = {}
        self._sequences: dict[tuple[str, str], Sequences] = {}
        # Path, size and time of files whose checksum was found right.
        self._whole: set[tuple[Path, int, int]] = set()

    def segment(self, pack_id: str, start: int, end: int) -> Path:
        """Return the path of a segment."""
        return Path(self._paths.segment(pack_id, start, end))

    def pack(self, segment: Path) -> PackSpec:
        """Return the lanes of the pack that a segment belongs to, as its file says."""
        pack_id = segment.parent.name
        if pack_id not in self._packs:
            pack = PackSpec.from_json(str(hdf5.read_attribute(segment, "spec", aside=False)))
            if pack.id != pack_id:
                raise hdf5.StoreError(f"{segment}: belongs to pack {pack.id}, expected {pack_id}")
            self._packs[pack_id] = pack
        return self._packs[pack_id]

    def parameters(self, segment: Path, place: int, sequences_seen: int) -> "dict[str, torch.Tensor]":
        """Return name -> tensor of the lane at `place`, without a lane axis, in forward order."""
        from icl_transience.store import segment_file

        state = segment.stat()
        known = segment, state.st_size, state.st_mtime_ns
        with segment_file.opened(segment, self.pack(segment), aside=False, whole=known in self._whole) as reader:
            self._whole.add(known)
            points = reader.sequences_seen.tolist()
            packed = (
                reader.parameters(points.index(sequences_seen)) if sequences_seen in points else reader.end_parameters()
            )
        # A copy, so that the other lanes' weights can go.
        return {name: value[place].clone() for name, value in packed.items()}

    def bank(self, spec: BankSpec) -> np.ndarray:
        """Return the exemplars of a bank as of store/bank_file.py: float32 [classes, exemplars, I], or images."""
        if spec.id not in self._banks:
            exemplars = bank_file.load(Path(self._paths.bank(spec.id)), spec, aside=False)
            exemplars.setflags(write=False)
            self._banks[spec.id] = exemplars
        return self._banks[spec.id]

    def sequences(self, set_id: str, evaluator: str) -> Sequences:
        """Return an evaluator's frozen sequences. Raises StoreError where the set has it not.

        Images of a bank of images are looked up at each call, and kept by who asked for them alone.
        """
        if (set_id, evaluator) not in self._sequences:
            path = Path(self._paths.sequences(set_id))
            with hdf5.reading(path, "sequences", set_id, aside=False) as file:
                if evaluator not in file:
                    raise hdf5.StoreError(
                        f"no sequences of evaluator {evaluator!r} in this study: there are "
                        f"{', '.join(in_order(map(str, file)))}; `evaluation.evaluators` of the study says which"
                    )
                bank = from_values(SequenceSet, json.loads(str(file.attrs["spec"]))).bank
                parts = [part for part in PARTS if part != "examples" or bank.images is None]
                arrays = {part: hdf5.array(file, f"{evaluator}/{part}") for part in parts}
            if bank.images:
                return Sequences(**arrays, examples=self._images(bank, arrays["classes"], arrays["exemplars"]))
            for array in arrays.values():
                array.setflags(write=False)
            self._sequences[set_id, evaluator] = Sequences(**arrays)
        return self._sequences[set_id, evaluator]

    def _images(self, bank: BankSpec, classes: np.ndarray, exemplars: np.ndarray) -> np.ndarray:
        """Return the images of a bank at indices [N, C+1], float32 [N, C+1, side, side, channels] in [0, 1]."""
        import torch

        from icl_transience.sequences import views

        assert bank.images
        with warnings.catch_warnings():
            # Of an array that may not be written to, which nothing does here.
            warnings.simplefilter("ignore", UserWarning)
            images = torch.from_numpy(self.bank(bank))
        chosen = (torch.tensor(indices, dtype=torch.int64) for indices in (classes, exemplars))
        return views.gather(images, bank.images.views, *chosen).numpy()
