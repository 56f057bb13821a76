"""How is a transcript written the way training wants it?

Invariant: pure functions; what is no letter, digit, mark or apostrophe separates words.
"""

import unicodedata
from typing import Final, Literal

__all__ = ["LetterCase", "letter_case_of", "normalise"]

LetterCase = Literal["none", "upper", "lower"]

# Also typographers' apostrophes; inside a word only, where they belong to it.
_APOSTROPHES: Final = str.maketrans({"\u2019": "'", "\u02bc": "'", "\uff07": "'"})


def normalise(text: str, letter_case: LetterCase) -> str:
    """A transcript in one form of Unicode (NFC) with single blanks; and more, if asked for.

    Args:
        text: a transcript.
        letter_case: none changes no character; upper and lower also turn everything that is no
            letter, digit or apostrophe inside a word into a blank.

    Example:
        >>> normalise("“It’s  7—o'clock,” he said.", "upper")
        "IT'S 7 O'CLOCK HE SAID"
        >>> normalise("Grüß  dich!", "none")
        'Grüß dich!'
    """
    text = unicodedata.normalize("NFC", text)
    if letter_case == "none":
        return " ".join(text.split())
    text = text.translate(_APOSTROPHES)
    text = text.upper() if letter_case == "upper" else text.lower()
    kept = "".join(c if _is_spoken(c) else " " for c in text)
    words = (word.strip("'") for word in kept.split())
    return " ".join(word for word in words if word)


def letter_case_of(text: str) -> LetterCase:
    """The letter case whose `normalise` changes no character of a text; "none" if in doubt.

    Of all tokens of a vocabulary it tells how the transcripts were written.

    Example:
        >>> letter_case_of("GOOD MORNING"), letter_case_of("good"), letter_case_of("Good, 7")
        ('upper', 'lower', 'none')
    """
    is_clean = all(_is_spoken(character) or character.isspace() for character in text)
    if not is_clean or text.upper() == text.lower():
        return "none"
    if text == text.upper():
        return "upper"
    return "lower" if text == text.lower() else "none"


def _is_spoken(character: str) -> bool:
    # L: letters, M: marks that belong to letters, N: digits.
    return character == "'" or unicodedata.category(character)[0] in "LMN"
