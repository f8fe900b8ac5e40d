"""From a command line to a run: flags, help, and errors that fit one paragraph. The one file that exits."""

import inspect
import re
import sys
import textwrap
from collections.abc import Callable
from typing import Any

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from rmjax.errors import UserError

DEFINE = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_bool,
}


def main(run: Callable[..., Any], *, config: str = "") -> None:
    """Runs `run` with its keyword-only parameters read from flags of the same names.

    config: default of --config, FILE.py:NAME, where `run` takes a ConfigDict.
    Exits with 0; with 2 and one paragraph where the user can mend it; with 130 on an interrupt.
    """
    logging.set_verbosity(logging.ERROR)  # of the libraries below
    try:
        arguments = _parse(run, config)
        if arguments is None:
            sys.exit(0)
        run(**arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)


def _parse(run: Callable[..., Any], config: str) -> dict[str, Any] | None:
    """The arguments of `run`; None after --help.

    Raises: UserError on a flag or config key that is unknown, missing or of the wrong type.
    """
    parameters = inspect.signature(run).parameters
    about = _argument_docs(run)
    for name, parameter in parameters.items():
        if parameter.annotation is ConfigDict:
            config_flags.DEFINE_config_file(name, config, about[name])
        else:
            default = None if parameter.default is inspect.Parameter.empty else parameter.default
            DEFINE[parameter.annotation](name, default, about[name])
    asked = [a for a in sys.argv[1:] if a.lstrip("-") in ("help", "helpfull", "h", "?")]
    try:
        rest = flags.FLAGS([a for a in sys.argv if a not in asked])
    except flags.Error as error:
        raise UserError(_clean(error)) from error
    # A config file is code: whatever it raises is for its author to mend.
    except Exception as error:
        raise UserError(f"--config: {_clean(error)}; see --help for its keys") from error
    values = {name: flags.FLAGS[name].value for name in parameters}
    if asked:
        print(_help(run, about, values))
        return None
    if rest[1:]:
        raise UserError(f"{' '.join(rest[1:])!r} is no flag; write --name=value")
    missing = [f"--{name}" for name, value in values.items() if value is None or value == ""
               and parameters[name].default is inspect.Parameter.empty]  # fmt: skip
    if missing:
        raise UserError(f"{', '.join(missing)} must be given; see --help")
    return values


def _argument_docs(run: Callable[..., Any]) -> dict[str, str]:
    """What the docstring's Args section says of each argument."""
    section = inspect.getdoc(run) or ""
    section = section.partition("Args:\n")[2].partition("\n\n")[0]
    found = re.findall(r"^  (\w+): (.*(?:\n    .*)*)", section, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def _help(run: Callable[..., Any], about: dict[str, str], values: dict[str, Any]) -> str:
    lines = [(inspect.getdoc(run) or "").partition("\n")[0], ""]
    for name, value in values.items():
        default = "" if value in (None, "") or isinstance(value, ConfigDict) else f" [{value}]"
        lines += textwrap.wrap(
            f"--{name}: {about[name]}{default}", width=100, subsequent_indent="    "
        )
        if isinstance(value, ConfigDict):
            lines += [f"    --{name}.{key}={value[key]!r}" for key in sorted(value)]
    return "\n".join(lines)


def _clean(error: Exception) -> str:
    """The error as one paragraph, without absl's prefixes."""
    text = " ".join(str(error).split())
    return re.sub(r"^FATAL Flags parsing error: ", "", text) or type(error).__name__
