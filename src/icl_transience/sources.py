"""Source files of banks: where they lie, what they hold, their SHA-256. Asked while a study is read, so headers do.

The files of a source are in a folder that config.yaml or the environment names. In identities they stand as their
SHA-256, never as a path.
"""

import contextlib
import functools
import hashlib
import json
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icl_transience import schema
from icl_transience.spec import MissingSourceError, StudyError

# Sources that read files, each with the folder that its key in config.yaml or ICL_{SOURCE} names.
WITH_FILES = ("omniglot", "tokens", "imported")

_CHARACTER = re.compile(r"([^/]+/character\d+)/[^/]+\.png$")
# Beyond this size a file is not hashed again while path, size and time are what they were.
_REMEMBERED_BYTES = 1 << 26
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
# What quantised checkpoints put beside a layer's weight, or in its place: MLX; bitsandbytes; GPTQ and AWQ; compressed
# tensors and FP8; torchao, quanto and others.
_QUANTISED = re.compile(
    r"scales?|biases|(nested_)?(absmax|quant_map)|quant_state(\..+)?|SCB|weight_format|qweight|qzeros|zeros|g_idx|packed|"
    r"scale_inv|zero_points?|codebooks?|_data|_scale|_zero_point"
)
_DEQUANTISE = (
    "`model = AutoModel.from_pretrained(folder, dtype=torch.float32)` (transformers; then `model = model.dequantize()` "
    "where it is still quantised), `rows = model.get_input_embeddings().weight.detach().float().contiguous()`, "
    '`save_file({"embed_tokens.weight": rows}, "table.safetensors")` (safetensors.torch), and say '
    "`bank.tokens.file: table.safetensors`"
)
# What zipfile raises on archives that are damaged, encrypted or of a kind it does not know.
ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, OSError, RuntimeError, ValueError, EOFError)
# The safetensors library reads no longer header either.
_LARGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class Public:
    """A file that anybody can download. characters: of Omniglot, how many it holds."""

    url: str
    sha256: str
    characters: int = 0


_OMNIGLOT_URL = "https://github.com/brendenlake/omniglot/raw/master/python"
PUBLIC = {
    "images_background_small1.zip": Public(
        f"{_OMNIGLOT_URL}/images_background_small1.zip",
        "f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4",
        136,
    ),
    "images_background_small2.zip": Public(
        f"{_OMNIGLOT_URL}/images_background_small2.zip",
        "3ccaa407515a8778e5d0861875af38b17e418f301ad5bb3b5a6b65d901a41c7f",
        156,
    ),
    "images_background.zip": Public(
        f"{_OMNIGLOT_URL}/images_background.zip",
        "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
        964,
    ),
    "images_evaluation.zip": Public(
        f"{_OMNIGLOT_URL}/images_evaluation.zip",
        "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee",
        659,
    ),
    "resnet18-f37072fd.pth": Public(
        "https://download.pytorch.org/models/resnet18-f37072fd.pth",
        "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
    ),
}
# Greek and Latin stand in both small zips, and all of these in images_background.zip.
_IN_BOTH_SMALL = 136 + 156 - 242


def resolve(source: str, parameters: Mapping[str, Any], folder: Path | None) -> tuple[dict[str, Any], list[Path]]:
    """A source's parameters with what its files decide filled in, and the paths of the files it reads.

    A path without a folder is that of a public file, to be downloaded. Raises MissingSourceError where there is no such
    file, StudyError where it does not hold what the parameters ask for.
    """
    if folder is None and source == "omniglot":
        return _omniglot(dict(parameters), None)
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


def _in_folder(folder: Path, name: str, key: str, source: str) -> Path:
    """The file `name` in the source's folder. Raises MissingSourceError with what is there instead."""
    if os.path.isfile(path := _inside(folder, name, f"`{key}`")):
        return path
    there = sorted(found.name for found in folder.iterdir() if found.is_file())
    listed = f" (there are {', '.join(there[:20])}{', …' if len(there) > 20 else ''})" if there else ""
    raise MissingSourceError(
        f"`{key}` names {name}, which is not in {folder}{schema.did_you_mean(name, there)}{listed}: put it there, "
        f"or name another folder in ICL_{source.upper()} or as `{source}:` in config.yaml"
    )


def _inside(folder: Path, name: str, where: str) -> Path:
    """`name` in the folder or below it; a study or a checkpoint may come from a stranger and reads nothing else."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise StudyError(
            f"{where} names {name!r}, which leads out of {folder}: say it relative to that folder, without `..`, or "
            "make another folder the source's own"
        )
    return folder / name


# Omniglot: zips.


def _omniglot(parameters: dict[str, Any], folder: Path | None) -> tuple[dict[str, Any], list[Path]]:
    """The zips, and the weights of `resnet18`, from the folder; what is public and not there is to be downloaded."""
    zips = parameters["zips"]
    if folder is None:
        paths, there = [Path(name) for name in zips], _public_characters(zips)
    else:
        paths = [_in_folder(folder, name, "bank.omniglot.zips", "omniglot") for name in zips]
        there = len(_characters(tuple(paths)))
    wanted = parameters["characters"] + parameters["holdout_characters"]
    if wanted > there:
        raise StudyError(
            f"`bank.omniglot.characters` + `holdout_characters` is {wanted}, but "
            f"{', '.join(parameters['zips'])} hold {there} characters: ask for fewer or name more zips"
        )
    # Keys of another encoder stay out of the bank's identity.
    encoder = parameters["encoder"]
    if encoder == "resnet18":
        paths.append(_weights(parameters["weights"], folder))
        parameters["side"] = 105  # it embeds whole drawings
    else:
        parameters["weights"] = ""
    if encoder != "trained":
        parameters.pop("trained", None)
    return parameters, paths


def _weights(name: str, folder: Path | None) -> Path:
    if folder is not None and (name not in PUBLIC or os.path.isfile(folder / name)):
        return _in_folder(folder, name, "bank.omniglot.weights", "omniglot")
    if name not in PUBLIC:
        raise StudyError(
            f"`bank.omniglot.weights` names {name}, which is no public file: name its folder, with the zips, in "
            "ICL_OMNIGLOT or as `omniglot:` in config.yaml"
        )
    return Path(name)


def _public_characters(zips: Sequence[str]) -> int:
    """How many characters the public zips of these names hold together."""
    if "images_background.zip" in zips:
        zips = [name for name in zips if "small" not in name]
    total = sum(PUBLIC[name].characters for name in zips)
    return total - _IN_BOTH_SMALL if sum("small" in name for name in zips) == 2 else total


@functools.cache
def _characters(zips: tuple[Path, ...]) -> set[str]:
    """The distinct characters that the zips list, as "Alphabet/characterNN"."""
    found = set()
    for path in zips:
        try:
            with zipfile.ZipFile(path) as archive:
                found |= {match[1] for name in archive.namelist() if (match := _CHARACTER.search(name))}
        except ZIP_DAMAGE as error:
            raise StudyError(f"{path}: not a readable zip ({error}): download it again") from error
    return found


# Tokens: an embedding matrix in safetensors.


@dataclass(frozen=True)
class Stored:
    """A tensor in a safetensors file, as the header describes it."""

    dtype: str
    shape: tuple[int, ...]


@functools.cache
def stored_tensors(path: Path) -> dict[str, Stored]:
    """Name -> tensor of a safetensors file, from its header alone."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size - 8:
                raise ValueError("the header is longer than the file")
            if length > _LARGEST_HEADER:
                raise ValueError(f"the header has {length:,} bytes, at most {_LARGEST_HEADER:,} are read")
            entries = json.loads(file.read(length))
        entries.pop("__metadata__", None)
        tensors = {name: Stored(entry["dtype"], _sizes(entry["shape"])) for name, entry in entries.items()}
        end = max((_sizes(entry["data_offsets"])[1] for entry in entries.values()), default=0)
    except (struct.error, ValueError, TypeError, LookupError, AttributeError, RecursionError, OSError) as error:
        raise StudyError(f"{path}: not a safetensors file ({error}): get it again") from error
    if path.stat().st_size < 8 + length + end:
        raise StudyError(f"{path}: is cut short, {path.stat().st_size:,} of {8 + length + end:,} bytes: get it again")
    return tensors


def _sizes(numbers: Any) -> tuple[int, ...]:
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"{str(numbers)[:100]} are no sizes")
    return tuple(numbers)


def _tokens(parameters: dict[str, Any], folder: Path) -> tuple[dict[str, Any], list[Path]]:
    file = _checkpoint_file(folder, parameters["file"])
    shards = _shards(file) if file.name.endswith(".json") else dict.fromkeys(stored_tensors(file), file)
    tensor = _embedding_name(file, shards, parameters["tensor"])
    path = shards[tensor]
    if tensor not in stored_tensors(path):
        raise StudyError(f"{file} says that {path.name} holds {tensor}, but it does not: get the checkpoint again")
    _refuse_codes(path, tensor, stored_tensors(path)[tensor].dtype, quantisation(tensor, shards))
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


def quantisation(array: str, names: Iterable[str]) -> list[str]:
    """The names of what a quantised array has beside it: scales, zero points, a codebook, packed codes."""
    layer = array.removesuffix("weight").rstrip("._/")
    starts = [stem + joint for stem in {array, layer} - {""} for joint in "._/"]
    rests = ((name, name.removeprefix(start)) for name in names for start in starts if name.startswith(start))
    return sorted({name for name, rest in rests if _QUANTISED.fullmatch(rest)})


def _checkpoint_file(folder: Path, name: str) -> Path:
    """The file that a study names, or the one that makes the folder a checkpoint."""
    if name:
        path = _inside(folder, name, "`bank.tokens.file`")
        if os.path.isdir(path):
            return _checkpoint_file(path, "")
        return _in_folder(folder, name, "bank.tokens.file", "tokens")
    if (folder / INDEX).is_file():
        return folder / INDEX
    found = sorted(folder.glob("*.safetensors"))
    if len(found) != 1:
        listed = ", ".join(path.name for path in found) or "none"
        raise (StudyError if found else MissingSourceError)(
            f"{folder} has no {INDEX} and not exactly one *.safetensors ({listed}): name the file in `bank.tokens.file`"
        )
    return found[0]


def _shards(index: Path) -> dict[str, Path]:
    """Tensor -> file of a sharded checkpoint."""
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = {tensor: _inside(index.parent, name, str(index)) for tensor, name in names.items()}
    except StudyError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StudyError(f"{index}: not the index of a sharded checkpoint ({error!r}): get it again") from error
    return shards


def _embedding_name(file: Path, shards: Mapping[str, Path], named: str) -> str:
    """The tensor that a study names, or the one with an embedding matrix's usual name."""
    if named:
        if named not in shards:
            raise StudyError(
                f"`bank.tokens.tensor` is {named!r}, which is not in {file}{schema.did_you_mean(named, list(shards))}"
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
    """The two-dimensional tensors that are at hand, those with most rows first."""
    shapes = {name: stored_tensors(path)[name].shape for name, path in shards.items() if path.is_file()}
    tables = sorted((name for name in shapes if len(shapes[name]) == 2), key=lambda name: -shapes[name][0])
    return ", ".join(f"{name} {list(shapes[name])}" for name in tables[:10]) or "none of two dimensions"


# Imported: an array in an HDF5 file.


def _imported(parameters: dict[str, Any], folder: Path) -> tuple[dict[str, Any], list[Path]]:
    import h5py

    path = _in_folder(folder, parameters["file"], "bank.imported.file", "imported")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise StudyError(f"{path}: not an HDF5 file ({error}): get it again") from error
    with file:
        arrays: dict[str, tuple[int, ...]] = {}
        # Soft and external links are not visited: an array is what stands in this file.
        file.visititems(
            lambda name, item: arrays.update({name: item.shape}) if isinstance(item, h5py.Dataset) else None
        )
        if (name := parameters["path"].strip("/")) in arrays:
            _refuse_no_plain_numbers(path, name, file[name], arrays)
            if len(arrays[name]) == 3:
                _refuse_unwritten(path, name, file[name], parameters)
    if name not in arrays:
        there = ", ".join(f"{found} {list(shape)}" for found, shape in arrays.items()) or "no array"
        raise StudyError(
            f"`bank.imported.path` is {parameters['path']!r}, which is not an array in {path}"
            f"{schema.did_you_mean(name, list(arrays))} (there is {there})"
        )
    if len(arrays[name]) != 3:
        raise StudyError(f"{path}: {name} is {list(arrays[name])}, expected [class, exemplar, dim]: name another array")
    asked = {
        "classes": parameters["classes"] + parameters["holdout_classes"],
        "exemplars": parameters["exemplars"] + parameters["holdout_exemplars"],
    }
    for (key, number), there in zip(asked.items(), arrays[name], strict=False):
        if number > there:
            raise StudyError(
                f"`bank.imported.{key}` + `holdout_{key}` is {number}, but {name} in {path.name} has {there}: "
                "ask for fewer"
            )
    if parameters["dim"] != arrays[name][2]:
        raise StudyError(
            f"`bank.imported.dim` is {parameters['dim']}, but {name} in {path.name} has {arrays[name][2]} coordinates: "
            f"say {arrays[name][2]}"
        )
    return parameters, [path]


def _refuse_no_plain_numbers(path: Path, name: str, array: Any, names: Iterable[str]) -> None:
    """Raise StudyError where an h5py.Dataset is not numbers that lie in its own file and mean what they say."""
    import h5py

    if array.external or array.is_virtual:
        raise StudyError(
            f"{path}: the numbers of {name} lie in other files (external or virtual storage), which neither its "
            "SHA-256 covers nor a stranger's file may read: copy them into one file"
        )
    of_names = h5py.check_enum_dtype(array.dtype) is not None
    if array.dtype.kind not in "iuf" or of_names:
        raise StudyError(
            f"{path}: {name} holds {f'names of numbers ({array.dtype}, enumerated)' if of_names else array.dtype}, "
            "expected numbers that are real (floating-point, or integers such as pixels): name another array, or write "
            "the coordinates as float32"
        )
    # Packed as netCDF does, or quantised.
    beside = [f"attribute {key}" for key in ("scale_factor", "add_offset", "scale", "zero_point") if key in array.attrs]
    beside += quantisation(name, names)
    if beside:
        raise StudyError(
            f"{path}: {name} holds {array.dtype} and has {', '.join(beside[:5])} beside it: these are codes, expected "
            "the embeddings themselves: write the unpacked coordinates as float32 into an array of their own"
        )


def _refuse_unwritten(path: Path, name: str, array: Any, parameters: Mapping[str, Any]) -> None:
    """Raise StudyError where a part that the bank takes was never written, so that HDF5 gives its fill value."""
    import h5py

    asked = [parameters[key] + parameters[f"holdout_{key}"] for key in ("classes", "exemplars")] + [array.shape[2]]
    asked = [min(wanted, there) for wanted, there in zip(asked, array.shape, strict=True)]
    if array.chunks:
        wanted = math.prod(-(-size // chunk) for size, chunk in zip(asked, array.chunks, strict=True))
        stored: list[tuple[int, ...]] = []
        array.id.chunk_iter(lambda chunk: stored.append(chunk.chunk_offset))
        written = sum(all(start < size for start, size in zip(offset, asked, strict=True)) for offset in stored)
    else:
        wanted, written = 1, int(array.id.get_space_status() != h5py.h5d.SPACE_STATUS_NOT_ALLOCATED)
    if written < wanted:
        part = f"{wanted - written:,} of its {wanted:,} chunks ({1 - written / wanted:.0%}) were" if written else "was"
        raise StudyError(
            f"{path}: {name}: {part} never written, and HDF5 gives {array.fillvalue} in place of what is missing: "
            "write the whole array, or ask for classes and exemplars that are there"
        )


_RESOLVE = {"omniglot": _omniglot, "tokens": _tokens, "imported": _imported}


# Digests.


def digest(path: Path) -> str:
    """SHA-256 of a path from `resolve`: of the file's content, or, of one to be downloaded, as it is published."""
    return file_digest(path) if path.parent != Path() else PUBLIC[path.name].sha256


@functools.cache
def file_digest(path: Path) -> str:
    """SHA-256 of a source file: what enters identities in place of its path.

    That of a large file is remembered, under path, size and time, in the user's cache folder.
    """
    state = path.stat()
    if state.st_size < _REMEMBERED_BYTES:
        return _sha256(path)
    known = [str(path.resolve()), state.st_size, state.st_mtime_ns]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "icl-transience"
    note = cache / f"{hashlib.sha256(json.dumps(known).encode()).hexdigest()}.sha256"
    try:
        return note.read_text(encoding="utf-8")
    except OSError:  # not hashed before, or no such folder
        digest = _sha256(path)
    with contextlib.suppress(OSError):  # a read-only home costs time at the next call, nothing else
        cache.mkdir(parents=True, exist_ok=True)
        temporary = note.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(digest, encoding="utf-8")
        temporary.rename(note)
    return digest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
