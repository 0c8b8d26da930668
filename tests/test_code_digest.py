"""What a change of code makes again: the files that a stage imports, and no others."""

import re
import shutil
from pathlib import Path

import pytest

from icl_transience.specs import code_digest

LIBRARY = Path(code_digest.__file__).parents[1]


@pytest.fixture
def library(tmp_path, monkeypatch) -> Path:
    """A copy of the library whose stages are asked for."""
    copy = tmp_path / "icl_transience"
    shutil.copytree(LIBRARY, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code_digest, "files", lambda package: copy)
    forget()
    yield copy
    forget()


def forget() -> None:
    for function in (code_digest.digest, code_digest._tree, code_digest._imports):
        function.cache_clear()


def digests() -> dict[str, str]:
    forget()
    return {stage: code_digest.digest(stage) for stage in code_digest.STAGES}


def changed_by(path: Path, old: str, new: str) -> set[str]:
    """Stages that are made again when `old` becomes `new` in a file."""
    before = digests()
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    after = digests()
    return {stage for stage in before if before[stage] != after[stage]}


TABLES = {"tables", "verdicts", "figures"}
METRICS = TABLES | {"metrics", "peaks"}
INSIDE = {"circuits", "circuits_tables"}
# Recorded in segments; no rule asks for it, so that an edit retrains nothing.
NATIVE, TRITON, GRAPH, EAGER = ({f"training/{engine}"} for engine in ("native", "triton", "graph", "eager"))
TRAINING = NATIVE | TRITON | GRAPH | EAGER


@pytest.mark.parametrize(
    ("file", "old", "new", "again"),
    [
        ("model/transformer.py", "LAYER_NORM_EPSILON = ", "LAYER_NORM_EPSILON = 2 * ", METRICS | INSIDE | TRAINING),
        ("evaluation/metrics.py", "logsumexp(-1)", "logsumexp(-1) + 0", METRICS | INSIDE),
        ("engines/native/kernels.cpp", "1.f / 5040", "1.f / 5041", METRICS | NATIVE),
        ("engines/native/attention.cpp", "scale", "skale", METRICS | NATIVE),
        (
            *("specs/evaluators.py", "1 / 2", "1 / 3"),
            METRICS | INSIDE | {"forecast", "circuits_figures", "minimal_model_figure", "evidence"},
        ),
        (
            *("analysis/transience.py", "N_SIGMA = ", "N_SIGMA = 2 * "),
            TABLES | {"peaks", "circuits_figures", "minimal_model_figure", "evidence"},
        ),
        ("analysis/verdicts.py", "of the opposite", "of its opposite", {"verdicts"}),
        ("analysis/eprocess.py", "POWER = ", "POWER = 1.1 * ", {"verdicts", "forecast"}),
        ("analysis/forecast.py", "FIRST_FITTED = ", "FIRST_FITTED = 1 + ", {"forecast"}),
        ("evaluation/strategy.py", ".mean()", ".median()", METRICS | INSIDE),
        ("report/figures/evidence.py", "_LEAST = ", "_LEAST = 2 * ", {"evidence"}),
        ("report/figures/experiment.py", "WIDTH = ", "WIDTH = 2 * ", {"figures"}),
        (
            *("report/figures/style.py", "RASTER_DPI = ", "RASTER_DPI = 2 * "),
            {"figures", "circuits_figures", "cards", "minimal_model_figure", "evidence"},
        ),
        ("circuits/measures.py", "return self.sums[name] /", "return 2 * self.sums[name] /", INSIDE),
        ("report/figures/heads.py", "MOST_RUNS = ", "MOST_RUNS = 2 * ", {"circuits_figures"}),
        ("theory/minimal_model.py", "_GROWTH = ", "_GROWTH = 1 + ", {"minimal_model"}),
        ("report/figures/minimal_model.py", "_FIRST_STEP = ", "_FIRST_STEP = 2 * ", {"minimal_model_figure"}),
        # What has identities, schema versions and SEMANTICS of its own; what only trains; engines that answer nothing;
        # what chooses and proves them.
        ("specs/training.py", "kind: Annotated", "kind : Annotated", set()),
        ("store/hdf5.py", "_HASH_BYTES = ", "_HASH_BYTES = 2 * ", set()),
        ("sequences/draw.py", "range(12)", "range(0, 12)", TRAINING),
        ("banks/gaussian.py", "return", "return (0,) and", set()),
        ("engines/graph.py", "range(3)", "range(4)", GRAPH),
        ("engines/triton/blocks.py", "num_programs(0)", "num_programs(axis=0)", TRITON),
        ("engines/optimizers.py", "_CLIP_EPSILON = ", "_CLIP_EPSILON = 2 * ", TRAINING),
        ("engines/select.py", '"auto"', '"automatic"', set()),
        ("engines/verify.py", "_DRAWS = ", "_DRAWS = 1 + ", set()),
        ("philox.py", "def bernoulli(", "def bernoulli (", TRAINING),
        ("training/loop.py", "LOSS_BATCHES = ", "LOSS_BATCHES = 2 * ", TRAINING),
    ],
)
def test_an_edit_makes_again_what_imports_the_file(library, file, old, new, again):
    assert changed_by(library / file, old, new) == again


def test_a_new_engine_makes_nothing_again(library):
    before = digests()
    (library / "engines/fourth").mkdir()
    (library / "engines/fourth/engine.py").write_text("from icl_transience.engines.eager import EagerStep\n")
    select = library / "engines/select.py"
    select.write_text("from icl_transience.engines.fourth import engine\n" + select.read_text())
    assert digests() == before


def test_docstrings_comments_imports_and_empty_lines_do_not_count(library):
    path = library / "model/transformer.py"
    before, text = digests(), path.read_text()
    first = text.index('"""', 3) + 3
    path.write_text('"""Another."""\n\nimport os  # unused\n' + text[first:].replace("\n\n\n", "\n\n\n# why\n\n", 3))
    assert digests() == before


def test_where_a_file_lies_does_not_count(library):
    """A move makes nothing again."""
    before = digests()
    (library / "evaluation/metrics.py").rename(library / "evaluation/answers_metrics.py")
    for name in ("evaluate", "inside"):
        path = library / f"evaluation/{name}.py"
        path.write_text(path.read_text().replace("evaluation.metrics import", "evaluation.answers_metrics import"))
    assert digests() == before


def test_no_rule_asks_for_the_code_of_training():
    rules = "".join(path.read_text() for path in (Path(__file__).parents[1] / "workflow/rules").glob("*.smk"))
    asked = set(re.findall(r"code_digest\.digest\(\"(.*?)\"\)", rules))
    assert asked == code_digest.STAGES.keys() - TRAINING


def test_files_behind_an_engine_are_told_apart(library):
    path = library / "engines/native/attention.cpp"
    before = code_digest.file_digests("training/native")
    path.write_text(path.read_text() + "int unused;\n")
    forget()
    after = code_digest.file_digests("training/native")
    assert {name for name in after if after[name] != before[name]} == {"engines/native/attention.cpp"}
    assert not [name for name in code_digest.file_digests("training/graph") if name.endswith(".cpp")]
