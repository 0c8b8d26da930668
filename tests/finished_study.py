"""A finished study without Snakemake: every file that its rules would make but figures, in one process."""

from pathlib import Path

from icl_transience.analysis import curves, verdicts
from icl_transience.banks import bank
from icl_transience.evaluation.evaluate import write_metrics
from icl_transience.planning.plan import Plan
from icl_transience.sequences.frozen import write_sequences
from icl_transience.store import bank_file, checksums, tables_file
from icl_transience.training.segments import SegmentJob, run_segment

ROOT = Path(__file__).parents[1]

# Named as `laptop` is, with its model, and small.
LAPTOP = """
defaults:
  bank: {source: gaussian, gaussian: {classes: 40, holdout_classes: 10, exemplars: 3, holdout_exemplars: 2, dim: 4}}
  model: {mlp_ratio: 1}
  snapshots: {first: 256, every: 512}
  evaluation: {sequences: 100}
  horizon: 1536
  seeds: [0, 1]
experiments:
  transience: {question: "does it come and go?"}
  l2:
    horizon: 2048
    axes: {optimizer.l2.strength: [0, 1.0e-3]}
    claims:
      kept:
        {text: less is lost, kind: difference, of: index, direction: less, run: l2.strength=0.001, than: l2.strength=0}
"""


def plan_of(folder: Path, text: str = LAPTOP) -> Plan:
    """The plan of a study `laptop` whose results are in `folder`, with the files that a checkout has for `load`."""
    (folder / "Snakefile").touch()
    (folder / "config.yaml").write_text("results: results\n", encoding="utf-8")
    (folder / "laptop.yaml").write_text(text, encoding="utf-8")
    config = {"study": str(folder / "laptop.yaml"), "results": str(folder / "results"), "segment_sequences": 1024}
    return Plan(config, ROOT)


def finish(plan: Plan) -> None:
    """Make it."""
    plan.register()
    paths = plan.paths
    for bank_id, spec in plan.banks.items():
        bank.save(bank.build(spec), Path(paths.bank(bank_id)), spec)
    for set_id, spec in plan.sets.items():
        exemplars = bank_file.load(Path(paths.bank(spec.bank.id)), spec.bank)
        write_sequences(Path(paths.sequences(set_id)), spec, exemplars)
    for pack_id, pack in plan.packs.items():
        exemplars = bank_file.load(Path(paths.bank(pack.spec.run.bank.id)), pack.spec.run.bank)
        previous = None
        for start, end in pack.segments(pack.boundaries[-1]):
            segment = Path(paths.segment(pack_id, start, end))
            run_segment(SegmentJob(segment, pack.spec, exemplars, previous, start, end))
            previous = segment
            for set_id, spec in plan.sets.items():
                metrics = Path(paths.metrics(pack_id, set_id, start, end))
                write_metrics(metrics, pack.spec, segment, spec, Path(paths.sequences(set_id)))
    for name in plan.study.experiments:
        record = plan.records.experiment(name, figures=False)
        curves.write_tables(Path(paths.experiment_folder(name)), record, Path(paths.packs))
    verdicts.write_verdicts(Path(paths.study_folder), plan.records.claims())


def put_peak(folder: Path, sequences_seen: int) -> None:
    """Say in an experiment's transience.csv that every lane has its peak there: small lanes have none."""
    path = folder / "transience.csv"
    lanes = tables_file.read_csv(path)
    tables_file.write_csv(path, lanes.assign(peak_at=float(sequences_seen)), digits=10)
    checksums.write_checksums(folder, tables_file.TABLES)
