"""Configurations that are wrong: each is refused before any job starts, with the key, the value and what to do."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pipeline import ROOT, TINY, Clone

from icl_transience.planning.packs import MOST_SEGMENTS
from icl_transience.planning.plan import Plan
from icl_transience.specs.errors import StudyError
from icl_transience.study import json_schema, load, schema

SCHEMAS = {"study": json_schema.study_schema(), "config": json_schema.config_schema()}


def in_a(settings: str) -> str:
    return f"experiments: {{a: {{{settings}}}}}"


def with_claim(claim: str, settings: str = "axes: {optimizer.l2.strength: [0, 0.1]}") -> str:
    return in_a(f"{settings}, claims: {{c: {{text: it is so, {claim}}}}}")


SWEEP = "axes: {optimizer.l2.strength: [0, 0.1], model.depth: [1, 2]}"
PEAK = "kind: threshold, of: peak, direction: above"
TREND = "kind: trend, of: peak, direction: falls, axis: optimizer.l2.strength"


def refusal(folder: Path, text: str | bytes, **config: Any) -> str:
    """What is said of a study with this text."""
    path = folder / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(StudyError) as error:
        Plan({"study": str(path), "results": str(folder / "results")} | config, ROOT)
    assert not (folder / "results").exists()
    return str(error.value)


@pytest.fixture(autouse=True)
def no_source_folders(monkeypatch):
    for source in ("OMNIGLOT", "TOKENS", "IMPORTED"):
        monkeypatch.delenv(f"ICL_{source}", raising=False)


# What is no YAML of plain values.

BOMB = "".join(f"k{n}: &k{n} [{', '.join([f'*k{n - 1}' if n else 'x'] * 10)}]\n" for n in range(9))
NOT_YAML = {
    "tabs": ("experiments:\n\ta: {}\n", ["line 2, column 1", "indent with spaces, not with tabs"]),
    "an empty file": ("", ["the document is null, expected a mapping"]),
    "comments alone": ("# later\n", ["the document is null, expected a mapping"]),
    "a list": ("[experiments]", ["the document is ['experiments'], expected a mapping"]),
    "a word": ("experiments", ["the document is 'experiments', expected a mapping"]),
    "bytes": (bytes(range(128, 256)), ["not YAML: byte 0 is not UTF-8"]),
    "UTF-16": ("experiments: {a: {}}".encode("utf-16"), ["not YAML: byte 0 is not UTF-8"]),
    "a zero byte": ("experiments: {a: {}}\0", ["not YAML", "#x0000"]),
    "two documents": ("experiments: {a: {}}\n---\nexperiments: {b: {}}", ["not YAML: line 2", "another document"]),
    "an unclosed bracket": ("experiments: {a: {}", ["not YAML: line 1", "expected ',' or '}'"]),
    "nested without end": ("[" * 5000, ["nested too deep"]),
    "an anchor that is not there": (
        "experiments: *other",
        ["not YAML: line 1, column 14: found undefined alias 'other'"],
    ),
    "an alias in its own anchor": ("experiments: {a: &a {bank: *a}}", ["more than 100,000 values, or no end"]),
    "a bomb of aliases": (f"{BOMB}experiments: {{a: {{}}}}", ["with its aliases written out", "100,000 values"]),
    "a merge key": (
        "defaults: &d {horizon: 5000}\nexperiments: {a: {<<: *d}}",
        ["line 2: merge keys (`<<`) are not read: put what is common into `defaults`"],
    ),
    "a tag": (in_a("horizon: !!int '5000'"), ["line 1: the tag 'tag:yaml.org,2002:int' is not YAML that is read here"]),
    "a key that is a list": ("? [a]\n: b", ["line 1: the key", "is not text but ['a']"]),
    "a key that is a number": ("experiments: {1: {}}", ["line 1: the key 1 is not text"]),
    "a number of 5,000 digits": (in_a(f"horizon: {'9' * 5000}"), ["line 1: a number of 5,000 digits"]),
    "too large a file": (f"# {'x' * (1 << 20)}\nexperiments: {{a: {{}}}}", ["is larger than 1,048,576 bytes"]),
}

# Values that YAML makes of what looks like another one.

NOT_A_NUMBER = {
    "NaN": (in_a("optimizer: {learning_rate: .nan}"), ["`experiments.a.optimizer.learning_rate` is nan", "finite"]),
    "infinite": (in_a("recipe: {input_noise: .inf}"), ["`experiments.a.recipe.input_noise` is inf", "finite"]),
    "beyond float64": (in_a("optimizer: {epsilon: 1e999}"), ["`experiments.a.optimizer.epsilon` is inf", "finite"]),
    "NaN on an axis": (in_a("axes: {recipe.match: [0, .nan]}"), ["`experiments.a.axes.recipe.match[1]` is nan"]),
    "a huge integer": (
        in_a("horizon: 99999999999999999999"),
        ["`experiments.a.horizon` is 99999999999999999999", "at most"],
    ),
    "a number in quotes": (
        in_a("optimizer: {learning_rate: '1e-3'}"),
        ["`experiments.a.optimizer.learning_rate` is '1e-3', expected number", "write it without quotes"],
    ),
    "a leading zero": (
        in_a("horizon: 010000"),
        ["`experiments.a.horizon` is '010000', expected integer", "leading zeros"],
    ),
    "minutes": (in_a("horizon: 1:30"), ["`experiments.a.horizon` is '1:30', expected integer"]),
    "a date": (in_a("horizon: 2026-01-01"), ["`experiments.a.horizon` is '2026-01-01', expected integer"]),
    "a truth for a count": (in_a("horizon: yes"), ["`experiments.a.horizon` is true, expected integer"]),
    "a truth for a number": (in_a("recipe: {match: true}"), ["`experiments.a.recipe.match` is true, expected number"]),
    "a truth for a seed": (in_a("seeds: [true]"), ["`experiments.a.seeds[0]` is true, expected integer from 0"]),
    "a number for a truth": (in_a("recipe: {distractor: 1}"), ["recipe.distractor` is 1, expected true or false"]),
    "a count with a fraction": (in_a("model: {depth: 2.5}"), ["`experiments.a.model.depth` is 2.5, expected integer"]),
    "a count with a point, and what to write": (in_a("model: {depth: 2.0}"), ["is 2.0, expected integer", "write 2"]),
    "a control character": (
        'experiments: {a: {question: "a\\0b"}}',
        ["`experiments.a.question` holds '\\x00' at place 1"],
    ),
    "half a character": ('description: "\\ud800"\nexperiments: {a: {}}', ["`description` holds '\\ud800'"]),
    "a line break in a name": ('experiments: {"a\\n": {}}', ["`experiments`: the key 'a\\n' holds"]),
    "a text of a book's length": (f"experiments: {{a: {{question: {'x' * 10_001}}}}}", ["a text of 10,001 characters"]),
    "too many items": (
        in_a(f"seeds: {list(range(1001))}"),
        ["`experiments.a.seeds` has 1,001 items, expected at most 1,000"],
    ),
}

# One of every kind of rule of the schema, in every section.

AGAINST_THE_SCHEMA = {
    "description that is no text": ("description: 3\nexperiments: {a: {}}", ["`description` is 3, expected a text"]),
    "unknown top level": ("experiment: {a: {}}", ["unknown key `experiment`", "did you mean `experiments`?"]),
    "defaults that are a list": ("defaults: []\nexperiments: {a: {}}", ["`defaults` is [], expected a mapping"]),
    "unknown default": ("defaults: {sedes: [1]}\nexperiments: {a: {}}", ["unknown key `defaults.sedes`", "`seeds`?"]),
    "axes in defaults": ("defaults: {axes: {}}\nexperiments: {a: {}}", ["unknown key `defaults.axes`"]),
    "experiments without one": ("experiments:", ["`experiments` is null, expected a mapping"]),
    "experiment without a value": ("experiments: {a: }", ["`experiments.a` is null, expected a mapping"]),
    "a name with a slash": ("experiments: {a/b: {}}", ["`experiments`: 'a/b' does not match ^[a-z][a-z0-9_]*$"]),
    "a name too long for a folder": (
        f"experiments: {{{'a' * 101}: {{}}}}",
        ["expected a text of at most 100 characters"],
    ),
    "question that is a list": (in_a("question: [why]"), ["`experiments.a.question` is ['why'], expected a text"]),
    "axes without one": (in_a("axes: {}"), ["`experiments.a.axes` is {}, expected at least 1 entry"]),
    "an axis without values": (
        in_a("axes: {model.depth: []}"),
        ["`experiments.a.axes.model.depth` is []", "at least 1 item"],
    ),
    "an axis of one value": (
        in_a("axes: {model.depth: 2}"),
        ["`experiments.a.axes.model.depth` is 2, expected a list"],
    ),
    "an axis value twice": (
        in_a("axes: {model.depth: [1, 1]}"),
        ["axes.model.depth` is [1, 1], expected every item only once"],
    ),
    "runs without one": (in_a("runs: {}"), ["`experiments.a.runs` is {}, expected at least 1 entry"]),
    "a run's name with a blank": (in_a("runs: {a b: {}}"), ["`experiments.a.runs`: 'a b' does not match"]),
    "a run with a horizon": (in_a("runs: {b: {horizon: 9}}"), ["unknown key `experiments.a.runs.b.horizon`"]),
    "unknown bank section": (
        in_a("bank: {omniglott: {}}"),
        ["`experiments.a.bank.omniglott`", "did you mean `omniglot`?"],
    ),
    "bank seed below": (in_a("bank: {seed: -1}"), ["`experiments.a.bank.seed` is -1, expected at least 0"]),
    "bank seed above": (
        in_a("bank: {seed: 4294967296}"),
        ["`experiments.a.bank.seed` is 4294967296, expected at most 4294967295"],
    ),
    "one class": (in_a("bank: {gaussian: {classes: 1}}"), ["bank.gaussian.classes` is 1, expected at least 2"]),
    "no dimension": (
        in_a("bank: {gaussian: {dim: 0}}"),
        ["bank.gaussian.dim` is 0, expected at least 1", "coordinates"],
    ),
    "negative spread": (in_a("bank: {gaussian: {noise: -0.1}}"), ["bank.gaussian.noise` is -0.1, expected at least 0"]),
    "a flat manifold": (in_a("bank: {manifold: {curvature: 0}}"), ["bank.manifold.curvature` is 0, expected above 0"]),
    "no latents": (in_a("bank: {manifold: {latent_dim: 0}}"), ["bank.manifold.latent_dim` is 0, expected at least 1"]),
    "a coordinate of 0": (in_a("bank: {onehot: {value: 0}}"), ["bank.onehot.value` is 0, expected above 0"]),
    "variants of the released layout": (
        in_a("bank: {source: omniglot, omniglot: {layout: released, variants: 1}}"),
        ["bank.omniglot.variants` is 1", "layout: released` mixes all 8 up"],
    ),
    "two variants": (in_a("bank: {omniglot: {variants: 2}}"), ["bank.omniglot.variants` is 2", "8, 1"]),
    "no zips": (in_a("bank: {omniglot: {zips: []}}"), ["bank.omniglot.zips` is [], expected at least 1 item"]),
    "an unknown zip": (
        in_a("bank: {omniglot: {zips: [images_background_small.zip]}}"),
        ["bank.omniglot.zips[0]` is 'images_background_small.zip'", "did you mean `images_background_small"],
    ),
    "a zip twice": (
        in_a("bank: {omniglot: {zips: [images_background.zip, images_background.zip]}}"),
        ["bank.omniglot.zips`", "every item only once"],
    ),
    "too many drawings": (
        in_a("bank: {omniglot: {exemplars: 21}}"),
        ["bank.omniglot.exemplars` is 21, expected at most 20"],
    ),
    "pixels beyond the picture": (
        in_a("bank: {omniglot: {side: 106}}"),
        ["bank.omniglot.side` is 106, expected at most 105"],
    ),
    "an unknown encoder": (in_a("bank: {omniglot: {encoder: resnet}}"), ["'resnet'", "did you mean `resnet18`?"]),
    "an unknown layout": (in_a("bank: {omniglot: {layout: release}}"), ["'release'", "did you mean `released`?"]),
    "weights that are no text": (
        in_a("bank: {omniglot: {weights: 18}}"),
        ["bank.omniglot.weights` is 18, expected a text"],
    ),
    "an encoder's key": (in_a("bank: {omniglot: {trained: {epoch: 1}}}"), ["trained.epoch`", "did you mean `epochs`?"]),
    "a batch of one drawing": (
        in_a("bank: {omniglot: {trained: {batch_size: 1}}}"),
        ["batch_size` is 1, expected at least 2"],
    ),
    "one cluster": (in_a("bank: {tokens: {clusters: 1}}"), ["bank.tokens.clusters` is 1, expected at least 2"]),
    "negative rows": (in_a("bank: {tokens: {skip_rows: -5}}"), ["bank.tokens.skip_rows` is -5, expected at least 0"]),
    "unknown members": (in_a("bank: {tokens: {members: farest}}"), ["'farest'", "did you mean `farthest`?"]),
    "a file that is a list": (
        in_a("bank: {imported: {file: [a.h5]}}"),
        ["bank.imported.file` is ['a.h5'], expected a text"],
    ),
    "an unknown scale": (
        in_a("bank: {imported: {scale: unit}}"),
        ["bank.imported.scale` is 'unit', expected one of standard, raw"],
    ),
    "no context": (in_a("recipe: {context: 0}"), ["recipe.context` is 0, expected at least 1"]),
    "too long a context": (in_a("recipe: {context: 256}"), ["recipe.context` is 256, expected at most 255"]),
    "an unknown support": (in_a("recipe: {support: burst}"), ["'burst'", "did you mean `bursty`?"]),
    "unknown labels": (in_a("recipe: {labels: swaped}"), ["'swaped'", "did you mean `swapped`?"]),
    "too large a pool": (in_a("recipe: {pool: 4194305}"), ["recipe.pool` is 4194305, expected at most 4194304"]),
    "negative Zipf": (in_a("recipe: {zipf: {alpha: -1}}"), ["recipe.zipf.alpha` is -1, expected at least 0"]),
    "a mixture that is a list": (in_a("recipe: {mixture: [a]}"), ["recipe.mixture` is ['a'], expected a mapping"]),
    "a share above 1": (
        in_a("recipe: {mixture: {m: {share: 2}}}"),
        ["recipe.mixture.m.share` is 2, expected at most 1"],
    ),
    "a kind's name with a point": (
        in_a("recipe: {mixture: {a.b: {share: 0.1}}}"),
        ["recipe.mixture`: 'a.b' does not match"],
    ),
    "a kind with a context": (in_a("recipe: {mixture: {m: {share: 0.1, context: 4}}}"), ["recipe.mixture.m.context`"]),
    "no depth": (in_a("model: {depth: 0}"), ["model.depth` is 0, expected at least 1 (blocks)"]),
    "unknown positions": (
        in_a("model: {positions: {kind: rope}}"),
        ["positions.kind` is 'rope', expected one of sinusoid"],
    ),
    "a base of 0": (in_a("model: {positions: {base: 0}}"), ["positions.base` is 0, expected above 0"]),
    "an unknown distribution": (in_a("model: {init: {distribution: lecun}}"), ["model.init.distribution` is 'lecun'"]),
    "an unknown optimizer": (in_a("optimizer: {name: adamv}"), ["'adamv'", "did you mean `adam"]),
    "a moment without end": (in_a("optimizer: {beta1: 1}"), ["optimizer.beta1` is 1, expected below 1"]),
    "L2 without its key": (in_a("optimizer: {l2: 0.1}"), ["optimizer.l2` is 0.1, expected a mapping"]),
    "an unknown form": (in_a("optimizer: {l2: {form: square}}"), ["'square'", "did you mean `squared`?"]),
    "unknown numerics": (in_a("numerics: bfloat"), ["'bfloat'", "did you mean `bfloat16`?"]),
    "no snapshots": (in_a("snapshots: {every: 0}"), ["snapshots.every` is 0, expected at least 1"]),
    "snapshots too dense": (in_a("snapshots: {per_doubling: 1001}"), ["per_doubling` is 1001, expected at most 1000"]),
    "no seeds": (in_a("seeds: []"), ["`experiments.a.seeds` is [], expected at least 1 item"]),
    "seeds that are a number": (in_a("seeds: 3"), ["`experiments.a.seeds` is 3, expected a list"]),
    "half a seed": (in_a("seeds: [{init: 1}]"), ["seeds[0]` is {'init': 1}", "or a mapping of `init`, `data`"]),
    "a seed with more": (in_a("seeds: [{init: 1, data: 2, eval: 3}]"), ["seeds[0]`", "a mapping of `init`, `data`"]),
    "a seed beyond 32 bits": (in_a("seeds: [4294967296]"), ["seeds[0]` is 4294967296", "integer from 0 to 4294967295"]),
    "no horizon": (in_a("horizon: 0"), ["`experiments.a.horizon` is 0, expected at least 1"]),
    "no evaluators": (in_a("evaluation: {evaluators: []}"), ["evaluation.evaluators` is [], expected at least 1 item"]),
    "contexts of no evaluator": (
        in_a("evaluation: {contexts: {train: [4]}}"),
        ["unknown key `experiments.a.evaluation.contexts.train`"],
    ),
    "a context twice": (
        in_a("evaluation: {contexts: {icl: [4, 4]}}"),
        ["contexts.icl` is [4, 4], expected every item only once"],
    ),
    "a context beyond a byte": (
        in_a("evaluation: {contexts: {icl: [256]}}"),
        ["contexts.icl[0]` is 256, expected at most 255"],
    ),
    "no sequences": (in_a("evaluation: {sequences: 0}"), ["evaluation.sequences` is 0, expected at least 1"]),
    "statistics of iwl": (
        in_a("statistics: {evaluator: iwl}"),
        ["statistics.evaluator` is 'iwl'", "expected one of icl, "],
    ),
    "an error level of nothing": (
        in_a("statistics: {claims_alpha: 0}"),
        ["statistics.claims_alpha` is 0, expected above 0", "Holm's correction"],
    ),
    "claims that are a list": (
        in_a("claims: [it falls]"),
        ["`experiments.a.claims` is ['it falls'], expected a mapping"],
    ),
    "a claim in a sentence": (
        in_a("claims: {c: it falls}"),
        ["`experiments.a.claims.c` is 'it falls', expected a map"],
    ),
    "a claim's name with a point": (in_a("claims: {c.d: {}}"), ["`experiments.a.claims`: 'c.d' does not match"]),
    "a claim without its keys": (
        in_a("claims: {c: {text: so}}"),
        ["claims.c` lacks `kind`, `of`, `direction`: add it"],
    ),
    "an unknown key of a claim": (
        with_claim(f"{TREND}, upto: 1"),
        ["unknown key `experiments.a.claims.c.upto`", "`up_to`"],
    ),
    "a claim of an unknown kind": (with_claim("kind: trent, of: peak, direction: falls"), ["did you mean `trend`?"]),
    "an unknown direction": (with_claim("kind: trend, of: peak, direction: fall"), ["did you mean `falls`?"]),
    "a claim without words": (in_a("claims: {c: {text: ''}}"), ["claims.c.text` is '', expected a text that is not"]),
    "a level that is a list": (
        with_claim(f"{TREND}, at: {{model.depth: [1]}}"),
        ["claims.c.at.model.depth` is [1], expected number or a text or true or false"],
    ),
    "a coin's confidence": (
        in_a("statistics: {confidence: 0.5}"),
        ["statistics.confidence` is 0.5, expected above 0.5"],
    ),
    "all confidence": (in_a("statistics: {confidence: 1}"), ["statistics.confidence` is 1, expected below 1"]),
}

# What fits the schema key by key, but not together.

CONTRADICTIONS = {
    "not YAML": ("experiments: [", ["not YAML"]),
    "no experiments": ("defaults: {}", ["lacks `experiments`"]),
    "empty experiments": ("experiments: {}", ["`experiments`", "at least 1"]),
    "a key twice": ("experiments: {a: {horizon: 1, horizon: 2}}", ["`horizon` was already given on line 1"]),
    "unknown key": (
        in_a("recipe: {burstyness: 3}"),
        ["unknown key `experiments.a.recipe.burstyness`", "did you mean `burstiness`?"],
    ),
    "unknown section": (in_a("modell: {}"), ["unknown key `experiments.a.modell`", "did you mean `model`?"]),
    "wrong type": (in_a("horizon: long"), ["`experiments.a.horizon` is 'long', expected integer", "sequences seen"]),
    "below the minimum": (in_a("batch_size: 0"), ["`experiments.a.batch_size` is 0, expected at least 1"]),
    "not positive": (in_a("optimizer: {learning_rate: 0}"), ["learning_rate` is 0, expected above 0"]),
    "odd width": (
        in_a("model: {width: 63, heads: 1}"),
        ["model.width` is 63, expected a multiple of 2"],
    ),
    "unknown source": (in_a("bank: {source: gausian}"), ["'gausian'", "did you mean `gaussian`?", "omniglot"]),
    "unknown evaluator": (in_a("evaluation: {evaluators: [icl, iwll]}"), ["evaluators[1]", "did you mean `iwl`?"]),
    "evaluator twice": (in_a("evaluation: {evaluators: [icl, icl]}"), ["every item only once"]),
    "a bad experiment name": ("experiments: {My-Experiment: {}}", ["'My-Experiment' does not match"]),
    "a key that is not text": ("experiments: {no: {}}", ["line 1: the key no is not text but false: put it in quotes"]),
    "a count with a point": (in_a("horizon: 1000.0"), ["`experiments.a.horizon` is 1000.0, expected integer"]),
    "an axis that changes nothing": (
        in_a("axes: {bank.omniglot.dim: [8, 16]}"),
        ["runs omniglot.dim=8 and omniglot.dim=16 are the same configuration"],
    ),
    "named like a rule that draws": ("experiments: {figures_a: {}}", ["'figures_a' is a name of the workflow's own"]),
    "an evaluator to draw that is not evaluated": (
        in_a("evaluation: {evaluators: [icl, iwl]}, figures: {evaluators: [icl, icl_holdout]}"),
        ["`experiments.a.figures.evaluators` has 'icl_holdout'", "(icl, iwl)", "add it to `evaluation`"],
    ),
    "an evaluator to draw that there is not": (
        in_a("figures: {evaluators: [ic]}"),
        ["`experiments.a.figures.evaluators` has 'ic' (did you mean `icl`?)"],
    ),
    "no evaluator to draw": (in_a("figures: {evaluators: []}"), ["evaluators` is [], expected at least 1 item"]),
    "an evaluator to draw twice": (in_a("figures: {evaluators: [icl, icl]}"), ["expected every item only once"]),
    "an unknown metric": (
        in_a("figures: {metric: acuracy}"),
        ["`experiments.a.figures.metric` is 'acuracy'", "accuracy"],
    ),
    "an unknown axis": (
        in_a("figures: {x: logarithmic}"),
        ["figures.x` is 'logarithmic'", "expected one of log, linear"],
    ),
    "a title in words": (in_a("figures: {title: mine}"), ["figures.title` is 'mine', expected true or false"]),
    "an unknown format": (in_a("figures: {formats: [jpg]}"), ["figures.formats[0]` is 'jpg'", "svg, png, pdf"]),
    "no format": (in_a("figures: {formats: []}"), ["figures.formats` is [], expected at least 1 item"]),
    "an unknown key of figures": (in_a("figures: {title_: no}"), ["unknown key `experiments.a.figures.title_`"]),
    "named like a rule": ("experiments: {train: {}}", ["'train' is a name of the workflow's own", "rename"]),
    "axes and runs": (in_a("axes: {model.depth: [1]}, runs: {b: {}}"), ["has both `axes` and `runs`"]),
    "unknown axis": (in_a("axes: {model.dept: [1]}"), ["unknown run key `model.dept`", "did you mean `depth`?"]),
    "axis into a value": (in_a("axes: {model.depth.x: [1]}"), ["unknown run key `model.depth.x`: no `x`"]),
    "axis into no mixture": (
        in_a("axes: {recipe.mixture.m.share: [0.1]}"),
        ["no `m`: give the mixture a kind of that name"],
    ),
    "axis that is a mixture": (
        in_a("axes: {recipe.mixture: [{}]}"),
        ["is a section: give the mixture a kind", "share: 0"],
    ),
    "axis that is no run key": (in_a("axes: {horizon: [1]}"), ["unknown run key `horizon`"]),
    "axis that is a section": (in_a("axes: {optimizer.l2: [1]}"), ["is a section", "strength, form"]),
    "axis value of a wrong type": (
        in_a("axes: {model.depth: [two]}"),
        ["model.depth=two", "is 'two'"],
    ),
    "seeds of a wrong form": (in_a("seeds: [one]"), ["`experiments.a.seeds[0]` is 'one'"]),
    "a negative seed": (in_a("seeds: [-1]"), ["`experiments.a.seeds[0]` is -1"]),
    "a seed twice": (in_a("seeds: [1, {init: 1, data: 1}]"), ["names a seed twice"]),
    "acquisition along no axis": (
        in_a("statistics: {acquisition: true}"),
        ["`experiments.a.statistics.acquisition` is true", "one axis of numbers (there is none)", "leave it out"],
    ),
    "acquisition along two axes": (
        in_a("statistics: {acquisition: true}, axes: {model.depth: [1, 2], model.width: [32, 64]}"),
        ["`experiments.a.statistics.acquisition` is true", "(there are model.depth, model.width)"],
    ),
    "even smoothing": (in_a("statistics: {smoothing: 2}"), ["`experiments.a.statistics.smoothing` is 2", "odd"]),
    "statistics of an evaluator left out": (
        in_a("evaluation: {evaluators: [iwl]}"),
        ["statistics.evaluator` is 'icl'", "add it there"],
    ),
    "burstiness beyond the context": (
        in_a("recipe: {context: 4, burstiness: 3}"),
        ["`recipe.burstiness` is 3", "`recipe.context` 4: at most 2"],
    ),
    "odd context": (in_a("recipe: {context: 7}"), ["has `icl`", "`recipe.context` is 7: make it even"]),
    "heads that do not divide": (in_a("model: {heads: 7}"), ["`model.heads` is 7", "`model.width` 64"]),
    "too few classes": (in_a("bank: {gaussian: {classes: 8}}"), ["`iwl`, which needs 9 different classes", "has 8"]),
    "no held-out classes": (
        in_a("bank: {gaussian: {holdout_classes: 0}}"),
        ["has `icl_holdout`", "`bank.gaussian.holdout_classes`"],
    ),
    "no held-out exemplars": (
        in_a("bank: {gaussian: {holdout_exemplars: 0}}"),
        ["has `icl_new_exemplar`", "`bank.gaussian.holdout_exemplars` is 0"],
    ),
    "one label to relabel with": (
        in_a("recipe: {relabelling: {labels: 1}}"),
        ["`experiments.a.recipe.relabelling.labels` is 1", "at least 2"],
    ),
    "more labels to relabel with than the model knows": (
        in_a("recipe: {labelling: {labels: 5}, relabelling: {labels: 6}}"),
        ["`recipe.relabelling.labels` is 6", "knows the labels of the training classes, 5"],
    ),
    "all pairs of labels held out": (
        in_a("recipe: {relabelling: {labels: 5, holdout_share: 1}}"),
        ["`experiments.a.recipe.relabelling.holdout_share` is 1", "below 1"],
    ),
    "so many pairs held out that a label is never trained on": (
        in_a("recipe: {relabelling: {labels: 5, holdout_share: 0.7}}"),
        ["`recipe.relabelling.holdout_share` is 0.7", "leaves 3 of 10 pairs to train on: expected at least 4"],
    ),
    "a share that holds no pair out": (
        in_a("recipe: {relabelling: {labels: 5, holdout_share: 0.04}}"),
        ["`recipe.relabelling.holdout_share` is 0.04", "none of the 10 pairs of 5 labels"],
    ),
    "held-out pairs of labels where there are none": (
        in_a("evaluation: {evaluators: [icl, icl_holdout_pairs]}"),
        ["has `icl_holdout_pairs`", "`recipe.relabelling.holdout_share`"],
    ),
    "burstiness beyond the context, without a distractor": (
        in_a("recipe: {burstiness: 9, distractor: false}"),
        ["`recipe.burstiness` is 9", "do not fit `recipe.context` 8"],
    ),
    "burstiness of a mixture's kind": (
        in_a("recipe: {mixture: {more: {share: 0.1, burstiness: 5}}}"),
        ["`recipe.mixture.more.burstiness` is 5", "at most 4"],
    ),
    "a kind without a share": (in_a("recipe: {mixture: {more: {burstiness: 4}}}"), ["mixture.more` lacks `share`"]),
    "an unknown key of a kind": (
        in_a("recipe: {mixture: {more: {share: 0.1, suport: none}}}"),
        ["unknown key `experiments.a.recipe.mixture.more.suport`", "did you mean `support`?"],
    ),
    "shares that leave nothing": (
        in_a("recipe: {mixture: {a: {share: 0.5, support: none}, b: {share: 0.5, match: 1}}}"),
        ["the shares of a, b sum to 1", "nothing for the recipe itself"],
    ),
    "relabelled with free items": (
        in_a("recipe: {labels: relabelled}"),
        ["`recipe.labels` is relabelled", "make `burstiness` half of `recipe.context`, 8"],
    ),
    "relabelled in a mixture": (
        in_a("recipe: {mixture: {pairs: {share: 0.5, labels: swapped}}}"),
        ["`recipe.mixture.pairs.labels` is swapped", "make `burstiness` half"],
    ),
    "relabelled without a distractor": (
        in_a("recipe: {labels: relabelled, burstiness: 4, distractor: false}"),
        ["`recipe.labels` is relabelled", "`distractor: true`"],
    ),
    "no support of too few labels": (
        in_a("recipe: {support: none, labelling: {labels: 8}}, evaluation: {evaluators: [icl]}"),
        ["`recipe.support` is none, which needs 9 different labels, but there are 8"],
    ),
    "more labels than classes": (
        in_a("bank: {gaussian: {classes: 50}}, recipe: {labelling: {labels: 51}}"),
        ["`recipe.labelling.labels` is 51", "classes to train on, 50"],
    ),
    "one label": (in_a("recipe: {labelling: {labels: 1}}"), ["`recipe.labelling.labels` is 1: expected 0"]),
    "too few labels to leave the query's out": (
        in_a("recipe: {labelling: {labels: 8}}"),
        ["has `iwl`, which needs 9 different classes, but `recipe.labelling.labels` is 8"],
    ),
    "too few exemplars": (
        in_a("recipe: {replacement: false}, bank: {gaussian: {exemplars: 5}}"),
        ["`recipe.replacement` is false: up to 6 items", "has 5 exemplars"],
    ),
    "too few exemplars of one class alone": (
        in_a("recipe: {replacement: false, distinct: false, separate_free: true}, bank: {gaussian: {exemplars: 6}}"),
        ["`recipe.replacement` is false: up to 7 items", "has 6 exemplars"],
    ),
    "too few exemplars to evaluate on": (
        in_a("evaluation: {replacement: false}, bank: {gaussian: {holdout_exemplars: 2}}"),
        ["`evaluation.replacement` is false", "`icl_new_exemplar` shows 5 items", "there are 2 holdout exemplars"],
    ),
    "one class with two labels": (
        in_a("recipe: {burstiness: 4, labels: relabelled, distinct: false}"),
        ["`recipe.labels` is relabelled", "`recipe.distinct` is false", "leave one of them out"],
    ),
    "matching and different": (
        in_a("recipe: {replacement: false, match: 0.5}"),
        ["`recipe.match` is 0.5", "`recipe.replacement` is false", "leave one of them out"],
    ),
    "a probability above 1": (
        in_a("recipe: {match: 1.5}"),
        ["`experiments.a.recipe.match` is 1.5, expected at most 1"],
    ),
    "negative noise": (in_a("recipe: {input_noise: -1}"), ["recipe.input_noise` is -1, expected at least 0"]),
    "an unknown order of ranks": (in_a("recipe: {zipf: {ranks: identical}}"), ["did you mean `identity`?"]),
    "a context of an evaluator left out": (
        in_a("evaluation: {evaluators: [icl], contexts: {iwl: [4]}}"),
        ["`evaluation.contexts.iwl` is given, but `evaluation.evaluators` lacks `iwl`"],
    ),
    "a context that is that of training": (
        in_a("evaluation: {contexts: {iwl: [4, 8]}}"),
        ["`evaluation.contexts.iwl` has 8, which is `recipe.context`"],
    ),
    "an odd context": (in_a("evaluation: {contexts: {flip: [5]}}"), ["`evaluation.contexts.flip` is 5: make it even"]),
    "a context longer than there are classes": (
        in_a("evaluation: {contexts: {ciwl: [20]}}, bank: {gaussian: {classes: 20}}"),
        ["has `ciwl@20`, which needs 21 different classes", "has 20"],
    ),
    "a horizon before the first snapshot": (
        in_a("horizon: 1000"),
        ["`experiments.a.horizon` is 1000", "first snapshot of baseline is at 4096", "snapshots.first"],
    ),
    "no new exemplars of one-hot classes": (
        in_a("bank: {source: onehot}"),
        ["has `icl_new_exemplar`, but a one-hot class has one exemplar"],
    ),
    "weights that are not public": (
        in_a("bank: {source: omniglot, omniglot: {encoder: resnet18, dim: 512, weights: mine.pth}}"),
        ["`bank.omniglot.weights` names mine.pth", "ICL_OMNIGLOT"],
    ),
    "more characters than the public zips hold": (
        in_a("bank: {source: omniglot, omniglot: {characters: 240, holdout_characters: 3}}"),
        ["is 243, but", "hold 242"],
    ),
    "a claim about what remains of a censored time": (
        with_claim("kind: threshold, of: half_life, minus: peak_at, direction: above, value: 0"),
        ["claims.c.of` is 'half_life'", "a column of transience.csv that is no time"],
    ),
    "a claim about a column minus itself": (
        with_claim("kind: threshold, of: peak, minus: peak, direction: above, value: 0"),
        ["claims.c.minus` is 'peak', as `of` is: that is always 0"],
    ),
    "a claim about accuracy minus loss": (
        with_claim("kind: threshold, of: peak, minus: final_training_loss, direction: above, value: 0"),
        ["claims.c.minus` is 'final_training_loss', in loss, but `of` is 'peak', in shares of 1"],
    ),
    "a claim minus an unknown column": (
        with_claim("kind: threshold, of: final_icl, minus: at_peek_icl, direction: above, value: 0"),
        ["claims.c.minus` is 'at_peek_icl'", "did you mean `at_peak_icl`?"],
    ),
    "a claim about an unknown column": (
        with_claim("kind: threshold, of: indx, direction: above, value: 0"),
        ["`experiments.a.claims.c.of` is 'indx' (did you mean `index`?)", "column of transience.csv: emergence, peak,"],
    ),
    "a claim about an evaluator left out": (
        with_claim(
            "kind: threshold, of: final_iwl, direction: above, value: 0", "evaluation: {evaluators: [icl, ciwl]}"
        ),
        ["claims.c.of` is 'final_iwl' (did you mean `final_", "final_ciwl, final_training_loss, at_peak_icl,"],
    ),
    "a direction of another kind of claim": (
        with_claim(TREND.replace("falls", "less")),
        ["claims.c.direction` is 'less', but a trend either rises or falls: choose one of these"],
    ),
    "a trend along nothing": (
        with_claim("kind: trend, of: peak, direction: falls"),
        ["`experiments.a.claims.c` lacks `axis`, which a trend needs: add it"],
    ),
    "a difference from nothing": (
        with_claim("kind: difference, of: peak, direction: less, run: l2.strength=0"),
        ["claims.c` lacks `than`, which a difference needs: add it"],
    ),
    "a threshold without a value": (
        with_claim("kind: threshold, of: peak, direction: above"),
        ["claims.c` lacks `value`, which a threshold needs: add it"],
    ),
    "a key of another kind of claim": (
        with_claim(f"{TREND}, value: 1"),
        ["claims.c.value` is given, but a trend has no `value`: leave it out"],
    ),
    "a claim about an unknown run": (
        with_claim("kind: difference, of: peak, direction: less, run: l2.strength=0, than: l2.strength=1"),
        [
            "claims.c.than` is 'l2.strength=1' (did you mean `l2.strength=0",
            "no run of the experiment (there are l2.strength=0, l2.strength=0.1)",
        ],
    ),
    "a difference from itself": (
        with_claim("kind: difference, of: peak, direction: less, run: l2.strength=0, than: l2.strength=0"),
        ["claims.c.than` is 'l2.strength=0', as `run` is: name two different runs"],
    ),
    "a trend along another axis": (
        with_claim(TREND.replace("strength", "strenth")),
        ["claims.c.axis` is 'optimizer.l2.strenth' (did you mean `optimizer.l2.strength`?)", "runs do not differ"],
    ),
    "a trend in an experiment of one run": (
        with_claim(TREND, "seeds: [0]"),
        ["runs do not differ (they do along none)"],
    ),
    "a trend along names": (
        with_claim(
            "kind: trend, of: peak, direction: falls, axis: optimizer.l2.form",
            "optimizer: {l2: {strength: 0.1}}, axes: {optimizer.l2.form: [squared, unsquared]}",
        ),
        ["'optimizer.l2.form', whose levels are not numbers (squared, unsquared)", "claim a difference"],
    ),
    "a trend over one level": (
        with_claim(f"{TREND}, up_to: 0.05"),
        ["claims.c` takes 1 of the levels of optimizer.l2.strength, expected at least 2: widen `from`, `up_to`"],
    ),
    "a trend that leaves another axis open": (
        with_claim(TREND, SWEEP),
        [
            "runs l2.strength=0,model.depth=1 and l2.strength=0,model.depth=2 both stand at optimizer.l2.strength = 0",
            "say under `at` at which level of the other axes (model.depth)",
        ],
    ),
    "a trend at a level that is not there": (
        with_claim(f"{TREND}, at: {{model.depth: 3}}", SWEEP),
        ["claims.c.at.model.depth` is 3, where no run stands (they stand at 1, 2)"],
    ),
    "a trend at another axis": (
        with_claim(f"{TREND}, at: {{model.width: 3}}", SWEEP),
        ["claims.c.at` names 'model.width' (did you mean `model.depth`?), expected one of optimizer.l2.strength"],
    ),
    "a trend at its own axis": (
        with_claim(f"{TREND}, at: {{optimizer.l2.strength: 0}}"),
        ["claims.c.at` names optimizer.l2.strength, the trend's own axis: narrow it by `from` and `up_to`"],
    ),
    "an unknown way to decide claims": (
        in_a("statistics: {evidence: anytim}"),
        ["statistics.evidence` is 'anytim' (did you mean `anytime`?), expected one of anytime, fixed"],
    ),
    "a claim with parts and a kind of its own": (
        with_claim(f"{TREND}, all_of: [{{{PEAK}, value: 0.6}}, {{{TREND}}}]"),
        ["claims.c.kind` is given, but a claim with `all_of` has none of its own: write it in a part"],
    ),
    "a claim of one part": (
        with_claim(f"all_of: [{{{TREND}}}]"),
        ["claims.c.all_of` is", "expected at least 2 item(s) (instead of a kind: parts"],
    ),
    "a part without its keys": (
        with_claim(f"all_of: [{{{TREND}}}, {{of: peak}}]"),
        ["claims.c.all_of[1]` lacks `kind`, `direction`: add it"],
    ),
    "a part without a key of its kind": (
        with_claim(f"all_of: [{{{PEAK}}}, {{{TREND}}}]"),
        ["claims.c.all_of[0]` lacks `value`, which a threshold needs: add it"],
    ),
    "a part with words": (
        with_claim(f"all_of: [{{text: so, {TREND}}}, {{{TREND}}}]"),
        ["unknown key `experiments.a.claims.c.all_of[0].text`"],
    ),
    "two parts that say the same": (
        with_claim(f"all_of: [{{{TREND}}}, {{{TREND}, from: 0}}]"),
        ["claims.c.all_of[1]` says what `experiments.a.claims.c.all_of[0]` says: leave one of them out"],
    ),
    "an experiment named as the rule that draws evidence": (
        "experiments: {evidence: {}}",
        ["'evidence' is a name of the workflow's own: rename the experiment"],
    ),
    "momentum of adam": (
        in_a("optimizer: {momentum: 0.9}"),
        ["`optimizer.momentum` is 0.9, which is sgd's, but `optimizer.name` is adam", "say `beta1`"],
    ),
    "weight decay of adam": (
        in_a("optimizer: {weight_decay: 0.1}"),
        ["`optimizer.weight_decay` is 0.1, which is adamw's", "`name: adamw`", "`optimizer.l2.strength`"],
    ),
    "inverse sqrt without a warm-up": (
        in_a("optimizer: {schedule: {kind: inverse_sqrt}}"),
        ["`optimizer.schedule.kind` is inverse_sqrt", "`optimizer.schedule.warmup` is 0: give it one"],
    ),
    "a cosine without a length": (
        in_a("optimizer: {schedule: {kind: cosine, warmup: 33}}"),
        ["`optimizer.schedule.length` is 0", "longer than the warm-up"],
    ),
    "a cosine that ends in its warm-up's last batch": (
        in_a("optimizer: {schedule: {kind: cosine, warmup: 33, length: 64}}"),
        ["`optimizer.schedule.length` is 64", "`optimizer.schedule.warmup` is 33"],
    ),
    "all dropped": (in_a("model: {dropout: 1}"), ["model.dropout` is 1, expected below 1"]),
    "a strength that is no number": (
        in_a("optimizer: {l2: {mlp: none}}"),
        ["optimizer.l2.mlp` is 'none', expected number or null"],
    ),
    "heads of an odd width that turn": (
        in_a("model: {width: 6, heads: 2, positions: {kind: rotary}}"),
        ["`model.positions.kind` is rotary", "6 / 2"],
    ),
    "places that were not learned": (
        in_a("model: {positions: {kind: learned}}, evaluation: {contexts: {icl: [4, 16]}}"),
        ["`evaluation.contexts.icl` has 16", "`recipe.context` 8 and no more: leave longer ones out"],
    ),
    "an intervention without a time": (
        in_a("interventions: {late: {optimizer: {clip: 1}}}"),
        ["`interventions.late` lacks `at`: add it"],
    ),
    "an intervention after the end": (
        in_a("horizon: 5000, interventions: {late: {at: 5000, optimizer: {clip: 1}}}"),
        ["`experiments.a.horizon` is 5000", "baseline has an intervention at 5000", "train longer"],
    ),
    "two interventions at once": (
        in_a("interventions: {a: {at: 33, optimizer: {clip: 1}}, b: {at: 64, recipe: {pool: 9}}}"),
        ["`interventions.b.at` is 64, and a comes before the same batch: make them one"],
    ),
    "an intervention that changes the context": (
        in_a("interventions: {late: {at: 64, recipe: {context: 10}}}"),
        ["`interventions.late.recipe.context` is 10, but the model was made for 8"],
    ),
    "an intervention that changes the number of labels": (
        in_a("interventions: {late: {at: 64, recipe: {labelling: {labels: 20}}}}"),
        ["`interventions.late.recipe.labelling.labels` is 20, but the model was made for 0"],
    ),
    "an intervention that changes the kind of moments": (
        in_a("interventions: {late: {at: 64, optimizer: {name: sgd}}}"),
        ["`interventions.late.optimizer.name` is sgd after adam", "keeps other moments"],
    ),
    "an intervention that contradicts what it leaves": (
        in_a("interventions: {late: {at: 64, recipe: {labels: relabelled}}}"),
        ["with `interventions.late`: `recipe.labels` is relabelled", "make `burstiness` half"],
    ),
    "an intervention whose schedule cannot be": (
        in_a("interventions: {late: {at: 64, optimizer: {schedule: {kind: cosine}}}}"),
        ["with `interventions.late`: `optimizer.schedule.length` is 0"],
    ),
    "an intervention that changes the model": (
        in_a("interventions: {late: {at: 64, model: {dropout: 0.1}}}"),
        ["unknown key `experiments.a.interventions.late.model`", "allowed here: at, recipe, optimizer"],
    ),
    "images without a folder": (in_a("bank: {source: images}"), ["ICL_IMAGES", "`images:` in config.yaml"]),
    "released classes as images": (
        in_a("bank: {source: omniglot, omniglot: {layout: released, encoder: none}}"),
        ["bank.omniglot.layout` is released", "`bank.omniglot.encoder: none` stores every drawing once", "corrected"],
    ),
    "no folder of tokens": (in_a("bank: {source: tokens}"), ["ICL_TOKENS", "`tokens:` in config.yaml"]),
    "no folder of imported exemplars": (in_a("bank: {source: imported, imported: {scale: raw}}"), ["ICL_IMPORTED"]),
}

# What would take more memory, jobs or files than any machine has.

TOO_LARGE = {
    "classes": (
        in_a("bank: {gaussian: {classes: 1e15}}"),
        ["1,000,000,000,000,100 classes", "making it takes", "fewer classes"],
    ),
    "latents": (in_a("bank: {source: manifold, manifold: {latent_dim: 1e12}}"), ["making it takes", "fewer classes"]),
    "depth": (in_a("model: {depth: 1e12}"), ["training on it takes", "a smaller model"]),
    "a batch": (in_a("batch_size: 1e12, horizon: 1e13"), ["training on it takes", "batch"]),
    "sequences": (
        in_a("evaluation: {sequences: 1e12}"),
        ["evaluators' sequences on it take", "fewer `evaluation.sequences`"],
    ),
    "runs": (
        in_a(
            "axes: {"
            + ", ".join(f"optimizer.{key}: {list(range(1, 900))}" for key in ("beta1", "beta2", "epsilon"))
            + "}"
        ),
        [
            "the study asks for 2,179,718,097 lanes",
            "`experiments.a` alone",
            "expected at most 10,000",
            "sweep fewer values",
        ],
    ),
    "lanes of all experiments": (
        f"defaults: {{seeds: {list(range(900))}}}\nexperiments: {{{', '.join(f'e{n}: {{}}' for n in range(12))}}}",
        ["the study asks for 10,800 lanes", "expected at most 10,000"],
    ),
    "snapshots": (
        in_a("snapshots: {every: 1}, batch_size: 1"),
        ["`experiments.a.snapshots` asks for up to", "expected at most 10,000: raise `every`"],
    ),
}

OK = "experiments: {a: {}}"
MINIMAL_MODEL = {
    "no variants": (f"{OK}\nminimal_model: {{}}", ["`minimal_model` lacks `variants`"]),
    "empty": (
        f"{OK}\nminimal_model: {{variants: {{}}}}",
        ["`minimal_model.variants` is empty: name a variant, say `published: {}`"],
    ),
    "a name": (f"{OK}\nminimal_model: {{variants: {{A b: {{}}}}}}", ["'A b' does not match", "choose a name"]),
    "a key": (
        f"{OK}\nminimal_model: {{variants: {{a: {{mu: 0}}}}}}",
        ["unknown key `minimal_model.variants.a.mu` (did you mean `mu", "(allowed here: alpha, mu1, mu2)"],
    ),
    "a weight": (
        f"{OK}\nminimal_model: {{variants: {{a: {{alpha: -1}}}}}}",
        ["`minimal_model.variants.a.alpha` is -1, expected at least 0"],
    ),
    "a rate": (
        f"{OK}\nminimal_model: {{variants: {{a: {{}}}}, learning_rate: 0}}",
        ["`minimal_model.learning_rate` is 0, expected above 0"],
    ),
    "twins": (
        f"{OK}\nminimal_model: {{variants: {{a: {{}}, b: {{alpha: 0.1}}}}}}",
        ["a and b are the same loss: leave one of them out"],
    ),
    "too many": (
        f"{OK}\nminimal_model: {{n_seeds: 1000, variants: {{{', '.join(f'a{i}: {{mu1: {i}}}' for i in range(11))}}}}}",
        ["`minimal_model.n_seeds` is 11,000, expected at most 10,000: lower `n_seeds`"],
    ),
    "no such experiment": (
        f"{OK}\nminimal_model: {{variants: {{a: {{}}}}, beside: {{aa: baseline}}}}",
        ["`minimal_model.beside.aa`: no experiment is called 'aa' (did you mean `a`?) (there are a)"],
    ),
    "no such run": (
        f"{OK}\nminimal_model: {{variants: {{a: {{}}}}, beside: {{a: basline}}}}",
        ["`minimal_model.beside.a` is 'basline' (did you mean `baseline`?), expected one of its runs (baseline)"],
    ),
    "not evaluated": (
        "experiments: {a: {evaluation: {evaluators: [icl, train]}}}\n"
        "minimal_model: {variants: {a: {}}, beside: {a: baseline}}",
        ["baseline is not evaluated on ciwl: add it to `experiments.a.evaluation.evaluators`"],
    ),
    "its name": ("experiments: {minimal_model: {}}", ["'minimal_model' is a name of the workflow's own"]),
}

REFUSED = {
    **{f"YAML: {name}": case for name, case in NOT_YAML.items()},
    **{f"value: {name}": case for name, case in NOT_A_NUMBER.items()},
    **{f"schema: {name}": case for name, case in AGAINST_THE_SCHEMA.items()},
    **{f"together: {name}": case for name, case in CONTRADICTIONS.items()},
    **{f"minimal model: {name}": case for name, case in MINIMAL_MODEL.items()},
    **{f"size: {name}": case for name, case in TOO_LARGE.items()},
}


@pytest.mark.parametrize(("text", "expected"), REFUSED.values(), ids=REFUSED)
def test_a_bad_study_is_refused_with_its_key_its_value_and_what_to_do(tmp_path, text, expected):
    said = refusal(tmp_path, text)
    for fragment in expected:
        assert fragment in said
    assert len(said) < 3000


def test_every_kind_of_rule_in_the_schemas_is_broken_by_a_study_or_a_config_above():
    def rules(part: Any) -> set[str]:
        if isinstance(part, list):
            return set().union(*map(rules, part))
        return set(part).union(*map(rules, part.values())) if isinstance(part, dict) else set()

    known = {word for one in SCHEMAS.values() for word in rules(one)}
    broken = set()
    for name, texts in (
        ("study", [text for text, _ in AGAINST_THE_SCHEMA.values()] + [text for text, _ in CONTRADICTIONS.values()]),
        ("config", [yaml.safe_dump(config) for config, _ in CONFIGS.values()]),
    ):
        validator = schema._Validator(SCHEMAS[name])
        for text in texts:
            try:
                broken |= {error.validator for error in validator.iter_errors(yaml.safe_load(text))}
            except yaml.YAMLError:
                continue
    assert known & set(schema._Validator.VALIDATORS) - broken == {"$ref", "properties", "items", "propertyNames"}


def test_a_long_value_is_cut_short(tmp_path):
    said = refusal(tmp_path, in_a(f"horizon: {'x' * 5000}"))
    assert "xxx…" in said
    assert len(said) < 500


@pytest.mark.parametrize("text", ["defaults: &d {horizon: 5000}\nexperiments: {a: *d}", "\ufeffexperiments: {a: {}}"])
def test_an_alias_and_a_byte_order_mark_are_read(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    assert Plan({"study": str(path), "results": str(tmp_path / "results")}, ROOT).packs


def test_segments_of_a_length_that_is_given_are_refused_where_they_are_too_many_and_by_default_there_are_few(tmp_path):
    text = in_a("horizon: 1e15, snapshots: {every: 1e12}")
    said = refusal(tmp_path, text, segment_sequences=640_000)
    for expected in ("`horizon` 1,000,000,000,000,000", "segments of 640,000 sequences", "raise `segment_sequences`"):
        assert expected in said
    by_default = Plan({"study": str(tmp_path / "mine.yaml"), "results": str(tmp_path / "results")}, ROOT)
    assert all(len(pack.boundaries) - 1 <= 24 for pack in by_default.packs.values())


def test_as_many_lanes_and_segments_as_are_allowed_are_accepted_and_one_more_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(load, "MOST_LANES", 6)
    six, seven = (in_a(f"axes: {{model.depth: [1, 2]}}, seeds: {seeds}") for seeds in ([1, 2, 3], [1, 2, 3, 4]))
    (tmp_path / "six.yaml").write_text(six)
    lanes = Plan({"study": str(tmp_path / "six.yaml"), "results": str(tmp_path)}, ROOT).study.experiments["a"].lanes()
    assert len(lanes) == 6
    assert "asks for 8 lanes" in refusal(tmp_path, seven)
    monkeypatch.undo()
    sequences = 32 * MOST_SEGMENTS
    for horizon, fits in ((sequences, True), (sequences + 1, False)):
        (tmp_path / "mine.yaml").write_text(in_a(f"horizon: {horizon}, seeds: [0]"))
        config = {"study": str(tmp_path / "mine.yaml"), "results": str(tmp_path), "segment_sequences": 20}
        if fits:
            (pack,) = Plan(config, ROOT).packs.values()
            assert len(pack.boundaries) == MOST_SEGMENTS + 1
        else:
            with pytest.raises(StudyError, match="takes 100,001 jobs"):
                Plan(config, ROOT)


def test_a_pack_of_more_lanes_than_a_command_line_holds_is_refused(tmp_path):
    axes = f"{{optimizer.learning_rate: {[n / 1000 for n in range(1, 301)]}}}"
    text = in_a(f"seeds: [0], axes: {axes}")
    said = refusal(tmp_path, text, packing="shape", lanes_per_pack=1000)
    assert re.search("`lanes_per_pack` is 1000: the 300 lanes of a pack take [0-9,]+ characters .*: lower it", said)
    path, results = str(tmp_path / "mine.yaml"), str(tmp_path / "results")
    assert len(Plan({"study": path, "results": results, "packing": "shape", "lanes_per_pack": 100}, ROOT).packs) == 3


# The configuration of how to execute.

CONFIGS = {
    "an unknown key": ({"studdy": "laptop"}, ["config: unknown key `studdy`", "did you mean `study`?"]),
    "an unknown study": (
        {"study": "laptp"},
        ["`study` is 'laptp'", "did you mean `laptop`?", "there are atlas, circuits, claims"],
    ),
    "a study without a name": ({"study": ""}, ["`study` is '', expected a text that is not empty"]),
    "a study by a way out": ({"study": "../studies/laptop"}, ["`study` is '../studies/laptop', which is not in"]),
    "a study that is not there": ({"study": "nowhere/mine.yaml"}, ["nowhere/mine.yaml: cannot be read (No such file"]),
    "a study that is a number": ({"study": 3}, ["`study` is 3, expected a text"]),
    "a study too long for a file's name": ({"study": "x" * 300}, ["which is not in"]),
    "a study with braces": ({"study": "{wildcards}.yaml"}, ["`study` is '{wildcards}.yaml'", "no braces"]),
    "a study that is two points": ({"study": "...yaml"}, ["`study` is '...yaml'", "rename the file"]),
    "results nowhere": ({"results": ""}, ["`results`: '' does not match"]),
    "results with braces": ({"results": "{x}"}, ["`results`: '{x}' does not match ^[^{}-][^{}]*$"]),
    "results like an option": ({"results": "-rf"}, ["`results`: '-rf' does not match"]),
    "results of two lines": ({"results": "a\0b"}, ["`results` holds '\\x00' at place 1"]),
    "a folder that is a list": ({"omniglot": []}, ["`omniglot` is [], expected a text or null"]),
    "no memory": ({"memory": 0}, ["`memory` is 0, expected at least 1", "MB that a job may take"]),
    "too little memory": ({"memory": 1}, ["but a job may take 1 MB"]),
    "memory in words": ({"memory": "2GB"}, ["`memory` is '2GB', expected integer or null"]),
    "an unknown device": ({"device": "gpu"}, ["`device`: 'gpu' does not match ^(cpu|cuda(:[0-9]+)?)$"]),
    "a device of two lines": ({"device": "cpu\n"}, ["`device`: 'cpu\\n' does not match"]),
    "an unknown engine": ({"engine": "natve"}, ["`engine` is 'natve'", "did you mean `native`?"]),
    "an unknown packing": ({"packing": "runs"}, ["`packing` is 'runs'", "did you mean `run`?"]),
    "packs without lanes": ({"lanes_per_pack": 0}, ["`lanes_per_pack` is 0, expected at least 1"]),
    "lanes that are true": ({"lanes_per_pack": True}, ["`lanes_per_pack` is true, expected integer"]),
    "lanes in quotes": ({"lanes_per_pack": "8"}, ["`lanes_per_pack` is '8', expected integer", "without quotes"]),
    "segments of nothing": ({"segment_sequences": 0}, ["`segment_sequences` is 0, expected at least 1"]),
    "segments too short": (
        {"segment_sequences": 1, "lanes_per_pack": 1},
        ["in segments of 32 sequences takes", "raise `segment_sequences`"],
    ),
    "endless segments": ({"segment_sequences": float("inf")}, ["`segment_sequences` is inf, expected a finite number"]),
    "an empty export": ({"export_sequences": -5}, ["`export_sequences` is -5, expected at least 1"]),
    "native on a GPU": (
        {"engine": "native", "device": "cuda"},
        ["engine: native is for device cpu, got device 'cuda'"],
    ),
    "graph on a CPU": (
        {"engine": "graph"},
        ["engine: graph is for device cuda, got device 'cpu': choose auto or eager"],
    ),
}


@pytest.mark.parametrize(("config", "expected"), CONFIGS.values(), ids=CONFIGS)
def test_a_bad_config_is_refused_with_its_key_its_value_and_what_to_do(tmp_path, config, expected):
    with pytest.raises(StudyError) as error:
        Plan({"study": "laptop", "results": str(tmp_path / "results")} | config, ROOT)
    for fragment in expected:
        assert fragment in str(error.value)


ENGINES = {
    "native in float64": ("numerics: float64", {"engine": "native"}, ["native does not compute in float64"]),
    "graph with noise": (
        "recipe: {input_noise: 0.1}",
        {"engine": "graph", "device": "cuda"},
        ["engine: graph draws no input noise", "(a: baseline)"],
    ),
}


@pytest.mark.parametrize(("settings", "config", "expected"), ENGINES.values(), ids=ENGINES)
def test_an_engine_that_cannot_compute_a_run_is_refused(tmp_path, settings, config, expected):
    said = refusal(tmp_path, in_a(settings), **config)
    for fragment in expected:
        assert fragment in said


@pytest.mark.parametrize("source", ["omniglot", "images", "tokens", "imported"])
def test_a_source_folder_that_is_none_is_refused(tmp_path, source):
    said = refusal(
        tmp_path, in_a(f"bank: {{source: {source}, imported: {{scale: raw}}}}"), **{source: str(tmp_path / "gone")}
    )
    assert f"{tmp_path / 'gone'}, named in ICL_{source.upper()} or as `{source}:` in config.yaml, is no folder" in said


def test_every_rule_of_the_workflow_is_no_name_of_an_experiment():
    text = "".join(path.read_text() for path in [ROOT / "workflow/Snakefile", *(ROOT / "workflow/rules").glob("*.smk")])
    rules = {line.split()[1].rstrip(":") for line in text.splitlines() if line.startswith("rule ")}
    assert {"all", "bank", "train", "tables"} < rules <= set(load.RESERVED_NAMES)


# The same through Snakemake.


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Clone:
    return Clone.make(tmp_path_factory.mktemp("bad") / "clone")


def dry_run(clone: Clone, text: str | bytes, *config: str) -> str:
    clone.study.write_bytes(text if isinstance(text, bytes) else text.encode())
    done = clone.snakemake("-n", config=config)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "Traceback" not in said
    assert not (clone.folder / "results").exists()
    return said


@pytest.mark.parametrize(
    "case",
    [
        "YAML: bytes",
        "YAML: a merge key",
        "value: NaN",
        "schema: unknown top level",
        "together: heads that do not divide",
        "size: runs",
    ],
)
def test_snakemake_says_what_is_wrong_and_leaves_nothing_behind(clone, case):
    text, expected = REFUSED[case]
    said = dry_run(clone, text)
    for fragment in expected:
        assert fragment in said


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("lanes_per_pack=0", "`lanes_per_pack` is 0, expected at least 1"),
        ("study=laptp", "did you mean `laptop`?"),
        ("device=gpu", "`device`: 'gpu' does not match"),
    ],
)
def test_a_bad_setting_on_the_command_line_is_refused_likewise(clone, setting, expected):
    assert expected in dry_run(clone, TINY, setting)
