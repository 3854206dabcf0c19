"""Sphinx settings: `make docs`. Nothing is downloaded while the documentation is built."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
for folder in (ROOT / "docs" / "_ext", ROOT / "workers", ROOT / "services", ROOT):
    sys.path.insert(0, str(folder))

from inn_automl import __version__  # noqa: E402 - only now it is on the path

project = "inn_automl"
author = "The inn_automl authors"
project_copyright = "2026, The inn_automl authors"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "generated",
    "notebook",
]
source_suffix = {".md": "markdown", ".ipynb": "markdown"}
exclude_patterns = ["_ext"]
html_theme = "furo"
html_title = f"inn_automl {release}"
html_static_path: list[str] = []

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
suppress_warnings = [
    "myst.header",  # generated pages begin below their own title
]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
add_module_names = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Other arguments", "params_style")]
