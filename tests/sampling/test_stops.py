"""Texts end at the first stop string, wherever tokens are cut."""

import pytest

from rmjax.sampling import stops


@pytest.mark.parametrize(
    ("text", "stop", "want"),
    [
        ("a\n\nb", ["\n\n"], "a"),
        ("one END two STOP", ["STOP", "END"], "one "),
        ("nothing here", ["END"], "nothing here"),
        ("END", ["END"], ""),
        ("some", [], "some"),
    ],
)
def test_a_text_ends_before_its_first_stop_string(text, stop, want):
    assert stops.truncate(text, stop) == want


def test_kept_tokens_are_those_up_to_the_one_that_completes_the_stop_string():
    pieces = ["Yes", ", E", "N", "D. mo", "re END", "!"]
    decode = lambda tokens: "".join(pieces[t] for t in tokens)
    tokens = range(len(pieces))
    for stop, want in (("END", 4), ("Yes", 1), ("!", 6), ("?", 6), ("e E", 5)):
        assert stops.kept(tokens, decode, [stop]) == want
    assert stops.kept(tokens, decode, ["more", "N"]) == 3
    assert stops.kept([], decode, ["END"]) == 0


def test_characters_of_several_tokens_are_no_trouble():
    text = "é一。END tail".encode()
    decode = lambda tokens: bytes(tokens).decode(errors="replace")
    assert stops.kept(list(text), decode, ["。"]) == len("é一。".encode())


def test_empty_stop_strings_are_refused():
    with pytest.raises(ValueError, match="must not be empty"):
        stops.truncate("text", [""])
    with pytest.raises(ValueError, match="must not be empty"):
        stops.kept([1], str, ["x", ""])
