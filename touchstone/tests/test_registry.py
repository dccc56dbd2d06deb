"""The registry: every file and every name, and what a wrong entry is told."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest

from touchstone import NotMeasured, house
from touchstone.data import datasets
from touchstone.data.download import file_sha256
from touchstone.data.registry import EMBEDDED, Registry, load

CATALOG = house.find(Path(__file__)).catalog
PLANS = ("colab", "inference", "karpathy", "nanochat", "sprints")
FILE = """
[[file]]
name = "set/a.txt"
dataset = "A"
url = "https://example.org/a.txt"
sha256 = "{sha}"
bytes = 3
licence = "MIT"
non_commercial = false
licence_read = true
basis = "copy"
""".format(sha="0" * 64)
GROUP = '[dataset.a]\ntitle = "A"\nfiles = ["set/a.txt"]\n'


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load(CATALOG / "datasets.toml")


def _needed() -> set[str]:
    """NAME of every data:NAME in the plans, in rows' needs and in the brackets of proof lines."""
    names = set()
    for plan in PLANS:
        for row in tomllib.loads((CATALOG / f"{plan}.toml").read_text(encoding="utf-8"))["deliverable"]:
            brackets = [line.partition(":")[0] + line.partition("]")[0] for line in row["proof"]]
            found = [*row["needs"], *(need for text in brackets for need in text.replace("[", ",").split(","))]
            names |= {need.strip().removeprefix("data:") for need in found if need.strip().startswith("data:")}
    return names


def test_every_name_in_the_catalog_resolves(registry: Registry) -> None:
    needed = _needed()
    assert len(needed) >= 36
    assert needed <= set(registry.datasets)


def test_the_names_in_the_catalogs_readme_resolve(registry: Registry) -> None:
    named = """iris wine breast-cancer digits python-stdlib pydoc shakespeare names wikitext2 mnist fashion-mnist
        cifar10 titanic adult mall-customers gsm8k arc-easy sst2 imdb emotion jokes multi30k dialogsum
        scitldr pretraining haiku reddit-tldr oxford-flowers civil-comments openwebtext fineweb-edu wikitext-103"""
    assert set(named.split()) <= set(registry.datasets)


def test_every_data_set_says_what_it_is(registry: Registry) -> None:
    for dataset in registry.datasets.values():
        assert [bool(dataset.files), dataset.embedded in EMBEDDED, bool(dataset.absent)].count(True) == 1, dataset.name
        assert all(licence.startswith("licence: ") for licence in datasets.licences(dataset)), dataset.name


def test_non_commercial_terms_are_flagged(registry: Registry) -> None:
    said = {file.name for file in registry.files.values() if "NC" in file.licence or "non-commercial" in file.licence}
    assert said
    assert all(registry.files[name].non_commercial for name in said)
    assert {name for name, dataset in registry.datasets.items() if dataset.restricted} >= {
        "alpaca",
        "dialogue",
        "multi30k",
    }
    assert not registry.datasets["shakespeare"].restricted


def test_served_files_have_a_fixed_address_where_there_is_one(registry: Registry) -> None:
    """A branch can move: files of a repository are named by commit."""
    for file in registry.files.values():
        if "githubusercontent" in file.url:
            commit = file.url.split("/")[5]
            assert len(commit) == 40, file.name
            assert set(commit) <= set("0123456789abcdef"), file.name


def test_no_path_of_a_machine_is_registered() -> None:
    text = (CATALOG / "datasets.toml").read_text(encoding="utf-8")
    assert not re.findall(r'"(?:/|~/|[A-Z]:\\)\w+', text)


def _data() -> Path:
    named = os.environ.get("TOUCHSTONE_DATA")
    if not named:
        raise NotMeasured("data:all", "TOUCHSTONE_DATA is not set")
    return Path(named)


def test_every_file_in_the_data_folder_is_the_registered_one(registry: Registry) -> None:
    folder = _data()
    held = [file for file in registry.files.values() if file.basis != "hash on record"]
    found = {file.name: (folder / file.name).stat().st_size for file in held}
    assert found == {file.name: file.bytes for file in held}
    assert {file.name: file_sha256(folder / file.name) for file in held} == {file.name: file.sha256 for file in held}


def test_every_file_in_the_data_folder_is_registered(registry: Registry) -> None:
    folder = _data()
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there - {"MANIFEST.toml"} <= set(registry.files)


def test_a_registry_is_read(tmp_path: Path) -> None:
    read = _load(tmp_path, "version = 1\n" + FILE + GROUP)
    assert read.datasets["a"].files == (read.files["set/a.txt"],)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version = 1", "version = 2", "version = 1"),
        ("version = 1", "version = ", "Invalid value"),
        ('basis = "copy"', "", "basis is missing"),
        ('basis = "copy"', 'basis = "copy"\ncolour = "red"', "unknown field 'colour'"),
        ("bytes = 3", "bytes = 0", "bytes must be positive, got 0"),
        ("bytes = 3", 'bytes = "3"', "bytes must be int, got '3'"),
        ("bytes = 3", "bytes = true", "bytes must be int, got True"),
        ("non_commercial = false", "", "non_commercial is missing"),
        ("0" * 64, "0" * 63, "sha256 must be 64"),
        ('name = "set/a.txt"', 'name = "../a.txt"', "below the data folder"),
        ('name = "set/a.txt"', 'name = "/a.txt"', "below the data folder"),
        ("https://", "file://", "url must be http"),
        ('url = "https://example.org/a.txt"', "", "either url, or no_url"),
        ('url = "https://example.org/a.txt"', 'no_url = "a login"', "needs its origin"),
        ('files = ["set/a.txt"]', 'files = ["set/b.txt"]', "registered files"),
        ('files = ["set/a.txt"]', "files = []", "exactly one of files, embedded and absent"),
        ('files = ["set/a.txt"]', 'files = ["set/a.txt"]\ninstead = "b"', "instead, which is not registered"),
        ("[dataset.a]", "[dataset.A]", "lower case"),
        (GROUP, "", "no data set has the file set/a.txt"),
        (GROUP, GROUP + '[dataset.b]\ntitle = "B"\nabsent = "large"\nlicence = "MIT"\n', "the url and the format"),
        (GROUP, GROUP + '[dataset.b]\ntitle = "B"\nembedded = "sklearn"\nlicence = "MIT"\n', "embedded must be one of"),
        (GROUP, GROUP + '[dataset.b]\ntitle = "B"\nembedded = "scikit-learn"\nlicence = "MIT"\n', "member must name"),
        (GROUP, GROUP + '[dataset.b]\ntitle = "B"\nembedded = "pydoc"\n', "licence is missing"),
        (GROUP, FILE + GROUP, "registered twice"),
    ],
)
def test_a_wrong_entry_is_refused_by_name(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = "version = 1\n" + FILE + GROUP
    assert text.count(old) == 1
    with pytest.raises(ValueError, match=message) as caught:
        _load(tmp_path, text.replace(old, new))
    assert "datasets.toml" in str(caught.value)


def _load(folder: Path, text: str) -> Registry:
    path = folder / "datasets.toml"
    path.write_text(text, encoding="utf-8")
    return load(path)
