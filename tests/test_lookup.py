"""Spec strings: what they bind, how sums are read, and the text of every refusal."""

import re
import types

import pytest

from rmjax import lookup
from rmjax.errors import UserError


def mse(score, rating, *, scale=1.0, name: str = ""):
    return ("mse", score, rating, scale, name)


def kinds(score, *, whole: int = 1, number: float = 1.0, yes: bool = False):
    return (whole, number, yes)


def huber(score, rating, target=None, *, delta):
    return ("huber", score, rating, target, delta)


def flat(score):
    return ("flat", score)


NAMES = {"mse": mse, "huber": huber, "flat": flat}
KINDS = {"kinds": kinds}


def test_a_spec_binds_its_options_and_leaves_the_arrays():
    bound = lookup.bind(" mse(scale=-0.5, name='a, b') ", NAMES, key="loss")
    assert bound(1, 2) == ("mse", 1, 2, -0.5, "a, b")
    assert lookup.bind("mse()", NAMES, key="loss")(1, 2) == ("mse", 1, 2, 1.0, "")
    assert lookup.bind("huber(delta=[1, True])", NAMES, key="loss")(1, 2)[-1] == [1, True]
    assert lookup.arrays(lookup.bind("huber(delta=1.0)", NAMES, key="loss")) == {
        "score": True,
        "rating": True,
        "target": False,
    }


def test_options_are_of_the_annotated_kind():
    bound = lookup.bind("kinds(whole=2, number=3, yes=True)", KINDS, key="loss")
    assert bound(0) == (2, 3, True)
    for option, want in (
        ("whole=2.0", "a whole number"),
        ("whole=True", "a whole number"),
        ("number='x'", "a number"),
        ("number=False", "a number"),
        ("yes=1", "True or False"),
    ):
        with pytest.raises(UserError, match=re.escape(f"kinds({option}) must be {want}")):
            lookup.bind(f"kinds({option})", KINDS, key="loss")
    with pytest.raises(UserError, match="must be a quoted string"):
        lookup.bind("mse(name=1)", NAMES, key="loss")


@pytest.mark.parametrize(
    ("spec", "coefs"),
    [
        ("mse()", [1]),
        ("mse() + 0.1 * huber(delta=1)", [1, 0.1]),
        ("mse() - 0.1 * huber(delta=1)", [1, -0.1]),
        ("-0.1 * mse() + 2 * flat()", [-0.1, 2]),
        ("mse() - -3 * flat()", [1, 3]),
        ("-mse()", [-1]),
        ("mse() - (flat() - 0.5 * huber(delta=1))", [1, -1, 0.5]),
        ("2 * (mse() + 3 * flat())", [2, 6]),
    ],
)
def test_a_sum_multiplies_out(spec, coefs):
    found = lookup.terms(spec, NAMES, key="loss")
    assert [t.coef for t in found] == coefs
    assert [t.name for t in found] == _order(spec)
    assert found[0].function(5, 6)[0] == "mse"


def _order(spec):
    return sorted((n for n in NAMES if n in spec), key=spec.index)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("mze()", "there is no 'mze'; did you mean 'mse'? (known: flat, huber, mse)"),
        ("quux()", "there is no 'quux'; known: flat, huber, mse"),
        ("mse(scael=2)", "mse() has no option 'scael'; did you mean 'scale'? (known: name, scale)"),
        ("flat(scale=2)", "flat() has no option 'scale'; it takes none"),
        ("mse(score=2)", "mse() has no option 'score'; did you mean 'scale'?"),
        ("mse(**{})", "mse() has no option None; known: name, scale"),
        ("huber()", "huber() needs delta"),
        ("mse(scale=x)", "mse(scale=x) is not a plain value; write a number"),
        ("mse(scale={[]: 1})", "mse(scale={[]: 1}) is not a plain value"),
        ("mse(scale=1, scale=2)", "mse() has scale more than once"),
        ("mse", "cannot read 'mse'; write a name with named options in brackets"),
        ("mse(2.0)", "cannot read 'mse(2.0)'; write a name with named options in brackets"),
        ("mse(", "cannot read 'mse('; write a name with its options in brackets"),
        (" ", "is empty; a line that is off is 'none()'"),
        ("losses.mse()", "cannot read 'losses.mse()'"),
        ("'2' * mse()", "cannot read \"'2' * mse()\""),
        ("mse() * 2", "cannot read 'mse() * 2'"),
        ("mse() + flat() + 2 * mse()", "has ['mse'] more than once; merge the terms"),
    ],
)
def test_every_refusal_names_key_and_fix(spec, text):
    with pytest.raises(UserError) as caught:
        lookup.terms(spec, NAMES, key="loss")
    assert str(caught.value).startswith("config key 'loss': ")
    assert text in str(caught.value)


def test_lines_are_compared_by_what_they_say():
    assert lookup.off(" none( )", key="kl") and not lookup.off("fixed(beta=0.1)", key="kl")
    assert lookup.same('file(path="a")', " file( path='a' )", key="data")
    assert not lookup.same("mse()", "mse(scale=2.0)", key="loss")
    assert lookup.name_of(" vtrace( decay=0.9)", key="returns") == "vtrace"
    with pytest.raises(UserError, match="config key 'kl': is empty"):
        lookup.off("", key="kl")
    with pytest.raises(UserError, match="config key 'returns': cannot read 'vtrace'"):
        lookup.name_of("vtrace", key="returns")


def test_former_words_for_a_line_that_is_off_are_refused_with_the_new_one():
    switched = {**NAMES, "none": lambda: None}
    for old in ("keep", "free", "evenly", "given", "no_baseline"):
        with pytest.raises(UserError, match=rf"config key 'kl': {old}\(\) is none\(\) now"):
            lookup.bind(f"{old}()", switched, key="kl")


@pytest.mark.parametrize(
    ("spec", "path", "value", "want"),
    [
        ("mse(scale=2.0)", "scale", "3.0", "mse(scale=3.0)"),
        ("mse()", "scale", "3.0", "mse(scale=3.0)"),
        ("mse()", "name", "a b", "mse(name='a b')"),
        ("mse() + 0.1 * huber(delta=1.0)", "huber.delta", "0.5", "mse() + 0.1 * huber(delta=0.5)"),
        ("mse() - 0.1 * huber(delta=1.0)", "huber.coef", "0.3", "mse() + 0.3 * huber(delta=1.0)"),
        ("mse() - 0.1 * flat()", "mse.coef", "2", "2 * mse() + -0.1 * flat()"),
        ("mse()", "coef", "0.5", "0.5 * mse()"),
        ("flat(), mse(scale=2.0)", "mse.scale", "1.0", "(flat(), mse(scale=1.0))"),
    ],
)
def test_one_option_or_coefficient_is_changed(spec, path, value, want):
    made = lookup.with_option(spec, path, value, key="loss")
    assert made == want
    bound = lookup.sequence if "," in spec else lookup.terms
    assert bound(made, NAMES, key="loss")


@pytest.mark.parametrize(
    ("spec", "path", "value", "message"),
    [
        ("mse() + flat()", "scale", "1", "names mse, flat; say which, as in loss.mse.scale"),
        ("mse() + flat()", "ms.scale", "1", "does not name 'ms'; did you mean 'mse'"),
        ("mse() + flat()", "mse.coef", "much", "a coefficient must be a number, got 'much'"),
    ],
)
def test_what_cannot_be_changed_is_said(spec, path, value, message):
    with pytest.raises(UserError, match=re.escape(message)):
        lookup.with_option(spec, path, value, key="loss")


def test_a_lone_spec_takes_no_sum():
    with pytest.raises(UserError, match="config key 'data': cannot read"):
        lookup.bind("mse() + flat()", NAMES, key="data")


def test_a_table_holds_what_the_modules_define():
    def module(name, **functions):
        made = types.ModuleType(name)
        for key, function in functions.items():
            copy = types.FunctionType(function.__code__, {}, key)
            copy.__module__ = name
            setattr(made, key, copy)
        made.imported = lookup.bind
        return made

    one, two = module("one", mse=mse, _hidden=flat), module("two", flat=flat)
    assert lookup.table(one, two) == {"mse": one.mse, "flat": two.flat}
    with pytest.raises(ValueError, match="mse is defined in one and three"):
        lookup.table(one, module("three", mse=mse))


def test_a_sequence_keeps_its_order():
    found = lookup.sequence("flat(), mse(scale=2.0)", NAMES, key="shape")
    assert [term.name for term in found] == ["flat", "mse"]
    assert found[1].function(1, 2) == ("mse", 1, 2, 2.0, "")
    assert [t.name for t in lookup.sequence("mse()", NAMES, key="shape")] == ["mse"]
    assert lookup.sequence(" none( )", NAMES, key="shape") == []
    for spec, message in (
        ("mse(), mse(scale=2.0)", "names something more than once"),
        ("mse() + flat()", "cannot read"),
        ("mse(), ms()", "did you mean 'mse'"),
    ):
        with pytest.raises(UserError, match=f"config key 'shape': .*{re.escape(message)}"):
            lookup.sequence(spec, NAMES, key="shape")
