"""How the documentation is built: sh scripts/docs.sh."""

from importlib.metadata import version as version_of

project = "napari-segany"
author = "The napari-segany developers"
release = version = version_of("napari-segany")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_rtype = False
html_theme = "furo"
html_title = "napari-segany"
html_copy_source = False
