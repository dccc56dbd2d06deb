"""Set-up: which Python, which torch, what is said when the machine lacks something, and what is pinned."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from touchstone import bootstrap

ROOT = Path(__file__).resolve().parents[2]


def torch(
    asked: str = "auto", index: str = "", system: str = "Linux", gpu: bool = False, error: str | None = None
) -> bootstrap.Torch:
    return bootstrap.choose_torch("2.13.0", asked, index, system=system, gpu=gpu, cpu_index_error=error)


def test_a_machine_with_an_nvidia_gpu_gets_the_default_build():
    chosen = torch(gpu=True)
    assert (chosen.requirement, chosen.index) == ("torch==2.13.0", None)
    assert "CUDA" in chosen.why


def test_linux_without_a_gpu_avoids_cuda_by_the_cpu_index():
    chosen = torch()
    assert chosen.requirement == "torch==2.13.0+cpu"  # a local version: the default index's CUDA build cannot match it
    assert chosen.index == bootstrap.CPU_INDEX


def test_without_the_cpu_index_pips_own_is_used_and_the_line_says_so():
    chosen = torch(error="no route")
    assert (chosen.requirement, chosen.index) == ("torch==2.13.0", None)
    assert "no route" in chosen.why
    assert "CUDA" in chosen.why


def test_a_choice_is_kept_whatever_the_machine_has():
    assert torch("cuda").requirement == "torch==2.13.0"
    assert torch("cpu", gpu=True).requirement == "torch==2.13.0+cpu"
    assert torch("cpu", error="no route").requirement == "torch==2.13.0+cpu"  # never silently the CUDA build
    assert torch("auto", index="https://example.org/rocm").index == "https://example.org/rocm"
    assert torch(system="Darwin").index is None


def test_another_word_for_torch_is_refused_by_name():
    with pytest.raises(ValueError, match="TORCH must be auto, cpu or cuda, got 'gpu'"):
        torch("gpu")


@pytest.mark.parametrize(
    ("output", "line"),
    [
        (["Collecting x", "ERROR: Could not install: [Errno 28] No space left on device"], "the disk is full"),
        (
            ["WARNING: Retrying: Temporary failure in name resolution", "ERROR: No matching distribution"],
            "network once",
        ),
        (["ERROR: ResolutionImpossible", "see a page"], "ResolutionImpossible"),
        ([], "pip said nothing"),
    ],
)
def test_pips_failure_becomes_one_line(output: list[str], line: str):
    said = bootstrap.explain(output)
    assert line in said
    assert "\n" not in said


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(ROOT)
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda place: usage._replace(free=int(0.2 * bootstrap.GIB)))
    with pytest.raises(bootstrap.SetupError, match=r"0\.2 GiB free; set-up needs 3\.7 GiB"):
        bootstrap.check_machine("cpu")


def test_a_missing_compiler_is_one_line_and_no_obstacle(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    bootstrap.check_machine("")
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "no C++ compiler" in line]
    assert [line for line in lines if "no git" in line]


def fake_python(folder: Path, name: str, version: str) -> None:
    """A program that says it is this Python, and that it was started."""
    path = folder / name
    path.write_text(f'#!/bin/sh\nif [ "$1" = -c ]; then echo {version}; else echo "started $(basename "$0") $*"; fi\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def run_setup(path: Path, tree: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    for tool in ("sh", "dirname", "basename"):
        target = shutil.which(tool)
        assert target is not None
        if not (path / tool).exists():
            (path / tool).symlink_to(target)
    (tree / "touchstone").mkdir(parents=True, exist_ok=True)
    script = shutil.copy(ROOT / "touchstone" / "setup.sh", tree / "touchstone")
    return subprocess.run(
        ["sh", str(script)],
        env={"PATH": str(path), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_an_old_python_is_one_line(tmp_path: Path):
    programs = tmp_path / "bin"
    programs.mkdir()
    fake_python(programs, "python3", "3.10")
    done = run_setup(programs, tmp_path / "a tree")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("setup: needs Python 3.11, 3.12 or 3.13; found python3 (3.10)")
    assert len(done.stderr.splitlines()) == 1


def test_a_right_python_behind_an_old_one_and_a_broken_shim_is_found(tmp_path: Path):
    programs = tmp_path / "bin"
    programs.mkdir()
    fake_python(programs, "python3", "3.9")
    fake_python(programs, "python3.12", "3.12")
    (programs / "python3.13").write_text("#!/bin/sh\nexit 127\n")
    (programs / "python3.13").chmod(0o755)
    done = run_setup(programs, tmp_path / "a tree")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("started python3.12 -I ")
    named = run_setup(programs, tmp_path / "a tree", PYTHON="python3")
    assert named.returncode == 1
    assert "found python3 (3.9)" in named.stderr


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what an environment is made from, and no way to start pip or to reach a network."""
    (tmp_path / "touchstone").mkdir()
    for name in ("pyproject.toml", "constraints.txt", "touchstone/bootstrap.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.delenv("TORCH", raising=False)
    monkeypatch.delenv("TORCH_INDEX", raising=False)

    def refuse(*arguments: object, **named: object) -> None:
        raise bootstrap.SetupError("work was done")

    monkeypatch.setattr(bootstrap, "pip", refuse)
    monkeypatch.setattr(bootstrap, "make_environment", refuse)
    monkeypatch.setattr(bootstrap, "unreachable", lambda url: None)
    return tmp_path


def stamp(tree: Path, **choice: str) -> Path:
    """The stamp of a finished set-up."""
    made = {"asked": "auto", "index": "", "root": str(tree), "python": bootstrap.platform.python_version()} | choice
    file = tree / ".venv" / "touchstone-setup.json"
    (tree / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
    (tree / ".venv" / "bin" / "python").touch()
    bootstrap.write_stamp(file, made | {"key": bootstrap.key(made), "torch": "torch 2.13.0+cpu (CPU build)"})
    return file


def test_a_second_run_does_nothing(tree: Path, capsys: pytest.CaptureFixture[str]):
    stamp(tree)
    bootstrap.run()
    said = capsys.readouterr().out
    assert "up to date" in said
    assert "torch 2.13.0+cpu (CPU build)" in said


def test_a_choice_of_torch_stays_until_another_is_made(tree: Path, monkeypatch: pytest.MonkeyPatch):
    stamp(tree, asked="cuda")
    bootstrap.run()
    monkeypatch.setenv("TORCH", "cpu")
    with pytest.raises(bootstrap.SetupError, match="work was done"):
        bootstrap.run()


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_changed_file_is_installed_again(tree: Path, name: str):
    stamp(tree)
    with (tree / name).open("a", encoding="utf-8") as file:
        file.write("\n# changed\n")
    with pytest.raises(bootstrap.SetupError, match="work was done"):
        bootstrap.run()
    left = json.loads((tree / ".venv" / "touchstone-setup.json").read_text())
    assert "key" not in left  # an interrupted run is not taken for a finished one


def test_triton_is_installed_unless_another_index_brings_its_own(tree: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    monkeypatch.setattr(bootstrap, "pip", lambda python, *arguments: asked.append(arguments[-1]))
    python = tree / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    for index in ("", "https://example.org/rocm"):
        bootstrap.install(python, "torch==2.13.0\n", {"asked": "auto", "index": index}, None)
    assert asked == ["setuptools", ".[peers,kernels,notebooks,dev]", "setuptools", ".[peers,notebooks,dev]"]
    # Empty where Triton has no build, so that naming it is right on every system.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (triton,) = (Requirement(text) for text in project["optional-dependencies"]["kernels"])
    assert triton.marker is not None
    assert [triton.marker.evaluate({"platform_system": system}) for system in ("Linux", "Darwin")] == [True, False]


def test_a_torn_stamp_is_no_stamp(tree: Path):
    stamp(tree).write_text('{"key": "12')
    with pytest.raises(bootstrap.SetupError, match="work was done"):
        bootstrap.run()


def test_every_requirement_is_pinned_and_the_pin_satisfies_it():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            (exact,) = pin.specifier
            assert exact.operator == "==", line
            pins[pin.name.lower().replace("_", "-")] = exact.version
    wanted = [
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
    ]
    for text in wanted:
        requirement = Requirement(text)
        pinned = pins[requirement.name.lower().replace("_", "-")]
        assert requirement.specifier.contains(pinned), f"{text} is pinned to {pinned}"
    assert bootstrap.torch_version((ROOT / "constraints.txt").read_text(encoding="utf-8")) == pins["torch"]


def make(*targets: str) -> str:
    """What make would run, without running it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", "-n", *targets], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_make_test_runs_what_the_design_says_in_its_order(needs):
    needs.tool("make")
    planned = make("test")
    steps = [
        "touchstone/setup.sh",
        "ruff check",
        "pytest touchstone/tests",
        'pytest spec --impl impl --todo-fails -m "not study"',
        "pytest spec --mutants",
        "pytest spec --acceptance",
    ]
    places = [planned.find(step) for step in steps]
    assert -1 not in places, planned
    assert places == sorted(places)
