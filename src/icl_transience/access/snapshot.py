"""A snapshot of a lane: its parameters, what it answers, where it attends, and the module that it is.

Letters for shapes as in model/transformer.py; N sequences.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from icl_transience.access.forward import ForwardPass
from icl_transience.access.module import Transformer, module_of, state_dict
from icl_transience.access.result_files import ResultFiles
from icl_transience.access.sequences import Sequences
from icl_transience.engines.answers import answers
from icl_transience.engines.interface import DTYPES
from icl_transience.evaluation.metrics import metrics
from icl_transience.specs.compute import n_parameters
from icl_transience.specs.errors import StudyError
from icl_transience.specs.evaluators import METRICS
from icl_transience.specs.identity import canonical, identity_values
from icl_transience.specs.interventions import Intervention
from icl_transience.specs.runs import Run
from icl_transience.store import atomic


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """A lane after so many sequences seen.

    lane: experiment, run and seed in words; about: one by one. spec: everything that shaped the weights but the seed.
    parameters: name -> tensor as model/transformer.py has them, without a lane axis, weights [in, out]; float32, or
    float64 where the run's numerics are; of an image encoder with its running statistics. Methods that take
    `sequences` take an evaluator's name, such as "icl", or sequences of your own.
    """

    lane: str
    about: Mapping[str, str]
    spec: Run
    sequences_seen: int
    parameters: dict[str, Tensor]
    files: ResultFiles
    set_id: str

    def __repr__(self) -> str:
        count = n_parameters(self.spec)
        return f"snapshot of {self.lane} at {self.sequences_seen:,} sequences seen: {count:,} parameters"

    @property
    def bank(self) -> np.ndarray:
        """Embeddings of all exemplars, float32 [classes, exemplars, I]; read-only; training's stand first."""
        return self.files.bank(self.spec.bank)

    def sequences(self, evaluator: str) -> Sequences:
        """Return the frozen sequences of an evaluator, such as "icl"; see TrainedLane.sequences."""
        return self.files.sequences(self.set_id, evaluator)

    # What it answers.

    def run(
        self,
        sequences: str | Sequences,
        interventions: Intervention | Mapping[str, Any] | None = None,
        others: "Mapping[str, Snapshot] | None" = None,
    ) -> Tensor:
        """Return the logits of the query's label, [N, K].

        interventions: what is done to places of the model on the way, as a study writes it: {"ablate": "block0.*"},
        {"clamp": {"place": "block1.head3.pattern", "to": "induction"}}; see specs/interventions.py. None: nothing.
        others: the snapshots that {"graft": {…, "from": name}} names.
        Raises StudyError where the model has no such place or cannot have the intervention.
        """
        return self._pass(interventions, others).logits(*self._inputs(sequences))

    def logits(self, sequences: str | Sequences) -> Tensor:
        """Return the logits of the query's label, [N, K]."""
        return self.run(sequences)

    def metrics(
        self,
        sequences: str | Sequences,
        interventions: Intervention | Mapping[str, Any] | None = None,
        others: "Mapping[str, Snapshot] | None" = None,
    ) -> dict[str, float]:
        """Return metric -> mean over the sequences, as curves.csv has them; METRICS in specs/evaluators.py names them.

        interventions, others: as of `run`.
        """
        _, labels = self._inputs(sequences)
        values = metrics(answers(self.run(sequences, interventions, others)[None], labels), labels)
        return dict(zip(METRICS, values[0].mean(dim=0).tolist(), strict=True))

    def activations(
        self,
        sequences: str | Sequences,
        places: str | Iterable[str],
        interventions: Intervention | Mapping[str, Any] | None = None,
        others: "Mapping[str, Snapshot] | None" = None,
    ) -> dict[str, Tensor]:
        """Return name of a place -> the activation there, [N, …]; specs/places.py has the names and shapes.

        places: one or several, with or without stars: "block1.head3.pattern", "residual*". Rows are those of all
        tokens, in the last block too. interventions, others: as of `run`; what is read is what they leave.
        Raises StudyError where the model has no such place, naming those that it has.
        """
        wanted = [places] if isinstance(places, str) else list(places)
        return self._pass(interventions, others).activations(wanted, *self._inputs(sequences))

    def attention(self, sequences: str | Sequences, layer: int) -> Tensor:
        """Return the attention patterns of a layer, [N, H, T, T]: row t says where token t looks.

        Tokens are x1 l1 x2 l2 … xC lC xq. Layers count from 0; -1 is the last.
        """
        depth = self.spec.model.depth
        if not -depth <= layer < depth:
            raise StudyError(f"attention: there is no layer {layer}, expected one of 0 … {depth - 1}")
        (pattern,) = self.activations(sequences, f"block{layer % depth}.pattern").values()
        return pattern

    def _pass(
        self, interventions: Intervention | Mapping[str, Any] | None, others: "Mapping[str, Snapshot] | None"
    ) -> ForwardPass:
        return ForwardPass(
            run=self.spec,
            parameters=self.parameters,
            intervention=interventions,
            others={name: (other.spec, other.parameters) for name, other in (others or {}).items()},
        )

    def _known(self, sequences: str | Sequences) -> Sequences:
        """Return the sequences that are meant. Raises StudyError where the model cannot read them."""
        if isinstance(sequences, str):
            return self.sequences(sequences)
        run, images = self.spec, self.spec.bank.images
        wanted = (images.side, images.side, images.channels) if images else (run.bank.shape.width,)
        if (found := sequences.examples.shape[2:]) != wanted:
            raise StudyError(
                f"sequences: examples have {' x '.join(map(str, found))} coordinates, expected "
                f"{' x '.join(map(str, wanted))}"
            )
        if sequences.labels.min() < 0 or sequences.labels.max() >= run.n_labels:
            raise StudyError(
                f"sequences: labels are {sequences.labels.min()} … {sequences.labels.max()}, expected 0 … "
                f"{run.n_labels - 1}, those that the model knows"
            )
        return sequences

    def _inputs(self, sequences: str | Sequences) -> tuple[Tensor, Tensor]:
        """Return examples [N, C+1, I] and labels [N, C+1], the target last."""
        known = self._known(sequences)
        examples, _ = known.inputs(DTYPES[self.spec.numerics])
        return examples, torch.tensor(known.labels, dtype=torch.int64)

    # What it is made of.

    def module(self) -> Transformer:
        """Return it as a `torch.nn.Module` of its own, in evaluation mode: changing its weights changes no snapshot.

        module(examples [B, C+1, I], labels [B, C]) gives the logits of the query's label [B, K], those of `logits` but
        for rounding: the module computes the same in another order. In float32 they are apart by some 1e-7 of the
        logits' size, at most what engines/verify.py allows an engine. It computes in its weights' own type; where the
        run's numerics are bfloat16 or tf32, `logits` rounds more.

        Named submodules: embedding (with embedder, label_embedding), blocks.0.norm1, .attention.query, .key, .value,
        .pattern, .out, .norm2, .mlp (in, gelu, out), …, norm, unembedding; access/module.py gives shapes.
        """
        return module_of(self.spec, self.parameters)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the `state_dict` of `module()`: name -> tensor of its own, linear weights [out, in]."""
        return {name: value.clone() for name, value in state_dict(self.parameters).items()}

    def save(self, path: str | PathLike[str]) -> None:
        """Write `state_dict()` as a safetensors file, which says in its metadata what it is of.

        metadata: study, experiment, run, seed, sequences_seen, and the run itself as JSON in `spec`.
        Raises StudyError where the name does not end in .safetensors.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            raise StudyError(f"save: {path}, expected a name that ends in .safetensors")
        metadata = {
            **self.about,
            "sequences_seen": str(self.sequences_seen),
            "spec": canonical(identity_values(self.spec)),
        }
        content = safetensors.torch.save(self.state_dict(), metadata)
        atomic.write(path, lambda temporary: temporary.write_bytes(content))
