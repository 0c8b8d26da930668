"""Reading and setting activations by name, while a forward pass computes them.

`query_logits(..., tap=tap)` calls `x = tap(place, x)` at every place (specs/places.py lists them), and goes on with
what it returns. So reading is remembering x, an intervention is returning another x, and dropout is a tap too:

    with_patterns = Recorder(["block0.pattern", "block1.pattern"])
    logits = query_logits(parameters, model, geometry, exemplars, labels, tap=with_patterns, every_row=True)
    with_patterns.activations["block1.pattern"]                      # [S, B, H, T, T]

    silent = Setter({Place("block1.heads", head=3): torch.zeros_like})
    logits = query_logits(parameters, model, geometry, exemplars, labels, tap=chain(silent, with_patterns))

Letters for shapes as in model/transformer.py; R rows, all tokens or, in the last block, the query's alone.
"""

from collections.abc import Callable, Collection, Mapping

from torch import Tensor

from icl_transience.specs.places import Place

# (name of a place, the activation there, [S, B, …]) -> the activation with which the forward pass goes on.
Tap = Callable[[str, Tensor], Tensor]
Change = Callable[[Tensor], Tensor]

# Where the axis of heads is, in an activation that has one.
HEADS = 2


def untouched(place: str, x: Tensor) -> Tensor:
    """Neither read nor set anything: the tap of a plain forward pass."""
    return x


def chain(*taps: Tap) -> Tap:
    """Return the tap that applies several, one after the other."""
    meant = [tap for tap in taps if tap is not untouched]
    if len(meant) < 2:
        return meant[0] if meant else untouched

    def tap(place: str, x: Tensor) -> Tensor:
        for each in meant:
            x = each(place, x)
        return x

    return tap


class Recorder:
    """A tap that keeps the activations at some places, without their heads, and changes none.

    activations: name of a place -> [S, B, …], of the forward pass that was last.
    """

    def __init__(self, names: Collection[str]):
        self.names, self.activations = frozenset(names), dict[str, Tensor]()

    def __call__(self, place: str, x: Tensor) -> Tensor:
        """Keep x if its place is one of those."""
        if place in self.names:
            self.activations[place] = x
        return x


class Setter:
    """A tap that changes activations: place -> change, called with the activation, or with the head [S, B, R, .] of it.

    Of one activation, changes of the whole come first, then those of single heads.
    """

    def __init__(self, changes: Mapping[Place, Change]):
        self.changes = dict[str, list[tuple[int | None, Change]]]()
        for place in sorted(changes, key=lambda place: (place.name, -1 if place.head is None else place.head)):
            self.changes.setdefault(place.name, []).append((place.head, changes[place]))

    def __call__(self, place: str, x: Tensor) -> Tensor:
        """Return x changed, if its place is one of those."""
        for head, change in self.changes.get(place, ()):
            x = change(x) if head is None else with_head(x, head, change(x.select(HEADS, head)))
        return x


def with_head(x: Tensor, head: int, value: Tensor) -> Tensor:
    """Return x [S, B, H, …] with one head's part replaced by `value` [S, B, …]."""
    return x.select_scatter(value.to(x.dtype), HEADS, head)
