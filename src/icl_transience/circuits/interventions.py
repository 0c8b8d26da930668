"""Answers under interventions: what specs/interventions.py declares, done by taps at places of the model.

    network = Network(parameters, model, context=8)
    answers = logits(network, exemplars, labels, parse({"ablate": "block0.*", "keep": ["patterns"]}))   # [S, B, K]

Letters for shapes as in model/transformer.py; R rows: the last R tokens.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from icl_transience.circuits.attention import Copier, clamped, forbidden
from icl_transience.circuits.network import Network
from icl_transience.circuits.pairs import paired
from icl_transience.model.places import HEADS, Change, Recorder, Setter, Tap, chain, untouched
from icl_transience.specs.errors import StudyError
from icl_transience.specs.interventions import Ablate, Clamp, Graft, Intervention, check, check_graft
from icl_transience.specs.model import Model
from icl_transience.specs.places import Place, resolve, resolve_added


def activations(
    network: Network,
    exemplars: Tensor,
    labels: Tensor,
    places: Iterable[str],
    intervention: Intervention | None = None,
    others: Mapping[str, Network] | None = None,
    every_row: bool = True,
) -> dict[str, Tensor]:
    """Return name of a place -> its activation [S, B, …], of sequences as in `logits`; single heads are [S, B, R, .].

    places: names as of specs/places.py, with or without stars.
    """
    found = resolve(list(places), network.model)
    recorder = Recorder({place.name for place in found})
    logits(network, exemplars, labels, intervention, others, recorder, every_row)
    return {place.written: _of_head(recorder.activations[place.name], place) for place in found}


def logits(
    network: Network,
    exemplars: Tensor,
    labels: Tensor,
    intervention: Intervention | None = None,
    others: Mapping[str, Network] | None = None,
    tap: Tap = untouched,
    every_row: bool = False,
) -> Tensor:
    """Return the query's logits [S, B, K] under an intervention.

    exemplars [S, B, C+1, I] or [B, C+1, I], the same for all lanes; labels [(S,) B, C+1] int64, the target last: only
    what an intervention says of the right label depends on it. others: the snapshots that grafts name, of as many
    lanes. tap: reads, or sets, activations after the intervention has. every_row: of the last block too, not only the
    query's. Raises StudyError where the model cannot have the intervention.
    """
    exemplars, labels = (
        part.expand(network.lanes, *part.shape) if part.dim() == least else part
        for part, least in ((exemplars, 3), (labels, 2))
    )
    intervention = intervention or Intervention()
    check(intervention, network.model, network.context)
    out = [graft for graft in intervention.graft if graft.direction == "out"]
    if out:
        # What goes on in the other model is what comes into the other model.
        if len(intervention.graft) > 1:
            raise StudyError("`graft` goes out and in at once, expected one graft where one has `direction: out`")
        other = _other(others or {}, out[0], network)
        others = {out[0].from_: replace(network, exemplars=exemplars)}
        network, exemplars = replace(other, exemplars=None), other.reads(exemplars)
        intervention = replace(intervention, graft=(replace(out[0], direction="in"),))
    steps = tap_of(network, exemplars, labels, intervention, others or {}, every_row)
    return network.logits(exemplars, labels, chain(steps, tap), every_row)


def tap_of(
    network: Network,
    exemplars: Tensor,
    labels: Tensor,
    intervention: Intervention,
    others: Mapping[str, Network] | None = None,
    every_row: bool = False,
) -> Tap:
    """Return the tap that does an intervention to a forward pass on these sequences, `untouched` where it does nothing.

    Arguments as of `logits`, with all axes. What it takes from other passes (keep, patch, graft) is computed here.
    """

    def taken(source: Network, places: list[Place], *sequences: Tensor) -> dict[Place, Tensor]:
        recorder = Recorder({place.name for place in places})
        source.logits(sequences[0], sequences[1], recorder, every_row)
        return {place: _of_head(recorder.activations[place.name], place) for place in places}

    changes = _changes(network, exemplars, labels, intervention, others or {}, taken)
    copiers = (Copier(head, labels) for head in resolve(intervention.copy, network.model))
    return chain(*map(Setter, changes), *copiers)


def _changes(
    network: Network,
    exemplars: Tensor,
    labels: Tensor,
    intervention: Intervention,
    others: Mapping[str, Network],
    taken: Callable[..., dict[Place, Tensor]],
) -> Iterator[dict[Place, Change]]:
    """Yield what changes at which places, in the order in which it is done; nothing where a strength is 0.

    taken: activations at places of a network on sequences.
    """

    def places(written: tuple[str, ...], in_part: bool = False) -> list[Place]:
        return (resolve_added if in_part else resolve)(written, network.model)

    for graft in intervention.graft:
        if graft.strength:
            other = _other(others, graft, network)
            grafted = places(graft.place, in_part=graft.strength != 1)
            values = taken(other, grafted, other.reads(exemplars), labels)
            yield {place: partial(_mixed, value=value, share=graft.strength) for place, value in values.items()}
    if intervention.keep:
        values = taken(network, places(intervention.keep), exemplars, labels)
        yield {place: partial(_mixed, value=value, share=1.0) for place, value in values.items()}
    for patch in intervention.patch:
        if patch.strength:
            n_labels = network.parameters["label_embedding"].shape[1]
            tokens = _tokens(patch.tokens, exemplars)
            patched = places(patch.place, in_part=patch.strength != 1 or not bool(tokens.all()))
            values = taken(network, patched, *paired(patch.from_, exemplars, labels, n_labels))
            yield {
                place: partial(_mixed, value=value, share=patch.strength, tokens=tokens)
                for place, value in values.items()
            }
    for temperature in intervention.temperature:
        if (divisor := temperature.by**temperature.strength) != 1:
            yield dict.fromkeys(places(temperature.place), partial(torch.div, other=divisor))
    for forbid in intervention.forbid:
        if forbid.strength:
            yield dict.fromkeys(places(forbid.place), partial(forbidden, forbid=forbid))
    for clamp in intervention.clamp:
        if clamp.strength:
            yield dict.fromkeys(places(clamp.place), clamped(clamp, exemplars, labels))
    for ablate in intervention.ablate:
        if ablate.strength:
            change = torch.zeros_like if ablate.strength == 1 else partial(torch.mul, other=1 - ablate.strength)
            yield dict.fromkeys(places(ablate.place, in_part=ablate.strength != 1), change)
    if intervention.only:
        alone = places(intervention.only)
        beside = {Place(one.name, head) for one in alone for head in range(network.model.heads)} - set(alone)
        yield dict.fromkeys(sorted(beside), torch.zeros_like)


def _other(others: Mapping[str, Network], graft: Graft, network: Network) -> Network:
    """Return the snapshot that a graft names, of as many lanes; one lane alone is for all."""
    if graft.from_ not in others:
        raise StudyError(
            f"`graft.from` is {graft.from_!r}, expected one of the snapshots given: {', '.join(others) or 'none'}"
        )
    other = others[graft.from_]
    check_graft(graft, network.model, other.model)
    if other.lanes not in (1, network.lanes):
        raise StudyError(f"`graft.from` is {graft.from_!r}, of {other.lanes} lanes, expected 1 or {network.lanes}")
    weights = {name: value.expand(network.lanes, *value.shape[1:]) for name, value in other.parameters.items()}
    return replace(other, parameters=weights)


def _of_head(x: Tensor, place: Place) -> Tensor:
    return x if place.head is None else x.select(HEADS, place.head)


def _mixed(x: Tensor, value: Tensor, share: float, tokens: Tensor | None = None) -> Tensor:
    """Return `share` of `value` and the rest of x, both [..., R, .], at the tokens [T] (bool) that are meant."""
    value = value if share == 1 else x.lerp(value, share)
    return value if tokens is None or tokens.all() else torch.where(tokens[-x.shape[-2] :, None], value, x)


def _tokens(said: tuple[int | str, ...], exemplars: Tensor) -> Tensor:
    """Return which tokens are meant, bool [T]."""
    number = torch.arange(2 * exemplars.shape[2] - 1, device=exemplars.device)
    kinds = {"all": number >= 0, "exemplars": number % 2 == 0, "labels": number % 2 == 1, "query": number == number[-1]}
    found = number < 0
    for one in said:
        found = found | (kinds[one] if isinstance(one, str) else number == one)
    return found


def copying_test(head: Place, model: Model, weights: Iterable[float]) -> dict[float, Intervention]:
    """Return weight -> intervention of the skip-trigram copying test of a head (Singh et al. 2025).

    Embeddings and all other heads are 0, patterns and values are those of an undisturbed pass, and the query's row of
    the head has the weight on the right label and the rest on the other. A head that copies answers in context with
    the right label where the weight is above 1/2.
    """
    beside = tuple(
        f"block{layer}.head{number}"
        for layer in range(model.depth)
        for number in range(model.heads)
        if (layer, number) != (head.layer, head.head)
    )
    return {
        weight: Intervention(
            ablate=(Ablate(place=("embedding", *beside)),),
            keep=("patterns", "values"),
            clamp=(Clamp(place=(f"block{head.layer}.head{head.head}.pattern",), to="induction", weight=weight),),
        )
        for weight in weights
    }
