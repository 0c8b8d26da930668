"""Which jobs go first: those of the experiment that stands first in the study."""

import itertools
from pathlib import Path

import pytest
from pipeline import TINY, Clone

from icl_transience.planning.plan import Plan

ROOT = Path(__file__).parents[1]
STUDY = (
    TINY.split("experiments:")[0]
    + """
experiments:
  last_by_name: {question: "first?"}
  l2: {axes: {optimizer.l2.strength: [0, 1.0e-3]}}
  another_bank: {bank: {seed: 1}}
"""
)
# By name they stand the other way round, and the last has the least to read.
ALONE = (
    TINY.split("experiments:")[0].replace("horizon: 2048", "horizon: 256").replace("[0, 1]", "[0]")
    + """
experiments:
  c: {batch_size: 16}
  b: {batch_size: 64}
  a: {model: {depth: 1}}
"""
)


@pytest.fixture
def plan(tmp_path) -> Plan:
    path = tmp_path / "tiny.yaml"
    path.write_text(STUDY)
    return Plan(
        {"study": str(path), "results": str(tmp_path / "results"), "segment_sequences": 1024, "lanes_per_pack": 8}, ROOT
    )


def test_experiments_go_in_the_order_in_which_they_stand(plan):
    names = ["last_by_name", "l2", "another_bank"]
    assert [plan.order.experiment(name) for name in names] == [3, 2, 1]


def test_what_several_experiments_need_goes_with_the_first_of_them(plan):
    experiments = plan.study.experiments
    baseline, l2, other_bank = (
        experiments[name].runs[number].run for name, number in (("l2", 0), ("l2", 1), ("another_bank", 0))
    )
    assert baseline == experiments["last_by_name"].runs[0].run
    of_run = {pack.spec.run: plan.order.pack(pack_id) for pack_id, pack in plan.packs.items()}
    assert (of_run[baseline], of_run[l2], of_run[other_bank]) == (3, 2, 1)
    assert plan.order.bank(baseline.bank.id) == 3
    assert plan.order.bank(other_bank.bank.id) == 1
    sets = {name: plan.order.set(experiments[name].runs[0].sequence_set.id) for name in ("l2", "another_bank")}
    assert sets == {"l2": 3, "another_bank": 1}


def test_lanes_of_other_studies_in_a_pack_do_not_count(plan, tmp_path):
    plan.register()
    path = tmp_path / "tiny.yaml"
    path.write_text(STUDY.replace("seeds: [0, 1]", "seeds: [1]"))
    again = Plan(
        {"study": str(path), "results": str(tmp_path / "results"), "segment_sequences": 1024, "lanes_per_pack": 8}, ROOT
    )
    assert set(again.packs) == set(plan.packs)
    assert {pack_id: again.order.pack(pack_id) for pack_id in again.packs} == {
        pack_id: plan.order.pack(pack_id) for pack_id in plan.packs
    }


@pytest.mark.slow
def test_an_experiments_figures_are_drawn_before_the_next_one_is_trained(tmp_path):
    clone = Clone.make(tmp_path / "clone", ALONE)
    call = clone.snakemake("-c1")
    assert call.returncode == 0, call.stderr
    results = clone.folder / "results"
    plan = Plan({"study": str(clone.study), "results": str(results), "segment_sequences": 1024}, clone.folder)
    names = list(plan.study.experiments)
    assert names == ["c", "b", "a"]
    packs = {plan.order.pack(pack_id): Path(plan.paths.packs, pack_id) for pack_id in plan.packs}
    for earlier, later in itertools.pairwise(names):
        drawn = [Path(path).stat().st_mtime_ns for path in plan.targets.experiment(earlier)]
        trained = [path.stat().st_mtime_ns for path in packs[plan.order.experiment(later)].glob("segment-*.h5")]
        assert max(drawn) < min(trained), (earlier, later)
