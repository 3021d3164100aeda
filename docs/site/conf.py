"""Sphinx's settings for the documentation site; the pages are written by build.py beside it."""

from pygments.lexers import PythonLexer
from sphinx.application import Sphinx

import ringtape

project = "ringtape"
author = "the ringtape authors"
copyright = "the ringtape authors, Apache 2.0"  # noqa: A001 - Sphinx's name for it
version = release = ringtape.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
autodoc_typehints = "none"  # numpydoc's sections say them; signatures with polars' types fill a screen
autodoc_member_order = "bysource"
nitpicky = False
suppress_warnings = ["myst.header"]  # tables.md begins its sections where its contents end

html_theme = "furo"
html_title = f"ringtape {release}"
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {"top_of_page_buttons": []}
pygments_style = "default"
# Whoever opens the site asks nobody else for anything: tests/test_site.py opens it and looks.
html_js_files: list[str] = []


def setup(app: Sphinx) -> None:
    """Let a code block say that it needs Spark, so that the test of docs/handover.md leaves it out, and still be coloured as Python."""
    app.add_lexer("pyspark", PythonLexer)
