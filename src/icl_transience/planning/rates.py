"""How fast one job trains a pack: as `gflops` of config.yaml says, or as was measured where model and pack were alike.

Where nobody has measured such a model, it is modelled, and said to be: of a GPU by counts (modelled.py), of a CPU as
the nearest shape that was measured, since its rates hardly depend on the size: 44 to 74 GFLOP/s over 16 times the FLOP.

What benchmarks/throughput.py has recorded stands in the checkout, so machines that share one plan alike.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from icl_transience.planning import modelled
from icl_transience.specs.compute import AUTOMATIC, automatic_engines, training_flop
from icl_transience.specs.errors import StudyError
from icl_transience.specs.runs import PackSpec, Run

MEASURED = "benchmarks/measured.json"
# A rate holds for models of up to so many times the FLOP of a sequence, or as small a part of them.
_ALIKE = 4


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How fast one job computes.

    flops: model FLOP per second; NaN where it is not known. source: where it is from, or how to measure it.
    is_modelled: whether it is from a model and nobody has measured it.
    """

    flops: float
    source: str
    is_modelled: bool = False

    @property
    def is_known(self) -> bool:
        """Say whether there is a rate, by a measurement, by `gflops` or by a model."""
        return not math.isnan(self.flops)


@dataclass(frozen=True)
class Rates:
    """The rates of packs under a configuration (config.yaml). base: the folder of the Snakefile."""

    config: Mapping[str, Any]
    base: Path

    @property
    def kind(self) -> str:
        """The kind of device: cpu or cuda."""
        return self.config["device"].split(":")[0]

    def engine(self, run: Run) -> str:
        """Return the name of the engine that is expected to train a run."""
        named = self.config["engine"]
        return automatic_engines(self.kind, run)[0] if named == "auto" else named

    def of(self, pack: PackSpec) -> Rate:
        """Return the rate at which a pack trains. Raises StudyError where the measured rates cannot be read."""
        if gflops := self.config["gflops"]:
            return Rate(flops=1e9 * gflops, source=f"{gflops:g} GFLOP/s, `gflops` in config.yaml")
        run, engine, flop = pack.run, self.engine(pack.run), training_flop(pack.run)

        def distance(case: Mapping[str, Any]) -> tuple[float, int]:
            """Return how far a measured case is from the pack: in FLOP of a sequence first, then in lanes."""
            of_sequence = round(case["flops"] / case["rate"])
            return abs(math.log(of_sequence / flop)), abs(case["lanes"] - len(pack.lanes))

        far: list[tuple[tuple[float, int], Rate]] = []
        for machine in self._machines:
            alike = [
                case
                for case in machine["cases"]
                if (case["numerics"], case["engine"], case["jobs"]) == (run.numerics, engine, 1)
            ]
            # An image encoder's convolutions take other kernels than a transformer's products.
            alike = [one for one in alike if bool(one.get("images")) == run.model.encodes_images] or alike
            if not (case := min(alike, key=distance, default=None)):
                continue
            is_far = distance(case)[0] >= math.log(_ALIKE)
            how = "modelled as the nearest shape that was measured," if is_far else "measured"
            rate = Rate(
                flops=case["flops"],
                source=f"{case['flops'] / 1e9:.0f} GFLOP/s, {how} on {machine['machine']}, {machine['date']}: "
                f"shape ({case['shape']}), {engine}, {run.numerics}, lanes a pack: {case['lanes']}",
                is_modelled=is_far,
            )
            if not is_far:
                return rate
            far.append((distance(case), rate))
        if far and self.kind != "cuda":
            return min(far, key=lambda one: one[0])[1]
        if self.kind == "cuda":
            step = modelled.step_seconds(pack, engine)
            rate = len(pack.lanes) * run.batch_size * flop / step
            said = f"modelled with {engine}, {run.numerics}, for an {modelled.GPU}: {modelled.FORMULA}"
            return Rate(
                flops=rate,
                source=f"{said}; {self._not_measured(engine, run.numerics, run.model.encodes_images)}",
                is_modelled=True,
            )
        return Rate(flops=math.nan, source=self._not_measured(engine, run.numerics, run.model.encodes_images))

    def _not_measured(self, engine: str, numerics: str, images: bool) -> str:
        """Return that there is no rate, and what measures it. images: whether the model encodes images."""
        shapes = "ef" if images else "abcd"
        command = f"python benchmarks/throughput.py --device {self.kind} --shapes {shapes} --record"
        command += f" --numerics {numerics}" if numerics != "float32" else ""
        command += f" --engine {engine}" if engine != AUTOMATIC[self.kind][0] else ""
        return (
            f"not measured for {self.kind}, {engine}, {numerics}, a model like this: `{command}` measures it; or set "
            "`gflops` in config.yaml"
        )

    @cached_property
    def _machines(self) -> list[dict[str, Any]]:
        """The machines of the configured kind of device on which the benchmark was recorded, the last one first."""
        path = self.base / MEASURED
        try:
            machines = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise StudyError(f"{path}: cannot be read ({error}): restore it, or move it away") from error
        return [one for one in reversed(machines) if one.get("device", "cpu") == self.kind]
