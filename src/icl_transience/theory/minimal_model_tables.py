"""Tables of the minimal model: losses.csv and seeds.csv, and what they come to in words."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from icl_transience.specs.theory import MINIMAL_MODEL, MinimalModel
from icl_transience.store import checksums, tables_file
from icl_transience.store.tables_file import MINIMAL_MODEL_TABLES
from icl_transience.system.formatting import format_number_of
from icl_transience.theory import minimal_model
from icl_transience.theory.minimal_model import Losses

OUTCOMES = ("stopped", "unfinished", "diverged")
# Significant digits.
_DIGITS = 10


def write_tables(folder: Path, model: MinimalModel) -> None:
    """Compute the minimal model and write its tables, with their SHA256SUMS, into a folder.

    losses.csv: a row a variant, seed and step that is kept: `loss_icl` (L1), `loss_ciwl` (L2); also at the last step.
    seeds.csv: a row a variant and seed. `outcome`: stopped (the loss came below `stop_below`), unfinished or diverged;
    `last_step`; L1 at the start, at its lowest and where, at the end; L2 at the end; `icl_return`, by how much L1 is
    higher at the end than at its lowest. A diverged seed has no end.
    """
    losses = minimal_model.descend(model, minimal_model.draw(model))
    folder.mkdir(parents=True, exist_ok=True)
    tables = (losses_table(model, losses), seeds_table(model, losses))
    for name, table in zip(MINIMAL_MODEL_TABLES, tables, strict=True):
        tables_file.write_csv(folder / name, table, _DIGITS)
    checksums.write_checksums(folder, MINIMAL_MODEL_TABLES)


def losses_table(model: MinimalModel, losses: Losses) -> pd.DataFrame:
    """Return losses.csv. Steps after a seed's last one have no row, nor has a loss that is no finite number."""
    keys = _keys(model)
    kept = pd.DataFrame(
        {
            "variant": np.tile(keys["variant"], len(losses.steps)),
            "seed": np.tile(keys["seed"], len(losses.steps)),
            "step": np.repeat(losses.steps, len(keys)),
            "loss_icl": losses.icl.ravel(),
            "loss_ciwl": losses.ciwl.ravel(),
        },
        index=np.tile(keys.index, len(losses.steps)),
    )
    ends = keys.assign(step=losses.last, loss_icl=losses.icl_end, loss_ciwl=losses.ciwl_end)
    table = pd.concat([kept, ends]).drop_duplicates(["variant", "seed", "step"])
    finite = np.isfinite(table[["loss_icl", "loss_ciwl"]]).all(axis=1)
    return table.loc[finite].sort_values("step").sort_index(kind="stable")


def seeds_table(model: MinimalModel, losses: Losses) -> pd.DataFrame:
    """Return seeds.csv."""
    icl_end, ciwl_end = (np.where(losses.diverged, np.nan, end) for end in (losses.icl_end, losses.ciwl_end))
    return _keys(model).assign(
        outcome=np.select([losses.stopped, losses.diverged], ["stopped", "diverged"], "unfinished"),
        last_step=losses.last,
        loss_icl_start=losses.icl[0],
        loss_icl_min=losses.icl_min,
        loss_icl_min_at=losses.icl_min_at,
        loss_icl_end=icl_end,
        loss_ciwl_end=ciwl_end,
        icl_return=icl_end - losses.icl_min,
    )


def _keys(model: MinimalModel) -> pd.DataFrame:
    """Return variant and seed of each of the R seeds that `descend` follows."""
    names = [variant.name for variant in model.variants]
    return pd.DataFrame(
        {"variant": np.repeat(names, model.n_seeds), "seed": np.tile(np.arange(model.n_seeds), len(names))}
    )


def in_words(folder: Path) -> Iterator[str]:
    """Yield a sentence a variant, the last one with the figure's path; StudyError where a table is not as written."""
    _, seeds = tables_file.read_minimal_model(folder)
    *others, last = [f"{MINIMAL_MODEL}, {name}: {sentence}" for name, sentence in sentences(seeds).items()]
    yield from others
    yield f"{last}; figure: {folder / f'{MINIMAL_MODEL}.svg'}"


def sentences(seeds: pd.DataFrame) -> dict[str, str]:
    """Return variant -> what came of it. seeds: seeds.csv."""
    return {name: _sentence(seeds.loc[seeds["variant"] == name]) for name in dict.fromkeys(seeds["variant"])}


def _sentence(seeds: pd.DataFrame) -> str:
    """Return rows of seeds.csv, those of a variant, as a sentence."""
    counts = seeds["outcome"].value_counts().reindex(OUTCOMES, fill_value=0)
    of = f"{format_number_of(len(seeds), 'seed')}: "
    of += ", ".join(f"{number} {outcome}" for outcome, number in counts.items() if number)
    ended = seeds.loc[seeds["outcome"] != "diverged"]
    if ended.empty:
        return f"every seed diverged ({of}): lower `learning_rate`"
    lowest, last, back, ciwl = (
        np.median(ended[name]) for name in ("loss_icl_min", "loss_icl_end", "icl_return", "loss_ciwl_end")
    )
    return (
        f"the loss of ICL falls to {lowest:.2g} and ends at {last:.2g}, {back:.2g} higher; that of CIWL ends at "
        f"{ciwl:.2g} (medians of {of})"
    )
