"""Words out of file names: `dogBark-03.ogg` says "dog bark"."""

import re

# Between a small and a capital letter, between letters and digits.
CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Za-z])(?=\d)|(?<=[A-Z])(?=[A-Z][a-z])")


def words_of(stem: str) -> str:
    """Return the words in a file's stem, lower case, without numbers and single letters."""
    parts = re.split(r"[\W_]+", CAMEL.sub(" ", stem))
    return " ".join(part.lower() for part in parts if len(part) > 1 and not part.isdigit())
