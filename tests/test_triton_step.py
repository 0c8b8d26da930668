"""Engine `triton` in Triton's interpreter against the float64 reference: gradients, whole steps, what a lane sees.

How far roundings may move a loss or a gradient, engines/verify.py derives and gives: `allowed` times what rounding all
inputs once does. The interpreter computes tf32 in full float32.
"""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from builders import changed, lane, pack
from interpreted import Poisoned, bank_of, fresh_parameters, needs_interpreter, small, trained

from icl_transience.engines import lanes as lanes_module
from icl_transience.engines.eager import EagerStep
from icl_transience.engines.state import initial_state
from icl_transience.engines.triton import engine
from icl_transience.engines.verify import UNIT, allowed, reference_gradients, relative_error
from icl_transience.specs.model import Positions
from icl_transience.specs.runs import PackSpec, Run
from icl_transience.specs.training import L2, Forgetting, Freeze, Intervention, Schedule
from icl_transience.training import loop

pytestmark = needs_interpreter

SHAPES = {
    "attention alone, 5 tokens": {},
    "two blocks with mlp, 17 tokens": {"model.depth": 2, "model.mlp_ratio": 4, "recipe.context": 8},
    "width 64, wide heads": {"model.width": 64, "model.heads": 2, "model.mlp_ratio": 3, "recipe.context": 4},
    "width 128, one head, 31 tokens": {"model.width": 128, "model.heads": 1, "recipe.context": 15},
    "narrow heads, learned positions, 31 tokens": {
        "model.heads": 16, "model.positions": Positions(kind="learned"), "recipe.context": 15,
    },
    "width 64, 33 tokens": {"model.width": 64, "model.heads": 8, "recipe.context": 16},
    "no positions, a batch of 19": {"model.positions": Positions(kind="none"), "batch_size": 19},
    "many labels, wide exemplars": {"bank.gaussian.classes": 150, "bank.gaussian.dim": 70, "recipe.context": 4},
}  # fmt: skip


@pytest.fixture(autouse=True)
def fresh_random_input():
    """Other numbers every time; pytest shows the seed of a test that fails."""
    print("torch.manual_seed", torch.seed())


@pytest.mark.parametrize(
    ("shape", "numerics", "stored"),
    [
        *((shape, numerics, False) for shape in SHAPES for numerics in ("float32", "bfloat16")),
        # Where a gradient goes does not depend on the shape.
        *((shape, "float32", True) for shape in list(SHAPES)[:2]),
    ],
)
def test_loss_and_every_gradient_are_those_of_the_reference_but_for_rounding(shape, numerics, stored):
    # With beta1 = 0 Adam's first moment is the gradient, to the last bit. A norm that no gradient has clips none.
    changes = {"optimizer.beta1": 0.0, "numerics": numerics, "optimizer.clip": 1e30 * stored}
    run = small(**SHAPES[shape], **changes)
    spec, bank = pack(run, run), bank_of(run)
    parameters, state = fresh_parameters(run, 2), initial_state(spec)
    state.parameters = {name: value.clone() for name, value in parameters.items()}
    (loss,) = Poisoned(spec, state, bank).losses(0, run.batch_size)
    (batch,) = lanes_module.batches(spec, bank, 0, run.batch_size)
    exemplars = lanes_module.exemplars(batch, bank)
    worst = {}
    for number in range(2):
        one = {name: value[number : number + 1] for name, value in parameters.items()}
        labels = batch.labels[number : number + 1]
        expected, moved = reference_gradients(run, one, exemplars[number : number + 1], labels, draws=8)
        found = {name: value[number] for name, value in state.first_moments.items()} | {"loss": loss[number]}
        for part, value in expected.items():
            error = relative_error(found[part], value)
            assert error < allowed(run.model, numerics) * moved[part], part
            worst[part] = max(worst.get(part, 0.0), error)
    print(f"{shape}, {numerics}: largest deviation", max(worst.items(), key=lambda item: item[1]))
    # Products in bfloat16 err thousands of times more than in float32: these are what they say.
    assert (max(worst.values()) > 1e-3) == (numerics == "bfloat16")


def assert_strays_no_further_than_eager(run: Run, batches: int) -> None:
    """Training magnifies roundings, by the run's own measure: Adam's first steps are signs of gradients.

    Two ways of rounding in float32 stray by amounts of one size; four times allows for luck, a mistake does not.
    """
    bank = bank_of(run)
    one = PackSpec(lanes=(lane(run),))
    exact_run = PackSpec(lanes=(lane(changed(run, {"numerics": "float64"})),))
    exact, exact_losses = trained(exact_run, bank.double(), batches, EagerStep)
    strayed = {}
    for kind in (EagerStep, Poisoned):
        state, losses = trained(one, bank, batches, kind)
        apart = [relative_error(losses, exact_losses)]
        for part in ("parameters", "first_moments", "second_moments"):
            found, expected = (
                torch.cat([value.flatten() for value in getattr(of, part).values()]) for of in (state, exact)
            )
            apart.append(relative_error(found, expected))
        strayed[kind] = apart
    print("strayed (loss, parameters, moments):", strayed)
    for of_triton, of_eager in zip(strayed[Poisoned], strayed[EagerStep], strict=True):
        assert of_triton < 4 * of_eager + allowed(run.model, "float32") * UNIT["float32"]


@pytest.mark.heavy
@pytest.mark.parametrize("shape", ["attention alone, 5 tokens", "two blocks with mlp, 17 tokens"])
def test_32_steps_stray_from_the_reference_no_further_than_eager_ones(shape):
    assert_strays_no_further_than_eager(small(**SHAPES[shape], **{"optimizer.l2.strength": 1e-2}), 32)


LATER = small(**{"recipe.burstiness": 1, "recipe.labels": "relabelled", "optimizer.l2.strength": 0.01})
EVENTFUL = {
    "l2 by component": {"optimizer.l2": L2(strength=0.01, embedder=0.0, attention=0.03, norm=0.02)},
    "unsquared l2": {"optimizer.l2": L2(form="unsquared", unembedding=0.02, attention=0.01)},
    "clip": {"optimizer.clip": 0.05, "optimizer.l2.norm": 0.01},
    "adamw": {"optimizer.name": "adamw", "optimizer.weight_decay": 0.1, "optimizer.schedule": Schedule(warmup=9)},
    "cosine": {"optimizer.schedule": Schedule(kind="cosine", warmup=8, length=30)},
    "inverse_sqrt": {"optimizer.schedule": Schedule(kind="inverse_sqrt", warmup=8)},
    "intervention": {"interventions": (Intervention(at=18, recipe=LATER.recipe, optimizer=LATER.optimizer),)},
    "forgetting": {"forgetting": Forgetting(every=12)},
    "forgetting the unembedding, too": {"forgetting": Forgetting(every=12, unembedding=True)},
    "freezing": {"freeze": Freeze(parameters=("label_embedding", "norm.scale"), from_=8, until=20)},
    "freezing while clipped": {
        "optimizer.clip": 0.05, "freeze": Freeze(parameters=("unembedding.weight",)),
        "optimizer.l2": L2(form="unsquared", strength=0.01),
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", EVENTFUL)
def test_steps_of_every_kind_stray_from_the_reference_no_further_than_eager_ones(kind):
    assert_strays_no_further_than_eager(small(**EVENTFUL[kind]), 9)


def test_a_lane_is_the_same_alone_and_packed_to_the_last_bit():
    runs = [small(**EVENTFUL[kind]) for kind in ("cosine", "clip", "forgetting", "forgetting the unembedding, too")]
    together, bank = pack(*runs), bank_of(runs[0])
    packed, losses = trained(together, bank, 4)
    for number in range(4):
        alone, alone_losses = trained(PackSpec(lanes=(together.lanes[number],)), bank, 4)
        for name, weight in alone.parameters.items():
            assert torch.equal(packed.parameters[name][number], weight[0]), (number, name)
        assert torch.equal(losses[:, number], alone_losses[:, 0])


@pytest.mark.parametrize("changes", [{}, {"forgetting": Forgetting(every=16, unembedding=True)}], ids=["", "forgets"])
def test_resumed_equals_uninterrupted_bit_for_bit_and_batches_are_drawn_in_parts(changes, monkeypatch):
    run = small(**{"model.positions.kind": "learned", "optimizer.schedule": Schedule(warmup=99)} | changes)
    spec, bank = pack(run), bank_of(run)
    whole, losses = trained(spec, bank, 5)
    # Fewer at a time than are trained on.
    monkeypatch.setattr(engine, "DRAW_BATCHES", 2)
    monkeypatch.setattr(lanes_module, "DRAW_BATCHES", 2)
    state, found = initial_state(spec), []
    for start, until in ((0, 3), (3, 5)):
        found += Poisoned(spec, state, bank).losses(start * run.batch_size, until * run.batch_size)
    assert torch.equal(torch.stack(found), losses)
    for part in ("parameters", "first_moments", "second_moments"):
        assert all(torch.equal(getattr(state, part)[name], value) for name, value in getattr(whole, part).items())


def test_at_snapshots_rows_of_labels_have_had_every_step_and_training_stops_nowhere_else():
    run = small(**{"optimizer.l2.strength": 0.01, "optimizer.schedule": Schedule(warmup=99)})
    spec, bank, size = pack(run), bank_of(run), run.batch_size
    until = 5 * size
    first, snapshot = (seen for seen in run.snapshots.points(size, size, until) if seen < until)
    assert (first, snapshot) == (2 * size, 4 * size)
    state = initial_state(spec)
    step, table = Poisoned(spec, state, bank), state.parameters["label_embedding"]
    settled, tables = [], []
    for _ in step.losses(0, until):
        settled.append(step.settled)
        tables.append(table.clone())
    assert settled == [False, True, False, True, True]
    # A row that is not shown, and that L2 alone would move, moves at the snapshot.
    at_first, before, at_snapshot = tables[1:4]
    assert (at_first == before).all(dim=2).any()
    assert not (before == at_snapshot).all(dim=2).any()
    whole, _ = trained(spec, bank, 4)
    assert torch.equal(whole.parameters["label_embedding"], at_snapshot)
    stopped = initial_state(spec)
    asked = iter([False, False, True, True])
    own = Poisoned(spec, stopped, bank)
    loop.train(spec, stopped, bank, until, lambda _: None, step=own, stop=lambda: next(asked))
    assert stopped.sequences_seen == snapshot
    assert torch.equal(stopped.parameters["label_embedding"], at_snapshot)


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_products_in_bfloat16_are_of_the_blocks_as_the_last_step_left_them(clip):
    run = small(
        **{"numerics": "bfloat16", "model.mlp_ratio": 2, "optimizer.learning_rate": 0.1, "optimizer.clip": clip}
    )
    # One lane that stores gradients, if any does: each way of stepping rounds what it steps on.
    spec = pack(run, changed(run, {"optimizer.clip": 0.0}))
    state = initial_state(spec)
    step = Poisoned(spec, state, bank_of(run))
    start = step.blocks.clone()
    list(step.losses(0, 3 * run.batch_size))
    layout = step.layout
    first = layout.offsets["blocks.0.norm1.scale"]
    for name in ("attention.qkv", "attention.out", "mlp.in.weight", "mlp.out.weight"):
        begin = layout.offsets[f"blocks.0.{name}"] - first
        matrix = slice(begin, begin + state.parameters[f"blocks.0.{name}"][0].numel())
        assert (step.blocks[:, matrix] - start[:, matrix]).abs().max() > 0.1
        # The interpreter cuts off the bits that a GPU rounds.
        torch.testing.assert_close(step.matrices[:, matrix].float(), step.blocks[:, matrix], rtol=2**-7, atol=0)


def test_gradients_whose_norm_is_no_number_leave_no_weight_one():
    run = small(**{"optimizer.clip": 0.05})
    spec = pack(run)
    state = initial_state(spec)
    state.parameters["unembedding.bias"].view(-1)[0] = torch.nan
    list(Poisoned(spec, state, bank_of(run)).losses(0, run.batch_size))
    assert all(value.isnan().all() for value in state.parameters.values())


def test_rows_of_labels_make_up_on_the_device_of_the_state(monkeypatch):
    """Triton launches on the current device, which need not be it."""
    run = small()
    spec, current, launched = pack(run), [], []
    step = Poisoned(spec, initial_state(spec), bank_of(run))

    class Kernel:
        def __getitem__(self, grid):
            return lambda **arguments: launched.append((grid, arguments["whole"], tuple(current)))

    @contextmanager
    def device(one):
        current.append(one)
        yield
        current.pop()

    step.make_up = step.make_up._replace(kernel=Kernel())
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(step, "embeddings", SimpleNamespace(device=torch.device("cuda", 1)))
    step._settle()
    assert launched == [((run.n_labels, 1), 1, (torch.device("cuda", 1),))]


def test_weights_that_are_not_numbers_give_a_loss_that_is_none():
    run = small()
    spec = pack(run)
    for which in ("embedder.weight", "blocks.0.attention.out", "unembedding.bias"):
        state = initial_state(spec)
        state.parameters[which].view(-1)[0] = torch.nan
        (loss,) = Poisoned(spec, state, bank_of(run)).losses(0, run.batch_size)
        assert loss.isnan().all()
