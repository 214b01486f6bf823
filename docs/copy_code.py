"""Copies the code cells of the tutorials into their translations, whose own text stays.

The English page is the source of the code. Usage: python docs/copy_code.py
"""

import re
from pathlib import Path

DOCS = Path(__file__).parent
CELL = re.compile(r"^```\{code-cell\}.*?^```$", re.MULTILINE | re.DOTALL)


def with_code_of(source: str, translation: str) -> str:
    """Returns the translation with the code cells of its source, in order.

    Raises:
        ValueError: the two have different numbers of cells.
    """
    code = CELL.findall(source)
    texts = CELL.split(translation)
    if len(texts) != len(code) + 1:
        raise ValueError(f"the source has {len(code)} code cells, the translation {len(texts) - 1}")
    return "".join(part for pair in zip(texts, [*code, ""], strict=True) for part in pair)


def main() -> None:
    for translation in sorted(DOCS.glob("id/tutorials/*.md")):
        source = (DOCS / "tutorials" / translation.name).read_text(encoding="utf-8")
        try:
            text = with_code_of(source, translation.read_text(encoding="utf-8"))
        except ValueError as error:
            raise SystemExit(f"{translation}: {error}") from None
        translation.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
