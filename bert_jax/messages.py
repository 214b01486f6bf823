"""The wording that messages of all layers share."""


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or its type if there is none; some libraries write pages."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
