"""The pages that are made from the keys' declarations: the schemas that editors read, and docs/reference.md."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from icl_transience.specs.theory import MINIMAL_MODEL
from icl_transience.study.json_schema import base_schema, config_schema, study_schema

_COMMAND = "python -m icl_transience keys"
_BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "multipleOf": "a multiple of {}",
    "minItems": "≥ {} item(s)",
    "minProperties": "≥ {} entry",
    "minLength": "≥ {} character(s)",
    "maxLength": "≤ {} characters",
    "pattern": "`{}`",
}
_INTRODUCTION = f"""# Every key

Made by `{_COMMAND}` from the declarations in `src/icl_transience/specs/`; do not edit it here.
[Adding a key](adding-a-key.md) says how a key is declared.

A study is a file in `workflow/studies/`, and says which runs there are; `config.yaml` says how they are computed. A key
that is left out has its default. A dotted name is a key in a section: `optimizer.l2.strength` is written as

```yaml
optimizer:
  l2:
    strength: 1e-5
```

What several studies have in common stands in a base, a file in `workflow/studies/bases/` with `description`, `extends`
and `defaults`. A study that says `extends: omniglot` has its defaults beneath its own; a base may extend another one.
"""
_Section = tuple[str, Mapping[str, Any]]


class _Dumper(yaml.SafeDumper):
    """Writes out what stands in several places, instead of anchors and aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def pages() -> dict[str, str]:
    """Return what is generated: path from the root of the repository -> text."""
    return {
        "workflow/schemas/study.schema.yaml": _schema_page(study_schema()),
        "workflow/schemas/base.schema.yaml": _schema_page(base_schema()),
        "workflow/schemas/config.schema.yaml": _schema_page(config_schema()),
        "docs/reference.md": reference(),
    }


def _schema_page(schema: Mapping[str, Any]) -> str:
    """Return a schema as YAML."""
    text = yaml.dump(schema, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
    return f"# Made by `{_COMMAND}` from src/icl_transience/specs/, for editors to complete keys by.\n{text}"


def reference() -> str:
    """Return the reference page: a table of keys for each section of a study, and for config.yaml."""
    study, config = study_schema(), config_schema()
    definitions = study["$defs"]
    experiment, settings = definitions["experiment"], definitions["settings"]["properties"]
    own = {name: part for name, part in experiment["properties"].items() if name not in settings}
    of_settings = {name: definitions[name] for name in settings}
    lines = [_INTRODUCTION]
    lines += _table("A study", "", study)
    lines += _table("`experiments.NAME`", "Besides these keys, all that `defaults` can say", {"properties": own})
    lines += _tables({f"experiments.NAME.{name}": part for name, part in own.items()})
    lines += _tables({MINIMAL_MODEL: study["properties"][MINIMAL_MODEL]})
    lines += _table("`defaults`", "Sections, and keys beside them", {"properties": of_settings})
    lines += _tables(of_settings)
    lines += _table("`config.yaml`", "", config)
    return "\n".join(lines).rstrip("\n") + "\n"


def _tables(parts: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a table for each section in these parts of a schema."""
    for name, part in parts.items():
        for path, section in _sections(name, part):
            yield from _table(f"`{path}`", section.get("description", ""), section)


def _sections(path: str, schema: Mapping[str, Any]) -> Iterator[_Section]:
    """Yield a section and those in it, each with its dotted path; NAME stands for a name of the study's own."""
    named = schema.get("additionalProperties")
    if "properties" in schema:
        yield path, schema
        for name, part in schema["properties"].items():
            yield from _sections(f"{path}.{name}", part)
    elif isinstance(named, Mapping) and "properties" in named:
        yield from _sections(f"{path}.NAME", named)
    items = schema.get("items", {})
    if "properties" in items:
        yield f"{path}[]", items
    for option in items.get("oneOf", ()):
        yield from _sections(f"{path}[]", option)


def _table(title: str, meaning: str, section: Mapping[str, Any]) -> list[str]:
    head = ["| key | type | default | bounds | unit | meaning |", "|---|---|---|---|---|---|"]
    required = section.get("required", ())
    rows = [_row(name, part, name in required) for name, part in section["properties"].items()]
    said = [meaning[0].upper() + meaning[1:] + ".", ""] if meaning else []
    return [f"## {title}", "", *said, *head, *rows, ""]


def _row(name: str, part: Mapping[str, Any], required: bool) -> str:
    bounds = [text.format(part[word]) for word, text in _BOUNDS.items() if word in part]
    bounds += ["each once"] if part.get("uniqueItems") else []
    inner = part.get("items", {})
    bounds += [f"each {text.format(inner[word])}" for word, text in _BOUNDS.items() if word in inner]
    if choices := part.get("enum", inner.get("enum")):
        bounds.append(", ".join(f"`{choice}`" for choice in choices))
    bounds += [f"names: `{names['pattern']}`"] if (names := part.get("propertyNames")) else []
    default = "required" if required else f"`{_shown(part['default'])}`" if "default" in part else ""
    cells = [f"`{name}`", _kind(part), default, ", ".join(bounds), part.get("unit", ""), part.get("description", "")]
    return "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in cells) + " |"


def _kind(part: Mapping[str, Any]) -> str:
    """Return the type of a key's values in words."""
    if "$ref" in part or "properties" in part:
        return "section"
    if "oneOf" in part:
        return " or ".join(map(_kind, part["oneOf"]))
    if "enum" in part:
        return "choice"
    holds = part.get("additionalProperties", {})
    named = "sections by name" if "properties" in holds or "$ref" in holds else "values by name"
    words = {"object": named, "array": "list", "string": "text", "boolean": "true or false"}
    kinds = part.get("type", "any value")
    kind = " or ".join(words.get(one, one) for one in ([kinds] if isinstance(kinds, str) else kinds))
    items = part.get("items")
    return f"list of: {_kind(items)}" if items else kind


def _shown(value: Any) -> str:
    """Return a default as it is written in YAML."""
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).removesuffix("...\n").strip()
    )
