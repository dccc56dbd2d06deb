"""What the author of a bench writes: a race, by its timed call, its inputs, its lanes and its cost.

    @race("nn.gelu", peers=["peers.torch"], shapes=[(64, 4096)], inputs=rows, flops=…, bytes=…)
    def forward(gelu, x):
        return gelu(x)

The lanes of a race are yours (`--impl`), ours (`impl`) and its peers; times are relative to the first peer's.  Nothing
here imports torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from touchstone.implementations import MISSING, Namespace, namespace
from touchstone.marks import house_name
from touchstone.outcomes import NotMeasured, Todo

if TYPE_CHECKING:
    from touchstone.judgement.draw import Draw
    from touchstone.runs.session import Touchstone

F = TypeVar("F", bound=Callable[..., Any])
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Race:
    """One race over several shapes; the functions take the numbers of a shape one by one."""

    subject: str
    peers: tuple[str | Callable[..., Any], ...]
    shapes: tuple[Shape, ...]
    inputs: Callable[..., Sequence[Any]]
    flops: Callable[..., float]
    bytes: Callable[..., float]
    prepare: Callable[..., Any] | None
    fresh: bool
    body: Callable[..., Any]


def race(
    subject: str,
    *,
    peers: Sequence[str | Callable[..., Any]],
    shapes: Sequence[int | Shape],
    inputs: Callable[..., Sequence[Any]],
    flops: Callable[..., float],
    bytes: Callable[..., float],
    prepare: Callable[..., Any] | None = None,
    fresh: bool = False,
) -> Callable[[F], F]:
    """Make a race of a function `body(subject, *inputs)`; its output is what lanes are compared by.

    Args:
        subject: the name that is raced, `room.noun`.
        peers: layers that have the name (`"peers.torch"`), or functions `peer(*shape)` that return what stands for it,
            where an adapter would cost the peer time that is not its own; the first is what times are relative to.
        shapes: one number or tuple of numbers for each case.
        inputs: `inputs(draw, *shape)` gives fresh random inputs; called for every timed call.
        flops: operations of a call, a multiply-add counting two; `bytes`: what it must read and write at least.
        prepare: `prepare(lane, *shape)` makes what the body gets as its subject (a module with weights, a model with
            its optimiser) from the lane's names; without it that is the name itself.
        fresh: each lane runs in a process of its own, for where the state of one would reach the others (threads,
            allocator, caches); on a CPU only.

    Raises:
        ValueError: no room.noun, no shape, or shapes of different lengths.
    """
    house_name(subject)
    cases = tuple(shape if isinstance(shape, tuple) else (shape,) for shape in shapes)
    if not cases or len({len(case) for case in cases}) > 1:
        raise ValueError(f"shapes must hold at least one case, all of the same length, got {shapes!r}")
    if len(set(cases)) < len(cases):
        raise ValueError(f"shapes must differ from each other, got {shapes!r}")

    def mark(body: F) -> F:
        made = Race(subject, tuple(peers), cases, inputs, flops, bytes, prepare, fresh, body)
        body.__touchstone_race__ = made  # type: ignore[attr-defined]
        return body

    return mark


@dataclass
class Entry:
    """Who runs one race: the callables by label, challengers first; and who cannot, with the reason."""

    lanes: dict[str, Callable[..., Any]]
    challengers: list[str]
    peers: list[str]
    absent: dict[str, str] = field(default_factory=dict)
    precisions: dict[str, str] = field(default_factory=dict)  # of lanes that declare one


def enter(mine: Touchstone, race: Race, shape: Shape, device: str) -> Entry:
    """The lanes of a race at one shape.

    Raises:
        Todo: the implementation that `--impl` names does not have the subject.
        NotMeasured: the implementation is a package that is not installed.
    """
    yours = mine.impl
    yours[race.subject]  # a todo before anybody is timed
    entry = Entry({}, [], [])
    spaces: dict[str, Namespace] = {yours.layer(race.subject): yours}
    ours = namespace("impl", mine.house)
    if ours.has(race.subject):
        spaces.setdefault("impl", ours)
    for peer in race.peers:
        label = peer if isinstance(peer, str) else peer.__name__
        try:
            if isinstance(peer, str):
                space = namespace(peer, mine.house)
                spaces.pop(label, None)  # a peer that is yours too runs once, as the peer
                thing = _thing(race, space, shape)
            else:
                thing = peer(*shape)
        except (NotMeasured, Todo) as missing:
            entry.absent[label] = missing.reason
            continue
        entry.lanes[label] = _lane(race.body, thing, device)
        entry.peers.append(label)
    challengers = {label: _lane(race.body, _thing(race, space, shape), device) for label, space in spaces.items()}
    entry.challengers = list(challengers)
    declared = {label: space.declared(race.subject).get("precision") for label, space in spaces.items()}
    entry.precisions |= {label: precision for label, precision in declared.items() if precision is not None}
    entry.lanes = challengers | entry.lanes
    return entry


def _thing(race: Race, space: Namespace, shape: Shape) -> Any:
    subject = space[race.subject]
    if subject is MISSING:
        raise Todo(f"{race.subject} is not in {space.label}")
    return subject if race.prepare is None else race.prepare(space, *shape)


def _lane(body: Callable[..., Any], thing: Any, device: str) -> Callable[..., Any]:
    if device != "cpu" and hasattr(thing, "to"):
        thing = thing.to(device)

    def lane(*inputs: Any) -> Any:
        return body(thing, *inputs)

    return lane


def inputs_of(race: Race, draw: Draw, shape: Shape, device: str) -> Callable[[], Sequence[Any]]:
    """Fresh inputs for one call, on the race's device."""

    def fresh() -> Sequence[Any]:
        found = race.inputs(draw, *shape)
        found = found if isinstance(found, tuple | list) else (found,)
        return found if device == "cpu" else [_moved(value, device) for value in found]

    return fresh


def _moved(value: Any, device: str) -> Any:
    if not hasattr(value, "detach"):
        return value
    return value.detach().to(device).requires_grad_(value.requires_grad)


def case(shape: Shape) -> str:
    """How a shape reads in a node id and a race's name: 64x4096."""
    return "x".join(map(str, shape))


def title(race: Race, shape: Shape) -> str:
    """`attention forward 512`: the bench's file, the race's function, the shape."""
    stem = inspect.getmodulename(race.body.__code__.co_filename) or ""
    words = [stem.removeprefix("bench_"), race.body.__name__.replace("_", " "), case(shape)]
    return " ".join(word for word in words if word)
