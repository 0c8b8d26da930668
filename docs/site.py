"""Hooks of MkDocs: the site has pages that do not stand in docs/, and their links are right there, too.

The README is its first page; CONTRIBUTING.md and other pages of the repository have places of their own; notebooks are
pages; and a source file or folder that a page links to is a page that shows it. So every link stays within the site,
works without a network, and is checked by `mkdocs build --strict`. Links are written as GitHub reads them.
"""

import functools
import json
import os
import re
from pathlib import Path
from urllib.parse import unquote

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
# Pages of the repository, and where they stand in the site.
PLACES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "results/README.md": "results-folder.md",
    "config/README.md": "config-folder.md",
    "benchmarks/NOTES.md": "performance-notes.md",
}
# Pages whose tables need the room of the table of contents.
WIDE = ("docs/performance.md", "docs/reference.md")
# What a highlighter calls files with these endings.
LANGUAGES = {
    ".py": "python",
    ".smk": "python",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".sh": "bash",
    ".json": "json",
    ".cpp": "cpp",
}
_FENCE = re.compile(r"^( *)(```+).*?^\1\2 *$", re.MULTILINE | re.DOTALL)
_FLOWCHART = re.compile(r"^( *)(```)mermaid\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(\]\()([^()\s]+)(\))")


def github_anchor(heading: str, separator: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", separator)


def place(path: str) -> str:
    """Return where a file or folder of the repository stands in the site."""
    if path in PLACES:
        return PLACES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/").removesuffix(".ipynb") + (".md" if path.endswith(".ipynb") else "")
    return f"source/{path}.md"


def outside_code(text: str, change) -> str:
    """Return Markdown with `change` done to what stands outside of fenced code."""
    parts, end = [], 0
    for fence in _FENCE.finditer(text):
        parts += [change(text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(text[end:])])


def targets(page: str, text: str) -> list[str]:
    """Return what a page links to in the repository, as paths from its top folder."""
    found: list[str] = []

    def look(part: str) -> str:
        for _, link, _ in _LINK.findall(part):
            path = unquote(link.split("#")[0])
            if path and not re.match(r"[a-z]+:", link):
                found.append(os.path.normpath(os.path.join(os.path.dirname(page), path)))
        return part

    outside_code(text, look)
    return found


def moved(page: str, text: str) -> str:
    """Return a page's text with its links as they are from its place in the site."""
    folder = os.path.dirname(place(page))

    def link(match: re.Match) -> str:
        path, _, anchor = match[2].partition("#")
        if not path or re.match(r"[a-z]+:", match[2]):
            return match[0]
        target = place(os.path.normpath(os.path.join(os.path.dirname(page), unquote(path))))
        return match[1] + os.path.relpath(target, folder or ".") + (f"#{anchor}" if anchor else "") + match[3]

    return outside_code(text, lambda part: _LINK.sub(link, part))


def fenced(text: str, language: str = "") -> str:
    """Return text as a block of code, whatever fences stand in it."""
    fence = "`" * (3 + max((len(ticks) - 2 for ticks in re.findall("`{3,}", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}\n"


def flowchart_table(match: re.Match) -> str:
    """Return the picture of the rooms, which GitHub draws by itself, as a table: no program here draws it."""
    names = dict(re.findall(r"^ +(\w+)\[\"(.*?)\"\]$", match[3], re.MULTILINE))
    imports = dict(re.findall(r"^ +(\w+) --> (.+)$", match[3], re.MULTILINE))
    rows = ["| floor | room | imports |", "|---|---|---|"]
    for floor, rooms in re.findall(r"subgraph \w+ \[(.*?)\]\n(.*?)\n +end$", match[3], re.MULTILINE | re.DOTALL):
        for room in re.findall(r"^ +(\w+)", rooms, re.MULTILINE):
            targets = imports.get(room, "").split(" & ")
            listed = ", ".join(f"`{names.get(target, target)}`" for target in targets if target)
            rows.append(f"| {floor} | `{names.get(room, room)}` | {listed} |")
    return "\n".join(rows)


def source_page(path: Path) -> str:
    """Return the page that shows a source file, or lists a folder."""
    name = path.relative_to(ROOT).as_posix()
    head = f"---\nsearch: {{exclude: true}}\nhide: [navigation]\n---\n# `{name}`\n\n"
    if path.is_dir():
        return head + fenced("\n".join(sorted(child.name + "/" * child.is_dir() for child in shown(path))))
    return head + fenced(
        path.read_text(encoding="utf-8"), LANGUAGES.get(path.suffix, "python" if path.name == "Snakefile" else "text")
    )


def shown(folder: Path) -> list[Path]:
    """Return what a folder holds, without what programs leave there."""
    return [child for child in folder.iterdir() if not child.name.startswith((".", "__pycache__"))]


def notebook_page(path: Path) -> str:
    """Return a notebook as Markdown, with the outputs that are committed."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else fenced(text, "python"))
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                parts.append(f"![output of the cell above](data:image/png;base64,{''.join(data['image/png']).strip()})")
            elif said := output.get("text") or data.get("text/plain"):
                parts.append(fenced("".join(said), "text"))
    return "\n\n".join(parts) + "\n"


@functools.cache
def pages() -> dict[str, str]:
    """Return the texts of the site's pages by what each is made from; links are as they are in the repository."""
    written = [*PLACES, *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("*.md")))]
    texts = {page: (ROOT / page).read_text(encoding="utf-8") for page in written}
    for path in sorted((ROOT / "docs/notebooks").glob("*.ipynb")):
        texts[path.relative_to(ROOT).as_posix()] = notebook_page(path)
    for target in sorted({target for page, text in texts.items() for target in targets(page, text)}):
        # A file that is not there is left to MkDocs, which says who links to it.
        if place(target).startswith("source/") and (ROOT / target).exists():
            texts[target] = source_page(ROOT / target)
    return texts


def on_config(config):
    """Give headings the anchors of GitHub."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = github_anchor
    return config


def on_files(files: Files, config) -> Files:
    """Put every page of `pages` in its place."""
    for page, text in pages().items():
        content = text if place(page).startswith("source/") else _FLOWCHART.sub(flowchart_table, moved(page, text))
        if page in WIDE:
            content = f"---\nhide: [toc]\n---\n{content}"
        if existing := files.get_file_from_path(place(page)):
            files.remove(existing)
        files.append(File.generated(config, place(page), content=content))
    return files
