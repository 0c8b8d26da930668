"""Runs that start from another run's snapshot: what a study means by it, what trains when, and what knows of it."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from builders import TINY_BANK, lane, tiny_run
from pipeline import ROOT

from icl_transience.banks import bank as banks_bank
from icl_transience.engines.state import initial_state
from icl_transience.planning import registry
from icl_transience.planning.plan import Plan
from icl_transience.results import cost, orphans, status, waiting
from icl_transience.specs import code_digest
from icl_transience.specs.compute import training_passes
from icl_transience.specs.errors import StudyError
from icl_transience.specs.interventions import parse
from icl_transience.specs.model import parameter_shapes
from icl_transience.specs.runs import PackSpec, Run, Seed
from icl_transience.specs.training import ActivationIntervention, StartFrom
from icl_transience.store import hdf5, layout, segment_file
from icl_transience.training import segments

STUDY = """
defaults:
  bank: {source: gaussian, gaussian: {classes: 40, holdout_classes: 10, exemplars: 3, holdout_exemplars: 2, dim: 4}}
  model: {width: 16, heads: 2}
  snapshots: {first: 256, every: 512}
  evaluation: {sequences: 64}
  horizon: 2048
  seeds: [0, 1]
experiments:
  transience: {}
  again:
    horizon: 1024
    runs:
      l2: {optimizer: {l2: {strength: 1.0e-3}}, start_from: {run: transience/baseline, at: 1024}}
      more: {optimizer: {learning_rate: 1.0e-4}, start_from: {run: l2, at: end}}
"""
NAMES = (("transience", "baseline"), ("again", "l2"), ("again", "more"))


@pytest.fixture(autouse=True)
def no_source_folders(monkeypatch):
    monkeypatch.delenv("ICL_TOKENS", raising=False)


def planned(folder: Path, text: str = STUDY, **config) -> Plan:
    """Segments end at multiples of 512."""
    path = folder / "again.yaml"
    path.write_text(text)
    settings = {"study": str(path), "results": str(folder / "results"), "segment_sequences": 512, "lanes_per_pack": 8}
    return Plan(settings | config, ROOT, cores=2)


def run_of(plan: Plan, experiment: str, name: str) -> Run:
    return next(one.run for one in plan.study.experiments[experiment].runs if one.name == name)


def pack_of(plan: Plan, run: Run) -> str:
    (found,) = (pack_id for pack_id, pack in plan.packs.items() if any(lane.run == run for lane in pack.spec.lanes))
    return found


# What a study means.


def test_a_run_has_the_id_and_the_snapshot_of_that_which_it_starts_from(tmp_path):
    plan = planned(tmp_path)
    source, l2, more = (run_of(plan, *name) for name in NAMES)
    assert l2.start_from == StartFrom(run=source.id, at=1024)
    assert more.start_from == StartFrom(run=l2.id, at=1024)
    assert not source.start_from


def test_identity_includes_which_run_and_at_which_snapshot(tmp_path):
    def ids(old: str = "", new: str = "") -> dict[str, str]:
        assert old in STUDY
        plan = planned(tmp_path, STUDY.replace(old, new))
        return {named.name: named.run.id for named in plan.study.experiments["again"].runs}

    usual = ids()
    others = [ids("at: 1024", "at: 512"), ids("transience: {}", "transience: {batch_size: 64}")]
    assert len({usual["l2"], *(one["l2"] for one in others)}) == 3
    # The source's horizon is no part of it, but of `end` where it moves its last snapshot.
    longer = ids("transience: {}", "transience: {horizon: 4096}")
    assert longer == usual
    assert ids("at: 1024", "at: end") != ids("at: 1024", "at: 512")
    later = ids("horizon: 1024", "horizon: 2048")
    assert (later["l2"], later["more"] == usual["more"]) == (usual["l2"], False)


def with_again(section: str, *others: str) -> str:
    return STUDY[: STUDY.index("  again:")] + f"  again: {{{section}}}\n" + "\n".join(f"  {one}" for one in others)


START = "start_from: {run: transience/baseline"
REFUSED = {
    "an experiment that is not there": (
        "start_from: {run: transence/baseline}",
        ["no experiment 'transence' (did you mean `transience`?)"],
    ),
    "a run that is not there": (
        "start_from: {run: transience/l2}",
        ["experiments.again", "experiment transience has no run 'l2'", "it has baseline"],
    ),
    "a run of this experiment that is not there": ("start_from: {run: other}", ["experiment again has no run 'other'"]),
    "itself": ("start_from: {run: baseline}", ["runs start from each other, again/baseline -> again/baseline"]),
    "a snapshot that is not there": (
        START + ", at: 1000}",
        ["`start_from.at` is 1000, expected a snapshot of transience/baseline up to its horizon 2,048", "1024"],
    ),
    "a snapshot beyond the horizon": (START + ", at: 2560}", ["`start_from.at` is 2560", "2048, say, or end"]),
    "a snapshot by another name": (START + ", at: peak}", ["`start_from.at` is 'peak'", "or end"]),
    "another width": (
        START + "}, model: {width: 32}",
        ["whose embedder.weight is 4 x 16, expected 4 x 32 as here", "the same `model`"],
    ),
    "another depth": (START + "}, model: {depth: 3}", ["whose blocks.2.norm1.scale is not there"]),
    "a seed that the other lacks": (
        START + "}, seeds: [0, 7]",
        ["transience has seeds 0 1, not 7: give both the same `seeds`"],
    ),
    "a strength above 1": (
        "activation_interventions: {x: {ablate: block0.*, strength: 2}}",
        ["`activation_interventions.x.strength` is 2, expected a number from 0 to 1, or a list of [sequences seen"],
    ),
    "times in disorder": (
        "activation_interventions: {x: {ablate: block0.*, strength: [[100, 1], [0, 0]]}}",
        ["has 0 after 100, expected times in ascending order"],
    ),
    "three at one time": (
        "activation_interventions: {x: {ablate: block0.*, strength: [[8, 1], [8, 0.5], [8, 0]]}}",
        ["has 8 three times"],
    ),
    "no operation": ("activation_interventions: {x: {strength: 1}}", ["`activation_interventions.x` says nothing"]),
    "an operation that is none": (
        "activation_interventions: {x: {ablat: block0.*}}",
        ["unknown key", "activation_interventions.x.ablat", "did you mean `ablate`?"],
    ),
    "a head that is not there": (
        "activation_interventions: {x: {ablate: block0.head9}}",
        ["activation_interventions.x.ablate", "block0.head9", "there are head0 … head1"],
    ),
    "induction in an odd context": (
        "recipe: {context: 7}, evaluation: {evaluators: [ciwl]}, statistics: {evaluator: ciwl}, "
        "activation_interventions: {x: {clamp: {place: block1.pattern, to: induction}}}",
        ["`activation_interventions.x.clamp.to` is 'induction' on sequences of 7 items"],
    ),
    "a graft": (
        "activation_interventions: {x: {graft: {place: residual0, from: peak}}}",
        ["`activation_interventions.x.graft` takes activations of another snapshot, which training has none of"],
    ),
    "half of one head": (
        "activation_interventions: {x: {only: block1.head0, strength: [[0, 1], [1024, 0]]}}",
        ["`activation_interventions.x.strength` is between 0 and 1 at some time, but `only` is done or not"],
    ),
    "a frozen part that is not there": ("freeze: {parameters: [head]}", ["`freeze.parameters` has 'head'", "embedder"]),
    "frozen for no time": (
        "freeze: {parameters: [norm], from: 64, until: 40}",
        ["`freeze.until` is 40, which is not after `freeze.from` 64"],
    ),
    "frozen after the end": (
        "freeze: {parameters: [norm], from: 4096}",
        ["freezes parameters from 4096 sequences seen on"],
    ),
    "a component that its model lacks": (
        "freeze: {parameters: [mlp]}",
        ["`freeze.parameters` has 'mlp', which the model does not have: there are embedder, attention, norm, unemb"],
    ),
    "all frozen": ('freeze: {parameters: ["*"]}', ["names all parameters, so that nothing would train"]),
    "labels frozen and forgotten": (
        "freeze: {parameters: [embedder]}, forgetting: {every: 512}",
        ["label_embedding, which `forgetting` draws anew"],
    ),
    "the unembedding frozen and forgotten": (
        "freeze: {parameters: [unembedding]}, forgetting: {every: 512, unembedding: true}",
        ["unembedding.weight, unembedding.bias, which `forgetting` draws anew"],
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_in_words(what, tmp_path):
    section, words = REFUSED[what]
    with pytest.raises(StudyError) as error:
        planned(tmp_path, with_again(section))
    for word in words:
        assert word in str(error.value)


def test_runs_that_start_from_each_other_are_refused(tmp_path):
    with pytest.raises(StudyError, match=r"runs start from each other, (again|there)/baseline -> "):
        planned(tmp_path, with_again("start_from: {run: there/baseline}", "there: {start_from: {run: again/baseline}}"))


def test_an_engine_that_cannot_is_refused_by_name(tmp_path):
    with pytest.raises(StudyError, match=r"native trains without activation_interventions: .* \(again: baseline\)"):
        planned(tmp_path, with_again("activation_interventions: {x: {ablate: block0.*}}"), engine="native")


def test_without_the_experiment_that_it_starts_from_an_optional_one_is_left_out(tmp_path):
    tokens = "transience: {optional: true, bank: {source: tokens}}"
    text = STUDY.replace("transience: {}", tokens)
    with pytest.raises(StudyError, match="but experiment transience is left out"):
        planned(tmp_path, text + "  other: {}")
    plan = planned(tmp_path, text.replace("    horizon: 1024", "    optional: true\n    horizon: 1024") + "  other: {}")
    assert list(plan.study.experiments) == ["other"]
    assert set(plan.study.left_out) == {"transience", "again"}


def test_strength_0_throughout_and_nothing_frozen_are_the_plain_run(tmp_path):
    nothing = "activation_interventions: {x: {ablate: block0.*, strength: 0}}, freeze: {from: 512}"
    plan = planned(tmp_path, with_again(nothing))
    assert run_of(plan, "again", "baseline") == run_of(plan, "transience", "baseline")


def test_equal_strengths_and_names_of_what_is_frozen_are_one_run(tmp_path):
    def run(section: str) -> Run:
        return run_of(planned(tmp_path, with_again(section)), "again", "baseline")

    assert run("freeze: {parameters: [attention]}") == run('freeze: {parameters: ["blocks.*.attention.*"]}')
    one = "activation_interventions: {x: {ablate: block0.head0%s}}"
    assert run(one % "") == run(one % ", strength: [[0, 1], [1024, 1]]")
    assert run(one % "") != run(one % ", strength: 0.5")


def test_a_pack_says_on_one_line_all_that_its_training_needs(tmp_path):
    section = "activation_interventions: {x: {patch: {place: block0.values, from: other_labels, tokens: [labels, 0]}, "
    section += "strength: [[0, 1], [512, 0.5]]}}, freeze: {parameters: [norm], from: 64, until: 640}, " + START + "}"
    plan = planned(tmp_path, with_again(section))
    for pack in plan.packs.values():
        assert PackSpec.from_json(pack.spec.json) == pack.spec


def test_strength_is_an_axis(tmp_path):
    axes = "activation_interventions: {x: {ablate: block0.head0}}, axes: {activation_interventions.x.strength: [0, 1]}"
    runs = planned(tmp_path, with_again(axes)).study.experiments["again"].runs
    assert [(one.name, one.axes) for one in runs] == [
        ("x.strength=0", {"activation_interventions.x.strength": 0.0}),
        ("x.strength=1", {"activation_interventions.x.strength": 1.0}),
    ]


# What is planned.


def test_the_first_segment_takes_the_segment_that_holds_the_snapshot(tmp_path):
    plan = planned(tmp_path)
    source, l2, more = (pack_of(plan, run_of(plan, *name)) for name in NAMES)
    assert plan.targets.source_segments(l2, 0) == [plan.paths.segment(source, 512, 1024)]
    assert plan.targets.source_segments(l2, 512) == []
    assert plan.targets.source_segments(more, 0) == [plan.paths.segment(l2, 512, 1024)]
    assert plan.targets.source_segments(source, 0) == []
    plan = planned(tmp_path, STUDY.replace("at: 1024", "at: 0"))
    l2 = pack_of(plan, run_of(plan, "again", "l2"))
    assert plan.targets.source_segments(l2, 0) == [plan.paths.segment(source, 0, 512)]


def test_lanes_that_start_from_others_pack_with_lanes_of_their_shape_but_not_with_those(tmp_path):
    text = STUDY.replace("      more:", "      plain: {start_from: {run: transience/baseline, at: 512}}\n      more:")
    plan = planned(tmp_path, text, packing="shape")
    names = {named.run.id: named.name for one in plan.study.experiments.values() for named in one.runs}
    packs = [[names[lane.run.id] for lane in pack.spec.lanes] for pack in plan.packs.values()]
    assert sorted(packs) == [["baseline"] * 2, ["l2"] * 2 + ["plain"] * 2, ["more"] * 2]
    both = pack_of(plan, run_of(plan, "again", "plain"))
    source = pack_of(plan, run_of(plan, "transience", "baseline"))
    assert plan.targets.source_segments(both, 0) == [
        plan.paths.segment(source, 512, 1024),
        plan.paths.segment(source, 0, 512),
    ]


def registered(folder: Path, *plans: Plan) -> None:
    for plan in plans:
        registry.register(folder / "results/packs", plan.packs)


def test_a_seed_that_is_left_in_a_pack_has_its_source_planned_too(tmp_path):
    """Its pack trains as one: without the source no lane of it would train."""
    first = planned(tmp_path, STUDY, lanes_per_pack=1)
    sources = {key: pack for key, pack in first.packs.items() if not pack.spec.run.start_from}
    both = {key: pack for key, pack in planned(tmp_path).packs.items() if pack.spec.run.start_from}
    registry.register(tmp_path / "results/packs", sources | both)
    plan = planned(tmp_path, STUDY.replace("seeds: [0, 1]", "seeds: [0]"), lanes_per_pack=1)
    assert set(plan.packs) == {*sources, *both}
    l2 = pack_of(plan, run_of(plan, "again", "l2"))
    assert len(plan.targets.source_segments(l2, 0)) == 2
    assert "along" in cost.table(plan)
    assert {row.seed for row in status.rows(plan)} == {"0"}
    # The results of seed 1 are needed, as far as the snapshot and no further.
    (unasked,) = [key for key, pack in sources.items() if pack.spec.lanes[0].seed == Seed(init=1, data=1)]
    folder = tmp_path / "results/packs" / unasked
    for end in (512, 1024, 1536):
        (folder / layout.segment_name(end - 512, end)).touch()
    removable = {one.path.name: one.reason for one in orphans.find(plan)[0]}
    assert removable == {layout.segment_name(1024, 1536): orphans.BEYOND}


# What knows of it.


def test_a_chain_waits_for_the_jobs_of_another():
    chains, waits = [[1.0, 1.0, 5.0], [3.0], [2.0]], {1: [(0, 2)], 2: [(1, 1)]}
    assert waiting.wall_time(chains, 8, waits) == 7.0
    assert waiting.wall_time(chains, 8) == 7.0
    assert waiting.wall_time([[1.0, 1.0], [3.0], [2.0]], 8, waits) == 7.0
    assert waiting.wall_time([[1.0, 1.0], [3.0], [2.0]], 8) == 3.0
    assert waiting.wall_time([[1.0, 1.0], [3.0], [2.0]], 1, waits) == 7.0
    assert waiting.critical_path([[1.0, 1.0], [3.0], [2.0]], waits) == (7.0, 2)
    assert waiting.critical_path([[1.0, 1.0], [3.0], [2.0]]) == (3.0, 1)


def test_cost_counts_what_a_lane_waits_for(tmp_path):
    plan = planned(tmp_path, gflops=0.01)
    source, l2, more = (pack_of(plan, run_of(plan, *name)) for name in NAMES)
    costs = cost.count(plan)
    # One source a lane: two seeds.
    assert {key: set(value) for key, value in costs.waits.items()} == {l2: {(source, 2)}, more: {(l2, 2)}}
    path = sum(costs.chains[source][:2]) + sum(costs.chains[l2]) + sum(costs.chains[more])
    found, _ = waiting.critical_path(list(costs.chains.values()), {1: [(0, 2)], 2: [(1, 2)]})
    assert found == pytest.approx(path)
    assert "after those that it starts from" in cost.table(plan)


def test_cost_counts_the_other_passes_that_activations_come_from():
    done = [{"keep": ["patterns"], "ablate": "block0.heads"}, {"clamp": {"place": "block1.pattern", "to": "induction"}}]
    done += [{"patch": {"place": "block0.values", "from": "other_labels"}}]
    several = [ActivationIntervention(operations=parse(one)) for one in done]
    passes = [training_passes(tiny_run(activation_interventions=of)) for of in ((), several[1:2], several[:1], several)]
    assert passes == [1, 1, 2, 3]


def test_cost_says_which_runs_are_the_eager_engines(tmp_path):
    plan = planned(tmp_path, with_again("activation_interventions: {x: {ablate: block0.*}}"))
    text = cost.table(plan)
    assert "Device cpu, engine native (1 pack), eager (1 pack)." in text
    assert "Engine auto is eager where native trains without activation_interventions." in text


def test_status_says_what_a_lane_waits_for(tmp_path):
    plan = planned(tmp_path)
    source = run_of(plan, "transience", "baseline")
    notes = {(row.run, row.seed): row.note for row in status.rows(plan)}
    assert notes["l2", "0"] == f"2 of 2 segments to train; waits for run {source.id} at 1,024, to start from it"
    assert notes["baseline", "0"] == "4 of 4 segments to train"


# What is trained.

BANK = banks_bank.build(TINY_BANK).embeddings
SOURCES = [tiny_run(), tiny_run(**{"optimizer.learning_rate": 1e-2})]


def trained(path: Path, spec: PackSpec, end: int, *sources: Path) -> Path:
    segments.run_segment(segments.SegmentJob(path, spec, BANK, None, 0, end, sources=sources))
    return path


@pytest.fixture(scope="module")
def two_sources(tmp_path_factory) -> list[tuple[Path, PackSpec]]:
    """A segment of each source, with seeds 0 and 1 in different places."""
    folder = tmp_path_factory.mktemp("sources")
    seeds = ([0, 1], [1, 0])
    specs = [PackSpec(lanes=tuple(lane(run, seed) for seed in of)) for run, of in zip(SOURCES, seeds, strict=True)]
    return [(trained(folder / f"{number}.h5", spec, 128), spec) for number, spec in enumerate(specs)]


def starting(*starts: tuple[Run, int, int], **changes) -> PackSpec:
    """Lanes that start from (run, snapshot), with a seed."""
    return PackSpec(
        lanes=tuple(
            lane(tiny_run(start_from=StartFrom(run=run.id, at=at), **changes), seed) for run, at, seed in starts
        )
    )


def test_the_snapshot_at_0_is_the_other_lanes_and_moments_and_sequences_begin_anew(two_sources, tmp_path):
    paths = [path for path, _ in two_sources]
    spec = starting((SOURCES[0], 64, 1), (SOURCES[1], 128, 0), (SOURCES[1], 0, 1))
    path = trained(tmp_path / "target.h5", spec, 4, *paths)
    with segment_file.opened(path, spec) as found:
        begun = found.parameters(0)
    for place, (of, at, seed) in enumerate(((0, 64, 1), (1, 128, 0), (1, 0, 1))):
        source_path, source_spec = two_sources[of]
        with segment_file.opened(source_path, source_spec) as source:
            row = source.sequences_seen.tolist().index(at)
            place_there = [one.seed.init for one in source_spec.lanes].index(seed)
            for name, value in source.parameters(row).items():
                assert torch.equal(begun[name][place], value[place_there]), (place, name)
    # After one batch a first moment of Adam is a tenth of the gradient: nothing of the source's is left.
    state = initial_state(spec)
    with h5py.File(path) as file:
        assert np.asarray(file["snapshots/sequences_seen"]).tolist() == [0]
        second = np.asarray(file["checkpoint/second_moments/unembedding.bias"])
        first = np.asarray(file["checkpoint/first_moments/unembedding.bias"])
    assert np.allclose(second * 1e3, (first * 10) ** 2, rtol=1e-3)
    assert state.sequences_seen == 0


def test_a_lane_that_starts_from_its_own_first_snapshot_trains_as_the_other_did(two_sources, tmp_path):
    """At 0 the other's weights are the ones that its seed draws, so all that follows is the same, to the last bit."""
    path, _ = two_sources[0]
    target = trained(tmp_path / "target.h5", starting((SOURCES[0], 0, 0)), 128, path)
    with h5py.File(target) as found, h5py.File(path) as expected:
        for name in parameter_shapes(SOURCES[0].model, 6, 10, 4):
            one, other = (np.asarray(file[f"snapshots/parameters/{name}"]) for file in (found, expected))
            assert np.array_equal(one[:, 0], other[:, 0]), name


def test_a_segment_names_the_code_that_trained_what_it_starts_from(two_sources, tmp_path):
    sources = []
    for number, code in enumerate(("native 0123456789ab", "native 0123456789ab, eager 0123456789ab")):
        sources.append(tmp_path / f"source{number}.h5")
        shutil.copy(two_sources[number][0], sources[-1])
        with h5py.File(sources[-1], "r+") as file:
            file.attrs["made_training_code"] = code
    path = trained(tmp_path / "target.h5", starting((SOURCES[0], 64, 0), (SOURCES[1], 64, 1)), 4, *sources)
    with h5py.File(path) as file:
        found = str(file.attrs["made_training_code"])
    expected = ["native 0123456789ab", "eager 0123456789ab", code_digest.training_code("native")]
    assert found == ", ".join(expected)


def test_a_job_without_the_segment_that_holds_the_snapshot_says_so(two_sources, tmp_path):
    path, _ = two_sources[1]
    with pytest.raises(hdf5.StoreError, match=r"seed 0 starts from run \w+ at 64 sequences seen, which is in none of"):
        trained(tmp_path / "target.h5", starting((SOURCES[0], 64, 0)), 4, path)
    with pytest.raises(hdf5.StoreError, match="at 60 sequences seen"):
        trained(tmp_path / "target.h5", starting((SOURCES[1], 60, 0)), 4, path)
    with pytest.raises(hdf5.StoreError, match=r"none of the segments given \(none\)"):
        trained(tmp_path / "target.h5", starting((SOURCES[1], 64, 0)), 4)
    assert not (tmp_path / "target.h5").exists()


# The page.


def test_the_study_in_the_page_on_circuits_is_one(tmp_path):
    page = (ROOT / "docs/circuits.md").read_text(encoding="utf-8")
    text = page[page.index("## While training") :].split("```yaml\n")[1].split("```")[0]
    bank = "{source: gaussian, gaussian: {classes: 40, holdout_classes: 10, exemplars: 3, holdout_exemplars: 2}}"
    defaults = f"defaults: {{bank: {bank}, model: {{width: 64, heads: 8}}}}"
    plan = planned(tmp_path, f"{defaults}\n{text}", segment_sequences=None)
    runs = {named.name: named.run for named in plan.study.experiments["late"].runs}
    source = run_of(plan, "omniglot", "baseline")
    assert {run.start_from for run in runs.values()} == {StartFrom(run=source.id, at=704_000)}
    assert [one.strength_at(32, 128_000) for one in runs["helped_at_first"].activation_interventions] == [0.5]
    assert runs["frozen_lower_layer"].freeze.until == 320_000
    packs = {name: pack_of(plan, run) for name, run in runs.items()}
    assert all(plan.targets.source_segments(pack_id, 0) for pack_id in packs.values())
