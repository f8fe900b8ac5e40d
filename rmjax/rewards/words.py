"""Words of a text in any script."""

import regex

# Scripts without spaces between words: each letter with its marks is taken for a word.
_SPACELESS = r"[\p{scx=Han}\p{scx=Hira}\p{scx=Kana}\p{scx=Thai}\p{scx=Lao}\p{scx=Khmr}\p{scx=Mymr}\p{scx=Tibt}]"
_CHARACTER = rf"[{_SPACELESS}&&\p{{L}}]"
_LETTER = rf"[[\p{{L}}\p{{M}}\p{{N}}_]--{_CHARACTER}]"
_WORD = regex.compile(
    rf"{_CHARACTER}\p{{M}}*"
    rf"|\p{{N}}+(?:[.,]\p{{N}}+)*(?!{_LETTER})"  # 1,234.5
    rf"|{_LETTER}+(?:['’]{_LETTER}+)*"  # don't
    r"|(?=\p{S})\X",  # an emoji with all that is joined to it, +, $
    regex.VERSION1,
)


def words_of(text: str) -> list[str]:
    """Runs of letters and digits, numbers, symbols; no punctuation. In Chinese, Japanese, Thai ..: the characters."""
    return _WORD.findall(text)
