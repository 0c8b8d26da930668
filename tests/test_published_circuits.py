"""What is done to a model against what the published code of icl-dynamics answers from the same weights and sequences.

tests/data/pairs2.h5 holds a small trained model (2 blocks, attention only, C = 2), 200 sequences of `icl` and `ciwl`,
and the answers of that code, in JAX and float32, under 45 interventions. It rounds to 6e-8 an operation, on logits of
size 10 and with sums of 64 terms, so ours in float64 may differ by 5e-5; attention by 2e-6; no answer may change.
"""

import re
from pathlib import Path
from typing import Any, cast

import h5py
import pytest
import torch

from icl_transience.circuits.interventions import activations, logits
from icl_transience.circuits.network import Network
from icl_transience.specs.interventions import Intervention, parse
from icl_transience.specs.model import Model, parameter_shapes
from icl_transience.store import hdf5

PAIRS = Path(__file__).parent / "data/pairs2.h5"
LOGITS, ATTENTION = 5e-5, 2e-6


def heads(case: str, part: str = "") -> list[str]:
    return [f"block{layer}.head{head}{part}" for layer, head in re.findall(r"(\d):(\d)", case)]


def number(case: str) -> float:
    return float(re.findall(r"[\d.]+", case)[-1])


def declared(case: str) -> dict[str, Any]:
    """What a study says for a case of the file."""
    keep = {"keep": case.partition(", keep ")[2].split()} if ", keep " in case else {}
    if case == "none":
        return {}
    if case.startswith("ablate layer"):
        return {"ablate": f"block{case[13]}.*", **keep}
    if case.startswith("ablate embedding"):
        return {"ablate": "embedding", **keep}
    if case.startswith("ablate"):
        return {"ablate": heads(case)}
    if case.startswith("only"):
        return {"only": heads(case)}
    if case.startswith("copy"):
        return {"copy": heads(case)}
    if case.startswith("temperature"):
        return {"temperature": {"place": heads(case, ".scores"), "by": number(case)}}
    if case.startswith("silence non-labels"):
        return {"forbid": {"place": heads(case, ".scores"), "tokens": "non_labels"}}
    if case.startswith("no previous token"):
        return {"forbid": {"place": heads(case, ".scores"), "tokens": "previous_token"}}
    clamped: dict[str, Any] = {"place": heads(case, ".pattern")}
    if case.startswith("match"):
        return {"clamp": {**clamped, "to": "match", "temperature": 0 if "hardmax" in case else number(case)}}
    rows = {"rows": "labels"} if "labels only" in case else {}
    to = "induction" if case.startswith("induction") else "previous_token"
    return {"clamp": {**clamped, "to": to, "weight": number(case), **rows}}


with h5py.File(PAIRS) as file:
    EVALUATORS = ("icl", "ciwl")
    CASES = [(evaluator, case) for evaluator in EVALUATORS for case in cast(h5py.Group, file[f"{evaluator}/cases"])]


def recorded(name: str) -> torch.Tensor:
    with h5py.File(PAIRS) as file:
        return torch.from_numpy(hdf5.array(file, name))


@pytest.fixture(scope="module")
def network() -> Network:
    with h5py.File(PAIRS) as file:
        depth, width, heads = (int(cast(Any, file.attrs[name])) for name in ("depth", "width", "heads"))
        n_labels = int(cast(Any, file.attrs["labels"]))
    model = Model(depth=depth, width=width, heads=heads, mlp_ratio=0)
    names = parameter_shapes(model, 64, n_labels, context=2)
    return Network({name: recorded(f"parameters/{name}").double()[None] for name in names}, model, context=2)


def sequences(evaluator: str) -> tuple[torch.Tensor, torch.Tensor]:
    return recorded(f"{evaluator}/examples").double(), recorded(f"{evaluator}/labels")


@pytest.mark.parametrize(("evaluator", "case"), CASES)
def test_answers_are_those_of_the_published_code(network, evaluator, case):
    examples, labels = sequences(evaluator)
    values = declared(case)
    found = logits(network, examples, labels, parse(values) if values else Intervention())[0]
    expected = recorded(f"{evaluator}/cases/{case}/logits")
    with h5py.File(PAIRS) as file:
        accuracies = dict(file[f"{evaluator}/cases/{case}"].attrs)
    assert (found[: len(expected)] - expected).abs().max() <= LOGITS
    context, target = labels[:, :-1], labels[:, -1]
    in_context = context.gather(1, found.gather(1, context).argmax(1, keepdim=True))[:, 0]
    assert float((found.argmax(1) == target).double().mean()) == accuracies["accuracy"]
    assert float((in_context == target).double().mean()) == accuracies["in_context_accuracy"]


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_attention_is_that_of_the_published_code(network, evaluator):
    examples, labels = sequences(evaluator)
    found = activations(network, examples[:8], labels[:8], ["patterns"])
    for layer in range(2):
        expected = recorded(f"{evaluator}/cases/none/attention/{layer}")
        assert (found[f"block{layer}.pattern"][0] - expected).abs().max() <= ATTENTION
