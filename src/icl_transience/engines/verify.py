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

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from icl_transience.engines import lanes, select
from icl_transience.engines.answers import Answers, answers
from icl_transience.engines.eager import query_loss
from icl_transience.engines.interface import DTYPES
from icl_transience.engines.state import NOT_DIVERGED, State
from icl_transience.model import transformer
from icl_transience.specs import code_digest
from icl_transience.specs.compute import training_flop
from icl_transience.specs.errors import StudyError
from icl_transience.specs.model import Model, parameter_shapes
from icl_transience.specs.runs import PackSpec, Run
from icl_transience.specs.training import Forgetting, Optimizer
from icl_transience.store import atomic
from icl_transience.store.cache import cache_folder

UNIT = {"float64": 2.0**-53, "float32": 2.0**-24, "tf32": 2.0**-11, "bfloat16": 2.0**-8}
_ALLOWED = {"float64": 16, "float32": 16, "tf32": 8, "bfloat16": 8}
# Inputs rounded that often; their amounts are averaged.
_DRAWS = 2
# FLOP of the sequences that are compared, in the model as written down; the reference computes six times as many.
_FLOP = 1.5e8
_FEWEST, _MOST = 2, 16


@dataclass(frozen=True)
class Deviation:
    """How far `part` of an engine's results is from the reference, relative, and how far rounding may bring it."""

    part: str
    error: float
    allowed: float
    numerics: str

    @property
    def excess(self) -> float:
        """Error over what is allowed; infinite where the error is no number."""
        ratio = self.error / self.allowed
        return ratio if ratio == ratio else float("inf")


def check_step(pack: PackSpec, embeddings: Tensor, start: int, engine: str) -> list[Deviation]:
    """Hold loss and gradients of the first lane's sequences from number `start` on against the reference.

    embeddings [classes, exemplars, I], the bank, on the device of the job. engine: one that `select.chosen` returned;
    eager is the reference itself, and not checked. Raises StudyError where the engine deviates; returns what was
    compared.
    """
    if engine == "eager":
        return []
    lane = pack.lanes[0]
    # What is left out is no part of the gradient, and the same code in every engine.
    # With beta1 = 0 Adam's first moment is the gradient, to the last bit.
    plain = Optimizer(learning_rate=lane.run.optimizer.learning_rate, beta1=0.0)
    run = replace(lane.run.at(start), optimizer=plain, forgetting=Forgetting(), batch_size=_sequences(lane.run))
    found: list[Deviation] = []
    expected, moved, finest = {}, {}, ""
    for numerics in _numerics(run.numerics, embeddings.device):
        one = PackSpec(lanes=(replace(lane, run=replace(run, numerics=numerics)),))
        bank = embeddings.to(DTYPES[numerics])
        parameters = normal_parameters(run, bank)
        with _RefusedInWords(engine, "step"):
            (loss,), gradients = _loss_and_gradients(one, bank, parameters, start, engine)
        if not finest:
            finest = numerics
            (batch,) = lanes.batches(one, bank, start, start + run.batch_size)
            inputs = parameters, lanes.exemplars(batch, bank), batch.labels
            expected, moved = reference_gradients(one.run, *inputs)
        # Small roundings move a result in proportion to their size.
        may = allowed(run.model, numerics) * UNIT[numerics] / UNIT[finest]
        results = {"loss": loss, **gradients}
        found += [
            Deviation(part, relative_error(results[part], value), may * moved[part], numerics)
            for part, value in expected.items()
        ]
    _judge(engine, "step", found)
    return found


@torch.no_grad()
def check_answers(run: Run, device: torch.device, context: int, engine: str) -> list[Deviation]:
    """Hold the answers of an engine to sequences of `context` items against the reference; see `check_step`."""
    if engine == "eager":
        return []
    found = []
    for numerics in _numerics(run.numerics, device):
        same = replace(run, numerics=numerics)
        generator = torch.Generator().manual_seed(1)
        count, width = _sequences(run), run.bank.shape.width
        exemplars = torch.randn(count, context + 1, width, generator=generator).to(device, DTYPES[numerics])
        labels = torch.randint(run.n_labels, (count, context + 1), generator=generator).to(device)
        parameters = normal_parameters(run, exemplars)
        with _RefusedInWords(engine, "answers"):
            forward = select.forward_for(same, device, count, engine, context)
            forward.load({name: value.clone() for name, value in parameters.items()})
            results = forward(exemplars, labels)
        found += _answers_apart(same, context, parameters, exemplars, labels, results)
    _judge(engine, "answers", found)
    return found


def allowed(model: Model, numerics: str) -> float:
    """Return how many amounts an engine's result may be moved by rounding; see the top."""
    return _ALLOWED[numerics] * (1.0 if model.depth <= 5 else (model.depth / 5) ** 0.5)


def _numerics(numerics: str, device: torch.device) -> tuple[str, ...]:
    """Return the numerics in which an engine is checked: those of the run, and float32 where they are rougher."""
    if numerics == "bfloat16" or (numerics == "tf32" and device.type == "cuda"):
        return "float32", numerics
    return ("float32",) if numerics == "tf32" else (numerics,)


def _sequences(run: Run) -> int:
    """Return how many sequences are compared: a batch where it is cheap, fewer for large models."""
    return min(run.batch_size, max(_FEWEST, min(_MOST, int(_FLOP / training_flop(run)))))


def normal_parameters(run: Run, like: Tensor) -> transformer.Parameters:
    """Draw a lane's weights for a check, name -> [1, …] in type and place of `like`: normal, norms and biases too."""
    generator = torch.Generator().manual_seed(0)
    shapes = parameter_shapes(run.model, run.bank.shape.width, run.n_labels, run.recipe.context)
    parameters = {}
    for name, shape in shapes.items():
        fan_in = shape[0] if len(shape) > 1 and name != "label_embedding" else 4
        value = name.endswith(".scale") + torch.randn(1, *shape, generator=generator) / fan_in**0.5
        parameters[name] = value.to(like)
    return parameters


def _loss_and_gradients(
    pack: PackSpec, bank: Tensor, parameters: transformer.Parameters, start: int, engine: str
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return (loss [1], gradients without a lane axis) of one step of the engine, on a state of its own."""
    state = State(
        parameters={name: value.clone() for name, value in parameters.items()},
        first_moments={name: torch.zeros_like(value) for name, value in parameters.items()},
        second_moments={name: torch.zeros_like(value) for name, value in parameters.items()},
        sequences_seen=start,
        loss_sum=bank.new_zeros(1),
        diverged_at=torch.full((1,), NOT_DIVERGED),
    )
    step = select.step_for(pack, state, bank, engine)
    (loss,) = step.losses(start, start + pack.run.batch_size)
    return loss, {name: moment[0] for name, moment in state.first_moments.items()}


def reference_gradients(
    run: Run, parameters: Mapping[str, Tensor], exemplars: Tensor, labels: Tensor, draws: int = _DRAWS
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return (values, amounts) of the loss ("loss", a number) and of each gradient (without a lane axis).

    values: in float64. amounts: how far rounding all inputs once moves a value, relative; see the top.
    parameters: name -> [1, …]. exemplars [1, B, C+1, I], labels [1, B, C+1]. draws: how often inputs are rounded.
    """
    unit = UNIT[run.numerics]
    # Lane 0 is exact, the others have rounded inputs.
    generator = torch.Generator(exemplars.device).manual_seed(2)
    weights = {name: _rounded(value, unit, draws, generator).requires_grad_() for name, value in parameters.items()}
    inputs = _rounded(exemplars, unit, draws, generator).requires_grad_()
    geometry = transformer.Geometry(run.model, run.recipe.context, torch.float64, exemplars.device)
    loss = query_loss(weights, run.model, geometry, inputs, labels.expand(1 + draws, *labels.shape[1:]))
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


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return the norm of the difference over the norm of `expected`; the difference's own norm where that is 0."""
    norm = float(expected.norm())
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


# What is said where an engine deviates, and what is kept where it does not.

# What is checked -> the stage of specs/code_digest.py whose files it proves.
_STAGES = {"step": "training/{}", "answers": "metrics"}


class _RefusedInWords:
    """Turn what an engine raises that cannot compute the model as it stands into a StudyError."""

    def __init__(self, engine: str, what: str):
        self.engine, self.what = engine, what

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Raise StudyError in place of what a missing or misshapen parameter raises."""
        stopped = isinstance(error, StudyError | torch.OutOfMemoryError)
        if isinstance(error, KeyError | ValueError | RuntimeError) and not stopped:
            raise _refusal(self.engine, self.what, f"cannot compute the model as it stands ({error!r})") from error


def _judge(engine: str, what: str, found: list[Deviation]) -> None:
    """Raise StudyError where the largest deviation is more than rounding; else keep which files were proven."""
    worst = max(found, key=lambda deviation: deviation.excess)
    if worst.excess >= 1:
        part = worst.part if what == "answers" or worst.part == "loss" else f"the gradient of {worst.part}"
        raise _refusal(
            engine,
            what,
            f"does not compute what the model says: in {worst.numerics}, {part} is off by {worst.error:.2g} of its "
            f"size, where rounding may move it by {worst.allowed:.2g}",
        )
    _keep_proof(engine, what)


def _refusal(engine: str, what: str, problem: str) -> StudyError:
    return StudyError(
        f"engine: {engine} {problem}. {_changed_since(engine, what)} Set `engine: eager`, or mend the engine"
    )


def _changed_since(engine: str, what: str) -> str:
    """Say which files have changed since the engine was last proven."""
    try:
        path = _proof(engine, what)
    except OSError as error:
        return f"There is no record of when it was last proven ({error}), so which file was edited is not known."
    try:
        proof = json.loads(path.read_text(encoding="utf-8"))
        then, date, torch_then = proof["files"], proof["date"], proof["torch"]
    except FileNotFoundError:
        return f"There is no record of when it was last proven ({path}), so which file was edited is not known."
    except (OSError, ValueError, KeyError, TypeError) as error:
        return (
            f"The record of when it was last proven cannot be read ({path}: {error}), so nor can which file was edited."
        )
    now = code_digest.file_digests(_STAGES[what].format(engine))
    changed = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    if torch_then != torch.__version__:
        changed.append(f"PyTorch ({torch_then} then, {torch.__version__} now)")
    if changed:
        return f"Changed since it was last proven ({date}): {', '.join(changed)}."
    return f"None of its files has changed since it was last proven ({date}), for this model or for another."


def _proof(engine: str, what: str) -> Path:
    return cache_folder() / f"proven-{engine}-{what}.json"


def _keep_proof(engine: str, what: str) -> None:
    """Keep the digests of the files that were proven, unless they are kept already."""
    try:
        path = _proof(engine, what)
    except OSError as error:
        print(f"the proof of engine {engine} cannot be kept ({error})", file=sys.stderr)
        return
    proof = {"files": code_digest.file_digests(_STAGES[what].format(engine)), "torch": torch.__version__}
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        if {name: known.get(name) for name in proof} == proof:
            return
    except (OSError, ValueError, AttributeError):
        pass  # proven for the first time, or damaged: written anew
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(path, json.dumps(proof | {"date": datetime.now(UTC).date().isoformat()}, indent=1) + "\n")
    except (OSError, StudyError) as error:
        # It costs the next refusal its list of files, and nothing else.
        print(f"{path}: the proof of engine {engine} cannot be kept ({error})", file=sys.stderr)
