"""The command line: `touchstone start | status | next | hint | report | compare | keep | doctor | data`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from touchstone import contract
from touchstone import house as houses


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit status is 0, 1 for a problem that was printed, 2 for wrong usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["data"]:  # its own options and help
        from touchstone.data import datasets

        return datasets.main(arguments[1:])
    parser = argparse.ArgumentParser(
        prog="touchstone", description="Hold implementations of deep-learning systems to the spec."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    start = commands.add_parser("start", help="write a package of stubs to fill in, one module a room")
    start.add_argument("package", help="its name, for example mine")
    status = commands.add_parser("status", help="how far the five plans are proven")
    status.add_argument("--json", action="store_true", help="print the whole state as one object")
    following = commands.add_parser("next", help="what to do next")
    hint = commands.add_parser("hint", help="what a name must do and the mistakes people make with it")
    hint.add_argument("name", help="room.noun, or a row's id")
    report = commands.add_parser("report", help="write the scoreboard from what was recorded")
    report.add_argument("--history", action="store_true", help="also keep this state as one night of the history")
    report.add_argument("--chapter", help="write the report of one chapter instead, for example sprint1")
    comparing = commands.add_parser("compare", help="what changed from A to B: races, proof lines, rows, kills")
    for side in ("A", "B"):
        comparing.add_argument(
            side, help="a commit, a night (2026-08-21), an implementation, a file of records or a saved run"
        )
    comparing.add_argument("--json", action="store_true", help="print the comparison as one object")
    commands.add_parser("keep", help="put the records of studies and GPU checks where they can be committed")
    for part in (status, following, report):
        part.add_argument("--impl", default="impl", help="whose records (default: impl)")
    commands.add_parser("doctor", help="what this machine can and cannot measure, and what would change it")
    commands.add_parser("data", help="the path of a data set, fetched when it is missing")

    options = parser.parse_args(arguments)
    run: dict[str, Callable[[argparse.Namespace], int]] = {
        "start": _start,
        "status": _status,
        "next": _next,
        "hint": _hint,
        "report": _report,
        "compare": _compare,
        "keep": _keep,
        "doctor": _doctor,
    }
    try:
        return run[options.command](options)
    except (FileNotFoundError, FileExistsError, ValueError, LookupError) as error:
        print(f"touchstone: {error}", file=sys.stderr)
        return 1


def _keep(options: argparse.Namespace) -> int:
    from touchstone.runs.keeping import keep

    place, tests = keep(houses.find())
    print(*sorted(tests), sep="\n")
    print(f"\n{len(tests)} records in {place.relative_to(houses.find().root)}, to be committed")
    return 0


def _start(options: argparse.Namespace) -> int:
    for path in start(options.package, Path.cwd()):
        print(path)
    print(f"\nNow: pytest spec --impl {options.package}        (all todo)")
    print(f"     touchstone next --impl {options.package}    (where to begin)")
    return 0


def start(package: str, folder: Path) -> list[Path]:
    """Write the stubs of every room of the contract into `folder/package`.

    Raises:
        ValueError: `package` is not an identifier or is a name of the house.
        FileExistsError: the folder exists; nothing is overwritten.
    """
    house = houses.find()
    if not package.isidentifier():
        raise ValueError(f"package must be a Python identifier, got {package!r}")
    if (
        package in {"impl", "reference", "spec", "bench", "touchstone", "torch", "numpy"}
        or package in sys.stdlib_module_names
    ):
        raise ValueError(f"package {package!r} is the name of something else; choose your own, for example mine")
    target = folder / package
    if target.exists():
        raise FileExistsError(f"{target} exists; nothing was written")
    written = [target / "__init__.py"]
    target.mkdir()
    written[0].write_text(
        f'"""{package}: my implementations; `pytest spec --impl {package}` holds them to the spec."""\n',
        encoding="utf-8",
    )
    for path in sorted(house.api.glob("*.py")):
        if not path.name.startswith("_"):
            written.append(target / path.name)
            written[-1].write_text(contract.stubs(path), encoding="utf-8")
    return written


def _status(options: argparse.Namespace) -> int:
    from touchstone.runs import states

    found, _, _ = states.compute(houses.find(), options.impl)
    if options.json:
        json.dump(found, sys.stdout, ensure_ascii=False, indent=1, sort_keys=True)
        print()
        return 0
    from touchstone.board import summary

    summary.show(found)
    return 0


def _next(options: argparse.Namespace) -> int:
    from touchstone.runs import states

    rows = states.next_rows(houses.find(), options.impl)
    for row in rows:
        print(f"{row['id']}  [{row['state']}]  {row['title']}: {', '.join(row['names'])}\n    {row['asks']}")
    if not rows:
        print("Nothing is open among the rows that have tests. `touchstone status` shows the rest.")
    return 0


def _hint(options: argparse.Namespace) -> int:
    print(hint(options.name))
    return 0


def hint(name: str) -> str:
    """The contract of a name, the laws that hold it and the mistakes that the spec knows; a row's id lists its names.

    Raises:
        LookupError: neither a name of the contract nor a row.
    """
    from touchstone import catalog as catalogs
    from touchstone.runs import states, variants

    house = houses.find()
    house.importable()
    catalog = catalogs.load(house.catalog)
    if name in catalog.rows:
        row = catalog.rows[name]
        names = catalogs.names_of(row, catalogs.house_names(house.catalog))
        lines = "\n".join(f"  {line.key.rpartition('#')[2]}: {line.text}" for line in row.lines)
        return f"{row.unit}: {row.title}\n{row.asks}\n\n{lines}\n\nNames: {', '.join(names)}"
    entries = contract.load(house.api)
    if name not in entries:
        raise LookupError(f"{name!r} is neither a name of the contract (room.noun) nor the id of a row")
    entry = entries[name]
    tests = [test for test in states.declarations(house) if name in test["subjects"]]
    keys = sorted({line for test in tests for line in test["lines"]})
    mistakes = [mutant.says for mutant in variants.mutants(house).values() if mutant.target == name]
    parts = [f"{name}  ({entry.file.relative_to(house.root)}:{entry.line})", entry.doc]
    if keys:
        parts.append(
            "Laws:\n" + "\n".join(f"  {key}: {catalog.lines[key].text}" for key in keys if key in catalog.lines)
        )
    if mistakes:
        parts.append(
            "Mistakes that people make (each is refused by the spec):\n" + "\n".join(f"  {says}" for says in mistakes)
        )
    return "\n\n".join(parts)


def _report(options: argparse.Namespace) -> int:
    from touchstone.board import history, scoreboard, summary
    from touchstone.runs import states

    house = houses.find()
    if options.chapter:
        from touchstone.board import chapter

        for path in chapter.build(house, options.chapter, options.impl):
            print(path)
        return 0
    found, records, catalog = states.compute(house, options.impl)
    if options.history:
        history.write(found, records, house.reports / "history")
    rows = [row.as_dict() for row in catalog.rows.values()]
    written = scoreboard.render(found, records, rows, house.reports, holes=contract.holes(house.api))
    summary.show(found)
    for path in written:
        if path.parent == house.reports:
            print(path)
    return 0


def _compare(options: argparse.Namespace) -> int:
    from touchstone.board import compare, snapshots

    house = houses.find()
    found = compare.compare(snapshots.find(options.A, house), snapshots.find(options.B, house))
    if options.json:
        json.dump(found.as_dict(), sys.stdout, ensure_ascii=False, indent=1, sort_keys=True)
        print()
    else:
        compare.show(found)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from touchstone import doctor

    doctor.main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
