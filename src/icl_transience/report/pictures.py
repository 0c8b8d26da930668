"""Figures on the first page of the report: small, and each leads to the figure itself."""

import base64
import io
import json
from html import escape
from pathlib import Path
from urllib.parse import quote

# Pixels; twice as many as a figure has beside its sentence, for screens that show so many.
WIDTH = 900
_COLOURS = 128
# What Snakemake's report calls a view of a file.
_VIEWS = {".svg": "img", ".png": "img", ".pdf": "pdf"}


def picture(files: list[Path], category: str, name: str) -> str:
    """Return a small picture as HTML, which opens the figure in Snakemake's report.

    files: the figure, first the one that the report shows. Empty where there is no PNG and no SVG of it.
    """
    of_kind = {path.suffix: path for path in files}
    if ".png" in of_kind:
        source = f"data:image/png;base64,{base64.b64encode(small(of_kind['.png'])).decode()}"
    elif ".svg" in of_kind:
        source = f"data:image/svg+xml;base64,{base64.b64encode(of_kind['.svg'].read_bytes()).decode()}"
    else:
        return ""
    link = escape(opens(files[0], category))
    return f'<a class="picture" href="{link}"><img alt="{escape(name)}: open the figure" src="{source}"></a>'


def opens(shown: Path, category: str) -> str:
    """Return the address that opens a file of the report, with its caption; category: the one that it is listed in."""
    path, listed, view = json.dumps(str(shown)), json.dumps(category), _VIEWS[shown.suffix]
    where = f"navbarMode: 'resultinfo', category: {listed}, subcategory: Object.keys(categories[{listed}])[0]"
    what = f"resultPath: {path}, content: '{view}', contentPath: results[{path}].data_uri"
    # An address is decoded before it is run.
    return "javascript:" + quote(f"void app.setView({{{where}, {what}}})")


def small(path: Path) -> bytes:
    """Return a PNG at most WIDTH pixels wide, in few colours."""
    # Here and not above: the Snakefile imports the captions, and parsing need not wait for it.
    from PIL import Image

    with Image.open(path) as image:
        flat = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
    flat.thumbnail((WIDTH, 100 * WIDTH), Image.Resampling.LANCZOS)
    target = io.BytesIO()
    # Median cut, which is the default, gives thin lines the colours of others.
    flat.quantize(_COLOURS, Image.Quantize.MAXCOVERAGE).save(target, "PNG", optimize=True)
    return target.getvalue()
