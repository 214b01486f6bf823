"""The wording that messages of all layers share."""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Returns a number with its noun: `1 row`, `2,000 rows`; `plural` unless that is the noun with an s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or its type if there is none; some libraries write pages."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
