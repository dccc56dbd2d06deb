"""`touchstone doctor`: what this machine can and cannot measure, why, and the command that would change it.

Nothing heavy is imported: packages are looked up, torch's build is read from its own version file, and torch itself is
asked only where a GPU answers.  Every question has an answer on a bare machine too.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import io
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from touchstone import house

GIB = 2**30
DISK_GIB = 5.0  # artifacts, compiled kernels and data sets of a whole run


class Finding(NamedTuple):
    """One thing looked at: `ok` says whether it can be measured or used; `command` what would change it."""

    topic: str
    ok: bool
    detail: str
    command: str = ""


def report() -> list[Finding]:
    """What this machine has, in the order in which a person asks; raises nothing on a machine without any of it."""
    usable = occupy()
    driver, gpus = nvml()
    return [
        python(),
        machine(),
        disk(),
        torch_build(bool(gpus)),
        gpu(driver, gpus, usable),
        *gpu_figures(gpus),
        compiler(),
        triton(bool(gpus)),
        *peers(),
        data(),
        network(),
        browser(),
        *tools(),
    ]


def version_of(package: str) -> str | None:
    """The installed version of an importable package, None when there is none; it is not imported."""
    try:
        if importlib.util.find_spec(package) is None:
            return None
    except (ImportError, ValueError):
        return None
    names = importlib.metadata.packages_distributions().get(package, [package])
    try:
        return importlib.metadata.version(names[0])
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def runs(program: str, *arguments: str, seconds: float = 20.0) -> str | None:
    """The first line that `program` prints, None when it is not there, fails or hangs.

    The environment's own programs are found also where it is not activated.
    """
    path = shutil.which(program) or shutil.which(program, path=str(Path(sys.executable).parent))
    if path is None:
        return None
    try:
        done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = (done.stdout or done.stderr).strip().splitlines()
    return (lines[0] if lines else "") if done.returncode == 0 else None


def install(debian: str, mac: str = "") -> str:
    """How this system installs a program."""
    if sys.platform == "darwin":
        return mac or f"brew install {debian}"
    return f"apt-get install {debian}"


def python() -> Finding:
    ok = (3, 11) <= sys.version_info[:2] < (3, 14)
    return Finding("python", ok, platform.python_version(), "" if ok else "make setup PYTHON=python3.11")


def machine() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    except (OSError, ValueError):
        memory = 0.0
    known = f"{memory:.0f} GiB of memory" if memory else "memory unknown"
    where = f"{platform.system()} {platform.machine()}"
    return Finding("machine", cores >= 2, f"{cores} cores, {known}, {where}; run times are stated for 2 cores")


def disk() -> Finding:
    place = root()
    free = shutil.disk_usage(place).free / GIB
    ok = free >= DISK_GIB
    detail = f"{free:.0f} GiB free" if ok else f"{free:.1f} GiB free; a whole run may need {DISK_GIB:.0f}"
    return Finding("disk", ok, detail, "" if ok else "make clean")


def root() -> Path:
    """The house's folder; the working folder where there is no house."""
    try:
        return house.find().root
    except FileNotFoundError:
        return Path.cwd()


def torch_build(gpu_there: bool) -> Finding:
    """torch's version and build, from the version file in its folder."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return Finding("torch", False, "not installed: nothing can be held to the spec", "make setup")
    file = Path(spec.submodule_search_locations[0]) / "version.py"
    try:
        source = file.read_text(encoding="utf-8")
    except OSError as error:
        return Finding("torch", False, f"installed, but its version cannot be read: {error}", "make setup")
    found = dict(re.findall(r"^(__version__|cuda|hip)\b[^=\n]*= *'([^']+)'", source, flags=re.MULTILINE))
    version = found.get("__version__", "of unknown version")
    if "cuda" in found:
        return Finding("torch", True, f"{version}, built for CUDA {found['cuda']}")
    if "hip" in found:
        return Finding("torch", True, f"{version}, built for ROCm {found['hip']}")
    if gpu_there:
        return Finding("torch", False, f"{version}, built without CUDA beside a GPU", "make setup TORCH=cuda")
    return Finding("torch", True, f"{version}, built without CUDA")


class Gpu(NamedTuple):
    """What NVML says of one device; a figure that it does not have is None."""

    name: str
    memory: int
    used_per_process: bool
    energy: bool


def nvml() -> tuple[str, list[Gpu]]:
    """The driver's version and its GPUs; without them the reason and an empty list."""
    if importlib.util.find_spec("pynvml") is None:
        return "NVML's bindings are not installed (nvidia-ml-py)", []
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return f"no NVIDIA driver answers ({error})", []
    try:
        devices = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        return str(pynvml.nvmlSystemGetDriverVersion()), [describe(pynvml, device) for device in devices]
    except pynvml.NVMLError as error:
        return f"the NVIDIA driver answers with an error ({error})", []
    finally:
        pynvml.nvmlShutdown()


def describe(pynvml: object, device: object) -> Gpu:
    """One device, with which of its figures the driver really gives here."""

    def asked(question: str) -> object | None:
        try:
            return getattr(pynvml, question)(device)
        except getattr(pynvml, "NVMLError"):  # noqa: B009 - the module is a parameter so that a test can play the driver
            return None

    memory = asked("nvmlDeviceGetMemoryInfo")
    processes = asked("nvmlDeviceGetComputeRunningProcesses")
    # In a container the list is often there and empty, or names processes without their memory.
    visible = isinstance(processes, list) and any(getattr(process, "usedGpuMemory", None) for process in processes)
    return Gpu(
        name=str(asked("nvmlDeviceGetName")),
        memory=int(getattr(memory, "total", 0)),
        used_per_process=visible,
        energy=asked("nvmlDeviceGetTotalEnergyConsumption") is not None,
    )


def occupy() -> bool:
    """Whether torch can use a GPU; puts one small tensor there, so that the driver has a process to show.

    torch takes seconds to import, so it is asked only where a driver lists a GPU.
    """
    if not nvml()[1] or version_of("torch") is None:
        return False
    import torch

    try:
        torch.zeros(1, device="cuda")
    except (RuntimeError, AssertionError):  # a build without CUDA asserts, a driver that is too old raises
        return False
    return True


def gpu(driver: str, gpus: list[Gpu], usable: bool) -> Finding:
    if not gpus:
        lost = f"{driver}: lines marked gpu are not measured"
        return Finding("gpu", False, lost, "run on a machine with an NVIDIA GPU")
    names = ", ".join(f"{one.name} with {one.memory / GIB:.0f} GiB" for one in gpus)
    if not usable:
        return Finding("gpu", False, f"{names}, driver {driver}; this torch cannot use it", "make setup TORCH=cuda")
    return Finding("gpu", True, f"{names}, driver {driver}")


def gpu_figures(gpus: list[Gpu]) -> list[Finding]:
    """Which of NVML's figures budgets can use; nothing to say without a GPU."""
    if not gpus:
        return []
    memory = all(one.used_per_process for one in gpus)
    energy = all(one.energy for one in gpus)
    return [
        Finding(
            "gpu memory",
            memory,
            "NVML gives a figure for each process"
            if memory
            else "NVML shows no process with its memory (usual in a container): limits apply to the allocator's peak",
            "" if memory else "run outside a container, or with the host's process ids (--pid=host)",
        ),
        Finding("gpu energy", energy, "NVML counts it" if energy else "this GPU or driver does not count it"),
    ]


def compiler() -> Finding:
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        said = runs(name, "--version") if name else None
        if said is not None:
            return Finding("c++ compiler", True, said)
    return Finding(
        "c++ compiler",
        False,
        "none runs: torch.compile and C++ extensions are not measured",
        install("g++", "xcode-select --install"),
    )


def triton(gpu_there: bool) -> Finding:
    version = version_of("triton")
    if version is None:
        extra = "pip install -c constraints.txt -e '.[kernels]'"
        return Finding("triton", False, "not installed: kernels are not measured", extra)
    return Finding(
        "triton",
        True,
        f"{version}, {'on the GPU' if gpu_there else 'in its interpreter (no GPU); it still compiles for GPUs'}",
    )


def peers() -> list[Finding]:
    """Each package of adapters under reference/peers, with the packages that it says it needs."""
    findings = []
    folder = root() / "reference" / "peers"
    for adapter in sorted(path for path in folder.glob("*/__init__.py")):
        needed = requires(adapter)
        versions = {package: version_of(package) for package in needed}
        missing = [package for package, version in versions.items() if version is None]
        detail = ", ".join(f"{package} {version}" for package, version in versions.items() if version)
        if missing:
            detail = f"{', '.join(missing)} not installed: races and checks against it are not measured"
        findings.append(Finding(f"peer {adapter.parent.name}", not missing, detail, "make setup" if missing else ""))
    return findings


def requires(adapter: Path) -> list[str]:
    """`REQUIRES` of an adapter, read without importing it; its own name where it declares none."""
    try:
        tree = ast.parse(adapter.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return [adapter.parent.name]
    for node in tree.body:
        target = (
            node.target
            if isinstance(node, ast.AnnAssign)
            else node.targets[0]
            if isinstance(node, ast.Assign)
            else None
        )
        if (
            isinstance(target, ast.Name)
            and target.id == "REQUIRES"
            and isinstance(node, ast.Assign | ast.AnnAssign)
            and node.value
        ):
            try:
                value = ast.literal_eval(node.value)
            except ValueError:
                break
            return [str(package) for package in value]
    return [adapter.parent.name]


def data() -> Finding:
    """How many of the registered data sets are here now; missing ones are listed by `touchstone data`."""
    from touchstone.data import datasets

    named = os.environ.get("TOUCHSTONE_DATA")
    where = (
        "in TOUCHSTONE_DATA, the cache or embedded"
        if named
        else "in the cache or embedded (TOUCHSTONE_DATA is not set)"
    )
    try:
        sets = datasets.registry().datasets
        states = {name: datasets.available(name) for name, entry in sets.items() if not entry.absent}
    except (OSError, ValueError) as error:
        return Finding("data sets", False, f"the registry cannot be read: {error}")
    absent = len(sets) - len(states)
    missing = [name for name, state in states.items() if not state]
    served = [name for name in missing if states[name].downloadable]
    detail = f"{len(states) - len(missing)} of {len(states)} are here, {where}"
    if absent:
        detail += f"; {absent} more have a name and no source"
    if missing:
        detail += f"; missing: {', '.join(missing[:4])}{' …' if len(missing) > 4 else ''}"
    command = f"touchstone data {served[0]}  (or export TOUCHSTONE_DATA=FOLDER)" if served else ""
    if missing and not served:
        command = "export TOUCHSTONE_DATA=FOLDER"
    return Finding("data sets", not missing, detail, command)


def network(seconds: float = 3.0) -> Finding:
    """Whether the host that most data sets come from has an address; nothing is sent to it."""
    host = data_host()
    answered = threading.Event()

    def look() -> None:
        try:
            socket.getaddrinfo(host, 443)
        except OSError:
            return
        answered.set()

    looker = threading.Thread(target=look, daemon=True)  # a resolver can hang for longer than a person waits
    looker.start()
    looker.join(seconds)
    if answered.is_set():
        return Finding("network", True, f"{host} has an address: data sets can be downloaded")
    return Finding(
        "network",
        False,
        f"{host} has no address here: nothing is downloaded; what needs no missing data runs",
        "export TOUCHSTONE_DATA=FOLDER with the files that `touchstone data` lists",
    )


def data_host() -> str:
    from touchstone.data import datasets

    try:
        urls = [file.url for file in datasets.registry().files.values() if file.url]
    except (OSError, ValueError):
        urls = []
    hosts = [urlsplit(url).hostname or "" for url in urls]
    return max(sorted(set(hosts)), key=hosts.count) if hosts else "github.com"


def browser() -> Finding:
    program = next(
        filter(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")), None
    )
    wanted = "the scoreboard's page is not looked at in a browser"
    if program is None:
        return Finding("browser", False, f"no Chromium: {wanted}", install("chromium", "brew install --cask chromium"))
    if version_of("playwright") is None:
        return Finding("browser", False, f"{program}, but no playwright to drive it: {wanted}", "make setup")
    return Finding("browser", True, runs(program, "--version") or program)


def tools() -> list[Finding]:
    """Programs that a few checks or commands call."""
    uses = {
        "git": ("records name no commit", install("git", "xcode-select --install")),
        "make": ("the make targets cannot be used", install("make", "xcode-select --install")),
        "actionlint": ("workflows are not linted", "make setup"),
    }
    findings = []
    for name, (loss, command) in uses.items():
        said = runs(name, "--version")
        findings.append(
            Finding(name, said is not None, said or f"not found: {loss}", "" if said is not None else command)
        )
    return findings


def main() -> None:
    """Print the findings, one line each, and under what is missing the command that would change it."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="replace"
        )  # a terminal that knows only ASCII gets ? for an arrow, not a traceback
    findings = report()
    width = max(len(finding.topic) for finding in findings)
    for finding in findings:
        print(f"{'yes' if finding.ok else 'no '}  {finding.topic:<{width}}  {finding.detail}")
        if finding.command:
            print(f"     {'':<{width}}  → {finding.command}")
    print(f"\n{sum(finding.ok for finding in findings)} of {len(findings)} are there; the rest shows as not measured.")


if __name__ == "__main__":
    main()
