"""What stays under a second name, and so comes back when Snakemake is told to make it again."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from icl_transience.store.layout import KEPT

# Snakemake's options of one letter that take no value, and may stand before others in one word.
_FLAGS = "[DFSafiknptv]*"
# Those that ask for files again which are there: for all, or for some, named in that word or the next.
_ALL = re.compile(rf"--forceall|--delete-all-output|-{_FLAGS}F{_FLAGS}")
_SOME = re.compile(rf"(--forcerun|-{_FLAGS}R)=?(.*)", re.DOTALL)
# For the targets of the call, which stand anywhere in it.
_TARGETS = re.compile(rf"--force|-{_FLAGS}f{_FLAGS}")
# Rules whose files are kept, those before them, whose new files ask for them, and files by their paths.
_KEPT_RULES = re.compile(
    r"(.*_)?(download|encoder|bank|sequences|train|evaluate|circuits|grafts)|.*(packs|sources|encoders|banks|sequences)/.*",
    re.DOTALL,
)


def comes_back(packs: Path, arguments: Sequence[str]) -> str:
    """Say that a call's options train nothing again of what is kept under `packs`, and what does; "" if none asks to.

    arguments: of the call.
    """
    if not (asked := _asked(arguments)) or not any(packs.glob(f"*/{KEPT}/segment-*.h5")):
        return ""
    return (
        f"{asked} trains nothing again: finished segments and metrics are kept under a second name, in "
        f"{packs}/*/{KEPT}, come back from there, and take their room as long as they are there; `rm` of one name "
        "frees nothing. To train lanes again, say `python -m icl_transience delete EXPERIMENT/RUN` (it asks first), "
        "and call snakemake without this option"
    )


def _asked(arguments: Sequence[str]) -> str:
    """Return the option by which a call asks for finished segments or metrics again; "" where it does not."""
    for number, word in enumerate(arguments):
        if _ALL.fullmatch(word):
            return word
        if _TARGETS.fullmatch(word) and any(_KEPT_RULES.fullmatch(one) for one in arguments):
            return word
        if match := _SOME.fullmatch(word):
            following = itertools.takewhile(lambda one: not one.startswith("-"), arguments[number + 1 :])
            if any(_KEPT_RULES.fullmatch(one) for one in (match[2], *following)):
                return match[1]
    return ""
