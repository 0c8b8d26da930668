"""Hold an engine against the reference before a job: its gradients and its answers on a few sequences.

The reference is the model's functions in float64, with autograd. How far may roundings move a result? Rounding all
inputs once, by at most a unit u relative (2^-24 in float32, 2^-11 in tf32, 2^-8 in bfloat16), moves the float64 result
by an amount that says how sensitive it is, cancellation included. A computation that rounds k times along the way moves
it as k such amounts that do not conspire, sqrt(k) of them. In float32 k is at most 250 for 5 blocks and 600 for 12: 15
operations a block, forward and back, and sums that round again; so ALLOWED is 16 amounts, or 25 where there are more
blocks than 5. In bfloat16 and tf32 only products round: 4 a block, forward and back twice, at most 60 for 5 blocks and
150 for 12, so 8 amounts, or 12.

A wrong or missing term is no rounding: it is over 1e-3 of its array's gradient, some hundred times what float32 may
err. bfloat16 may err by 3 to 18 %, which shows a product left out or taken twice, and no less; so an engine is held
against the reference in float32 too where a run's numerics are rougher: its code is the same but for the casts.

The weights of the check are its own, normal everywhere, so that no gradient is 0 by the values it meets and a state
that has diverged hides nothing. The state of a job is not touched.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from icl_transience.engines import lanes, select
from icl_transience.engines.answers import Answers, answers
from icl_transience.engines.eager import query_loss
from icl_transience.engines.interface import DTYPES, Step
from icl_transience.engines.native.resnet import NativeResNet
from icl_transience.engines.proof import Deviation, RefusedInWords, judge
from icl_transience.engines.state import NOT_DIVERGED, State
from icl_transience.model import encoder, transformer
from icl_transience.specs.compute import training_flop
from icl_transience.specs.model import Model, component
from icl_transience.specs.runs import PackSpec, Run
from icl_transience.specs.training import Forgetting, Freeze, Optimizer

UNIT = {"float64": 2.0**-53, "float32": 2.0**-24, "tf32": 2.0**-11, "bfloat16": 2.0**-8}
# Images on which an encoder's kernels are held against the model, and how far they may be apart in float64: some
# thousand roundings of 2^-53, magnified by cancellation. A wrong term is over 1e-3.
_CHECKED_IMAGES, _ENCODER_APART = 20, 1e-9
# An image encoder's batch norms sum thousands of numbers, forward and back, which rounds again: to four times as far.
_OF_ENCODER = 4
# A rectifier or a pooling that meets two numbers which are equal but for rounding passes the gradient elsewhere: that
# of one of thousands of activations, so less than a hundredth of an image encoder's. check_encoder sees less.
_SWITCHED = 0.01
# A batch norm takes out what shifts or scales all of its input: the gradient of such an array is nothing but rounding
# of larger ones. Under this share of the encoder's largest, an array's deviation is relative to that share: some
# roundings of 2^-53 in check_encoder, which sees smaller ones, and of 2^-24 elsewhere.
_NOUGHT, _NOUGHT_IN_FLOAT64 = 1e-3, 1e-5
# Images over whose pixels norms of a check are taken at least: of a handful of numbers they magnify rounding without
# end.
_NORMED_IMAGES = 64
_ALLOWED = {"float64": 16, "float32": 16, "tf32": 8, "bfloat16": 8}
# Inputs rounded that often; their amounts are averaged.
_DRAWS = 2
_DRAWS_ON_GPU = 8
# FLOP of the sequences that are compared, in the model as written down; the reference computes six times as many.
_FLOP = 1.5e8
_FEWEST, _MOST = 2, 16


def check_step(pack: PackSpec, embeddings: Tensor, start: int, engine: str) -> list[Deviation]:
    """Hold loss and gradients of the first lane's sequences from number `start` on against the reference.

    embeddings [classes, exemplars, I], the bank, on the device of the job. engine: one that `select.chosen` returned;
    eager is the reference itself, and not checked. Raises StudyError where the engine deviates; returns what was
    compared.
    """
    if engine == "eager":
        return []
    check_encoder(pack.run, engine)
    lane = pack.lanes[0]
    # What is left out is no part of the gradient, and the same code in every engine. Nor is an encoder's freezing:
    # check_encoder compares both of its ways to encode.
    # With beta1 = 0 Adam's first moment is the gradient, to the last bit.
    plain = Optimizer(learning_rate=lane.run.optimizer.learning_rate, beta1=0.0)
    # Kernels of triton are made for a batch's size: those that train are checked, and no others compiled for it.
    count = lane.run.batch_size if engine == "triton" else _sequences(lane.run)
    run = replace(lane.run.at(start), optimizer=plain, forgetting=Forgetting(), freeze=Freeze(), batch_size=count)
    found: list[Deviation] = []
    expected, moved, finest = {}, {}, ""
    packs = {
        numerics: PackSpec(lanes=(replace(lane, run=replace(run, numerics=numerics)),))
        for numerics in _numerics(run.numerics, embeddings.device)
    }
    with RefusedInWords(engine, "step"):
        trials = {numerics: _trial(one, embeddings, start, engine) for numerics, one in packs.items()}
        if engine == "triton":
            _compile_together([trial.step for trial in trials.values()], embeddings.device)
    for numerics, one in packs.items():
        trial = trials[numerics]
        with RefusedInWords(engine, "step"):
            ((loss,),) = trial.step.losses(start, start + run.batch_size)
        gradients = {name: moment[0] for name, moment in trial.state.first_moments.items()}
        if not finest:
            finest = numerics
            (batch,) = lanes.batches(one, trial.bank, start, start + run.batch_size)
            inputs = trial.parameters, lanes.exemplars(batch, trial.bank), batch.labels
            # Two draws say little of an array of few numbers; on a GPU more of them cost nothing.
            draws = _DRAWS_ON_GPU if engine == "triton" else _DRAWS
            expected, moved = reference_gradients(one.run, *inputs, draws=draws)
        # Small roundings move a result in proportion to their size.
        may = allowed(run.model, numerics) * UNIT[numerics] / UNIT[finest]
        results, least = {"loss": loss, **gradients}, _NOUGHT * _largest_of_encoder(expected)
        for part, value in expected.items():
            if part == "loss" or component(part) != "encoder":
                found.append(Deviation(part, relative_error(results[part], value), may * moved[part], numerics))
                continue
            # `moved` is relative to the gradient itself.
            share = min(1.0, float(value.norm()) / least) if least else 1.0
            error = relative_error(results[part], value, least)
            found.append(Deviation(part, error, max(may * moved[part] * share, _SWITCHED), numerics))
    judge(engine, "step", found)
    return found


@torch.no_grad()
def check_answers(run: Run, device: torch.device, context: int, engine: str) -> list[Deviation]:
    """Hold the answers of an engine to sequences of `context` items against the reference; see `check_step`."""
    if engine == "eager":
        return []
    check_encoder(run, engine)
    found = []
    for numerics in _numerics(run.numerics, device):
        same = replace(run, numerics=numerics)
        generator = torch.Generator().manual_seed(1)
        encoded = run.model.encodes_images
        count, width = _sequences(run), run.model.width if encoded else run.bank.shape.width
        exemplars = torch.randn(count, context + 1, width, generator=generator).to(device, DTYPES[numerics])
        labels = torch.randint(run.n_labels, (count, context + 1), generator=generator).to(device)
        parameters = normal_parameters(run, exemplars)
        with RefusedInWords(engine, "answers"):
            forward = select.forward_for(same, device, count, engine, context)
            forward.load({name: value.clone() for name, value in parameters.items()})
            results = forward(exemplars[None] if encoded else exemplars, labels)
        found += _answers_apart(same, context, parameters, exemplars, labels, results)
    judge(engine, "answers", found)
    return found


@torch.enable_grad()
def check_encoder(run: Run, engine: str) -> list[Deviation]:
    """Hold the kernels of image encoders, if the engine has its own, against the model's functions, in float64.

    In float32 a rectifier that meets a number near 0 may pass what the reference does not; in float64 none does, and
    the kernels are the same code. Encoded images in training and at evaluation, running statistics, gradients; of
    images that the batch has once and twice. Raises StudyError where they deviate.
    """
    if engine != "native" or run.bank.images is None:
        return []
    generator = torch.Generator().manual_seed(4)
    shape, resnet = run.bank.images, run.model.resnet
    counts = 1 + torch.arange(_CHECKED_IMAGES) % 2
    drawn = torch.rand(_CHECKED_IMAGES, shape.side, shape.side, shape.channels, generator=generator)
    parameters = {
        name: value[0]
        for name, value in normal_parameters(run, torch.empty(0, dtype=torch.float64)).items()
        if component(name) == "encoder"
    }
    leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    copies = torch.arange(_CHECKED_IMAGES).repeat_interleave(counts)
    encoded, statistics = encoder.encode_lane(leaves, resnet, drawn.double()[copies], training=True)
    weights = torch.randn(encoded.shape, generator=generator, dtype=torch.float64)
    encoded.backward(weights)
    kernels = NativeResNet(resnet, shape, _CHECKED_IMAGES, torch.float64)
    with RefusedInWords(engine, "step"):
        found, moved = kernels.forward(parameters, drawn, counts, training=True)
        gradients = {name: torch.zeros_like(value) for name, value in parameters.items()}
        kernels.backward(weights.new_zeros(found.shape).index_add_(1, copies, weights.T), gradients)
        answered, _ = kernels.forward(parameters | statistics, drawn, counts, training=False)
    expected, _ = encoder.encode_lane(parameters | statistics, resnet, drawn.double(), training=False)
    pairs = {"encoded images": (found[:, copies].T, encoded.detach()), "encoded at evaluation": (answered.T, expected)}
    pairs |= {name: (moved[name], value) for name, value in statistics.items()}
    pairs |= {name: (gradients[name], leaf.grad) for name, leaf in leaves.items() if leaf.grad is not None}
    least = _NOUGHT_IN_FLOAT64 * _largest_of_encoder({name: one for name, (_, one) in pairs.items() if name in leaves})
    apart = [
        Deviation(name, relative_error(*pair, least if name in leaves else 0.0), _ENCODER_APART, "float64")
        for name, pair in pairs.items()
    ]
    judge(engine, "step", apart)
    return apart


def allowed(model: Model, numerics: str) -> float:
    """Return how many amounts an engine's result may be moved by rounding; see the top."""
    of_encoder = _OF_ENCODER if model.encodes_images else 1
    return of_encoder * _ALLOWED[numerics] * (1.0 if model.depth <= 5 else (model.depth / 5) ** 0.5)


def _numerics(numerics: str, device: torch.device) -> tuple[str, ...]:
    """Return the numerics in which an engine is checked: those of the run, and float32 where they are rougher."""
    if numerics == "bfloat16" or (numerics == "tf32" and device.type == "cuda"):
        return "float32", numerics
    return ("float32",) if numerics == "tf32" else (numerics,)


def _sequences(run: Run) -> int:
    """Return how many sequences are compared: a batch where it is cheap, fewer for large models."""
    cheap = max(_FEWEST, min(_MOST, int(_FLOP / training_flop(run))))
    if run.model.encodes_images:
        return max(cheap, -(-_NORMED_IMAGES // (run.recipe.context + 1)))
    return min(run.batch_size, cheap)


def _largest_of_encoder(values: Mapping[str, Tensor]) -> float:
    """Return the norm of the largest array of an image encoder; 0 where there is none."""
    return max((float(one.norm()) for name, one in values.items() if component(name) == "encoder"), default=0.0)


def normal_parameters(run: Run, like: Tensor) -> transformer.Parameters:
    """Draw a lane's weights for a check, name -> [1, …] in type and place of `like`: normal, norms and biases too."""
    generator = torch.Generator().manual_seed(0)
    parameters = {}
    for name, shape in run.parameter_shapes.items():
        fan_in = shape[0] if len(shape) > 1 and name != "label_embedding" else 4
        if len(shape) == 4:
            fan_in = math.prod(shape[1:])
        value = name.endswith(".scale") + torch.randn(1, *shape, generator=generator) / fan_in**0.5
        parameters[name] = value.to(like)
    return parameters


class _Trial(NamedTuple):
    """An engine's step on a state of its own, the bank that it reads, and the weights that the state began with."""

    step: Step
    state: State
    bank: Tensor
    parameters: transformer.Parameters


def _trial(pack: PackSpec, embeddings: Tensor, start: int, engine: str) -> _Trial:
    """Return a step of the engine that has taken no batch."""
    run, dtype = pack.run, DTYPES[pack.run.numerics]
    bank = embeddings if run.bank.images else embeddings.to(dtype)
    parameters = normal_parameters(run, torch.empty(0, dtype=dtype, device=bank.device))
    state = State(
        parameters={name: value.clone() for name, value in parameters.items()},
        first_moments={name: torch.zeros_like(value) for name, value in parameters.items()},
        second_moments={name: torch.zeros_like(value) for name, value in parameters.items()},
        sequences_seen=start,
        loss_sum=torch.zeros(1, dtype=dtype, device=bank.device),
        diverged_at=torch.full((1,), NOT_DIVERGED),
        statistics={name: bank.new_ones(1, *shape, dtype=torch.float32) for name, shape in run.running_shapes.items()},
    )
    return _Trial(select.STEPS[engine](pack, state, bank), state, bank, parameters)


def _compile_together(steps: Sequence[Any], device: torch.device) -> None:
    """Compile the kernels of triton's steps side by side; by themselves steps compile theirs one after the other."""
    # Only here: training on a CPU does without triton.
    from icl_transience.engines.triton import launching

    if device.type == "cuda":
        with torch.cuda.device(device):
            launching.compile_all([launch for step in steps for launch in step.launches(store=False)], 1)


def reference_gradients(
    run: Run, parameters: Mapping[str, Tensor], exemplars: Tensor, labels: Tensor, draws: int = _DRAWS
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return (values, amounts) of the loss ("loss", a number) and of each gradient (without a lane axis).

    values: in float64. amounts: how far rounding all inputs once moves a value, relative; see the top.
    parameters: name -> [1, …]. exemplars [1, B, C+1, I], or images; labels [1, B, C+1]. draws: how often inputs are
    rounded.
    """
    unit = UNIT[run.numerics]
    # Lane 0 is exact, the others have rounded inputs.
    generator = torch.Generator(exemplars.device).manual_seed(2)
    weights = {name: _rounded(value, unit, draws, generator).requires_grad_() for name, value in parameters.items()}
    inputs = _rounded(exemplars, unit, draws, generator).requires_grad_()
    geometry = transformer.Geometry(run.model, run.recipe.context, torch.float64, exemplars.device)
    read = inputs
    if run.model.encodes_images:
        read, _ = encoder.encode(weights, run.model.resnet, inputs.flatten(1, 2), training=True)
        read = read.unflatten(1, inputs.shape[1:3])
    loss = query_loss(weights, run.model, geometry, read, labels.expand(1 + draws, *labels.shape[1:]))
    leaves = [*weights.values(), inputs]
    found = torch.autograd.grad(loss.sum(), leaves, allow_unused=True, materialize_grads=True)
    gradients = dict(zip(weights, found, strict=False))
    values = {name: gradient[0] for name, gradient in gradients.items()}
    # A sum of many independent roundings, uniform within the unit: a few draws of one number might miss its size.
    spread = sum(float((one[0] * leaf[0]).detach().square().sum()) for one, leaf in zip(found, leaves, strict=True))
    amounts = {"loss": max(unit * (spread / 3) ** 0.5 / abs(float(loss[0].detach())), unit)}
    for name, gradient in gradients.items():
        squares = [relative_error(gradient[draw], gradient[0]) ** 2 for draw in range(1, 1 + draws)]
        # Of the result itself there is always one rounding.
        amounts[name] = max((sum(squares) / draws) ** 0.5, unit)
    return {"loss": loss[0].detach(), **values}, amounts


def _rounded(value: Tensor, unit: float, draws: int, generator: torch.Generator) -> Tensor:
    """Return [1 + draws, …] float64 of `value` [1, …]: itself, and it with every number rounded at random."""
    noise = torch.rand(draws, *value.shape[1:], generator=generator, device=value.device)
    exact = value.double()
    return torch.cat([exact, exact * (1 + unit * (2 * noise.double() - 1))])


def relative_error(found: Tensor, expected: Tensor, least: float = 0.0) -> float:
    """Return the norm of the difference over that of `expected`, or over `least` where that is larger.

    Where both are 0: the difference's own norm.
    """
    norm = max(float(expected.norm()), least)
    return float((found.double() - expected).norm()) / (norm or 1.0)


def _answers_apart(
    run: Run, context: int, parameters: transformer.Parameters, exemplars: Tensor, labels: Tensor, found: Answers
) -> list[Deviation]:
    """Compare answers with those of the reference. exemplars [B, C+1, I], labels [B, C+1]."""
    unit = UNIT[run.numerics]
    generator = torch.Generator(exemplars.device).manual_seed(2)
    weights = {name: _rounded(value, unit, _DRAWS, generator) for name, value in parameters.items()}
    inputs = _rounded(exemplars[None], unit, _DRAWS, generator)
    geometry = transformer.Geometry(run.model, context, torch.float64, exemplars.device)
    logits = transformer.query_logits(
        weights, run.model, geometry, inputs, labels[None, :, :-1].expand(1 + _DRAWS, -1, -1)
    )
    exact = logits[:1]
    moved = max((sum(relative_error(one, exact[0]) ** 2 for one in logits[1:]) / _DRAWS) ** 0.5, unit)
    may = allowed(run.model, run.numerics) * moved
    expected = answers(exact, labels)
    apart = {
        part: _apart(getattr(found, part), getattr(expected, part), exact)
        for part in ("context_logits", "max_other_logit", "logsumexp_other", "target_logit")
    }
    # Another label may win where two are equal but for rounding: its logit says so.
    others = exact.scatter(-1, labels[:, :-1].expand(1, -1, -1), -torch.inf)
    chosen = others.gather(-1, found.max_other_label[..., None]).squeeze(-1)
    apart["max_other_label"] = _apart(chosen, expected.max_other_logit, exact)
    return [Deviation(part, error, may, run.numerics) for part, error in apart.items()]


def _apart(found: Tensor, expected: Tensor, logits: Tensor) -> float:
    """Return how far parts of the logits are apart, by the size of all: a single one may be near 0."""
    # Where the context has every label there are no others: both are -inf.
    difference = torch.where(found == expected, 0.0, found.double() - expected)
    return float(difference.norm() / logits.norm())
