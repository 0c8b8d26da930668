"""An engine that is wrong in any way is found by its self-check, named, and another one trains in its place.

On a CPU, with the graph engine's step, which is not captured there.
"""

import dataclasses
import json
import warnings
from types import SimpleNamespace

import pytest
import torch
from builders import TINY_BANK, pack, tiny_run

from icl_transience.__main__ import main
from icl_transience.banks import bank as banks_bank
from icl_transience.engines import graph, optimizers, reports, select, selfcheck, verify
from icl_transience.engines.graph import GraphStep
from icl_transience.specs import compute
from icl_transience.specs.compute import AUTOMATIC, automatic_engines
from icl_transience.specs.errors import StudyError
from icl_transience.specs.training import L2, Intervention
from icl_transience.training import segments

BANK = torch.from_numpy(banks_bank.build(TINY_BANK).embeddings)
SPEC = pack(tiny_run(**{"optimizer.l2": L2(strength=0.01)}), tiny_run(**{"optimizer.clip": 0.5}))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ICL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def checked(spec=SPEC, **options) -> reports.Report:
    return selfcheck.check(spec, BANK, 0, "graph", **options)


@pytest.mark.parametrize("numerics", ["float32", "float64", "bfloat16"])
def test_an_engine_that_is_right_passes_far_from_the_limit(numerics):
    runs = [dataclasses.replace(lane.run, numerics=numerics) for lane in SPEC.lanes]
    report = checked(pack(*runs))
    assert report.problem == ""
    assert report.worst
    assert report.worst.excess < 0.7


def scaled_gradient(monkeypatch):
    right = GraphStep.train_step
    monkeypatch.setattr(GraphStep, "train_step", lambda step, x, labels: right(step, 1.01 * x, labels))


def missing_label(monkeypatch):
    right = graph.label_gradient
    monkeypatch.setattr(graph, "label_gradient", lambda rows, labels, n: right(rows[:, 1:], labels[:, 1:], n))


def other_rate(monkeypatch):
    right = optimizers.learning_rate
    monkeypatch.setattr(optimizers, "learning_rate", lambda *given: 1.001 * right(*given))


def no_l2(monkeypatch):
    right = optimizers.PackOptimizer.__init__

    def wrong(self, lanes, *rest):
        lanes = [(dataclasses.replace(optimizer, l2=L2()), steps) for optimizer, steps in lanes]
        right(self, lanes, *rest)

    monkeypatch.setattr(optimizers.PackOptimizer, "__init__", wrong)


def never_the_same(monkeypatch):
    """Off by a rounding, otherwise each time: as sums by atomic additions are."""
    right, calls = graph.label_gradient, []

    def wrong(*given):
        calls.append(None)
        return right(*given) * (1 + 2.0**-23 * (len(calls) % 7))

    monkeypatch.setattr(graph, "label_gradient", wrong)


def forgets_its_place(monkeypatch):
    """A new step begins with the first batch of what is drawn."""
    right = GraphStep._draw
    monkeypatch.setattr(GraphStep, "_draw", lambda step, start: right(step, 0 if step.drawn_from < 0 else start))


def raises(monkeypatch):
    def wrong(*given):
        raise RuntimeError("CUDA error: misaligned address")

    monkeypatch.setattr(GraphStep, "train_step", wrong)


WRONG = {
    scaled_gradient: "does not compute what the model says: in float32, .* is off by",
    missing_label: "the gradient of label_embedding is off by",
    other_rate: "is off by .* of its size, where rounding may move it by",
    no_l2: "is off by .* of its size, where rounding may move it by",
    never_the_same: "is not the same when trained twice",
    forgets_its_place: "is not the same when interrupted after 3 batches",
    raises: "misaligned address",
}


@pytest.mark.parametrize(("fault", "words"), WRONG.items(), ids=lambda one: getattr(one, "__name__", ""))
def test_a_wrong_engine_is_found_and_named_and_the_next_one_trains(fault, words, monkeypatch):
    if fault is other_rate:
        # Eager takes its rate from there, too.
        monkeypatch.setattr(optimizers.LaneOptimizer, "step", of_right_rate(optimizers.learning_rate))
    fault(monkeypatch)
    with pytest.warns(RuntimeWarning, match=f"engine: graph did not pass .* {words}.* goes on with eager"):
        assert selfcheck.first_proven(("graph", "eager"), SPEC, BANK, 0) == "eager"


def of_right_rate(learning_rate):
    def step(self, seen):
        rate = learning_rate(self.optimizer, self.batch_size, seen)
        for group in self.groups:
            optimizers.step(self.optimizer, rate, 0.0 if self.decays_first else group.decay, group)

    return step


def test_an_engine_that_passes_trains_without_a_word_and_is_not_checked_again(cache, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert selfcheck.first_proven(("graph", "eager"), SPEC, BANK, 0) == "graph"
    (kept,) = cache.glob("selfcheck-*.json")
    assert json.loads(kept.read_text())["engine"] == "graph"
    scaled_gradient(monkeypatch)
    assert checked().problem == ""
    assert checked(remembered=False).problem
    # Of another shape, or with other code, it is checked.
    assert checked(pack(tiny_run(batch_size=8))).problem
    monkeypatch.setattr(selfcheck.code_digest, "training_code", lambda engine: "edited")
    assert checked().problem


def test_the_check_knows_of_what_eager_itself_has_wrong_on_a_gpu():
    """float32 has .99900001287 for beta2 = .999 and .899999976 for beta1 = .9; a CPU takes them as doubles."""
    found = selfcheck.error_of_eager(SPEC, torch.device("cuda"))
    assert found["the second moment"] == pytest.approx(1.287e-5, rel=1e-3)
    assert found["the first moment"] == pytest.approx(2.38e-7, rel=1e-2)
    assert found["the step"] == pytest.approx(6.67e-6, rel=1e-2)
    assert selfcheck.error_of_eager(SPEC, torch.device("cpu")) == {}


def test_two_lanes_stand_for_a_pack_one_of_them_with_other_kernels_where_there_is_one():
    plain = tiny_run()
    clipped = tiny_run(**{"optimizer.clip": 0.5})
    later = tiny_run(interventions=(Intervention(at=64, recipe=plain.recipe, optimizer=clipped.optimizer),))

    def runs(start, *given):
        return [lane.run for lane in selfcheck._small(pack(*given), start).lanes]

    assert runs(0, plain, plain, clipped) == [plain, clipped]
    assert runs(0, clipped, clipped, plain) == [clipped, plain]
    # Of one that takes them later, as it then is.
    assert later.at(64) == clipped
    assert runs(0, plain, later) == runs(0, plain, plain, later) == [plain, clipped]
    assert runs(0, later, later) == [later, clipped]
    assert runs(0, plain, later, clipped) == [plain, clipped]
    assert runs(64, plain, plain, later) == [plain, later]
    alone = selfcheck._small(pack(plain), 0).lanes
    assert alone[0].run == alone[1].run
    assert alone[0].seed.data != alone[1].seed.data
    # What is remembered is of these runs, and of what holds for them then.
    cpu = torch.device("cpu")
    keys = {selfcheck._key(pack(*given), cpu, "graph", 0, False) for given in ((plain,) * 3, (plain, plain, clipped))}
    keys |= {selfcheck._key(pack(later, later, later), cpu, "graph", start, False) for start in (0, 64)}
    assert len(keys) == 4


def test_a_check_that_ends_all_on_a_gpu_ends_the_job_and_the_next_one_leaves_that_engine_out(cache, monkeypatch):
    """As an access out of range does: CUDA then refuses everything in this process."""
    with monkeypatch.context() as broken:
        raises(broken)
        broken.setattr(selfcheck, "_computes", lambda device: False)
        with pytest.raises(
            StudyError, match=r"graph failed its self-check, and cpu computes nothing more .* misaligned"
        ):
            selfcheck.first_proven(("graph", "eager"), SPEC, BANK, 0)
    (kept,) = cache.glob("selfcheck-*.json")
    # So do those of a sweep, whose arrays have the same sizes, but not one whose steps take other kernels.
    sweep = {"optimizer.learning_rate": 0.5, "model.init.scale": 0.25}
    other = pack(*(tiny_run(**sweep, **{"optimizer.clip": clip}) for clip in (0.0, 0.1)))
    for spec in (SPEC, other):
        with pytest.warns(RuntimeWarning, match=f"misaligned .* .at an earlier check; delete {kept} .* on with eager"):
            assert selfcheck.first_proven(("graph", "eager"), spec, BANK, 0) == "eager"
    assert selfcheck.first_proven(("graph", "eager"), pack(tiny_run()), BANK, 0) == "graph"
    kept.unlink()
    assert selfcheck.first_proven(("graph", "eager"), SPEC, BANK, 0) == "graph"


def test_a_device_computes_until_it_raises(monkeypatch):
    def lost(*given, **options):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def full(*given, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert selfcheck._computes(torch.device("cpu"))
    monkeypatch.setattr(torch, "ones", lost)
    assert not selfcheck._computes(torch.device("cpu"))
    monkeypatch.setattr(torch, "ones", full)
    assert selfcheck._computes(torch.device("cpu"))


def test_a_gpu_without_room_for_two_lanes_is_said_and_nothing_is_remembered(cache, monkeypatch):
    def full(*given, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(selfcheck.verify, "check_step", full)
    with pytest.raises(StudyError, match=r"graph: cpu has no room for its self-check.*CUDA out of memory"):
        selfcheck.first_proven(("graph", "eager"), SPEC, BANK, 0)
    assert not list(cache.glob("selfcheck-*"))


def test_what_breaks_a_check_by_hand_is_said_and_not_remembered(cache, monkeypatch):
    raises(monkeypatch)
    monkeypatch.setattr(selfcheck, "_computes", lambda device: False)
    with pytest.raises(StudyError, match=r"computes nothing more in this process: .*misaligned.* set `engine: eager`$"):
        list(selfcheck.by_hand(torch.device("cpu"), ["graph"], ["float32"]))
    assert not list(cache.glob("selfcheck-*"))


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "null", "[" * 100_000, '{"engine": "graph"}',
        '{"engine": "triton", "numerics": "float32", "problem": "", "memory": null}',
        '{"engine": "graph", "numerics": "float32", "problem": null, "memory": null}',
        '{"engine": "graph", "numerics": "float32", "problem": "", "memory": "lots"}',
    ],
)  # fmt: skip
def test_what_is_no_report_of_the_engine_is_checked_anew(cache, text):
    whole = '{"engine": "graph", "numerics": "float32", "problem": "", "memory": 7}'
    for written, expected in ((text, None), (whole, 7)):
        cache.mkdir(exist_ok=True)
        (cache / "selfcheck-key.json").write_text(written)
        found = reports.known("graph", "key")
        assert (found and found.memory) == expected


def test_a_pack_without_room_is_refused_and_no_engine_that_takes_more_is_tried(monkeypatch):
    """30 MiB of one lane and 50 of two are 70 of three; what is remembered is asked, too."""
    spec, real = pack(tiny_run(), tiny_run(), tiny_run()), selfcheck._with_peak
    taken = iter((30 << 20, 50 << 20))
    monkeypatch.setattr(selfcheck, "_with_peak", lambda work, device: (next(taken), real(work, device)[1]))
    monkeypatch.setattr(selfcheck, "_free", lambda device: 70 << 20)
    assert selfcheck.first_proven(("graph", "eager"), spec, BANK, 0) == "graph"
    monkeypatch.setattr(selfcheck, "_free", lambda device: (70 << 20) - 1)
    with pytest.raises(StudyError, match="3 lanes take 70 MiB of cpu, but 69 are free: lower `lanes_per_pack`"):
        selfcheck.first_proven(("graph", "eager"), spec, BANK, 0)


def test_what_fails_is_not_remembered(cache, monkeypatch):
    with monkeypatch.context() as wrong:
        scaled_gradient(wrong)
        assert checked().problem
    assert not list(cache.glob("selfcheck-*"))
    assert checked().problem == ""


def test_a_check_leaves_no_trace_in_random_numbers():
    before = torch.get_rng_state()
    checked()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_job_on_a_gpu_asks_which_engine_has_passed(monkeypatch):
    """`run_segment` trains with what the self-check returns."""
    assert segments.selfcheck is selfcheck
    assert AUTOMATIC["cuda"][-1] == AUTOMATIC["cpu"][-1] == "eager"
    assert automatic_engines("cuda:1", tiny_run(**{"model.width": 64})) == AUTOMATIC["cuda"]
    assert automatic_engines("cuda:1", tiny_run()) == AUTOMATIC["cuda"][1:] == ("graph", "eager")
    assert automatic_engines("cuda", tiny_run(**{"recipe.input_noise": 0.1})) == ("eager",)
    assert select.chosen("auto", tiny_run(), torch.device("cuda")) == "graph"


def test_a_job_is_told_where_its_pack_is_too_large_for_graph(monkeypatch):
    monkeypatch.setattr(selfcheck, "MOST_PRODUCTS", 15)
    monkeypatch.setattr(compute, "MOST_PRODUCTS", 15)
    monkeypatch.setattr(selfcheck, "first_proven", lambda names, *given: names)
    on_gpu = SimpleNamespace(device=torch.device("cuda"))
    words = "graph has no room for 16 attention patterns a step, 15 at most. .* with eager; lower `lanes_per_pack`"
    with pytest.warns(RuntimeWarning, match=words):
        assert selfcheck.proven_engine("auto", SPEC, on_gpu, 0) == ["eager"]


def test_the_command_says_what_it_found_and_fails_where_an_engine_does(capsys, monkeypatch):
    monkeypatch.setattr(verify, "_FLOP", 1e6)
    arguments = ["selfcheck", "--device", "cpu", "--engine", "graph", "--numerics", "float32"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.count("graph, float32: passed") == 2
    scaled_gradient(monkeypatch)
    assert main(arguments) == 1
    found = capsys.readouterr()
    assert "graph, float32: engine: graph does not compute what the model says" in found.out
    assert "2 of these checks failed" in found.err
