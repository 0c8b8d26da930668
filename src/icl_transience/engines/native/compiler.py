"""The kernels in C++: compiled for a model's shape when they are first wanted, and kept."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from icl_transience.model import transformer
from icl_transience.specs.errors import StudyError
from icl_transience.specs.model import Model
from icl_transience.store.cache import cache_folder, compiler_words

_SOURCE = Path(__file__).with_name("kernels.cpp")
# What it includes; part of what a compiled library is made from.
_PARTS = (_SOURCE, Path(__file__).with_name("attention.cpp"))
_ENCODER_PARTS = (Path(__file__).with_name("encoder.cpp"), Path(__file__).with_name("stem.cpp"))
# No -ffast-math: NaN must stay NaN, or a lane that diverged would not be seen.
# C++17: before it, vectors of vectors are not aligned, and code from a clang that has an older default crashes.
_FLAGS = (
    *("-std=gnu++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
    *("-shared", "-fPIC"),
)
# Names for the processor that a compiler runs on, in the order in which they are tried: clang for ARM knows the second
# alone in some versions, and others know none.
_NATIVE = ("-march=native", "-mcpu=native")
# Columns of a buffer come in multiples of this: a whole number of vectors on every machine, see kernels.cpp.
COLUMNS = 16


class UnavailableError(RuntimeError):
    """This machine cannot compile the kernels; the message says why."""


@functools.cache
def library(model: Model, context: int) -> ctypes.CDLL:
    """Return the kernels for this shape of model, compiled unless they were before. Raises UnavailableError."""
    defines = {
        "WIDTH": model.width,
        "HEADS": model.heads,
        "TOKENS": 2 * context + 1,
        "LAYER_NORM_EPSILON": f"{transformer.LAYER_NORM_EPSILON}f",
    }
    return _library(_PARTS, defines)


@functools.cache
def encoder_library(double: bool) -> ctypes.CDLL:
    """Return the kernels of image encoders, in float64 if `double`, else in float32. Raises UnavailableError."""
    return _library(_ENCODER_PARTS, {"REAL": "double" if double else "float"})


def _library(parts: tuple[Path, ...], defines: dict[str, str | int]) -> ctypes.CDLL:
    """Return the first of `parts`, which includes the others, compiled with these macros."""
    compiler, *options = compiler_words()
    if shutil.which(compiler) is None:
        raise UnavailableError("no C++ compiler (c++, or what CXX names) was found")
    try:
        # Whole: what stands first may start the compiler, as ccache does.
        words = (compiler, *options)
        command = [*words, *_flags(words), *(f"-D{name}={value}" for name, value in defines.items())]
        version = subprocess.run(
            [*words, "--version"], capture_output=True, text=True, errors="replace", check=False
        ).stdout
        # A cache in a home folder that several kinds of machine share must not mix them: -march=native is in the code.
        made_from = "\0".join(
            [
                *command,
                version,
                _processor(),
                platform.platform(),
                *(part.read_text(encoding="utf-8") for part in parts),
            ]
        )
        path = cache_folder() / f"native-{hashlib.sha256(made_from.encode()).hexdigest()[:16]}.so"
        if path.exists():
            try:
                return ctypes.CDLL(str(path))
            except OSError:  # empty: made once more
                path.unlink()
        _compile(command, parts[0], path)
        return ctypes.CDLL(str(path))
    except (OSError, RuntimeError) as error:  # no home, no room, no right to write or to load what was written
        raise (
            error
            if isinstance(error, UnavailableError)
            else UnavailableError(
                f"kernels could not be compiled or kept: {error} (ICL_CACHE names another folder for them)"
            )
        ) from error


@functools.cache
def _native(compiler: tuple[str, ...]) -> str | None:
    """Return the option that asks for all that this processor can; None where the compiler has none.

    compiler: the words of its call.
    """
    for option in _NATIVE:
        command = [*compiler, option, "-fsyntax-only", "-x", "c++", "-"]
        # Told to end, it has said nothing about options: the first is then what the compilation finds wrong.
        if subprocess.run(command, input=b"", capture_output=True, check=False).returncode <= 0:
            return option
    return None


def _flags(compiler: tuple[str, ...]) -> list[str]:
    """Return the flags, with the name that the compiler has for this processor, if any, in place of -march=native."""
    native = _native(compiler) if _NATIVE[0] in _FLAGS else None
    return [flag for flag in (native if flag == _NATIVE[0] else flag for flag in _FLAGS) if flag]


def _compile(command: list[str], source: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        # The compiler's own temporary files too: elsewhere there may be no room.
        environment = os.environ | {"TMPDIR": folder}
        done = subprocess.run(
            [*command, source, "-o", made],
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode < 0 or "terminated program" in done.stderr:
            # Told to end, or short of memory: another engine now would train other bits than the next call.
            raise StudyError(
                f"{command[0]} was killed while it compiled {source.name}: run the same snakemake command again, or "
                "set `engine: eager`"
            )
        if done.returncode:
            raise UnavailableError(f"{command[0]} could not compile {source.name}: {done.stderr.strip()[-500:]}")
        made.replace(path)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def aligned(size: int) -> int:
    """Round `size` floats up to whole vectors."""
    return -(-size // COLUMNS) * COLUMNS
