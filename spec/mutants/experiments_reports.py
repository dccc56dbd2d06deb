"""Mistakes that people make in reports that are generated from results."""

from __future__ import annotations

from touchstone import Mutant


def _of(*patches: tuple[str, str, str, str]) -> list[Mutant]:
    """(name, says, old, new) of mutants of the report's builder."""
    return [Mutant(name, "experiments.build_report", old, new, says) for name, says, old, new in patches]


MUTANTS = [
    *_of(
        ("two_digits", "rounds to two digits", '{value:.4g}"', '{value:.2g}"'),
        (
            "truncated",
            "cuts digits off instead of rounding",
            '    return f"{int(value):,}" if',
            "    value = float(f'{value:.12g}'[:5]) if abs(value) > 1e-3 else value\n    return f\"{int(value):,}\" if",
        ),
        (
            "limit_for_value",
            "prints the limit for the value",
            '_shown(figure["value"], ',
            '_shown(figure["limit"] or figure["value"], ',
        ),
        ("pasted_number", "prints a number that is in no file", "f\"{_digits(one.record['ratio'])} (", 'f"0.5 ('),
        (
            "interval_swapped",
            "swaps the ends of the interval",
            "{_digits(one.record['low'])} to {_digits(one.record['high'])}",
            "{_digits(one.record['high'])} to {_digits(one.record['low'])}",
        ),
        (
            "no_source",
            "does not say where its numbers are from",
            'return "<sub>Source: " + "; ".join(parts) + "</sub>"',
            'return ""',
        ),
        (
            "source_of_all",
            "names every run under every table",
            "        for one in found:\n            link",
            "        for one in self.found:\n            link",
        ),
        ("no_seed", "leaves out the seed", ", seed {run['seed']}", ""),
        ("no_commit", "leaves out the commit", ", commit {run['commit']}", ""),
        (
            "absolute_links",
            "links to where files are on this machine",
            "Path(os.path.relpath(one.file, self.out.parent)).as_posix()",
            "one.file.as_posix()",
        ),
        (
            "links_to_names",
            "links to a file's name, wherever it is",
            "Path(os.path.relpath(one.file, self.out.parent)).as_posix()",
            "one.file.name",
        ),
        (
            "dated",
            "writes the hour of the build",
            'lines).rstrip("\\n") + "\\n"',
            "lines) + f\"\\n{__import__('time').time_ns()}\\n\"",
        ),
        (
            "missing_left_out",
            "builds without a file that is missing",
            '            raise FileNotFoundError(f"results: {path} is missing")\n',
            "            continue\n",
        ),
        ("nothing_from_nothing", "builds a report from no file", "    if not paths:\n", "    if paths is None:\n"),
        (
            "broken_left_out",
            "leaves out lines that are no records",
            "        records = [_valid(line, path, n) for n, line in enumerate(path.read_bytes().splitlines(), 1)]\n",
            "        records = []\n        for n, line in enumerate(path.read_bytes().splitlines(), 1):\n       "
            "     try:\n                records.append(_valid(line, path, n))\n            except ValueError:\n "
            "               pass\n",
        ),
        (
            "null_as_dash",
            "prints a dash where there is no value",
            'or not _number(figure.get("value")):',
            'or figure.setdefault("value", 0) is False:',
        ),
        ("nan_printed", "prints NaN", " and math.isfinite(value)\n", "\n"),
        ("any_version", "reads records of any version", 'or record.get("v") != 1 or', "or"),
        (
            "run_forgotten",
            "takes records of a run that is not there",
            '            if record["type"] in ("test", "race") and record["run"] not in runs:\n',
            "            if False:\n",
        ),
        (
            "blank_where_nothing",
            "leaves out what was not measured",
            '        return [f"*Not measured: {why}.*"]\n',
            "        return []\n",
        ),
        ("reason_lost", "does not say why something was not measured", '"; ".join(reasons)', "None"),
        ("bars_as_cells", "lets a bar in a name make a cell", '.replace("|", "\\\\|")', ""),
        ("markup_let_through", "lets names bring markup", '.replace("<", "&lt;")', ""),
        (
            "names_ignored",
            "shows all figures of a test whatever is asked for",
            '            if fnmatchcase(figure["name"], names)\n',
            "",
        ),
        ("first_file_only", "draws every chart into one file", '{len(self.drawn) + 1}.svg"', '1.svg"'),
        (
            "directive_left",
            "leaves what it does not understand in the text",
            '            if "{{" in line:\n',
            '            if "{{{" in line:\n',
        ),
        ("options_ignored", "ignores an option it does not know", "or not set(options) <= known:", "or not options:"),
        (
            "written_before_checked",
            "makes the folder before it has read the results",
            "    out = Path(out)\n",
            "    out = Path(out)\n    out.parent.mkdir(parents=True, exist_ok=True)\n",
        ),
        (
            "proven_only",
            "lists no line that is not proven",
            '        missing = [line for line in lines if line["state"] != "proven"]\n',
            "        missing = []\n",
        ),
        (
            "axes_mixed",
            "draws x for y",
            '(curve["name"], curve["x"], curve["y"])',
            '(curve["name"], curve["y"], curve["x"])',
        ),
        ("unit_lost", "leaves out units", 'return f"{_digits(value)} {unit}".strip()', "return _digits(value)"),
    ),
]
