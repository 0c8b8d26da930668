"""Source files of banks: where they lie, what they hold, their SHA-256. Asked while a study is read, so headers do.

The files of a source are in a folder that config.yaml or the environment names. In identities they stand as their
SHA-256, never as a path.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from icl_transience.specs.errors import MissingSourceError
from icl_transience.store import faults
from icl_transience.store.checksums import source_digest
from icl_transience.study.sources.files import PUBLIC
from icl_transience.study.sources.images import resolve_images
from icl_transience.study.sources.imported import refuse_unsaid, resolve_imported
from icl_transience.study.sources.omniglot import resolve_omniglot
from icl_transience.study.sources.tokens import resolve_tokens

# Sources that read files, each with the folder that its key in config.yaml or ICL_{SOURCE} names.
WITH_FILES = ("omniglot", "images", "tokens", "imported")


def resolve(source: str, parameters: Mapping[str, Any], folder: Path | None) -> tuple[dict[str, Any], list[Path]]:
    """Return a source's parameters with what its files decide filled in, and the paths of the files it reads.

    A path without a folder is that of a public file, to be downloaded. Raises MissingSourceError where there is no such
    file, StudyError where it does not hold what the parameters ask for, or where they do not say what has no default.
    """
    try:
        return _resolve(source, parameters, folder)
    except OSError as error:
        # Of a folder as of a file: that it may not be read, or that its server fails.
        if refusal := faults.unreadable(Path(error.filename or folder or source), error):
            raise refusal from error
        raise


def _resolve(source: str, parameters: Mapping[str, Any], folder: Path | None) -> tuple[dict[str, Any], list[Path]]:
    if source == "imported":
        refuse_unsaid(parameters)
    if folder is None and source == "omniglot":
        return resolve_omniglot(dict(parameters), None)
    if folder is None:
        raise MissingSourceError(
            f"bank source `{source}` reads files: name their folder in the environment variable "
            f"ICL_{source.upper()}, or as `{source}:` in config.yaml"
        )
    if not folder.is_dir():
        raise MissingSourceError(
            f"{folder}, named in ICL_{source.upper()} or as `{source}:` in config.yaml, is no folder"
        )
    return _RESOLVE[source](dict(parameters), folder)


_RESOLVE = {
    "omniglot": resolve_omniglot,
    "images": resolve_images,
    "tokens": resolve_tokens,
    "imported": resolve_imported,
}


# Digests.


def digest(path: Path) -> str:
    """Return the SHA-256 of a path from `resolve`: of the content, or, of one to be downloaded, as it is published.

    Of a folder it is that of all images in it.
    """
    if path.parent == Path():
        return PUBLIC[path.name].sha256
    try:
        return source_digest(path)
    except OSError as error:
        if refusal := faults.unreadable(path, error):
            raise refusal from error
        raise
