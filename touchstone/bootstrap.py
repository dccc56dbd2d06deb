"""`make setup`: the virtual environment, made once, from `pyproject.toml` under `constraints.txt`.

Run by `setup.sh` with the system's Python, so it imports the standard library only.  What it did is stamped into
`.venv`; a run that finds its stamp does nothing, and nothing after it needs the network.

    TORCH=auto       an NVIDIA GPU: pip's default build of torch (CUDA); none: the CPU build (the default)
    TORCH=cpu|cuda   the one or the other, whatever the machine has
    TORCH_INDEX=URL  torch from this index (another CUDA version, ROCm, XPU)
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CUDA_SECTION = "# CUDA:"  # the heading in constraints.txt of what belongs to the default CUDA build alone
GIB = 2**30
# GiB free; a new environment measured 2.2, Triton beside the CPU build is 0.7 more, and CUDA about 6.
NEEDS = {"": 1.2, "cpu": 3.7, "cuda": 9.0}
SHOWN = ("Building", "Downloading", "Installing", "Successfully", "Uninstalling")


class SetupError(Exception):
    """Its message is the one line that a person gets."""


@dataclass(frozen=True)
class Torch:
    """Which build of torch to install, and why."""

    requirement: str
    index: str | None
    why: str
    size: str = "cpu"


def say(line: str) -> None:
    print(f"setup: {line}", flush=True)


def torch_version(constraints: str) -> str:
    """The version of torch that `constraints` pins."""
    for line in constraints.splitlines():
        if line.startswith("torch=="):
            return line.removeprefix("torch==").strip()
    raise SetupError("constraints.txt pins no torch==VERSION")


def has_nvidia_gpu() -> bool:
    """Whether the driver's own tool lists a GPU (under WSL it is off the PATH)."""
    for tool in (shutil.which("nvidia-smi"), "/usr/lib/wsl/lib/nvidia-smi"):
        if tool and os.path.exists(tool):
            try:
                listed = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=30, check=False)
            except (OSError, subprocess.TimeoutExpired):
                continue
            if listed.returncode == 0 and "GPU" in listed.stdout:
                return True
    return False


def unreachable(url: str) -> str | None:
    """Why `url` cannot be read now, or None when it can."""
    try:
        with urllib.request.urlopen(f"{url}/torch/", timeout=8):
            return None
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


def choose_torch(version: str, asked: str, index: str, *, system: str, gpu: bool, cpu_index_error: str | None) -> Torch:
    """The build of torch for this machine.

    `asked` is auto, cpu or cuda; `index` an index's address or empty; `cpu_index_error` says why PyTorch's CPU index
    cannot be used, None when it can.  ValueError on another `asked`.
    """
    plain = f"torch=={version}"
    if asked not in {"auto", "cpu", "cuda"}:
        raise ValueError(f"TORCH must be auto, cpu or cuda, got {asked!r}")
    if index:
        return Torch(plain, index, f"torch {version} from {index}, as TORCH_INDEX says", "cuda")
    if system != "Linux":
        return Torch(plain, None, f"torch {version}, the build for {system} that pip's index has")
    if asked == "cuda" or (asked == "auto" and gpu):
        why = "as TORCH=cuda says" if asked == "cuda" else "because this machine has an NVIDIA GPU"
        return Torch(plain, None, f"torch {version}, pip's default build (CUDA), {why}", "cuda")
    why = "as TORCH=cpu says" if asked == "cpu" else "because no NVIDIA GPU answers here"
    if cpu_index_error is None:
        return Torch(f"{plain}+cpu", CPU_INDEX, f"torch {version}+cpu from PyTorch's CPU index, {why}")
    if asked == "cpu":  # refuse the CUDA build, but let a CPU wheel that pip finds elsewhere serve
        where = f"PyTorch's CPU index cannot be reached: {cpu_index_error}"
        return Torch(f"{plain}+cpu", None, f"torch {version}+cpu wherever pip finds it, {why} ({where})")
    return Torch(
        plain,
        None,
        f"torch {version} from pip's own index, on Linux as a rule the CUDA build of several GB: "
        f"PyTorch's CPU index cannot be reached ({cpu_index_error})",
    )


def key(choice: dict[str, str]) -> str:
    """What the environment is a function of: the project file, the pins, this script and the choice."""
    digest = hashlib.sha256(json.dumps(choice, sort_keys=True).encode())
    for name in ("pyproject.toml", "constraints.txt", "touchstone/bootstrap.py"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def read_stamp(path: Path) -> dict[str, str]:
    try:
        stamp = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(path: Path, stamp: dict[str, str]) -> None:
    path.write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")


def compiler() -> str | None:
    """A C++ compiler that runs (on a Mac without its tools `c++` is there and does not)."""
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        path = shutil.which(name) if name else None
        if path and subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0:
            return path
    return None


def check_machine(size: str) -> None:
    """Raises SetupError when set-up cannot work here; says, in a line each, what will later be not measured."""
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise SetupError(f"this Python has no venv module (Debian, Ubuntu: apt-get install python{version}-venv)")
    if platform.system() == "Windows":
        raise SetupError("Windows is supported through WSL: clone and run make inside a WSL distribution")
    if platform.system() == "Darwin" and platform.machine() == "x86_64":
        raise SetupError("PyTorch has no builds for Intel Macs any more; use Linux, WSL or an Apple-silicon Mac")
    needs = NEEDS[size]
    free = shutil.disk_usage(ROOT).free / GIB
    if free < needs:
        raise SetupError(f"the disk of this folder has {free:.1f} GiB free; set-up needs {needs:.1f} GiB")
    unpack = Path(tempfile.gettempdir())
    free = shutil.disk_usage(unpack).free / GIB
    if free < needs / 3:
        raise SetupError(f"{unpack} has {free:.1f} GiB free; pip needs {needs / 3:.1f} GiB there (or set TMPDIR)")
    mac = "Mac: xcode-select --install"
    if compiler() is None:
        say(f"no C++ compiler: what compiles will be not measured (Debian: apt-get install g++; {mac})")
    if shutil.which("git") is None:
        say(f"no git: records will name no commit (Debian: apt-get install git; {mac})")


def explain(output: list[str]) -> str:
    """One line for what pip said when it failed."""
    text = "\n".join(output)
    if "No space left on device" in text or "Errno 28" in text:
        return "the disk is full"
    if any(sign in text for sign in ("NewConnectionError", "name resolution", "ConnectTimeoutError", "Max retries")):
        return "pip cannot reach its index; set-up needs the network once"
    errors = [line for line in output if line.startswith("ERROR:")]
    return (errors or output[-1:] or ["pip said nothing"])[0].removeprefix("ERROR:").strip()


def pip(python: Path, *arguments: str) -> None:
    """Runs pip, shows the lines that say how far it is, and raises SetupError with one line when it fails."""
    log = python.parent.parent / "setup.log"
    command = [str(python), "-m", "pip", *arguments, "--disable-pip-version-check", "--no-input"]
    output: list[str] = []
    with (
        log.open("a", encoding="utf-8") as kept,
        subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as child,
    ):
        kept.write(f"$ pip {' '.join(arguments)}\n")
        for line in child.stdout or ():
            output.append(line.rstrip())
            kept.write(line)
            if line.strip().startswith(SHOWN):
                print("  " + line.strip()[:160], flush=True)
    if child.returncode:
        raise SetupError(f"{explain(output)} (all that pip said: .venv/{log.name})")


def describe_torch(python: Path) -> str:
    """The build that is really there, as torch itself names it."""
    code = (
        "import torch; v = torch.version; "
        "print(torch.__version__, f'CUDA {v.cuda}' if v.cuda else f'ROCm {v.hip}' if v.hip else 'CPU', sep='|')"
    )
    result = subprocess.run([str(python), "-I", "-c", code], capture_output=True, text=True, check=False)
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise SetupError(f"torch was installed but does not import: {last}")
    version, kind = result.stdout.strip().splitlines()[-1].split("|")
    return f"torch {version} ({kind} build)"


def plan(constraints: str, asked: str, index: str) -> Torch:
    """Which torch this machine gets; asks for a GPU and for PyTorch's CPU index only where the answer matters."""
    system = platform.system()
    gpu = system == "Linux" and asked == "auto" and has_nvidia_gpu()
    wants_cpu = system == "Linux" and not index and (asked == "cpu" or (asked == "auto" and not gpu))
    error = unreachable(CPU_INDEX) if wants_cpu else None
    return choose_torch(torch_version(constraints), asked, index, system=system, gpu=gpu, cpu_index_error=error)


def make_environment(folder: Path) -> None:
    say(f"making .venv with Python {platform.python_version()}")
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(folder)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise SetupError(f"could not make .venv: {explain((made.stderr or made.stdout).strip().splitlines())}")


def has_torch(folder: Path, version: str) -> bool:
    """Whether the environment already has the pinned torch, of whichever build was chosen when it was made."""
    return any(folder.glob(f"lib/python*/site-packages/torch-{version}[.+-]*dist-info"))


def install(python: Path, constraints: str, choice: dict[str, str], torch: Torch | None) -> None:
    """torch first, so that nothing else chooses its build; then this project with its extras, every version pinned."""
    pins = python.parent.parent / "constraints.txt"
    pins.write_text(constraints.split(CUDA_SECTION)[0] if choice["index"] else constraints, encoding="utf-8")
    # Builds without isolation use the pinned setuptools, and no network when nothing is missing.
    pip(python, "install", "-c", str(pins), "setuptools")
    if torch is not None:
        say(f"installing {torch.why}")
        source = ["--extra-index-url", torch.index] if torch.index else []
        pip(python, "install", "-c", str(pins), *source, torch.requirement)
    # Triton for Linux (elsewhere the extra is empty); builds of torch from other indexes bring one of their own.
    extras = ["peers", *([] if choice["index"] else ["kernels"]), "notebooks", "dev"]
    say(f"installing touchstone with its extras {', '.join(extras)}")
    pip(python, "install", "-c", str(pins), "--no-build-isolation", "-e", f".[{','.join(extras)}]")


def run() -> None:
    folder = ROOT / ".venv"
    python = folder / "bin" / "python"
    stamp_file = folder / "touchstone-setup.json"
    stamp = read_stamp(stamp_file)
    index = os.environ.get("TORCH_INDEX", "")
    asked = os.environ.get("TORCH", "")
    if not asked and not index:  # not asked again: stay with what was chosen before
        asked, index = stamp.get("asked", "auto"), stamp.get("index", "")
    choice = {"asked": asked or "auto", "index": index, "root": str(ROOT), "python": platform.python_version()}
    wanted = key(choice)
    here = f".venv has Python {platform.python_version()}"
    if stamp.get("key") == wanted:
        say(f"up to date: {here}, {stamp.get('torch')}")
        return
    # Another choice of torch, another Python or a moved folder begins again; a changed pin is installed over.
    keep = python.exists() and (not stamp or stamp.items() >= choice.items())
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    there = keep and has_torch(folder, torch_version(constraints))
    torch = None if there else plan(constraints, choice["asked"], index)
    check_machine(torch.size if torch else "")
    if not keep:
        make_environment(folder)
    write_stamp(stamp_file, choice)  # without its key: an interrupted run goes on from what is there
    install(python, constraints, choice, torch)
    build = describe_torch(python)
    write_stamp(stamp_file, choice | {"key": wanted, "torch": build})
    say(f"done: {here}, {build}; for another build: make setup TORCH=cpu|cuda or TORCH_INDEX=URL")


def main() -> int:
    try:
        run()
    except (SetupError, ValueError) as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"setup: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("setup: interrupted; the next run goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
