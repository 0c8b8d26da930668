"""What a run rules out of `evaluation.strategy`, where its snapshots stand between two ideal predictors."""

from collections.abc import Iterator, Mapping
from typing import Any

from icl_transience.specs.banks import Gaussian, Manifold
from icl_transience.specs.evaluators import Strategy
from icl_transience.specs.runs import Run
from icl_transience.study.neutral import strategy_of

_WHERE = "evaluation.strategy"


def impossible_strategy(run: Run, evaluation: Mapping[str, Any]) -> Iterator[str]:
    """Yield each way in which predictors do not fit a run's bank and recipe. evaluation: the study's section."""
    strategy = strategy_of(evaluation)
    if strategy.predictors == "none":
        return
    if strategy.evaluator not in evaluation["evaluators"]:
        yield (
            f"`{_WHERE}.evaluator` is {strategy.evaluator}, which is not among `evaluation.evaluators` "
            f"({', '.join(evaluation['evaluators'])}): add it there, or choose another"
        )
    yield from _impossible_bank(strategy, run)
    for _, kind in run.recipe.kinds() if strategy.evaluator == "train" else ():
        if kind.support == "none" or not kind.burstiness:
            why = "support: none" if kind.support == "none" else "burstiness: 0"
            yield (
                f"`{_WHERE}.evaluator` is train, but sequences with `{why}` are trained on, whose context has no label "
                "to copy: say `evaluator: flip` or `icl`"
            )
            break
    if run.recipe.input_noise:
        yield (
            f"`{_WHERE}.predictors` is {strategy.predictors}, which predicts exemplars as the bank has them, but "
            f"`recipe.input_noise` is {run.recipe.input_noise:g}: leave one of them out"
        )
    kinds = [kind for recipe in run.recipes for _, kind in recipe.kinds()]
    if match := max(kind.match for kind in kinds):
        yield (
            f"`{_WHERE}.predictors` is {strategy.predictors}, which takes the context's exemplars for independent "
            f"draws, but `recipe.match` is {match:g}, expected 0: leave one of them out"
        )


def _impossible_bank(strategy: Strategy, run: Run) -> Iterator[str]:
    bank, parameters = run.bank, run.bank.parameters
    section = f"bank.{bank.source}"
    if bank.images:
        yield (
            f"`{_WHERE}.predictors` is {strategy.predictors}, which needs embeddings, but the bank holds images "
            f"(`{section}.encoder: none`): choose an encoder, or leave `strategy` out"
        )
    elif bank.shape.n_train_exemplars < 2:
        yield (
            f"`{_WHERE}.predictors` is {strategy.predictors}, which needs classes that scatter, but `{section}` has "
            "one exemplar a class to train on: ask for more, or leave `strategy` out"
        )
    elif isinstance(parameters, Gaussian | Manifold) and not parameters.noise:
        yield (
            f"`{_WHERE}.predictors` is {strategy.predictors}, which needs classes that scatter, but `{section}.noise` "
            "is 0: make it larger, or leave `strategy` out"
        )
    elif strategy.predictors == "exact" and bank.source != Gaussian.source:
        yield (
            f"`{_WHERE}.predictors` is exact, but `bank.source` is {bank.source}, whose classes are not Gaussian: say "
            "`empirical`"
        )
