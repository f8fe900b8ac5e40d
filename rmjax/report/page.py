"""What every page is made of: a run's files, numbers and texts as they are shown, and the template that is filled."""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from rmjax.errors import UserError

Lines = list[dict[str, Any]]


def read(home: Path, name: str) -> Lines:
    """The objects in a file: one in .json, one a line in .jsonl.

    Raises: UserError naming the file, where it is missing, broken or empty.
    """
    path = home / name
    fix = f"{home} must be the folder of a finished run; run the command that began it again, or name another"
    try:
        text = path.read_text(encoding="utf-8")
        lines = text.split("\n") if name.endswith("l") else [text]  # a line may hold U+2028
        found = [json.loads(line) for line in lines if line.strip()]
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; {fix}") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}; {fix}") from error
    if not found:
        raise UserError(f"{path} is empty; {fix}")
    return found


def fill(template: str, home: Path, results: Mapping[str, Any], **shown: Any) -> str:
    """The page of a run: a template of this folder filled with `shown`, the results and what was run."""
    config, environment = (read(home, name)[0] for name in ("config.json", "environment.json"))
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {f.__name__: f for f in (number, interval, duration, scaled, visible)}
    return found.get_template(template).render(
        name=home.resolve().name,
        results=results,
        environment=environment,
        config=json.dumps(config, indent=2, ensure_ascii=False),
        **shown,
    )


def write(home: Path, text: str) -> None:
    """Writes report.html whole or not at all."""
    partial = home / "report.html.partial"
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, home / "report.html")


def said(prompt: str | Sequence[Sequence[str]]) -> str:
    """A prompt as a text, a conversation with who said what."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{role}: {content}" for role, content in prompt)


def series(parts: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join(p for p in (", ".join(parts[:-1]), *parts[-1:]) if p)


def number(value: float | int | None, places: int = 3) -> str:
    """.853, −.020, 1.250; – for what is undefined."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{round(value, places) + 0.0:,.{places}f}"  # + 0.0: no minus zero
    return re.sub(r"^(-?)0\.", r"\1.", text).replace("-", "−")


def interval(figure: Mapping[str, Any], places: int = 3) -> str:
    """[.833, .873]; nothing where there is none."""
    if figure.get("low") is None or figure.get("high") is None:
        return ""
    return f"[{number(figure['low'], places)}, {number(figure['high'], places)}]"


def duration(seconds: float | int) -> str:
    """2 min 5 s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:,} min {rest} s" if minutes else f"{seconds:.1f} s"


def scaled(value: float | int, unit: str) -> str:
    """1.42 GB, 38 MFLOP/s: three digits and a prefix."""
    power = min(int(math.log10(value) // 3), 5) if value >= 1 else 0
    return f"{value / 1000**power:.3g} {' kMGTP'[power].strip()}{unit}"


def visible(text: str) -> str:
    """Control characters, which models over bytes write, as their signs."""
    return re.sub(r"[\x00-\x08\x0b-\x1f]", lambda found: chr(0x2400 + ord(found[0])), text)
