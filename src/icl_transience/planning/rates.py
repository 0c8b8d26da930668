"""How fast one job trains a pack: as `gflops` of config.yaml says, or as was measured where model and pack were alike.

What benchmarks/throughput.py has recorded stands in the checkout, so machines that share one plan alike.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from icl_transience.specs.compute import engine_problem, training_flop
from icl_transience.specs.errors import StudyError
from icl_transience.specs.runs import PackSpec, Run

MEASURED = "benchmarks/measured.json"
# What the engine `auto` is where it can compute the run.
_BY_DEFAULT = {"cpu": "native", "cuda": "eager"}


@dataclass(frozen=True, kw_only=True)
class Rate:
    """How fast one job computes.

    flops: model FLOP per second; NaN where it was not measured. source: where it is from, or how to measure it.
    """

    flops: float
    source: str

    @property
    def is_measured(self) -> bool:
        """Say whether the rate is known, by a measurement or by `gflops`."""
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
        named, by_default = self.config["engine"], _BY_DEFAULT[self.kind]
        if named != "auto":
            return named
        return "eager" if engine_problem(by_default, self.kind, run) else by_default

    def of(self, pack: PackSpec) -> Rate:
        """Return the rate at which a pack trains. Raises StudyError where the measured rates cannot be read."""
        if gflops := self.config["gflops"]:
            return Rate(flops=1e9 * gflops, source=f"{gflops:g} GFLOP/s, `gflops` in config.yaml")
        run, engine, flop = pack.run, self.engine(pack.run), training_flop(pack.run)

        def distance(case: Mapping[str, Any]) -> tuple[float, int]:
            """Return how far a measured case is from the pack: in FLOP of a sequence first, then in lanes."""
            of_sequence = round(case["flops"] / case["rate"])
            return abs(math.log(of_sequence / flop)), abs(case["lanes"] - len(pack.lanes))

        for machine in self._machines:
            alike = [
                case
                for case in machine["cases"]
                if (case["numerics"], case["engine"], case["jobs"]) == (run.numerics, engine, 1)
            ]
            # An image encoder's convolutions take other kernels than a transformer's products.
            alike = [one for one in alike if bool(one.get("images")) == run.model.encodes_images] or alike
            if alike:
                case = min(alike, key=distance)
                return Rate(
                    flops=case["flops"],
                    source=f"{case['flops'] / 1e9:.0f} GFLOP/s, measured on {machine['machine']}, {machine['date']}: "
                    f"shape ({case['shape']}), {engine}, {run.numerics}, lanes a pack: {case['lanes']}",
                )
        return Rate(flops=math.nan, source=self._not_measured(engine, run.numerics, run.model.encodes_images))

    def _not_measured(self, engine: str, numerics: str, images: bool) -> str:
        """Return that there is no rate, and what measures it. images: whether the model encodes images."""
        shapes = "ef" if images else "abcd"
        command = f"python benchmarks/throughput.py --device {self.kind} --shapes {shapes} --record"
        command += f" --numerics {numerics}" if numerics != "float32" else ""
        command += f" --engine {engine}" if engine != _BY_DEFAULT[self.kind] else ""
        return (
            f"not measured for {self.kind}, {engine}, {numerics}: `{command}` measures it; or set `gflops` in "
            "config.yaml"
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
