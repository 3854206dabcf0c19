"""Reads notebooks as pages: Markdown cells as they are, code cells as blocks of Python.

Outputs are left out; a test runs the code.
"""

from __future__ import annotations

import json
from typing import Any

from sphinx.application import Sphinx


def to_markdown(notebook: dict[str, Any]) -> str:
    """The text of a notebook (nbformat 4) as one Markdown document."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"]).rstrip()
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def _read(app: Sphinx, docname: str, source: list[str]) -> None:
    if app.env.doc2path(docname).suffix == ".ipynb":
        source[0] = to_markdown(json.loads(source[0]))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
