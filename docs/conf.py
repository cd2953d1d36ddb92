"""How the site is built, without a network; CONTRIBUTING.md has the command."""

import re
from pathlib import Path

import numbel

project = "numbel"
author = copyright = "The numbel developers"
version = release = numbel.__version__

extensions = [
    "myst_nb",  # Markdown pages, and notebooks, which the build runs
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "sphinx_design",
]

# Explicit references must lead somewhere. `name` in a docstring is a link where there is such a name, else code.
nitpicky = True
default_role = "py:obj"
nitpick_ignore_regex = [("py:obj", "(?s).*")]

# Pages
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
highlight_language = "default"
copybutton_exclude = ".linenos, .gp, .go"

# Notebooks are kept without results
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True

# API
autodoc_typehints = "none"  # the types stand in the text, and overloads would be listed one by one
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

# Other projects: only the names that pages link to, in Sphinx's plain format; nothing is fetched
intersphinx_mapping = {
    name: (url, str(Path(__file__).parent / "inventories" / f"{name}.inv"))
    for name, url in {
        "numpy": "https://numpy.org/doc/stable/",
        "scipy": "https://docs.scipy.org/doc/scipy/",
        "torch": "https://docs.pytorch.org/docs/stable/",
        "jax": "https://docs.jax.dev/en/latest/",
    }.items()
}

html_theme = "pydata_sphinx_theme"
html_title = f"numbel {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/mark.svg"
html_context = {"default_mode": "auto"}
#: Pages whose tables need the room.
WIDE = ("index", *(f"coming-from/{name}" for name in ("numpy", "torch", "jax", "flashinfer")))
html_theme_options = {
    "logo": {"text": "numbel", "image_light": "_static/mark.svg", "image_dark": "_static/mark.svg", "alt_text": ""},
    "show_toc_level": 2,
    "secondary_sidebar_items": {"**": ["page-toc", "sourcelink"]} | {page: [] for page in WIDE},
    "navigation_with_keys": False,
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def setup(app):
    """Links to a page that lies elsewhere in the repository lead to its copy in the site."""

    def relink(*given):
        source = given[-1]
        source[0] = re.sub(r"\]\((?:\.\./)?benchmarks/README\.md", "](/benchmarks.md", source[0])

    app.connect("source-read", relink)
    app.connect("include-read", relink)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
