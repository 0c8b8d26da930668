"""Learning rates against torch's schedulers, steps against torch's optimizers on the same arrays, clipping's norm."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from icl_transience.engines import optimizers
from icl_transience.specs.training import L2, Optimizer, Schedule

# Formulas that are the same but for the order of a few operations in float64.
ROUNDING = 1e-12
BATCH = 32


def rates_of(optimizer: Optimizer, steps: int) -> list[float]:
    return [optimizers.learning_rate(optimizer, BATCH, (step + 1) * BATCH) for step in range(steps)]


def rates_of_torch(make, steps: int, rate: float = 0.01) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
    scheduler, found = make(optimizer), []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


def scheduled(**values) -> Optimizer:
    return Optimizer(learning_rate=0.01, schedule=Schedule(**values))


def test_the_default_is_a_constant_rate():
    assert rates_of(Optimizer(learning_rate=0.01), 50) == [0.01] * 50


def test_a_warm_up_rises_linearly_to_the_rate_that_its_last_batch_has():
    expected = rates_of_torch(
        lambda optimizer: lr_scheduler.LinearLR(optimizer, start_factor=1 / 20, end_factor=1, total_iters=19), 50
    )
    assert rates_of(scheduled(warmup=20 * BATCH), 50) == pytest.approx(expected, rel=ROUNDING)


def test_inverse_sqrt_is_the_schedule_of_chan_et_al():
    # With steps counted from 1: rate * min(step / warm-up, sqrt(warm-up / step)).
    expected = rates_of_torch(
        lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / 20, (20 / (step + 1)) ** 0.5)),
        300,
    )
    assert rates_of(scheduled(kind="inverse_sqrt", warmup=20 * BATCH), 300) == pytest.approx(expected, rel=ROUNDING)


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine_is_torchs_after_the_warm_up_and_stays_where_it_ends(final):
    optimizer = scheduled(kind="cosine", warmup=20 * BATCH, length=120 * BATCH, final=final)
    expected = rates_of_torch(lambda other: lr_scheduler.CosineAnnealingLR(other, 100, eta_min=0.01 * final), 101)
    found = rates_of(optimizer, 200)
    # Of torch's recursion, whose roundings add up.
    assert found[19:120] == pytest.approx(expected, rel=1e-9, abs=1e-15)
    assert found[120:] == [found[119]] * 80
    assert found[119] == pytest.approx(0.01 * final, abs=1e-18)


SCHEDULES = st.one_of(
    st.builds(Schedule, warmup=st.integers(0, 9000)),
    st.builds(Schedule, kind=st.just("inverse_sqrt"), warmup=st.integers(1, 9000)),
    st.builds(
        Schedule,
        kind=st.just("cosine"),
        warmup=st.integers(0, 9000),
        length=st.integers(9100, 20_000),
        final=st.floats(0, 1),
    ),
)


@given(SCHEDULES, st.integers(1, 64))
def test_a_rate_rises_in_warm_up_reaches_the_whole_rate_once_and_never_rises_again(schedule, batch_size):
    optimizer = Optimizer(learning_rate=0.01, schedule=schedule)
    seen = range(batch_size, 25_000, batch_size)
    rates = [optimizers.learning_rate(optimizer, batch_size, here) for here in seen]
    warm = -(-schedule.warmup // batch_size)
    top = max(warm, 1) - 1
    assert rates[:warm] == sorted(rates[:warm])
    assert rates[top] == pytest.approx(0.01, rel=1e-3 if not warm else ROUNDING)
    # A cosine's last values may differ in the last bit.
    assert all(after <= before * (1 + ROUNDING) for before, after in zip(rates[top:], rates[top + 1 :], strict=False))
    assert min(rates) >= 0


def test_lengths_are_rounded_up_to_whole_batches():
    one, other = (scheduled(kind="cosine", warmup=w, length=n) for w, n in ((33, 97), (64, 128)))
    assert rates_of(one, 20) == rates_of(other, 20)


# Steps.


def arrays(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"embedder.weight": (3, 4), "blocks.0.mlp.in.bias": (5,), "unembedding.weight": (4, 2)}
    return {name: torch.randn(*shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


@given(st.floats(1e-3, 100), st.integers(0, 10))
def test_clipping_is_torchs_whatever_the_arrays_are_split_into(largest, seed):
    gradients = arrays(seed)
    parameters = [torch.zeros_like(value, requires_grad=True) for value in gradients.values()]
    for parameter, gradient in zip(parameters, gradients.values(), strict=True):
        parameter.grad = gradient.clone()
    norm = torch.nn.utils.clip_grad_norm_(parameters, largest)
    flat = torch.cat([gradient.flatten() for gradient in gradients.values()])
    optimizers.clip([flat[:7], flat[7:]], largest)
    expected = torch.cat([parameter.grad.flatten() for parameter in parameters])
    assert torch.allclose(flat, expected, rtol=ROUNDING, atol=0)
    assert flat.norm() <= min(largest, norm) * (1 + ROUNDING)


def test_a_gradient_that_is_not_finite_stays_so_when_it_is_clipped():
    gradient = torch.tensor([1.0, torch.inf])
    optimizers.clip([gradient], 1.0)
    assert not gradient.isfinite().all()


def lane_arrays(joined: bool) -> optimizers.LaneArrays:
    """Parameters, gradients and moments; as the native engine has them where joined: one array, zeros between views."""
    kinds = (arrays(), arrays(1), zeros(), zeros())
    if not joined:
        return optimizers.LaneArrays(*kinds)
    spans, start = {}, 0
    for name, value in arrays().items():
        spans[name] = slice(start, start + 16 * -(-value.numel() // 16))
        start = spans[name].stop
    flat = torch.zeros(len(kinds), start, dtype=torch.float64)
    views = [
        {name: row[spans[name]][: value.numel()].view(value.shape).copy_(value) for name, value in named.items()}
        for row, named in zip(flat, kinds, strict=True)
    ]
    return optimizers.LaneArrays(*views, flat=list(flat), spans=spans)


HARD = [
    Optimizer(learning_rate=0.1, clip=0.5, l2=L2(strength=0.1, mlp=0.0, unembedding=0.3)),
    Optimizer(learning_rate=0.1, name="adamw", weight_decay=0.2, l2=L2(strength=0.0, mlp=0.5, form="unsquared")),
    Optimizer(learning_rate=0.1, name="sgd", momentum=0.9, l2=L2(strength=0.1, embedder=0.0)),
]


@pytest.mark.parametrize("optimizer", HARD, ids=lambda optimizer: optimizer.name)
@pytest.mark.parametrize("steps", [{}, {"unembedding.weight": 3}], ids=["together", "one begins anew"])
def test_arrays_that_lie_together_take_the_steps_that_they_take_apart(optimizer, steps):
    results = []
    for joined in (False, True):
        of_lane = lane_arrays(joined)
        lane_optimizer = optimizers.LaneOptimizer(
            optimizer, BATCH, of_lane, dict.fromkeys(of_lane.parameters, 7) | steps
        )
        lane_optimizer.add_l2()
        lane_optimizer.clip_gradients()
        lane_optimizer.step(8 * BATCH)
        changed = (of_lane.parameters, of_lane.first_moments, of_lane.second_moments)
        results.append([torch.cat([value.flatten() for value in part.values()]) for part in changed])
    for apart, together in zip(*results, strict=True):
        assert torch.allclose(apart, together, rtol=ROUNDING, atol=1e-15)


def zeros() -> dict[str, torch.Tensor]:
    return {name: torch.zeros_like(value) for name, value in arrays().items()}


def test_alike_arrays_that_lie_together_take_one_step_and_others_one_each():
    of_lane = lane_arrays(joined=True)
    done = dict.fromkeys(arrays(), 0)
    for l2, groups in ((L2(strength=0.1), [1]), (L2(strength=0.1, mlp=0.0), [2, 1]), (L2(norm=0.1), [1])):
        lane_optimizer = optimizers.LaneOptimizer(Optimizer(learning_rate=0.1, l2=l2), BATCH, of_lane, done)
        assert [len(group.parameters) for group in lane_optimizer.groups] == groups
