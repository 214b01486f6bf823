"""Sphinx configuration. `make docs` builds the site, executes the tutorials and treats warnings as errors.

The source folder of Sphinx is the root of the repository and not docs/, so that links from these pages to README.md,
CONTRIBUTING.md or benchmarks/RESULTS.md are ordinary links: they work on GitHub and lead to pages of the site.
"""

import os
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # the pages are the same on every machine
ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

project = "bert_jax"
author = copyright = "The bert_jax authors"
release = version = installed_version("bert_jax")

root_doc = "docs/index"
include_patterns = [
    "docs/**.md", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/RESULTS.md",
    "examples/launch/README.md", "examples/engines/README.md",
]  # fmt: skip
exclude_patterns = ["docs/_build", ".venv", ".git", "runs", "build", "dist", "tests", "bert_jax", "**/.pytest_cache"]
extensions = ["myst_nb", "reference_pages", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.intersphinx"]
nitpicky = False
highlight_language = "none"
smartquotes = False
suppress_warnings = [
    "myst.xref_missing",  # links to folders and source files, which tests/test_docs.py checks
    "ref.python",  # attributes of several classes have the same name
]
toc_object_entries = False  # thousands of functions in the navigation of every page

# Markdown and notebooks
myst_enable_extensions = []  # formulas would need MathJax from the network
myst_heading_anchors = 4  # the anchors that GitHub gives to headings
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "docs" / "_build" / "executed")  # by the code cells: a translation runs nothing
nb_execution_timeout = 1200
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_execution_in_temp = True
nb_merge_streams = True
nb_render_markdown_format = "myst"  # tables in outputs
nb_output_stderr = "remove"  # notes of libraries; an error fails the build

# API reference
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
default_role = "literal"

# Inventories of other projects, for links from signatures. The site is built without network too, and then has none.
INVENTORIES = {
    "python": "https://docs.python.org/3",
    "jax": "https://docs.jax.dev/en/latest",
    "flax": "https://flax-linen.readthedocs.io/en/latest",
    "optax": "https://optax.readthedocs.io/en/latest",
    "orbax": "https://orbax.readthedocs.io/en/latest",
    "numpy": "https://numpy.org/doc/stable",
}
intersphinx_mapping = (
    {name: (address, None) for name, address in INVENTORIES.items()} if os.environ.get("DOCS_INVENTORIES") else {}
)
intersphinx_timeout = 5

html_theme = "furo"
html_title = f"bert_jax {release}"
html_copy_source = False
html_show_sourcelink = False
