"""Numbers, times and names as a reader would write them; the same input always gives the same text."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_BYTES = ("B", "KiB", "MiB", "GiB", "TiB")
_NEED = re.compile(r"(gpu|(?:hardware|data|peer|tool):[^\s:]+)(?::\s*|\s+|$)(.*)", re.DOTALL)


def number(value: float | int | None, digits: int = 3) -> str:
    """`value` to `digits` significant digits: 0.0123, 1.2×10⁻¹³, 12 300; a dash for a figure that is no number."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    size = abs(value)
    if isinstance(value, int) and size < 10**6:
        return f"{value:,}".replace(",", "\u202f")
    if not 1e-3 <= size < 1e6:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        if "." in mantissa:
            mantissa = mantissa.rstrip("0").rstrip(".")
        power = f"10{str(int(exponent)).translate(_SUPERSCRIPT)}"
        return power if mantissa == "1" else f"{mantissa}×{power}".replace("-", "−")
    decimals = max(0, digits - 1 - math.floor(math.log10(size)))
    text = f"{value:,.{decimals}f}".replace(",", "\u202f").replace("-", "−")
    return text.rstrip("0").rstrip(".") if "." in text else text


def power(value: float) -> str:
    """A power of ten as one: 10⁻³, 1, 10, 10²."""
    exponent = round(math.log10(value))
    return {0: "1", 1: "10"}.get(exponent, f"10{str(exponent).translate(_SUPERSCRIPT)}")


def quantity(value: float | int | None, unit: str = "") -> str:
    """A figure with its unit; bytes and seconds get the prefix that suits them."""
    if value is None or not math.isfinite(value):
        return "–"
    if unit in {"B", "bytes", "byte"}:
        step = 0
        while abs(value) >= 1024 and step < len(_BYTES) - 1:
            value, step = value / 1024, step + 1
        return f"{number(value)} {_BYTES[step]}"
    if unit in {"s", "seconds"}:
        return seconds(value)
    if unit == "%":
        return f"{number(value)} %"
    return f"{number(value)} {unit}".rstrip()


def seconds(value: float | None) -> str:
    """A duration: 41 µs, 2.7 ms, 3.2 s, 4 min 05 s, 1 h 20 min."""
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    if size < 1e-3:
        return f"{number(value * 1e6)} µs"
    if size < 1:
        return f"{number(value * 1e3)} ms"
    if size < 60:
        return f"{number(value)} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def margin(value: float | None, limit: float | None) -> str:
    """How far `value` lies from `limit`: `12 % under`, `×40 over`, `at the limit`; empty where one is missing."""
    if value is None or limit is None or not (math.isfinite(value) and math.isfinite(limit)):
        return ""
    if value == limit:
        return "at the limit"
    if value * limit <= 0:
        return f"{number(abs(value - limit))} {'under' if value < limit else 'over'}"
    side = "under" if value < limit else "over"
    ratio = max(value / limit, limit / value)
    if ratio >= 3:
        return f"×{number(ratio, 2)} {side}"
    return f"{number(abs(value - limit) / abs(limit) * 100, 2)} % {side}"


def share(part: int, whole: int) -> str:
    """A percentage that never rounds to all or nothing: `< 1 %` and `> 99 %` stay so."""
    if whole <= 0:
        return "–"
    percent = 100 * part / whole
    if 0 < percent < 1:
        return "<\u00a01\u00a0%"
    if 99 < percent < 100:
        return ">\u00a099\u00a0%"
    return f"{percent:.0f}\u00a0%"


def percent(fraction: float) -> str:
    """A share of one in per cent, to two digits: 0.0513 → `5.1 %`."""
    return f"{number(100 * fraction, 2)}\u00a0%"


def change(ratio: float) -> str:
    """A ratio of times in words: 1.051 → `5.1 % slower`."""
    return f"{percent(abs(ratio - 1))} {'slower' if ratio > 1 else 'faster'}"


def moment(text: Any) -> str:
    """An ISO time as `21 November 2026, 12:50 UTC`; what cannot be read is returned as it is."""
    when = instant(text)
    if when is None:
        return str(text or "unknown")
    months = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ]
    return f"{when.day} {months[when.month - 1]} {when.year}, {when.hour:02d}:{when.minute:02d} UTC"


def instant(text: Any) -> datetime | None:
    """An ISO time as an aware datetime in UTC, or None; a time without a zone is taken as UTC."""
    try:
        when = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)


def plural(count: int, noun: str, many: str = "") -> str:
    """`1 row`, `12 rows`."""
    return f"{number(count)} {noun if count == 1 else many or noun + 's'}"


def need(reason: str) -> tuple[str, str]:
    """Split the reason of a *not measured* into the need and the rest: `data:wikitext103: file missing`."""
    found = _NEED.match(reason.strip())
    return (found[1], found[2].strip()) if found else (reason.strip() or "no reason recorded", "")


def remedy(what: str) -> str:
    """What would make a need measurable, in a sentence; empty where there is nothing general to say."""
    kind, _, name = what.partition(":")
    return {
        "gpu": "Needs an NVIDIA GPU; committed evidence from one counts while its content is unchanged.",
        "hardware": f"Needs {name}.",
        "data": f"Needs a data set: touchstone data {name} fetches it, or says why it cannot.",
        "peer": f"Needs the Python package {name} beside the implementation.",
        "tool": f"Needs the program {name} on the path.",
    }.get(kind, "")


def slug(text: str) -> str:
    """A file name of lower-case words joined by hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "figure"


def split_test(nodeid: str) -> tuple[str, str, str]:
    """`file::name[case]` → (file, name, case); the parts that are missing are empty."""
    path, _, rest = nodeid.partition("::")
    name, bracket, case = rest.partition("[")
    return path, name, case[:-1] if bracket and case.endswith("]") else case


def natural(text: str) -> list[tuple[int, str]]:
    """A sorting key that puts sprint2 before sprint10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text) if part]
