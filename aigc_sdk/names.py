"""Names as people compare them: one Unicode form, and which of them look alike.

A file system or a keyboard may write "é" as one character or as two, so labels, choices and what is asked for are
brought to the form NFC before they are compared.
"""

from collections.abc import Iterable


def composed(name: str) -> str:
    """Return a name in the Unicode form NFC, in which an accent is part of its letter.

    Example:
        >>> len("cafe" + chr(0x301)), len(composed("cafe" + chr(0x301)))
        (5, 4)
    """
    if name.isascii():
        return name
    import unicodedata  # importing the SDK has to be quick

    return unicodedata.normalize("NFC", name)


def folded(name: str) -> str:
    """Return what is left of a name without capitals, invisible characters, and blanks but one between words.

    Example:
        >>> folded(" Great" + chr(0xA0) + " Owl ")
        'great owl'
    """
    import unicodedata

    visible = "".join(" " if each.isspace() else each for each in name if unicodedata.category(each) != "Cf")
    return composed(" ".join(visible.split()).casefold())


def look_alike(names: Iterable[str]) -> list[list[str]]:
    """Return groups of names that differ in blanks, capitals or invisible characters alone.

    Example:
        >>> look_alike(["cat", "dog", "Cat", "dog "])
        [['cat', 'Cat'], ['dog', 'dog ']]
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(folded(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]
