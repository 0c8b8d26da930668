"""How fast one job trains a pack: as `gflops` of config.yaml says, or as was measured where model and pack were alike.

A CPU's rate hardly depends on the size (44 to 74 GFLOP/s over 16 times the FLOP): it is that of the nearest shape that
was measured. A GPU's depends on everything, and on how many lanes there are above all. There the step of the nearest
shape and pack is taken, times the ratio of what a model by counts (modelled.py) gives for the pack and for that one.
Where no shape is near, this is said to be modelled; so is a GPU's rate by the model alone, where nothing was measured.

What benchmarks/throughput.py has recorded stands in the checkout, so machines that share one plan alike.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from icl_transience.planning import benchmark_shapes, modelled
from icl_transience.specs.code_digest import training_code
from icl_transience.specs.compute import AUTOMATIC, engines_of_pack, training_flop
from icl_transience.specs.errors import StudyError
from icl_transience.specs.runs import PackSpec, Run

MEASURED = "benchmarks/measured.json"
# A rate holds for models of up to so many times the FLOP of a sequence, or as small a part of them.
_ALIKE = 4


_BY_THE_MODEL = "other lanes and sizes by the ratio of modelled steps, planning/modelled.py"


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

    def engine(self, pack: PackSpec) -> str:
        """Return the name of the engine that is expected to train a pack: one that can compute all its lanes."""
        if (named := self.config["engine"]) != "auto":
            return named
        return engines_of_pack(self.kind, pack)[0]

    def of(self, pack: PackSpec) -> Rate:
        """Return the rate at which a pack trains. Raises StudyError where the measured rates cannot be read."""
        if gflops := self.config["gflops"]:
            return Rate(flops=1e9 * gflops, source=f"{gflops:g} GFLOP/s, `gflops` in config.yaml")
        run, engine, flop = pack.run, self.engine(pack), training_flop(pack.run)

        def distance(case: Mapping[str, Any]) -> tuple[float, float]:
            """Return how far a measured case is from the pack: in FLOP of a sequence first, then in lanes."""
            of_sequence = round(case["flops"] / case["rate"])
            return abs(math.log(of_sequence / flop)), abs(math.log(case["lanes"] / len(pack.lanes)))

        far: list[tuple[tuple[float, float], Rate]] = []
        for machine in self._machines:
            alike = [
                case
                for case in machine["cases"]
                if (case["numerics"], case["engine"], case["jobs"]) == (run.numerics, engine, 1)
            ]
            # An image encoder's convolutions take other kernels than a transformer's products.
            of_kind = [
                one for one in alike if bool(benchmark_shapes.SHAPES[one["shape"]].side) == run.model.encodes_images
            ]
            alike = of_kind if self.kind == "cuda" else of_kind or alike
            if not (case := min(alike, key=distance, default=None)):
                continue
            is_far = distance(case)[0] >= math.log(_ALIKE)
            how = "modelled as the nearest shape that was measured," if is_far else "measured"
            where = f"{how} on {machine['machine']}, {case.get('date', machine['date'])}: shape ({case['shape']})"
            is_of_now = case.get("code") in (None, training_code(engine))
            where += f", {engine}{'' if is_of_now else ' (its code has changed since)'}, {run.numerics}"
            where += f", lanes a pack: {case['lanes']}"
            if self.kind == "cuda":
                flops = _carried_over(case, pack, engine)
                rate = Rate(flops=flops, source=f"{where}; {_BY_THE_MODEL}", is_modelled=is_far)
            else:
                said = f"{case['flops'] / 1e9:.0f} GFLOP/s, {where}"
                rate = Rate(flops=case["flops"], source=said, is_modelled=is_far)
            if not is_far:
                return rate
            far.append((distance(case), rate))
        if far:
            return min(far, key=lambda one: one[0])[1]
        missing = self._not_measured(engine, run)
        if self.kind != "cuda":
            return Rate(flops=math.nan, source=missing)
        flops = len(pack.lanes) * run.batch_size * flop / modelled.step_seconds(pack, engine)
        said = f"modelled with {engine}, {run.numerics}, for an {modelled.GPU}: {modelled.FORMULA}"
        return Rate(flops=flops, source=f"{said}; {missing}", is_modelled=True)

    def _not_measured(self, engine: str, run: Run) -> str:
        """Return that there is no rate for an engine, and what measures it."""
        shapes = "ef" if run.model.encodes_images else "abcd"
        command = f"python benchmarks/throughput.py --device {self.kind} --shapes {shapes} --record"
        command += " --lanes 1 4 16 64" if self.kind == "cuda" else ""
        command += f" --numerics {run.numerics}" if run.numerics != "float32" else ""
        command += f" --engine {engine}" if engine != AUTOMATIC[self.kind][0] else ""
        return (
            f"not measured for {self.kind}, {engine}, {run.numerics}: `{command}` measures it; or set `gflops` in "
            "config.yaml"
        )

    @cached_property
    def _machines(self) -> list[dict[str, Any]]:
        """The machines of the configured kind of device on which the benchmark was recorded, the last one first."""
        path = self.base / MEASURED
        try:
            machines = json.loads(path.read_text(encoding="utf-8"))
            _check(machines)
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise StudyError(f"{path}: cannot be read ({error}): restore it, or move it away") from error
        return [one for one in reversed(machines) if one.get("device", "cpu") == self.kind]


def _check(machines: Any) -> None:
    """Raise ValueError where these are not machines with cases as benchmarks/throughput.py records them."""
    if not isinstance(machines, list) or not all(isinstance(one, dict) for one in machines):
        raise ValueError("it is no list of machines")
    for machine in machines:
        name, cases = machine.get("machine"), machine.get("cases")
        if not isinstance(name, str) or not isinstance(machine.get("date"), str) or not isinstance(cases, list):
            raise ValueError(f"machine {name!r} has no name, date or list of cases")
        for case in cases:
            if problem := _case_problem(case):
                raise ValueError(f"machine {name!r}: a case {problem}")


def _case_problem(case: Any) -> str:
    """Return what is wrong with a case; "" where nothing is."""
    if not isinstance(case, dict):
        return f"is {case!r}"
    if case.get("shape") not in benchmark_shapes.SHAPES:
        return f"is of shape {case.get('shape')!r}, expected one of {', '.join(benchmark_shapes.SHAPES)}"
    if missing := [key for key in ("engine", "numerics") if not isinstance(case.get(key), str)]:
        return f"has no {missing[0]}"
    for key, kinds in (("lanes", (int,)), ("jobs", (int,)), ("rate", (int, float)), ("flops", (int, float))):
        value: Any = case.get(key)
        if type(value) not in kinds or not 0 < value < math.inf:
            return f"has {key} {value!r}, expected a number above 0"
    return ""


def _carried_over(case: Mapping[str, Any], pack: PackSpec, engine: str) -> float:
    """Return the FLOP per second of a pack on a GPU on which a case was measured; see the top."""
    of_case = benchmark_shapes.pack_of(benchmark_shapes.SHAPES[case["shape"]], case["lanes"], case["numerics"])
    measured = case["lanes"] * benchmark_shapes.BATCH / case["rate"]
    step = measured * modelled.step_seconds(pack, engine) / modelled.step_seconds(of_case, engine)
    return len(pack.lanes) * pack.run.batch_size * training_flop(pack.run) / step
