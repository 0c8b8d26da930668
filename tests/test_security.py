"""A study, a checkpoint, an archive or an array from a stranger runs no code and reads and writes nothing else."""

import ast
import io
import json
import os
import pickle
import re
import struct
import tokenize
import xml.etree.ElementTree
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from pipeline import ROOT, Clone

from icl_transience.banks import bank as banks_bank
from icl_transience.banks import drawings, resnet
from icl_transience.planning import limits
from icl_transience.planning.plan import Plan
from icl_transience.specs.banks import BankSpec, Imported
from icl_transience.specs.errors import StudyError
from icl_transience.study.document import _Loader
from icl_transience.study.sources import files, omniglot
from icl_transience.study.sources.tokens import INDEX

HOSTILE = "$(touch was-here) `touch was-here` ; touch was-here"


class Malice:
    """Unpickled, it leaves a file behind."""

    def __reduce__(self):
        return Path.touch, (Path("was-here"),)


@pytest.fixture(autouse=True)
def nothing_was_run(tmp_path, monkeypatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    for source in ("OMNIGLOT", "TOKENS", "IMPORTED"):
        monkeypatch.delenv(f"ICL_{source}", raising=False)
    yield
    assert not list(tmp_path.rglob("was-here"))


# The code.


def calls(path: Path) -> Iterator[tuple[str, ast.Call | None]]:
    """What a module imports and calls, by its dotted name as written."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module}.{alias.name}", None) for alias in node.names)
        elif isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def given(call: ast.Call) -> dict[str, str]:
    return {keyword.arg or "**": ast.unparse(keyword.value) for keyword in call.keywords}


RUNS_WHAT_IT_READS = re.compile(
    r"(c?pickle|_pickle|dill|cloudpickle|joblib|marshal|shelve)\b.*|eval|exec|compile|__import__|os\.(system|popen)|"
    r"yaml\.(unsafe|full)_load(_all)?|yaml\.load_all|.*\.(read_pickle|extract|extractall)|shutil\.unpack_archive"
)


def misuse(name: str, call: ast.Call | None) -> bool:
    if RUNS_WHAT_IT_READS.fullmatch(name):
        return True
    if call is None:
        return False
    return (
        (name.endswith("torch.load") and given(call).get("weights_only") != "True")
        or given(call).get("allow_pickle", "False") != "False"
        or given(call).get("shell", "False") != "False"
        or (name == "yaml.load" and [ast.unparse(argument) for argument in call.args[1:]] != ["_Loader"])
    )


MODULES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_no_module_runs_what_it_reads(path):
    assert [ast.unparse(call) if call else name for name, call in calls(path) if misuse(name, call)] == []


@pytest.mark.parametrize(
    "text",
    [
        *("import pickle", "from pickle import loads", "torch.load(path)", "torch.load(path, weights_only=False)"),
        *("np.load(path, allow_pickle=True)", "yaml.load(text, yaml.Loader)", "yaml.unsafe_load(text)", "eval(text)"),
        *("subprocess.run(text, shell=True)", "os.system(text)", "archive.extractall(folder)", "pd.read_pickle(path)"),
    ],
)
def test_a_module_that_did_would_be_found(tmp_path, text):
    (tmp_path / "module.py").write_text(text)
    assert any(misuse(name, call) for name, call in calls(tmp_path / "module.py"))


def test_yaml_is_read_by_a_safe_loader():
    assert issubclass(_Loader, yaml.SafeLoader)


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['touch was-here']",
        "!!python/name:os.system",
        "!!python/module:os ''",
        "!include x",
    ],
)
def test_a_study_cannot_run_code(tmp_path, value):
    (tmp_path / "mine.yaml").write_text(f"experiments:\n  a:\n    question: {value}\n")
    with pytest.raises(StudyError, match=r"the tag '.*' is not YAML that is read here: remove it"):
        Plan({"study": "mine.yaml"}, ROOT)


def test_neither_can_a_config_file(tmp_path):
    clone = Clone.make(tmp_path / "clone")
    with (clone.folder / "config.yaml").open("a") as file:
        file.write("omniglot: !!python/object/apply:os.system ['touch was-here']\n")
    done = clone.snakemake("-n")
    assert done.returncode != 0
    assert "not valid JSON or YAML" in done.stdout + done.stderr


# Command lines.


def shells() -> dict[str, str]:
    """Rule file and line -> shell command, strings joined as Python joins them."""
    found = {}
    for path in sorted((ROOT / "workflow/rules").glob("*.smk")):
        tokens = list(tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline))
        for place, token in enumerate(tokens):
            if token.string == "shell" and tokens[place + 1].string == ":":
                parts = []
                for part in tokens[place + 2 :]:
                    if part.type == tokenize.STRING:
                        parts.append(ast.literal_eval(part.string))
                    elif part.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.COMMENT):
                        break
                found[f"{path.name}:{token.start[0]}"] = "".join(parts)
    return found


# Numbers, and what wildcard_constraints leave no choice for.
NEED_NO_QUOTES = {"threads", "wildcards.start", "wildcards.end", "wildcards.digest"}


@pytest.mark.parametrize("place", shells())
def test_every_value_in_a_command_line_is_quoted(place):
    fields = re.findall(r"\{([^{}]*)\}", shells()[place])
    assert fields
    assert [field for field in fields if not field.endswith(":q") and field not in NEED_NO_QUOTES] == []


def test_every_rule_that_makes_something_is_a_command_line_among_these():
    text = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    assert not re.findall(r"^ +(run|script|notebook|wrapper|cwl):", text, re.MULTILINE)
    assert (
        len(shells())
        == len(re.findall(r"^ +shell:", text, re.MULTILINE))
        == len(re.findall(r"^ +log:", text, re.MULTILINE))
    )
    text = (ROOT / "workflow/Snakefile").read_text()
    constraints = dict(re.findall(r'^    (start|end|digest)=r?"(.*)",', text, re.MULTILINE))
    assert constraints == {"start": r"\d{12}", "end": r"\d{12}", "digest": "[0-9a-f]{12}"}


def test_words_from_a_study_run_nothing_wherever_they_stand(tmp_path):
    # On the first line dollars for mathematics, which is none.
    question = f'$\\frac{{$\nit\'s "{HOSTILE}" & {{wildcards.x}} {{0}} %s <script>alert(1)</script> ${{IFS}} \\'
    claim = {"text": question, "source": question, "kind": "threshold", "of": "peak", "direction": "above", "value": 0}
    study = {
        "description": question,
        "defaults": {
            "bank": {
                "gaussian": {"classes": 40, "holdout_classes": 10, "exemplars": 3, "holdout_exemplars": 2, "dim": 4}
            },
            "model": {"width": 16, "heads": 2},
            "recipe": {"mixture": {"m-1": {"share": 0.1, "support": "none"}}},
            "snapshots": {"first": 256, "every": 512},
            "evaluation": {"sequences": 64},
            "horizon": 512,
            "seeds": [0],
        },
        # A word of Python's.
        "experiments": {"class": {"question": question, "claims": {"c": claim}}},
    }
    clone = Clone.make(tmp_path / "lab projects" / f'ä "b" {HOSTILE} it\'s #1 100% \\n [c]* &', yaml.safe_dump(study))
    name, results = f"my 'study' {HOSTILE}", f'my "res\'ults" {HOSTILE} & x'
    clone.study.rename(clone.study.with_name(f"{name}.yaml"))
    settings = (f"study={name}", f"results={results}")
    clone.build(config=settings)
    folder = clone.folder / results / "studies" / name / "class"
    assert sorted(pd.read_csv(folder / "curves.csv")["sequences_seen"].unique()) == [0, 256, 384, 512]
    assert pd.read_csv(folder.parent / "verdicts.csv")["text"].tolist() == [" ".join(question.split())]
    drawing = xml.etree.ElementTree.parse(folder / "curves.svg")
    assert not [part.tag for part in drawing.iter() if "script" in part.tag]
    assert "Nothing to be done" in clone.build("-n", config=settings)
    assert {path.name for path in clone.folder.iterdir()} <= {
        *("Snakefile", "config.yaml", "workflow", "profiles", "envs", ".snakemake", results.split("/")[0])
    }


def test_a_checkout_with_braces_in_its_path_is_refused_in_words(tmp_path):
    clone = Clone.make(tmp_path / "a {b} c")
    done = clone.snakemake("-n")
    assert done.returncode != 0
    assert f"{clone.folder}: has braces in its path" in done.stdout + done.stderr


@pytest.mark.parametrize("place", ["clone", "$(touch was-here)", "a `touch was-here`", "back\\slash", "$HOME"])
def test_no_job_is_submitted_from_where_a_shell_would_read_its_path(tmp_path, place):
    clone = Clone.make(tmp_path / place)
    results = "results" if place != "clone" else "$(touch was-here)"
    # Without sbatch: one that has been asked for would be missed, not refused.
    done = clone.snakemake("--workflow-profile", "profiles/slurm", "--retries", "0", config=(f"results={results}",))
    assert done.returncode != 0
    what = f"this folder is {clone.folder}" if place != "clone" else f"`results` is {results}"
    assert f"{what}: a shell on the way to a cluster's jobs reads" in done.stdout + done.stderr
    assert not (clone.folder / results).exists()


@pytest.mark.parametrize("place", ["/lab projects/app", "/it's", "/a;b", "/a&b", '/"a"', "/a(b)", "/~a", "/a*"])
def test_no_job_is_submitted_with_a_python_that_a_shell_would_not_find(place):
    with pytest.raises(StudyError, match="the Python that runs Snakemake is"):
        limits.refuse_cluster({}, ROOT, f"{place}/.venv/bin/python")


def test_jobs_are_submitted_from_a_folder_with_spaces_where_the_python_is_elsewhere(tmp_path):
    clone = Clone.make(tmp_path / 'Größe: it\'s "my" 100% #1')
    limits.refuse_cluster({"study": "synthetic", "results": "my results"}, clone.folder, "/opt/Größe-3.11/bin/python")


@pytest.mark.parametrize(
    "name",
    ["../x", "..", "a/b", "/etc", "$(touch was-here)", "`x`", "a b", "{wildcards}", "a'b", 'a"b', "a;b", "-rf", "a\nb"],
)
def test_names_of_experiments_runs_and_kinds_are_plain_words(tmp_path, name):
    for document in (
        {"experiments": {name: {}}},
        {"experiments": {"a": {"runs": {name: {}}}}},
        {"experiments": {"a": {"recipe": {"mixture": {name: {"share": 0.1}}}}}},
    ):
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(document))
        with pytest.raises(StudyError, match=r"does not match|no character to print"):
            Plan({"study": "mine.yaml"}, ROOT)


def test_a_run_named_after_a_path_stays_in_its_folder(tmp_path):
    with h5py.File(tmp_path / "embeddings.h5", "w") as file:
        for name in ("one/two", "one/$(touch was-here)"):
            file[name] = np.zeros((1700, 20, 64), dtype="float32")
    study = {"experiments": {"a": {"bank": {"source": "imported", "imported": {"scale": "raw"}}}}}
    study["experiments"]["a"]["axes"] = {"bank.imported.path": ["one/two", "one/$(touch was-here)"]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(study))
    plan = Plan({"study": "mine.yaml", "imported": str(tmp_path)}, ROOT)
    assert list(plan.targets.exports)[:2] == ["imported.path=one_two", "imported.path=one___touch_was-here_"]


# Files that a study names.


def bank_problem(folder: Path, source: str, **parameters) -> str:
    """What is said of a study on this bank, whose source's folder is `folder`."""
    parameters |= {"scale": "raw"} if source == "imported" else {}
    document = {"experiments": {"a": {"bank": {"source": source, source: parameters}}}}
    Path("mine.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(StudyError) as error:
        Plan({"study": "mine.yaml", source: str(folder)}, ROOT)
    return str(error.value)


@pytest.fixture
def inside(tmp_path) -> Path:
    """A source's folder, beside which lies a file that is none of its business."""
    (tmp_path / "private.h5").write_bytes(b"private")
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


WAYS_OUT = ["../private.h5", "sub/../../private.h5", "/etc/passwd", ".."]


@pytest.mark.parametrize("name", WAYS_OUT)
def test_a_study_names_no_file_outside_the_sources_folder(inside, name):
    for source, key in (("imported", "file"), ("tokens", "file")):
        assert f"names {name!r}, which leads out of {inside}" in bank_problem(inside, source, **{key: name})
    for zip_name in ("images_background_small1.zip", "images_background_small2.zip"):
        with zipfile.ZipFile(inside / zip_name, "w") as archive:
            for number in range(250):
                for drawing in range(1, 21):
                    archive.writestr(f"images/A/character{number}/1_{drawing:02d}.png", b"")
    weights = {"encoder": "resnet18", "dim": 512, "weights": name}
    assert f"names {name!r}, which leads out of {inside}" in bank_problem(inside, "omniglot", **weights)


@pytest.mark.parametrize("name", WAYS_OUT)
def test_a_checkpoint_names_no_shard_outside_its_folder(inside, name):
    (inside / INDEX).write_text(json.dumps({"weight_map": {"wte.weight": name}}))
    assert f"names {name!r}, which leads out of {inside}" in bank_problem(inside, "tokens")


# Weights and tables.


def test_a_pickle_runs_nothing_whatever_it_is_called(tmp_path):
    for name, content in (("bare.pth", pickle.dumps(Malice(), protocol=2)), ("torch.pth", None)):
        if content is None:
            torch.save({"conv1.weight": Malice()}, tmp_path / name)
        else:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(StudyError, match="not weights that PyTorch reads"):
            resnet.load_resnet18(tmp_path / name)
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Malice()))
    assert "not a safetensors file" in bank_problem(tmp_path, "tokens")
    (tmp_path / "embeddings.h5").write_bytes(pickle.dumps(Malice()))
    assert "not an HDF5 file" in bank_problem(tmp_path, "imported")


def header(entries: object) -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + bytes(64)


TABLES = {
    "no length": b"abc",
    "a header longer than the file": struct.pack("<Q", 1 << 62) + b"{}",
    "no JSON": header(b"\xff" * 8),
    "a list": header([1]),
    "nested without end": header(b"[" * 100_000),
    "an entry without a shape": header({"wte.weight": {"dtype": "F32"}}),
    "a shape of words": header({"wte.weight": {"dtype": "F32", "shape": ["a", 4], "data_offsets": [0, 64]}}),
    "a negative shape": header({"wte.weight": {"dtype": "F32", "shape": [-4, -4], "data_offsets": [0, 64]}}),
    "offsets of words": header({"wte.weight": {"dtype": "F32", "shape": [4, 4], "data_offsets": ["a", "b"]}}),
    "one offset": header({"wte.weight": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0]}}),
    "more than is there": header({"wte.weight": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 1 << 60]}}),
}


@pytest.mark.parametrize("content", TABLES.values(), ids=TABLES)
def test_a_table_with_a_false_header_is_refused(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    assert re.search("not a safetensors file|is cut short", bank_problem(tmp_path, "tokens"))


# Arrays.


def outside(folder: Path) -> Path:
    """A file of secrets, as HDF5 and as bytes."""
    with h5py.File(folder / "secret.h5", "w") as file:
        file["embeddings"] = np.ones((1700, 20, 4))
    (folder / "secret.bin").write_bytes(bytes(8 * 1700 * 20 * 4))
    return folder / "secret.h5"


def external_link(file: h5py.File, secret: Path) -> None:
    file["embeddings"] = h5py.ExternalLink(str(secret), "embeddings")


def external_storage(file: h5py.File, secret: Path) -> None:
    place = (str(secret.with_suffix(".bin")), 0, h5py.h5f.UNLIMITED)
    file.create_dataset("embeddings", (1700, 20, 4), dtype="float64", external=[place])


def virtual(file: h5py.File, secret: Path) -> None:
    elsewhere = h5py.VirtualLayout((1700, 20, 4), dtype="float64")
    elsewhere[...] = h5py.VirtualSource(str(secret), "embeddings", (1700, 20, 4))
    file.create_virtual_dataset("embeddings", elsewhere)


def soft_link(file: h5py.File, secret: Path) -> None:
    file["link"] = h5py.ExternalLink(str(secret), "/")
    file["embeddings"] = h5py.SoftLink("/link/embeddings")


def objects(file: h5py.File, secret: Path) -> None:
    file.create_dataset("embeddings", (1700, 20, 4), dtype=h5py.string_dtype())


def pickles(file: h5py.File, secret: Path) -> None:
    file["embeddings"] = np.full((1700, 20, 4), np.void(pickle.dumps(Malice())))


def records(file: h5py.File, secret: Path) -> None:
    file.create_dataset("embeddings", (1700, 20, 4), dtype=[("x", "f4")])


ARRAYS: dict[Callable, str] = {
    external_link: "which is not an array in",
    soft_link: "which is not an array in",
    external_storage: "the numbers of embeddings lie in other files",
    virtual: "the numbers of embeddings lie in other files",
    objects: "embeddings holds object, expected numbers",
    pickles: "embeddings holds |V",
    records: "embeddings holds [('x', '<f4')], expected numbers",
}


@pytest.mark.parametrize(("build", "expected"), ARRAYS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_an_array_is_numbers_in_its_own_file(inside, build, expected):
    with h5py.File(inside / "embeddings.h5", "w") as file:
        build(file, outside(inside.parent))
    assert expected in bank_problem(inside, "imported", dim=4)


def test_attributes_of_an_array_are_not_read(inside):
    array = np.random.default_rng(0).standard_normal((5, 4, 3))
    with h5py.File(inside / "embeddings.h5", "w") as file:
        file["embeddings"] = array
        file["embeddings"].attrs["pickle"] = np.void(pickle.dumps(Malice()))
        file.attrs["pickle"] = np.void(pickle.dumps(Malice()))
    section = Imported(
        file="embeddings.h5",
        path="embeddings",
        classes=3,
        holdout_classes=2,
        exemplars=3,
        holdout_exemplars=1,
        scale="raw",
        dim=3,
    )
    bank = banks_bank.build(BankSpec(seed=0, parameters=section), [inside / "embeddings.h5"])
    np.testing.assert_array_equal(bank.embeddings, array.astype(np.float32))


# Archives.


def png(side: int = 105, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("1", (side, side), 1).save(file, kind)
    return file.getvalue()


def archive(folder: Path, spoilt: bytes | None = None, extra: dict[str, bytes] | None = None) -> Path:
    """A zip of one character, whose first drawing may be something else, and of more."""
    path = folder / "images.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for number in range(1, 21):
            content = spoilt if spoilt is not None and number == 1 else png()
            file.writestr(f"images/Greek/character01/0001_{number:02d}.png", content)
        for name, content in (extra or {}).items():
            file.writestr(name, content)
    return path


def test_members_with_paths_that_lead_out_are_never_written(tmp_path):
    link = zipfile.ZipInfo("images/Greek/character01/link")
    link.external_attr = 0o120777 << 16
    path = archive(tmp_path, extra={"../../was-here": b"x", "/tmp/was-here": b"x", "images/../../was-here.png": b"x"})
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(link, "/etc/passwd")
    before = set(tmp_path.rglob("*"))
    assert list(drawings.read_drawings([path])) == [("Greek", 1)]
    assert set(tmp_path.rglob("*")) == before


def huge_picture() -> bytes:
    """A PNG of some bytes that says it is 60,000 x 60,000."""
    content = bytearray(png())
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


DRAWINGS = {
    "a bomb": (bytes(1 << 24), "is said to have 16,777,216 bytes"),
    "a picture of gigabytes": (huge_picture(), "is damaged|expected 105 x 105"),
    "another size": (png(104), r"\(104, 104\), expected 105 x 105"),
    "another format": (png(kind="GIF"), "is damaged"),
    "no picture": (pickle.dumps(0), "is damaged"),
    "nothing": (b"", "is damaged"),
}


@pytest.mark.parametrize(("content", "expected"), DRAWINGS.values(), ids=DRAWINGS)
def test_a_drawing_is_a_small_png_before_it_is_read(tmp_path, content, expected):
    with pytest.raises(StudyError, match=expected):
        drawings.read_drawings([archive(tmp_path, content)])


def flag(path: Path, offset: int, value: int) -> None:
    """Changes two bytes in every local and central header."""
    content = bytearray(path.read_bytes())
    for signature, shift in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        place = content.find(signature)
        while place >= 0:
            struct.pack_into("<H", content, place + offset + shift, value)
            place = content.find(signature, place + 4)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("offset", "value", "said"),
    [
        (4, 99, "not a readable zip"),
        (6, 1, "is encrypted: write the zip again without a password"),
        (8, 97, r"is compressed by method 97 \(WavPack\), .* write the zip again with Deflate"),
        (8, 12, "not a readable zip"),
    ],
    ids=["a later zip", "encrypted", "unknown method", "no bzip2"],
)
def test_a_zip_that_is_not_plain_is_refused(tmp_path, offset, value, said):
    path = archive(tmp_path)
    flag(path, offset, value)
    with pytest.raises(StudyError, match=rf"images\.zip: .*{said}"):
        drawings.read_drawings([path])


def test_a_damaged_zip_is_read_or_refused_wherever_the_damage_is(tmp_path):
    whole = archive(tmp_path).read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for number, place in enumerate(generator.integers(0, len(whole), 150)):
        path = tmp_path / f"{number}.zip"
        path.write_bytes(whole[:place] + bytes([generator.integers(256)]) + whole[place + 1 :])
        for read in (lambda path: drawings.read_drawings([path]), lambda path: omniglot._characters((path,))):
            try:
                read(path)
            except StudyError:
                refused += 1
    assert refused > 20


# Downloads.


@pytest.mark.parametrize("name", files.PUBLIC)
def test_what_is_downloaded_comes_over_https_and_is_checked(name):
    public = files.PUBLIC[name]
    assert public.url.startswith("https://")
    assert public.url.endswith(f"/{name}")
    assert re.fullmatch("[0-9a-f]{64}", public.sha256)
    assert os.path.basename(name) == name
