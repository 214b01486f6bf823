"""A Sphinx extension: the pages of the API reference, from the package and its docstrings.

A line `<!-- modules: bert_jax.text tokenizer vocabulary -->` becomes the reference of a package's modules: those that
it names, in this order, then all others. `<!-- modules: * -->` stands for the packages that no page names, so that the
reference is complete.
"""

import pkgutil
import re
from pathlib import Path

import bert_jax

MARK = re.compile(r"<!-- modules: (\S+) ?(.*?) ?-->")
LEFT_OUT = ("bert_jax.cli",)  # its interface is the command line
SECTION = re.compile(r"(Args|Returns|Raises|Attributes|Yields):")


def packages() -> dict[str, list[str]]:
    """Returns the names of the public modules of each package, sorted."""
    found: dict[str, list[str]] = {"bert_jax": []}
    for module in pkgutil.walk_packages(bert_jax.__path__, "bert_jax."):
        package, _, name = module.name.rpartition(".")
        if module.name.startswith(LEFT_OUT) or name.startswith("_"):
            continue
        if module.ispkg:
            found[module.name] = []
        else:
            found[package].append(name)
    return found


def named_packages(folder: Path) -> dict[str, list[str]]:
    """Returns the packages that the pages of a folder name, each with the modules that it names first."""
    texts = [page.read_text(encoding="utf-8") for page in folder.glob("*.md")]
    return {package: first.split() for text in texts for package, first in MARK.findall(text)}


def expand_modules(app, docname: str, source: list[str]) -> None:
    """Replaces the marks of a page."""
    if not docname.startswith("docs/api/"):
        return
    known = packages()
    named = named_packages(Path(app.srcdir) / "docs" / "api")

    def reference(mark: re.Match) -> str:
        package, first = mark[1], mark[2].split()
        if package == "*":
            return "\n".join(_section(one, name) for one in known if one not in named for name in known[one])
        if missing := set(first) - set(known[package]):
            raise ValueError(f"{docname}: {package} has no module {', '.join(sorted(missing))}")
        # Loose modules of the package itself, such as bert_jax.config, are named on several pages or on none.
        others = [] if package == "bert_jax" else sorted(set(known[package]) - set(first))
        return "\n".join(_section(package, name) for name in [*first, *others])

    source[0] = MARK.sub(reference, source[0])


def _section(package: str, name: str) -> str:
    return f"## {package}.{name}\n\n```{{eval-rst}}\n.. automodule:: {package}.{name}\n   :members:\n```\n"


def as_restructured_text(app, what, name, obj, options, lines: list[str]) -> None:
    """Turns a docstring, which is plain text with `code` in backticks, into reStructuredText.

    Stars, bars and underscores are characters, and an indented block is a figure or an equation. The sections
    (Args, Returns, ...) stay as they are, for napoleon.
    """
    in_section = False
    in_figure = False
    converted = [""] if what == "attribute" else []  # napoleon takes the text before a first colon for a type
    for line in lines:
        if line and not line.startswith(" "):
            converted += [""] * in_figure
            in_section = bool(SECTION.fullmatch(line))
            in_figure = False
        elif line.startswith("    ") and not in_section and not in_figure:
            in_figure = True
            converted += ["", "::", ""]
        converted.append(line if in_figure or line.startswith((">>>", "...")) else _escaped(line))
    lines[:] = converted


def _escaped(line: str) -> str:
    """Escapes what reStructuredText would read as markup, outside of `code`, which gets its two backticks."""
    parts = re.split(r"(`[^`]+`)", line)
    return "".join(
        f"`{part}`" if part.startswith("`") else re.sub(r"([*|\\]|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts
    )


def setup(app) -> dict[str, bool]:
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("source-read", expand_modules)
    app.connect("autodoc-process-docstring", as_restructured_text, priority=400)  # before napoleon
    return {"parallel_read_safe": True}
