"""Writes the docstrings of installed packages as a corpus for pretraining: a text in which documents have topics.

A document is a module, with the paragraphs of its docstrings in the order of the source, one per line, and a blank line
behind it. Examples (`>>>`), directives, underlines and repeated or very short paragraphs are left out, and so are
modules with little text. The source is parsed, not imported.

python benchmarks/docstring_corpus.py docstrings.txt --packages numpy scipy
python train.py --corpus docstrings.txt --held-out 0.05 --output RUN
"""

import argparse
import ast
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("flax", "jax", "matplotlib", "numpy", "optax", "pandas", "scipy", "sklearn", "torch", "transformers")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
MARKUP = (">>>", "...", "..", "---", "===", "~~~")
SHORTEST_PARAGRAPH = 8  # words
SHORTEST_DOCUMENT = 1_500  # characters, some ten sentences


def paragraphs(source: str) -> list[str]:
    """Returns the paragraphs of all docstrings of a module's source, each on one line."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, DOCUMENTED)]
    nodes.sort(key=lambda node: getattr(node, "lineno", 0))  # a module has no line number
    found = []
    for node in nodes:
        for block in (ast.get_docstring(node) or "").split("\n\n"):
            lines = (line.strip() for line in block.splitlines())
            found.append(" ".join(line for line in lines if line and not line.startswith(MARKUP)))
    return [paragraph for paragraph in found if len(paragraph.split()) >= SHORTEST_PARAGRAPH]


def documents(folder: Path, seen: set[str]) -> list[str]:
    """Returns one document per module of a package; paragraphs in `seen` are left out, new ones are added to it."""
    found = []
    for file in sorted(folder.rglob("*.py")):
        if "test" in str(file.relative_to(folder)):
            continue
        new = [text for text in dict.fromkeys(paragraphs(file.read_text(encoding="utf-8"))) if text not in seen]
        seen.update(new)
        document = "\n".join(new)
        if len(document) >= SHORTEST_DOCUMENT:
            found.append(document)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="text file to write")
    parser.add_argument("--packages", nargs="+", default=PACKAGES, help="installed packages; default: %(default)s")
    options = parser.parse_args()
    seen: set[str] = set()
    found = []
    for name in options.packages:
        spec = find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            parser.error(f"--packages: {name} is not an installed package")
        found += documents(Path(spec.submodule_search_locations[0]), seen)
    options.output.write_text("\n\n".join(found) + "\n", encoding="utf-8")
    print(f"{options.output}: {len(found):,} documents, {sum(map(len, found)):,} characters")


if __name__ == "__main__":
    main()
