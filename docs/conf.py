"""Sphinx configuration: MyST pages, executed at build; a page that fails fails the build."""

import os
import sys
from pathlib import Path

import sphinx_autosummary_accessors

import xsmall

sys.path.insert(0, str(Path(__file__).parent))
from examples_to_pages import write_pages

write_pages()

os.environ["DASK_XSMALL__PROGRESS"] = "False"  # no bars in pages

project = "xsmall"
copyright = "2026, the xsmall developers"
author = "the xsmall developers"
release = xsmall.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_autosummary_accessors",
]

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 400  # a cell; the machine may be busy
nb_merge_streams = True
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]  # pictures, not tools
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "description"
autodoc_typehints_format = "short"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_param = True

templates_path = [sphinx_autosummary_accessors.templates_path]
exclude_patterns = ["gallery/thumbnails.md", "_build", "jupyter_execute", "**.ipynb_checkpoints"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["gallery.css"]
html_title = "xsmall"
html_show_sourcelink = False


def offer_notebook(_, docname, source):
    """End each page that is executed with the notebook that it is."""
    if "file_format: mystnb" in source[0][:100]:
        source[0] += f"\n\n{{nb-download}}`Download this page as a notebook <{docname.split('/')[-1]}.ipynb>`\n"


def mix_pages(_app, _env, docnames):
    """Deal out the pages: Sphinx gives each process a row of neighbours, and those of one folder take longest."""
    docnames[:] = [name for first in range(8) for name in docnames[first::8]]


def setup(app):
    """Tell Sphinx."""
    app.connect("env-before-read-docs", mix_pages)
    app.connect("source-read", offer_notebook)
    app.connect("viewcode-follow-imported", lambda _app, _module, name: xsmall._PUBLIC.get(name))  # behind its door
