"""Which lanes train together, where their training stops and resumes, and that neither ever changes under them."""

import dataclasses
import itertools
import json
import random
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from builders import TINY_BANK, TINY_RUN, lane, pack, tiny_run
from hypothesis import given
from hypothesis import strategies as st

from icl_transience.planning import packs, registry
from icl_transience.planning.packs import Pack
from icl_transience.specs.errors import StudyError
from icl_transience.specs.identity import SEMANTICS
from icl_transience.specs.recipes import Component
from icl_transience.specs.runs import Lane, PackSpec, seed_labels
from icl_transience.store import layout, locks
from icl_transience.training import segments

FAST, SLOW = tiny_run(**{"optimizer.learning_rate": 1e-2}), TINY_RUN


def lanes(run=SLOW, seeds=(0, 1, 2)) -> list[Lane]:
    return [lane(run, seed) for seed in seeds]


def planned(wanted, registered=None, *, horizon=1000, **execution) -> dict[str, Pack]:
    """packs.plan with every lane's horizon the same."""
    settings = {"packing": "run", "lanes_per_pack": 8, "segment_sequences": 400} | execution
    length, most = settings.pop("segment_sequences"), settings.pop("lanes_per_pack")
    return packs.plan(
        dict.fromkeys(wanted, horizon),
        registered or {},
        lanes_per_pack=at_most(most),
        segment_end=after(length),
        **settings,
    )


def at_most(lanes: int):
    """So many lanes a pack, whatever they are."""
    return lambda group, horizon, new: lanes


def after(length: int):
    """Segments of a length, whatever the pack and the horizon."""
    return lambda pack, horizon: lambda start: start + length


def registered_in(folder: Path) -> dict[str, Pack]:
    """The packs that stand in a folder, all of which can be read."""
    registered = registry.read_registered(folder)
    assert registered.skipped == ()
    return registered.packs


def skipped_in(folder: Path) -> registry.Skipped:
    """The one folder that cannot be read, in a folder without another pack."""
    registered = registry.read_registered(folder)
    assert registered.packs == {}
    (only,) = registered.skipped
    return only


def lanes_of(plan: dict[str, Pack]) -> list[tuple[Lane, ...]]:
    return [pack.spec.lanes for pack in plan.values()]


def many(monkeypatch, most: int, begun: int = 0) -> int:
    """The number of jobs that are refused where `most` may be planned: two new packs, of 3 segments each, and one
    that has trained up to `begun` sequences.
    """
    monkeypatch.setattr(packs, "MOST_SEGMENTS", most)
    wanted = dict.fromkeys(lanes(SLOW), 900) | dict.fromkeys(lanes(FAST), 960)
    registered = {}
    if begun:
        old = Pack(spec=PackSpec(lanes=tuple(lanes(SLOW, (7,)))), boundaries=(0, begun))
        registered[old.spec.id], wanted[lane(SLOW, 7)] = old, 900
    try:
        packs.plan(wanted, registered, packing="run", lanes_per_pack=at_most(8), segment_end=after(317))
    except StudyError as error:
        return int(re.search(r"takes (\d+) jobs, expected at most", str(error))[1])
    return 0


def tree(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


# How many segments there may be.


def test_segments_of_all_packs_are_counted_and_as_many_as_there_may_be_are_planned(monkeypatch):
    # Batches of 4: a segment of 317 sequences has 320, so 900 takes 3 of them, and so does 960.
    assert TINY_RUN.batch_size == 4
    assert [many(monkeypatch, most) for most in (6, 5, 1)] == [0, 6, 6]


def test_segments_that_are_trained_do_not_count(monkeypatch):
    # Of a pack that has trained 320 of 900, 580 are left, and take 2 segments; one that has trained all takes none.
    assert [many(monkeypatch, most, begun=320) for most in (8, 7)] == [0, 8]
    assert [many(monkeypatch, most, begun=912) for most in (6, 5)] == [0, 6]


# Which lanes train together.


def test_the_seeds_of_a_run_are_a_pack():
    assert lanes_of(planned(lanes(SLOW) + lanes(FAST))) == [tuple(lanes(SLOW)), tuple(lanes(FAST))]


def test_a_pack_has_no_more_lanes_than_it_may():
    found = lanes_of(planned(lanes(seeds=range(5)), lanes_per_pack=2))
    assert found == [tuple(lanes(seeds=seeds)) for seeds in ([0, 1], [2, 3], [4])]


def test_packs_do_not_depend_on_the_order_in_which_runs_are_mentioned():
    mixed = lanes(SLOW) + lanes(FAST)
    interleaved = [one for pair in zip(lanes(SLOW), lanes(FAST), strict=True) for one in pair]
    assert planned(mixed) == planned(interleaved) == planned(lanes(FAST) + lanes(SLOW))


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer.learning_rate": 0.5},
        {"optimizer.l2.strength": 1e-4},
        {"optimizer.l2.form": "unsquared"},
        {"model.init.distribution": "lecun_normal"},
        {"model.init.scale": 2.0},
        {"recipe.burstiness": 2},
        {"recipe.labels": "relabelled"},
        {"recipe.zipf.alpha": 1.0},
        {"recipe.input_noise": 0.5},
        {"recipe.pool": 100},
        {"recipe.mixture": (Component(share=0.5, burstiness=0, support="none"),)},
    ],
    ids=str,
)
def test_packing_by_shape_joins_runs_whose_lanes_differ_in_what_is_their_own(change):
    runs = lanes(SLOW) + lanes(tiny_run(**change))
    assert len(planned(runs)) == 2
    assert lanes_of(planned(runs, packing="shape")) == [tuple(runs)]


@pytest.mark.parametrize(
    "change",
    [
        {"model.depth": 3},
        {"model.mlp_ratio": 0},
        {"model.positions.base": 100.0},
        {"recipe.context": 6},
        {"recipe.labelling.labels": 5},
        {"batch_size": 8},
        {"numerics": "float64"},
        {"snapshots.every": 128},
        {"optimizer.beta2": 0.99},
        {"bank.seed": 1},
        {"bank.gaussian.classes": 11},
    ],
    ids=str,
)
def test_packing_by_shape_keeps_other_runs_apart(change):
    assert len(planned(lanes(SLOW) + lanes(tiny_run(**change)), packing="shape")) == 2


def test_packing_by_shape_respects_the_number_of_lanes_too():
    found = lanes_of(planned(lanes(SLOW) + lanes(FAST), packing="shape", lanes_per_pack=4))
    assert [len(group) for group in found] == [4, 2]


# Lanes that have been registered stay where they are.


def test_registered_lanes_stay_and_new_ones_form_new_packs():
    registered = planned(lanes(seeds=[0, 1]))
    plan = planned(lanes(seeds=[0, 1, 2, 3]), registered)
    assert lanes_of(plan) == [tuple(lanes(seeds=[0, 1])), tuple(lanes(seeds=[2, 3]))]
    assert registered.items() <= plan.items()


def test_by_shape_no_lane_joins_those_that_go_further():
    found = planned(lanes(SLOW) + lanes(FAST), packing="shape")
    assert len(found) == 1
    wanted = dict.fromkeys(lanes(SLOW), 12) | dict.fromkeys(lanes(FAST), 24)
    found = packs.plan(
        wanted, {}, packing="shape", lanes_per_pack=lambda *_: 99, segment_end=lambda *_: lambda start: start + 12
    )
    assert sorted(pack.boundaries[-1] for pack in found.values()) == [12, 24]


@pytest.mark.parametrize("execution", [{"lanes_per_pack": 1}, {"packing": "shape"}, {"segment_sequences": 12}])
def test_how_lanes_would_be_packed_today_moves_none_that_has_a_pack(execution):
    registered = planned(lanes(SLOW)) | planned(lanes(FAST))
    assert planned(lanes(SLOW) + lanes(FAST), registered, **execution) == registered


def test_a_pack_is_planned_as_a_whole_if_one_of_its_lanes_is_wanted():
    registered = planned(lanes(SLOW)) | planned(lanes(FAST))
    assert planned(lanes(SLOW, seeds=[1]), registered) == planned(lanes(SLOW))


@pytest.mark.parametrize("seeds", [[1], [2, 1, 0]])
def test_the_order_of_registered_packs_does_not_matter(seeds):
    # Lane 1 is in both, as where results of two machines were copied together.
    both = planned(lanes(seeds=[0, 1])) | planned(lanes(seeds=[1, 2]))
    wanted = lanes(seeds=seeds)
    one, other = (planned(wanted, dict(order)) for order in itertools.permutations(both.items()))
    assert one == other
    one, other = (packs.lane_places(dict(order), wanted) for order in itertools.permutations(both.items()))
    assert one == other


def test_every_lane_has_a_place_and_the_place_is_its_own():
    generator = random.Random(0)
    wanted = [lane(run, seed) for run in (SLOW, FAST) for seed in range(9)]
    registered: dict[str, Pack] = {}
    for _ in range(6):  # a study that grows, executed differently every time
        some = generator.sample(wanted, k=generator.randint(1, len(wanted)))
        settings = {"packing": generator.choice(["run", "shape"]), "lanes_per_pack": generator.randint(1, 5)}
        plan = planned(some, registered, horizon=generator.randint(1, 3000), **settings)
        places = packs.lane_places(plan, some)
        assert all(plan[pack_id].spec.lanes[place] == one for one, (pack_id, place) in places.items())
        before = packs.lane_places(registered, [one for one in some if one in homes(registered)])
        assert before.items() <= places.items()
        registered |= plan
    assert len(homes(registered)) == len(set(homes(registered)))


def homes(registered: dict[str, Pack]) -> list[Lane]:
    return [one for known in registered.values() for one in known.spec.lanes]


def test_a_lane_wanted_twice_trains_to_the_longer_horizon():
    one, other = lanes(seeds=[0, 1])
    assert packs.order_lanes([(one, 20), (other, 30), (one, 10)]) == {one: 20, other: 30}
    assert list(packs.order_lanes([(other, 1), (one, 1), (other, 2)])) == [other, one]


# Where segments meet.


def boundaries(registered=None, **settings) -> tuple[int, ...]:
    (only,) = planned(lanes(), registered, **settings).values()
    return only.boundaries


def test_segments_are_equally_long_and_the_last_one_ends_at_the_horizon():
    assert boundaries(horizon=1000, segment_sequences=400) == (0, 400, 800, 1000)
    assert boundaries(horizon=800, segment_sequences=400) == (0, 400, 800)
    assert boundaries(horizon=100, segment_sequences=400) == (0, 100)


def test_segments_are_whole_batches():
    assert boundaries(horizon=1001, segment_sequences=399) == (0, 400, 800, 1004)
    assert boundaries(horizon=10, segment_sequences=1) == (0, 4, 8, 12)


def test_a_longer_horizon_appends_segments():
    short = planned(lanes(), horizon=1000)
    assert boundaries(short, horizon=1900) == (0, 400, 800, 1000, 1400, 1800, 1900)


def test_another_length_of_segments_shapes_future_ones_only():
    short = planned(lanes(), horizon=1000)
    assert boundaries(short, horizon=1300, segment_sequences=100) == (0, 400, 800, 1000, 1100, 1200, 1300)


def test_a_shorter_horizon_keeps_the_boundaries_and_asks_for_fewer_segments():
    long = planned(lanes(), horizon=1000)
    assert boundaries(long, horizon=500) == (0, 400, 800, 1000)
    (only,) = long.values()
    assert only.segments(500) == [(0, 400), (400, 800)]
    assert only.segments(400) == [(0, 400)]
    assert only.segments(401) == [(0, 400), (400, 800)]
    assert only.segments(1000) == [(0, 400), (400, 800), (800, 1000)]


def test_a_pack_trains_as_far_as_its_farthest_lane():
    one, other = lanes(seeds=[0, 1])
    settings = {"packing": "run", "lanes_per_pack": at_most(8), "segment_end": after(400)}
    plan = packs.plan({one: 100, other: 500}, {}, **settings)
    assert [found.boundaries for found in plan.values()] == [(0, 400, 500)]


def test_segments_are_counted_before_they_are_listed(monkeypatch):
    """The last of a pack may be short, batches are whole, and what is registered does not count again."""
    # SLOW: 1000 in segments of 400, two and a short one, twice. FAST has 1000 of 2000 behind it: two and a short one.
    wanted = dict.fromkeys(lanes(SLOW), 1000) | dict.fromkeys(lanes(FAST), 2000)
    settings = {"packing": "run", "lanes_per_pack": at_most(2), "segment_end": after(399)}
    registered = planned(lanes(FAST), horizon=1000, lanes_per_pack=3)
    new = packs.plan(wanted, registered, **settings)
    appended = [len(pack.boundaries) - 1 for pack in new.values()]
    assert appended == [3 + 3, 3, 3]
    monkeypatch.setattr(packs, "MOST_SEGMENTS", 9)
    assert packs.plan(wanted, registered, **settings) == new
    monkeypatch.setattr(packs, "MOST_SEGMENTS", 8)
    with pytest.raises(StudyError, match=r"`horizon` 2,000 in segments of 400 sequences takes 9 jobs, .* at most 8:"):
        packs.plan(wanted, registered, **settings)


@given(
    horizons=st.lists(st.integers(1, 300), min_size=2, max_size=2),
    begun=st.integers(1, 300),
    lengths=st.tuples(st.integers(1, 60), st.integers(1, 60)),
)
def test_as_many_segments_are_counted_as_are_listed(horizons, begun, lengths):
    length = dict(zip((SLOW, FAST), lengths, strict=True))
    settings = {
        "packing": "run",
        "lanes_per_pack": at_most(1),
        "segment_end": lambda pack, horizon: lambda start: start + length[pack.run],
    }
    wanted = dict(zip((lane(SLOW), lane(FAST)), horizons, strict=True))
    registered = packs.plan({lane(SLOW): begun}, {}, **settings)
    listed = packs.plan(wanted, registered, **settings)
    old = sum(len(pack.boundaries) - 1 for pack in registered.values())
    new = sum(len(pack.boundaries) - 1 for pack in listed.values()) - old
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packs, "MOST_SEGMENTS", new)
        assert packs.plan(wanted, registered, **settings) == listed
        patch.setattr(packs, "MOST_SEGMENTS", new - 1)
        with pytest.raises(StudyError, match=f"takes {new} jobs"):
            packs.plan(wanted, registered, **settings)


# On disk.


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "results" / "packs"


def test_a_pack_is_read_as_it_was_registered(folder):
    plan = planned(lanes(SLOW) + lanes(FAST), packing="shape") | planned(lanes(tiny_run(batch_size=8)))
    registry.register(folder, plan)
    assert registered_in(folder) == plan
    assert all((folder / pack_id / "pack.json").is_file() for pack_id in plan)


def test_a_pack_survives_the_way_through_json():
    mixed = pack(SLOW, FAST, SLOW)
    assert PackSpec.from_json(mixed.json) == mixed
    assert "\n" not in mixed.json
    assert len(json.loads(mixed.json)["runs"]) == 2


def test_registering_again_changes_nothing(folder):
    plan = planned(lanes())
    registry.register(folder, plan)
    before = tree(folder)
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("pack.json")}
    registry.register(folder, plan)
    assert tree(folder) == before
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("pack.json")} == stamps


def test_registering_appends_boundaries(folder):
    registry.register(folder, planned(lanes()))
    longer = planned(lanes(), registered_in(folder), horizon=2000)
    registry.register(folder, longer)
    assert registered_in(folder) == longer


def test_registering_leaves_packs_of_other_studies_alone(folder):
    registry.register(folder, planned(lanes(SLOW)))
    registry.register(folder, planned(lanes(FAST)))
    assert registered_in(folder) == planned(lanes(SLOW)) | planned(lanes(FAST))


def test_a_plan_made_before_another_workflow_registered_its_lanes_is_refused(folder):
    ours, theirs = planned(lanes(seeds=[0, 1, 2])), planned(lanes(seeds=[0, 1]))
    registry.register(folder, theirs)
    before = tree(folder)
    with pytest.raises(StudyError, match=r"another workflow has registered lanes of .*: run the command again"):
        registry.register(folder, ours)
    assert tree(folder) == before
    # Which is enough.
    registry.register(folder, planned(lanes(seeds=[0, 1, 2]), registered_in(folder)))


@pytest.mark.parametrize("theirs", [1500, 2000])
def test_a_plan_made_before_another_workflow_extended_a_pack_is_refused(theirs, folder):
    first = planned(lanes(), horizon=1000)
    registry.register(folder, first)
    ours = planned(lanes(), first, horizon=1500, segment_sequences=300)
    registry.register(folder, planned(lanes(), first, horizon=theirs))
    before = tree(folder)
    with pytest.raises(StudyError, match=r"another workflow has extended .*: run the command again"):
        registry.register(folder, ours)
    assert tree(folder) == before


def test_registering_waits_for_another_workflow_to_finish_its_own(folder):
    folder.mkdir(parents=True)
    ours = threading.Thread(target=registry.register, args=(folder, planned(lanes())))
    with locks.locked(folder / ".lock"):
        ours.start()
        ours.join(timeout=0.2)
        assert ours.is_alive()
        assert registered_in(folder) == {}
    ours.join(timeout=10)
    assert registered_in(folder) == planned(lanes())


def test_planning_writes_nothing(folder):
    assert registered_in(folder) == {}
    planned(lanes(), registered_in(folder))
    assert not folder.exists()
    registry.register(folder, planned(lanes()))
    before = tree(folder)
    planned(lanes(seeds=range(5)), registered_in(folder), horizon=3000)
    assert tree(folder) == before


def test_a_folder_with_neither_index_nor_segments_is_no_pack(folder):
    # What is left where a workflow was killed between making the folder and writing its index.
    (folder / "gaussian-10x3-2x8-0123456789ab").mkdir(parents=True)
    assert registered_in(folder) == {}
    registry.register(folder, planned(lanes()))
    assert registered_in(folder) == planned(lanes())


DAMAGED_INDEX = {
    "empty": lambda text: "",
    "cut short": lambda text: text[: len(text) // 2],
    "another document": lambda text: "[]",
    "a boundary": lambda text: text.replace(" 8,", " 9,"),
    "a value of its spec": lambda text: text.replace('"init": 0', '"init": 7'),
    "no text": lambda text: "\0" * len(text),
}


@pytest.mark.parametrize("damage", DAMAGED_INDEX.values(), ids=DAMAGED_INDEX.keys())
def test_a_damaged_index_is_rebuilt_from_the_segments_and_mended(damage, trained):
    index, before = trained / "pack.json", registered_in(trained.parent)
    whole = index.read_text()
    index.write_text(damage(whole))
    assert index.read_text() != whole
    assert registered_in(trained.parent) == before
    registry.register(trained.parent, before)
    assert index.read_text() == whole


def test_an_index_is_rebuilt_from_any_segment_that_can_be_read(trained):
    before = registered_in(trained.parent)
    (trained / "pack.json").unlink()
    (trained / layout.segment_name(0, 8)).write_bytes(b"")
    assert registered_in(trained.parent) == before


def test_a_damaged_index_without_segments_is_planned_anew(folder):
    (pack_id,) = planned(lanes())
    registry.register(folder, planned(lanes()))
    (folder / pack_id / "pack.json").write_text("{")
    assert registered_in(folder) == {}


def index_of(folder: Path, **changes) -> None:
    """Change the index in a pack's folder, checksum included."""
    path = folder / registry.INDEX
    document = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(document | {"checksum": registry.checksum(document)}))


def with_an_unknown_key(folder: Path) -> None:
    """As a branch of the software leaves it that knows one key more of a model."""
    spec = json.loads((folder / registry.INDEX).read_text())["spec"]
    for run in spec["runs"].values():
        run["model"]["temperature"] = 2.0
    index_of(folder, spec=spec)


def of_a_newer_schema(folder: Path) -> None:
    """As newer software leaves it, which arranges the rest otherwise."""
    (folder / registry.INDEX).write_text('{"schema": 2, "lanes": [], "sha256": "another"}')


def under_another_name(folder: Path) -> None:
    """As somebody's copy."""
    folder.rename(folder.with_name("gaussian\nrenamed"))


UNREADABLE = {
    with_an_unknown_key: "not what this version of the software trains (unknown or missing: 'temperature'): use the",
    of_a_newer_schema: "schema version 2, expected 1: use the software that made it",
    under_another_name: "give the folder that name, or move it away to train its lanes again",
}


@pytest.mark.parametrize("leave", UNREADABLE, ids=lambda leave: leave.__name__)
def test_a_folder_that_cannot_be_read_is_skipped_for_one_reason_in_one_line(leave, folder):
    leftover, ours = planned(lanes(SLOW)), planned(lanes(FAST))
    registry.register(folder, leftover | ours)
    leave(folder / next(iter(leftover)))
    registered = registry.read_registered(folder)
    assert registered.packs == ours
    (only,) = registered.skipped
    assert UNREADABLE[leave] in only.reason
    assert str(only).splitlines() == [f"pack {str(only.folder)!r} is skipped: {only.reason}"]
    # It stands in nobody else's way, and nobody writes into it.
    before = tree(only.folder)
    registry.register(folder, planned(lanes(FAST), ours, horizon=2000))
    assert tree(only.folder) == before


@pytest.mark.parametrize("leave", [with_an_unknown_key, of_a_newer_schema], ids=lambda leave: leave.__name__)
def test_nothing_is_trained_in_a_folder_that_cannot_be_read(leave, folder):
    plan = planned(lanes())
    registry.register(folder, plan)
    leave(folder / next(iter(plan)))
    before = tree(folder)
    assert planned(lanes(), registry.read_registered(folder).packs) == plan
    with pytest.raises(StudyError, match=r"lanes of this study are to train there, but .*use the software"):
        registry.register(folder, plan)
    assert tree(folder) == before


# A lost index.


@pytest.fixture
def trained(folder) -> Path:
    """The folder of a pack with two segments; one of them is there under its kept name alone."""
    short = dataclasses.replace(TINY_RUN, model=dataclasses.replace(TINY_RUN.model, depth=1, mlp_ratio=0))
    plan = planned([lane(short)], horizon=12, segment_sequences=8)
    registry.register(folder, plan)
    ((pack_id, only),) = plan.items()
    bank = np.zeros((TINY_BANK.shape.n_classes, TINY_BANK.shape.n_exemplars, TINY_BANK.shape.width), np.float32)
    first, second = (folder / pack_id / layout.segment_name(start, end) for start, end in ((0, 8), (8, 12)))
    segments.run_segment(segments.SegmentJob(first, only.spec, bank, None, 0, 8))
    segments.run_segment(segments.SegmentJob(second, only.spec, bank, first, 8, 12))
    (folder / pack_id / ".kept" / first.name).unlink()
    second.rename(folder / pack_id / ".kept" / second.name)
    return folder / pack_id


def test_a_lost_index_is_rebuilt_from_the_segments(trained):
    before = registered_in(trained.parent)
    (trained / "pack.json").unlink()
    rebuilt = registered_in(trained.parent)
    assert rebuilt == before
    assert rebuilt[trained.name].boundaries == (0, 8, 12)
    assert not (trained / "pack.json").exists()
    registry.register(trained.parent, rebuilt)
    assert (trained / "pack.json").exists()
    assert registered_in(trained.parent) == before


def test_segments_in_a_folder_of_another_name_are_skipped(trained):
    (trained / "pack.json").unlink()
    trained.rename(trained.with_name("another"))
    assert f"it holds pack {trained.name}: give the folder that name" in skipped_in(trained.parent).reason


# Results of an earlier meaning.


def test_packs_of_an_earlier_meaning_of_training_do_not_stand_in_the_way(folder, monkeypatch):
    registry.register(folder, planned(lanes()))
    monkeypatch.setitem(SEMANTICS, "training", SEMANTICS["training"] + 1)
    assert registered_in(folder) == {}


def test_the_seeds_of_a_pack_are_named_once():
    assert seed_labels(PackSpec(lanes=(lane(SLOW, 0), lane(SLOW, 1, data=2)))) == "seeds 0 init1-data2"
    assert seed_labels(PackSpec(lanes=(lane(SLOW, 0), lane(FAST, 0)))) == "seeds 0"
