"""The files that banks are made from: where they lie, and which are to be downloaded."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icl_transience.specs.banks import BankSpec, Tokens
from icl_transience.specs.identity import identity_values
from icl_transience.store.layout import Paths
from icl_transience.study.sources import resolve

# Files beside a checkpoint that name its tokens: a word a line, a tokenizer of Hugging Face's, or its words alone.
VOCABULARIES = ("vocab.txt", "tokenizer.json", "vocab.json")


def source_folders(config: Mapping[str, Any]) -> dict[str, Path | None]:
    """Return the folder of each source's files: its key in config.yaml, or the environment variable ICL_{SOURCE}."""
    named = {source: config[source] or os.environ.get(f"ICL_{source.upper()}") for source in resolve.WITH_FILES}
    return {source: Path(folder).expanduser().absolute() if folder else None for source, folder in named.items()}


@dataclass(frozen=True)
class SourceFiles:
    """Paths of the banks' source files. folders: see `source_folders`."""

    paths: Paths
    banks: Mapping[str, BankSpec]
    folders: Mapping[str, Path | None]

    def of_bank(self, bank_id: str) -> list[str]:
        """Return the paths of a bank's source files, in the order of their SHA-256 in its spec."""
        bank = self.banks[bank_id]
        if not bank.files:
            return []
        _, paths = resolve.resolve(bank.source, identity_values(bank.parameters), self.folders[bank.source])
        return [str(path) if path.parent != Path() else self.paths.source(path.name) for path in paths]

    def downloads(self, bank_id: str, made_from: Collection[str] | None = None) -> list[str]:
        """Return those of a bank's source files that are to be downloaded.

        made_from: of a file that is there, its inputs by Snakemake's records. Then those that were downloaded for it:
        whether a folder of the source is named now, or another, makes nothing again.
        """
        files = {path: self.paths.source(Path(path).name) for path in self.of_bank(bank_id)}
        if made_from is not None:
            return [source for source in files.values() if source in made_from]
        return [source for path, source in files.items() if path == source]

    def encoder(self, bank_id: str) -> str | None:
        """Return the file of the encoder trained for a bank; None where it has none."""
        pictures = self.banks[bank_id].pictures
        return self.paths.encoder(bank_id) if pictures and pictures.trained else None

    def vocabulary(self, bank_id: str) -> str | None:
        """Return the file that says which word a row of a table of tokens is; None where none lies beside it.

        None too where braces are in its path, in which no input of a rule can be named: cards then show rows.
        """
        if not isinstance(self.banks[bank_id].parameters, Tokens):
            return None
        (file,) = self.of_bank(bank_id)
        beside = (Path(file).with_name(name) for name in VOCABULARIES)
        first = next((str(path) for path in beside if path.is_file()), None)
        return None if first is None or {"{", "}"} & set(first) else first
