"""Which code trained which lanes: where lanes of one experiment differ in it, and where it has changed since.

Read from the attribute `made_training_code` of one segment a pack and horizon: it lists all the code that trained the
pack's lanes up to there, "ENGINE DIGEST, …" (see specs/code_digest.py). The engines agree but for rounding, each being
proven against the same model; so lanes differ where one engine's digests do, or where some are of the code as it now
stands and others are not.
"""

import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from icl_transience.planning import packs
from icl_transience.planning.packs import Pack
from icl_transience.planning.plan import Plan
from icl_transience.results import removal
from icl_transience.specs.code_digest import STEPS, training_code
from icl_transience.store import hdf5, layout
from icl_transience.study.experiments import Experiment

NOW = "the code as it stands"


def differences(plan: Plan) -> Iterator[str]:
    """Yield a line for each experiment whose lanes were trained by different code."""
    for name in plan.study.experiments:
        if text := difference(plan, name):
            yield f"{name}: {text}"


def difference(plan: Plan, experiment: str) -> str:
    """Return in words that lanes of an experiment were trained by different code; "" where they were not."""
    counts = Counter(kind for *_, kind in _trained(plan, plan.study.experiments[experiment]))
    if len(counts) < 2:
        return ""
    counted = "; ".join(f"{number} by {kind}" for kind, number in sorted(counts.items()))
    return f"lanes were trained by different code ({counted}); `snakemake stale` lists them"


def stale_packs(plan: Plan) -> list[str]:
    """Return the ids of the study's packs that other code trained than the code as it stands."""
    return list(
        dict.fromkeys(
            pack_id
            for experiment in plan.study.experiments.values()
            for pack_id, _, _, kind in _trained(plan, experiment)
            if kind != NOW
        )
    )


def report(plan: Plan) -> str:
    """Return the lanes whose training code has changed since, and the command that makes Snakemake train them again."""
    stale = stale_packs(plan)
    if not stale:
        return "stale: every lane that has been trained was trained by the code as it stands"
    lines = [
        f"{name}  {run} seed {seed}  {kind}"
        for name, experiment in plan.study.experiments.items()
        for _, run, seed, kind in _trained(plan, experiment)
        if kind != NOW
    ]
    return "\n".join(
        [
            f"stale: {len(stale)} pack{'s' * (len(stale) > 1)} trained by other code than the code as it stands:",
            *lines,
            "",
            "Training code is what stands in engines/, model/, sequences/ and training/. To train these lanes again,",
            "delete their packs (it asks first; packs with lanes of other studies go with --shared alone):",
            f"  {removal.command(plan, '--stale')}",
            removal.RM_FREES_NOTHING,
            f"  snakemake --config study={shlex.quote(plan.config['study'])}",
        ]
    )


def codes(plan: Plan, pack_id: str, horizon: int) -> tuple[str, ...]:
    """Return what trained a pack's lanes up to a horizon, as its segments say; () where nothing is trained."""
    pack, folder = plan.packs[pack_id], Path(plan.paths.packs, pack_id)
    path = _last_segment(pack, folder, horizon)
    if path is None:
        return ()
    try:
        text = hdf5.read_attribute(path, "made_training_code", aside=False)
    except hdf5.StoreError:
        # A segment of before it was recorded; one that is damaged is named by `snakemake status`.
        return ("not recorded",)
    return tuple(str(text).split(", "))


def _last_segment(pack: Pack, folder: Path, horizon: int) -> Path | None:
    """Return the last segment on the way to a horizon before which none is missing, under either of its names."""
    last = None
    for segment in pack.segments(horizon):
        path = folder / layout.segment_name(*segment)
        found = next((one for one in (path, layout.kept_name(path)) if one.exists()), None)
        if found is None:
            break
        last = found
    return last


def _kind(found: tuple[str, ...]) -> str:
    """Return NOW where all the code is as it stands, else the code that is not, joined; "" where there is none."""
    if not found:
        return ""
    now = {training_code(engine) for engine in STEPS}
    return ", ".join(code for code in found if code not in now) or NOW


def _trained(plan: Plan, experiment: Experiment) -> Iterator[tuple[str, str, str, str]]:
    """Yield (pack id, run, seed, what trained it: see _kind) of each lane of an experiment that has begun to train."""
    places = packs.lane_places(plan.packs, experiment.lanes())
    kinds: dict[str, str] = {}
    for named in experiment.runs:
        for seed in experiment.seeds:
            pack_id, _ = places[packs.Lane(run=named.run, seed=seed)]
            if pack_id not in kinds:
                kinds[pack_id] = _kind(codes(plan, pack_id, experiment.horizon))
            if kinds[pack_id]:
                yield pack_id, named.name, seed.label, kinds[pack_id]
