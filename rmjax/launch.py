"""From a command line to a run: flags, help, and errors that fit one paragraph. The one file that exits."""

import difflib
import inspect
import os
import re
import runpy
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from absl import flags, logging
from ml_collections import ConfigDict

from rmjax import assets, lookup, memory
from rmjax.errors import UserError

memory.keep_freed()  # at import, which experiments do first

CACHE = "compilation_cache"  # the flag of every command
CACHE_BYTES = 4 * 2**30  # what was not used for longest goes first
DEFINE: dict[type, Callable] = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_bool,
}


def main(
    run: Callable[..., Any] | Mapping[str, Callable[..., Any]],
    *,
    config: str | Mapping[str, str] = "",
) -> None:
    """Runs `run` with its keyword-only parameters read from flags of the same names.

    run: a function, or several by the name that the command line begins with.
    config: default of --config, FILE.py:NAME, where `run` takes a ConfigDict; of several, by the same names.
    Exits with 0; with 2 and one paragraph where the user can mend it; with 130 on an interrupt.
    """
    logging.set_verbosity(logging.ERROR)  # of the libraries below
    try:
        argv = sys.argv[1:]
        if isinstance(run, Mapping):
            name, argv = _choose(run, argv)
            run, config = run[name], config if isinstance(config, str) else config.get(name, "")
        assert isinstance(config, str)
        arguments = _parse(run, config, argv)
        if arguments is None:
            sys.exit(0)
        if arguments.pop(CACHE):
            _keep_compiled()
        run(**arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _keep_compiled() -> None:
    """Has jax keep compiled programs in the cache folder, where no other place is set, so that later commands start
    sooner; a program depends on nothing but its computation and the versions and machine it was compiled for."""
    if jax.config.values["jax_compilation_cache_dir"]:
        return
    home = assets.cache() / "programs"
    for name, value in {
        "jax_compilation_cache_dir": str(home),
        "jax_compilation_cache_max_size": CACHE_BYTES,
        "jax_persistent_cache_min_compile_time_secs": 0.1,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }.items():
        jax.config.update(name, value)
    print(f"compiled programs are kept in {home} (--no{CACHE}: they are not)", file=sys.stderr)


def _choose(runs: Mapping[str, Callable[..., Any]], argv: list[str]) -> tuple[str, list[str]]:
    """Which run the first argument names, and the other arguments.

    Raises: UserError where it names none.
    """
    if argv and argv[0].lstrip("-") in ("help", "h"):
        for name, run in runs.items():
            print(f"{name:12} {(inspect.getdoc(run) or '').splitlines()[0]}")
        print("--help behind a name lists its flags")
        sys.exit(0)
    if not argv or argv[0] not in runs:
        given = f", not {argv[0]!r}" if argv else ""
        raise UserError(f"say first which: {', '.join(runs)}{given}; then --help lists its flags")
    return argv[0], argv[1:]


def _parse(run: Callable[..., Any], config: str, argv: list[str]) -> dict[str, Any] | None:
    """The arguments of `run`; None after --help.

    Raises: UserError on a flag or config key that is unknown, missing or of the wrong type.
    """
    parameters, known = inspect.signature(run).parameters, flags.FlagValues()
    DEFINE[bool](CACHE, True, "", flag_values=known)
    about, loaded, described = _argument_docs(run), {}, {}
    options: list[tuple[str, str, str, str]] = []
    for name, parameter in parameters.items():
        if parameter.annotation is ConfigDict:
            loaded[name], described[name], argv = _config(name, config, argv)
            found, argv = _options(name, loaded[name], argv)
            options += found
            for key, value in loaded[name].items():
                if type(value) not in DEFINE:
                    raise UserError(
                        f"--{name}: key '{key}' is {value!r}; write a string, number or bool"
                    )
                DEFINE[type(value)](f"{name}.{key}", value, "", flag_values=known)
        else:
            default = None if parameter.default is inspect.Parameter.empty else parameter.default
            DEFINE[parameter.annotation](name, default, about[name], flag_values=known)
    asked = [a for a in argv if a.lstrip("-") in ("help", "helpfull", "h", "?")]
    try:
        rest = known([sys.argv[0], *(a for a in argv if a not in asked)])
    except flags.UnrecognizedFlagError as error:
        near = difflib.get_close_matches(error.flagname, known, n=1, cutoff=0.8)
        hint = f"did you mean --{near[0]}? " if near else ""
        raise UserError(
            f"there is no --{error.flagname}; {hint}--help lists what there is"
        ) from error
    except flags.Error as error:
        raise UserError(f"{_clean(error)}; see --help") from error
    for name, chosen in loaded.items():
        chosen.update({key: known[f"{name}.{key}"].value for key in chosen})
    for name, key, path, value in options:
        loaded[name][key] = lookup.with_option(loaded[name][key], path, value, key=key)
    values = {name: loaded[name] if name in loaded else known[name].value for name in parameters}
    if asked:
        print(_help(run, about, values, described))
        return None
    if rest[1:]:
        raise UserError(f"{' '.join(rest[1:])!r} is no flag; write --name=value")
    missing = [f"--{name}" for name, value in values.items() if value is None or value == ""
               and parameters[name].default is inspect.Parameter.empty]  # fmt: skip
    if missing:
        raise UserError(f"{', '.join(missing)} must be given; see --help")
    return values | {CACHE: known[CACHE].value}


def _config(name: str, path: str, argv: list[str]) -> tuple[ConfigDict, str, list[str]]:
    """The config of the last --NAME=FILE.py:VARIANT in `argv`, default `path`, what its file says of itself, and the
    other arguments.

    Raises: UserError if it cannot be had.
    """
    rest, given = [], iter(argv)
    for argument in given:
        flag, equals, value = argument.partition("=")
        if flag in (f"--{name}", f"-{name}"):
            path = value if equals else next(given, "")
        else:
            rest.append(argument)
    file, _, variant = path.partition(":")
    if not Path(file).is_file():
        raise UserError(f"--{name}={path}: there is no file {file!r}; write --{name}=FILE.py:NAME")
    try:
        found = runpy.run_path(file)
        made = found["get_config"](*[variant] if variant else [])
        return made.lock(), inspect.cleandoc(found.get("__doc__") or ""), rest
    # A config file is code: whatever it raises is for its author to mend.
    except Exception as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise UserError(f"--{name}={path}: {kind}{_clean(error)}") from error


def _options(
    name: str, config: ConfigDict, argv: list[str]
) -> tuple[list[tuple[str, str, str, str]], list[str]]:
    """The arguments --NAME.KEY.OPTION=VALUE and --NAME.KEY.TERM.OPTION=VALUE, which change a line in part, as (name,
    key, path, value); and the other arguments."""
    found, rest = [], []
    for argument in argv:
        part = re.fullmatch(rf"--?{name}\.(\w+)\.([\w.]+)=(.*)", argument, flags=re.DOTALL)
        if part and isinstance(config.get(part[1]), str):
            found.append((name, part[1], part[2], part[3]))
        else:
            rest.append(argument)
    return found, rest


def _argument_docs(run: Callable[..., Any]) -> dict[str, str]:
    """What the docstring's Args section says of each argument."""
    section = inspect.getdoc(run) or ""
    section = section.partition("Args:\n")[2].partition("\n\n")[0]
    found = re.findall(r"^  (\w+): (.*(?:\n    .*)*)", section, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def _help(
    run: Callable[..., Any],
    about: Mapping[str, str],
    values: Mapping[str, Any],
    described: Mapping[str, str],
) -> str:
    """What --help prints. described: what the file of each config says of itself, its names among that."""
    lines = [(inspect.getdoc(run) or "").partition("\n")[0], ""]
    for name, value in values.items():
        default = "" if value in (None, "") or isinstance(value, ConfigDict) else f" [{value}]"
        lines += textwrap.wrap(
            f"--{name}: {about[name]}{default}", width=100, subsequent_indent="    "
        )
        if isinstance(value, ConfigDict):
            if described[name]:
                lines += ["", textwrap.indent(described[name], "    "), ""]
            lines += [f"    --{name}.{key}={value[key]!r}" for key in sorted(value)]
            lines += [
                "",
                f"    One option or coefficient of a line: --{name}.loss.ppo.clip=0.1, --{name}.loss.ppo.coef=2",
            ]
    lines.append(f"--{CACHE}: keep compiled programs for later commands. [True]")
    return "\n".join(lines)


def _clean(error: Exception) -> str:
    """The error as one paragraph, without absl's prefixes."""
    text = " ".join(str(error).split())
    return re.sub(r"^FATAL Flags parsing error: ", "", text) or type(error).__name__
