"""The fixtures a test author asks for by name."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from touchstone.judgement.draw import Draw
from touchstone.outcomes import NotMeasured, need_gpu
from touchstone.plugin import touchstone_of
from touchstone.runs.sources import source_closure

if TYPE_CHECKING:
    from touchstone.implementations import Namespace, Peers
    from touchstone.judgement.parity import Parity
    from touchstone.runs.records import Figures
    from touchstone.runs.session import Touchstone


@pytest.fixture(scope="session")
def touchstone(request: pytest.FixtureRequest) -> Touchstone:
    """The session's state; for the instrument's own checks."""
    mine = touchstone_of(request.config)
    if mine is None:
        pytest.fail("this fixture belongs to a Touchstone house (a folder with spec/catalog/)")
    return mine


@pytest.fixture(scope="session")
def impl(touchstone: Touchstone) -> Namespace:
    """What is held to the spec: `impl.room.noun` or `impl["room.noun"]`."""
    return touchstone.impl


@pytest.fixture(scope="session")
def oracle(touchstone: Touchstone) -> Namespace:
    """The float64 NumPy reference, raw: arrays in, arrays out."""
    return touchstone.oracle


@pytest.fixture(scope="session")
def peers(touchstone: Touchstone) -> Peers:
    """Trusted packages behind the same names: `peers.torch.room.noun`; *not measured* where one is not installed."""
    return touchstone.peers


@pytest.fixture
def seed(request: pytest.FixtureRequest, touchstone: Touchstone) -> int:
    """The seed of this test's inputs, from --seed and the test's name."""
    return touchstone.seed(request.node)


@pytest.fixture
def draw(seed: int) -> Draw:
    """Random inputs: `draw.normal(2, 3, dtype="float32")`, `draw.integers(0, 10, 4)` …"""
    return Draw(seed)


@pytest.fixture
def record(touchstone: Touchstone) -> Figures:
    """Record named figures, curves and histograms of this test for the scoreboard."""
    return touchstone.figures


@pytest.fixture
def parity(request: pytest.FixtureRequest, touchstone: Touchstone, seed: int) -> Parity:
    """Hold a name to the oracle: `parity("room.noun", *inputs, within=1e-12, gradients=True)`."""
    from touchstone.judgement.parity import Parity
    from touchstone.runs import variants

    quiet = touchstone.quiet
    return Parity(
        touchstone.impl,
        touchstone.oracle,
        mutants=(lambda name: []) if quiet else (lambda name: variants.diagnoses(touchstone, name)),
        seed=seed,
        nodeid=request.node.nodeid,
        record=touchstone.figures,
        failures_dir=None if quiet else touchstone.house.failures,
        law=touchstone.catalog.law(touchstone.lines(request.node)),
    )


class Needs:
    """Say what a check needs; where the machine lacks it the outcome is *not measured*, with the reason."""

    def gpu(self) -> None:
        need_gpu()

    def peer(self, package: str) -> None:
        if importlib.util.find_spec(package) is None:
            raise NotMeasured(f"peer:{package}", "not installed")

    def tool(self, name: str) -> str:
        """The path of a program."""
        found = shutil.which(name)
        if found is None:
            raise NotMeasured(f"tool:{name}", "not on PATH")
        return found


@pytest.fixture(scope="session")
def needs() -> Needs:
    return Needs()


@pytest.fixture
def dataset(touchstone: Touchstone) -> Callable[[str], Path]:
    """`dataset("shakespeare")`: the folder or file of a registered data set, else *not measured: data:NAME*."""

    def find(name: str) -> Path:
        from touchstone.data import datasets

        try:
            path = datasets.path(name)
        except datasets.DataUnavailable as error:
            raise NotMeasured(error.need, error.detail) from None
        touchstone.datasets.add(name)
        return path

    return find


@pytest.fixture(scope="session")
def artifact(touchstone: Touchstone) -> Callable[..., Any]:
    """`artifact(build, names=[…], config={…}, seed=0)`: a trained thing, made once for all tests that need it.

    `build(impl, config, seed)` returns `(tensors, info)`.  `names` are the names it uses through `impl`: the cache is
    keyed by their sources, by the build's own file, the configuration, the data and the seed.
    """

    def get(
        build: Callable[..., Any],
        *,
        names: list[str],
        config: dict[str, Any],
        seed: int = 0,
        data: tuple[str, ...] = (),
    ) -> Any:
        from touchstone.data import artifacts

        plain: Any = build.func if isinstance(build, partial) else build
        begin = []
        for name in names:
            touchstone.impl[name]  # a missing name is a todo, cached artifact or not
            home = touchstone.impl.home(name)
            found = home.file(name) if home is not None else None
            if found is not None:
                begin.append(found)
        roots = {  # what those files import is followed within their own packages
            part.package.split(".")[0]: [part.root, *part.root.parents][part.package.count(".")]
            for part in touchstone.impl.layers
        }
        return artifacts.cached(
            partial(build, touchstone.impl, config, seed),
            name=f"{plain.__module__.rsplit('.', 1)[-1]}-{plain.__name__}".replace("_", "-"),
            config=config,
            seed=seed,
            data=data,
            sources=source_closure(begin, roots),
            root=touchstone.house.artifacts,
        )

    return get


@pytest.fixture(autouse=True)
def _clean_state(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each spec test begins with seeded global generators and leaves torch's global switches as it found them."""
    mine = touchstone_of(request.config)
    if mine is None or not mine.is_spec(request.node):
        yield
        return
    seed = mine.seed(request.node)
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized() or request.node.get_closest_marker("gpu"):
        torch.cuda.manual_seed_all(seed)
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    yield
    torch.set_default_dtype(dtype)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    torch.set_grad_enabled(True)
    if torch.are_deterministic_algorithms_enabled():  # asking costs nothing, setting it imports torch's compiler
        torch.use_deterministic_algorithms(False)
