"""icl-transience: when in-context learning appears in a transformer, when it fades, and what keeps it.

`from icl_transience import load` opens what a study found; see docs/in-python.md.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icl_transience.access.study_results import StudyResults, load

__all__ = ["StudyResults", "load"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: `import icl_transience` alone loads nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from icl_transience.access import study_results

    return getattr(study_results, name)


def __dir__() -> list[str]:
    """Return the public names, for completion."""
    return sorted({*globals(), *__all__})
