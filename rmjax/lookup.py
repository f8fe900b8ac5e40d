"""From a line of a config, "bradley_terry(label_smoothing=0.1)", to the function with its options bound.

A function that a config can name takes arrays as positional arguments and hyperparameters as keyword-only ones.
"""

import ast
import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

from rmjax.errors import UserError

Table = Mapping[str, Callable]

NONE = "none"  # the name of every line that is switched off
_RENAMED = ("keep", "free", "evenly", "given", "no_baseline")  # what such lines were called before

_KINDS = {int: "a whole number", float: "a number", str: "a quoted string", bool: "True or False"}


class Term(NamedTuple):
    """One summand of an objective."""

    coef: float
    name: str
    function: Callable


def table(*modules: ModuleType) -> dict[str, Callable]:
    """Every public function that the modules define (not those they import), by name.

    Raises: ValueError if two modules define the same name.
    """
    found: dict[str, Callable] = {}
    for module in modules:
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if name.startswith("_") or function.__module__ != module.__name__:
                continue
            if name in found:
                raise ValueError(
                    f"{name} is defined in {found[name].__module__} and {module.__name__}"
                )
            found[name] = function
    return found


def bind(spec: str, names: Table, *, key: str) -> Callable:
    """The function that `spec` names, its keyword-only arguments bound.

    spec: "name()" or "name(option=literal, ...)".
    key: the config key that holds it, for the error text.
    Raises: UserError on a syntax error, an unknown name or option, or a missing required option.
    """
    return _bind(_expression(spec, key), spec, names, key).function


def terms(spec: str, names: Table, *, key: str) -> list[Term]:
    """The terms of a sum such as "mse() + 0.1 * bradley_terry(label_smoothing=0.1)".

    Raises: UserError as `bind`, or where a coefficient is not a number or a term is named twice.
    """
    found = [
        _bind(node, spec, names, key)._replace(coef=coef)
        for coef, node in _summands(_expression(spec, key), 1.0, spec, key)
    ]
    twice = {t.name for t in found if sum(t.name == other.name for other in found) > 1}
    if twice:
        raise UserError(
            f"config key '{key}': {spec!r} has {sorted(twice)} more than once; merge the terms"
        )
    return found


def sequence(spec: str, names: Table, *, key: str) -> list[Term]:
    """The terms of a sequence such as "stop_or_penalty(), clip(low=-5.0, high=5.0)", in its order; [] of "none()".

    Raises: UserError as `bind`, or where a term is named twice.
    """
    if off(spec, key=key):
        return []
    whole = _expression(spec, key)
    nodes = whole.elts if isinstance(whole, ast.Tuple) else [whole]
    found = [_bind(node, spec, names, key) for node in nodes]
    if len({t.name for t in found}) < len(found):
        raise UserError(f"config key '{key}': {spec!r} names something more than once")
    return found


def name_of(spec: str, *, key: str) -> str:
    """The name in a spec, whatever its options: "vtrace" of " vtrace(decay=0.9)".

    Raises: UserError on a syntax error.
    """
    return _call(_expression(spec, key), spec, key).id


def same(spec: str, other: str, *, key: str) -> bool:
    """Whether two lines say the same, however they are spaced or quoted.

    Raises: UserError on a syntax error.
    """
    return ast.dump(_expression(spec, key)) == ast.dump(_expression(other, key))


def off(spec: str, *, key: str) -> bool:
    """Whether a line is switched off: "none()".

    Raises: UserError on a syntax error, or an empty line.
    """
    return same(spec, f"{NONE}()", key=key)


def with_option(spec: str, path: str, value: str, *, key: str) -> str:
    """The line with one option or coefficient changed.

    path: "clip", of a line with one name; else "ppo.clip"; "ppo.coef" is the coefficient of that term of a sum, where
      the term is not given an option of this name.
    value: a literal, or a text without quotes.
    Raises: UserError where the line has no such name, or a coefficient is no number.
    """
    tree = _expression(spec, key)
    calls = {
        node.func.id: node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    name, dot, option = path.rpartition(".")
    if not dot and len(calls) != 1:
        first = f"{key}.{next(iter(calls), 'name')}.{path}"
        raise UserError(
            f"config key '{key}': {spec!r} names {', '.join(calls)}; say which, as in {first}"
        )
    call = next(iter(calls.values())) if not dot else calls.get(name)
    if call is None:
        raise UserError(
            f"config key '{key}': {spec!r} does not name {name!r}{_nearest(name, calls)}"
        )
    literal = _literal(value)
    given = next((keyword for keyword in call.keywords if keyword.arg == option), None)
    if given is not None:
        given.value = ast.Constant(literal)
    elif option == "coef" and not isinstance(tree, ast.Tuple):
        return _with_coefficient(tree, call, literal, spec, key)
    else:
        call.keywords.append(ast.keyword(option, ast.Constant(literal)))
    return ast.unparse(tree)


def _with_coefficient(tree: ast.expr, call: ast.Call, value: Any, spec: str, key: str) -> str:
    if not _is(value, float):
        raise UserError(f"config key '{key}': a coefficient must be a number, got {value!r}")
    terms = [
        (value if node is call else coef, ast.unparse(node))
        for coef, node in _summands(tree, 1.0, spec, key)
    ]
    return " + ".join(text if coef == 1 else f"{coef} * {text}" for coef, text in terms)


def _literal(value: str) -> Any:
    """What is written, or the text itself where it is no literal."""
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def arrays(function: Callable) -> dict[str, bool]:
    """The names of a function's positional arguments, each with whether it is required."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {
        p.name: p.default is inspect.Parameter.empty
        for p in inspect.signature(function).parameters.values()
        if p.kind in kinds
    }


def _expression(spec: str, key: str) -> ast.expr:
    if not spec.strip():
        raise UserError(f"config key '{key}': is empty; a line that is off is '{NONE}()'")
    try:
        return ast.parse(spec.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise UserError(
            f"config key '{key}': cannot read {spec!r}; write a name with its options in brackets, "
            f"such as name(option=0.1)"
        ) from error


def _summands(node: ast.expr, sign: float, spec: str, key: str) -> list[tuple[float, ast.expr]]:
    match node:
        case ast.BinOp(left, ast.Add() | ast.Sub() as op, right):
            other = sign if isinstance(op, ast.Add) else -sign
            return _summands(left, sign, spec, key) + _summands(right, other, spec, key)
        # Python reads "-0.1 * mse()" as (-0.1) * mse()
        case ast.BinOp(ast.UnaryOp(ast.USub(), coef), ast.Mult() as times, right):
            return _summands(ast.BinOp(coef, times, right), -sign, spec, key)
        case ast.BinOp(ast.Constant(int() | float() as coef), ast.Mult(), right):
            return _summands(right, sign * coef, spec, key)
        case ast.UnaryOp(ast.USub(), operand):
            return _summands(operand, -sign, spec, key)
    return [(sign, node)]


def _call(node: ast.expr, spec: str, key: str) -> ast.Name:
    """The name that a call is of.

    Raises: UserError where it is none, or has options without names.
    """
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
        return node.func
    raise UserError(
        f"config key '{key}': cannot read {spec!r}; write a name with named options in brackets, "
        f"such as name(option=0.1)"
    )


def _bind(node: ast.expr, spec: str, names: Table, key: str) -> Term:
    name = _call(node, spec, key).id
    assert isinstance(node, ast.Call)
    if name in _RENAMED and NONE in names and name not in names:
        raise UserError(f"config key '{key}': {name}() is {NONE}() now, as every line that is off")
    if name not in names:
        raise UserError(f"config key '{key}': there is no {name!r}{_nearest(name, names)}")
    options = {
        p.name: p
        for p in inspect.signature(names[name]).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }
    given: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg not in options:
            hint = _nearest(keyword.arg or "**", options)
            raise UserError(f"config key '{key}': {name}() has no option {keyword.arg!r}{hint}")
        if keyword.arg in given:
            raise UserError(f"config key '{key}': {name}() has {keyword.arg} more than once")
        try:
            given[keyword.arg] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError) as error:
            raise UserError(
                f"config key '{key}': {name}({keyword.arg}={ast.unparse(keyword.value)}) is not a plain "
                f"value; write a number, a quoted string, a list, True or False"
            ) from error
        kind = options[keyword.arg].annotation
        if kind in _KINDS and not _is(given[keyword.arg], kind):
            raise UserError(
                f"config key '{key}': {name}({keyword.arg}={ast.unparse(keyword.value)}) must be {_KINDS[kind]}"
            )
    missing = [
        o for o, p in options.items() if p.default is inspect.Parameter.empty and o not in given
    ]
    if missing:
        raise UserError(f"config key '{key}': {name}() needs {', '.join(missing)}")
    return Term(1.0, name, functools.partial(names[name], **given))


def _is(value: Any, kind: type) -> bool:
    """Whether a literal is of an annotated kind; a whole number is a number, True is none."""
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    return isinstance(value, int | float if kind is float else kind)


def _nearest(name: str, names: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    known = f"known: {', '.join(sorted(names))}" if names else "it takes none"
    return f"; did you mean {close[0]!r}? ({known})" if close else f"; {known}"
