"""The checkpoint that a bank of token embeddings is taken from: its file, tensor and sizes."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from icl_transience.specs.errors import MissingSourceError, StudyError, did_you_mean
from icl_transience.store.safetensors_file import quantisation, stored_tensors
from icl_transience.study.sources.files import in_folder, inside, is_pickled

# What ends the names of input embedding matrices in public checkpoints: LLaMA and its kin, OPT; BERT, BLOOM; GPT-2;
# GPT-NeoX; T5; LLaMA as first released; CLIP's text model.
EMBEDDING_NAMES = (
    "embed_tokens.weight",
    "word_embeddings.weight",
    "wte.weight",
    "embed_in.weight",
    "shared.weight",
    "tok_embeddings.weight",
    "token_embedding.weight",
)
INDEX = "model.safetensors.index.json"
# Of tensors that hold the values themselves; others are codes, scales or parts of numbers.
FLOATS = ("F64", "F32", "F16", "BF16")
_DEQUANTISE = (
    "`model = AutoModel.from_pretrained(folder, dtype=torch.float32)` (transformers; then `model = model.dequantize()` "
    "where it is still quantised), `rows = model.get_input_embeddings().weight.detach().float().contiguous()`, "
    '`save_file({"embed_tokens.weight": rows}, "table.safetensors")` (safetensors.torch), and say '
    "`bank.tokens.file: table.safetensors`"
)
# What makes a file of safetensors out of one of PyTorch's.
CONVERT = """
import safetensors.torch, torch
tensors = torch.load("{file}", map_location="cpu", weights_only=True)
safetensors.torch.save_file({{name: one.clone().contiguous() for name, one in tensors.items()}}, "model.safetensors")"""


def resolve_tokens(parameters: dict[str, Any], folder: Path) -> tuple[dict[str, Any], list[Path]]:
    """Fill in what the checkpoint decides, and return its file; see resolve.resolve."""
    file = _checkpoint_file(folder, parameters["file"])
    shards = _shards(file) if file.name.endswith(".json") else dict.fromkeys(stored_tensors(file), file)
    tensor = _embedding_name(file, shards, parameters["tensor"])
    path = shards[tensor]
    if tensor not in stored_tensors(path):
        raise StudyError(f"{file} says that {path.name} holds {tensor}, but it does not: get the checkpoint again")
    _refuse_codes(
        path, tensor, stored_tensors(path)[tensor].dtype, quantisation(tensor, {*shards, *_listed_beside(path)})
    )
    shape = stored_tensors(path)[tensor].shape
    if len(shape) != 2:
        raise StudyError(f"{path}: {tensor} is {list(shape)}, expected [tokens, dim]: name another tensor")
    # At its neutral value a spec's values lack the key.
    first, last = parameters["skip_rows"], parameters.get("skip_last_rows", 0)
    rows, width = max(0, shape[0] - first - last), shape[1]
    without = f"after the first {first}" + (f" and before the last {last}" if last else "")
    section, encoder, dim = "bank.tokens", parameters["encoder"], parameters["dim"]
    if encoder == "table" and dim != width:
        raise StudyError(
            f"`{section}.dim` is {dim}, but rows of {tensor} in {path.name} have {width} coordinates: "
            f"say {width}, or `encoder: pca` for fewer"
        )
    if encoder == "pca" and dim > width:
        raise StudyError(f"`{section}.dim` is {dim}: {tensor} in {path.name} has at most {width} components")
    if parameters["clusters"] > rows:
        raise StudyError(
            f"`{section}.clusters` is {parameters['clusters']}, but {tensor} in {path.name} has {rows} rows "
            f"{without}: ask for fewer"
        )
    wanted = (parameters["classes"] + parameters["holdout_classes"]) * (
        parameters["exemplars"] + parameters["holdout_exemplars"]
    )
    if wanted > rows:
        raise StudyError(
            f"`{section}`: classes x exemplars, held-out ones included, are {wanted}, but {tensor} in {path.name} has "
            f"{rows} rows {without}: ask for fewer of either"
        )
    return parameters | {"tensor": tensor}, [path]


def _listed_beside(shard: Path) -> set[str]:
    """Return the tensors of the checkpoint that a file is a shard of, by the index that lies beside it, if any."""
    indices = (_shards(index) for index in sorted(shard.parent.glob("[!.]*.safetensors.index.json")))
    return {name for shards in indices if shard in shards.values() for name in shards}


def _refuse_codes(path: Path, tensor: str, dtype: str, beside: Sequence[str]) -> None:
    """Raise StudyError where a tensor does not hold its values. beside: what `quantisation` finds."""
    if dtype in FLOATS and not beside:
        return
    why = f" and has {', '.join(beside[:5])} beside it, as in quantised checkpoints" if beside else ""
    raise StudyError(
        f"{path}: {tensor} is {dtype}{why}; expected {', '.join(FLOATS[:-1])} or {FLOATS[-1]}, the embeddings "
        f"themselves: name a checkpoint that holds them, or dequantise this one: {_DEQUANTISE}"
    )


def _refuse_packed(shards: Mapping[str, Path]) -> None:
    """Raise StudyError where an embedding matrix is there under the names of a quantised one alone."""
    for name in EMBEDDING_NAMES:
        layer = name.removesuffix("weight")
        for part in (part for part in shards if layer in part):
            matrix = part[: part.index(layer)] + name
            if (beside := quantisation(matrix, shards)) and shards[part].is_file():
                stored = stored_tensors(shards[part]).get(part)
                _refuse_codes(shards[part], part, stored.dtype if stored else "absent", beside)


def _checkpoint_file(folder: Path, name: str) -> Path:
    """Return the file that a study names, or the one that makes the folder a checkpoint."""
    if name:
        path = inside(folder, name, "`bank.tokens.file`")
        if os.path.isdir(path):
            return _checkpoint_file(path, "")
        return _no_pickle(in_folder(folder, name, "bank.tokens.file", "tokens"))
    if (folder / INDEX).is_file():
        return folder / INDEX
    # What macOS puts beside a file bears its name behind `._`.
    found = sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("."))
    if not found:
        for pickled in sorted(path for path in folder.iterdir() if is_pickled(path) and path.name[0] != "."):
            _no_pickle(pickled)
    if len(found) != 1:
        listed = ", ".join(path.name for path in found) or "none"
        raise (StudyError if found else MissingSourceError)(
            f"{folder} has no {INDEX} and not exactly one *.safetensors ({listed}): name the file in `bank.tokens.file`"
        )
    return found[0]


def _no_pickle(path: Path) -> Path:
    """Return the path. Raises StudyError where it is a checkpoint that PyTorch has pickled."""
    if is_pickled(path):
        raise StudyError(
            f"{path}: a file of PyTorch's is a pickle, whose reading may run what a stranger wrote: convert it, and "
            f"say `bank.tokens.file: model.safetensors`:{CONVERT.format(file=path.name)}"
        )
    return path


def _shards(index: Path) -> dict[str, Path]:
    """Return tensor -> file of a sharded checkpoint."""
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = {tensor: inside(index.parent, name, str(index)) for tensor, name in names.items()}
    except StudyError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StudyError(f"{index}: not the index of a sharded checkpoint ({error!r}): get it again") from error
    return shards


def _embedding_name(file: Path, shards: Mapping[str, Path], named: str) -> str:
    """Return the tensor that a study names, or the one with an embedding matrix's usual name."""
    if named:
        if named not in shards:
            raise StudyError(
                f"`bank.tokens.tensor` is {named!r}, which is not in {file}{did_you_mean(named, list(shards))}"
                f" (candidates: {_candidates(shards)})"
            )
        return named
    found = [name for name in shards if name.endswith(EMBEDDING_NAMES)]
    if not found:
        _refuse_packed(shards)
    if len(found) != 1:
        many = f"several embedding matrices ({', '.join(found)})" if found else "no embedding matrix of a usual name"
        raise StudyError(f"{file} has {many}: name it in `bank.tokens.tensor` (candidates: {_candidates(shards)})")
    if not shards[found[0]].is_file():
        raise MissingSourceError(f"{file} puts {found[0]} in {shards[found[0]].name}, which is not there: put it there")
    return found[0]


def _candidates(shards: Mapping[str, Path]) -> str:
    """Return the two-dimensional tensors that are at hand, those with most rows first."""
    shapes = {name: stored_tensors(path)[name].shape for name, path in shards.items() if path.is_file()}
    tables = sorted((name for name in shapes if len(shapes[name]) == 2), key=lambda name: -shapes[name][0])
    return ", ".join(f"{name} {list(shapes[name])}" for name in tables[:10]) or "none of two dimensions"
