"""Sizes of axes, some only known by name, and which part of which axis goes where in a view."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce


@dataclass(frozen=True)
class Size:
    """So many elements: a number times sizes that have only a name."""

    factor: int
    symbols: tuple[str, ...] = ()

    def times(self, other: "Size") -> "Size":
        return Size(self.factor * other.factor, tuple(sorted((*self.symbols, *other.symbols))))

    def over(self, other: "Size") -> "Size | None":
        """The quotient, where it is a size."""
        left = Counter(self.symbols)
        left.subtract(other.symbols)
        if not other.factor or self.factor % other.factor or any(count < 0 for count in left.values()):
            return None
        return Size(self.factor // other.factor, tuple(sorted(left.elements())))

    @property
    def number(self) -> int | None:
        """None where it has a name in it."""
        return None if self.symbols else self.factor


Sizes = tuple[Size, ...]
ONE = Size(1)


@dataclass(frozen=True)
class Atom:
    """What a view leaves together: a part of axis `given` of its input, and of axis `made` of its output; -1: an axis of one element that
    is there on one side only. `size` None: as many elements as nobody can say."""

    size: Size | None
    given: int
    made: int


def product(sizes: Sequence[Size]) -> Size:
    return reduce(Size.times, sizes, ONE)


def solve(given: Sizes, made: Sequence[Size | None]) -> list[Size | None]:
    """`made`, where one size is not known of it that follows from the number of elements. Names that `given` does not have say nothing."""
    names = {symbol for size in given for symbol in size.symbols}
    known = [size if size is not None and names.issuperset(size.symbols) else None for size in made]
    if known.count(None) != 1:
        return known
    rest = product([size for size in known if size is not None])
    return [product(given).over(rest) if size is None else size for size in known]


def regroup(given: Sizes, made: Sequence[Size | None]) -> list[Atom] | None:
    """The atoms of a view in their order, which is that of both sides; None where the sizes have no common parts.

    From the last axis on, until a size is not known: what is in front of that is one atom.
    """
    if any(size is not None and size.factor < 1 for size in (*given, *made)):
        return None
    atoms: list[Atom] = []
    of_given, of_made = list(given), list(made)
    i, j = len(given) - 1, len(made) - 1
    while i >= 0 and j >= 0:
        left, right = of_given[i], of_made[j]
        if right is None:
            break
        if (rest := right.over(left)) is not None and left != right:
            atoms.append(Atom(left, i, j))
            of_made[j], i = rest, i - 1
        elif (rest := left.over(right)) is not None:
            atoms.append(Atom(right, i, j))
            of_given[i], j = rest, j - 1
            i -= left == right
        else:
            break
    if i >= 0 and j >= 0:
        atoms.append(Atom(None, i, j))
    elif any(size != ONE for size in (*of_given[: i + 1], *of_made[: j + 1])):
        return None
    atoms += [Atom(ONE, axis, -1) for axis in range(i, -1, -1) if j < 0] + [Atom(ONE, -1, axis) for axis in range(j, -1, -1) if i < 0]
    return atoms[::-1]
