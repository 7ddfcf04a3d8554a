"""`Compensation`: steps and their undos written as pairs."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from orchestrator.domain.bounds import shown
from orchestrator.domain.definition import A, B, C, In, Out, Primitive, Sequential
from orchestrator.domain.steps import Step, TransactionalUndo, UndoAction
from orchestrator.domain.wrappers import Scope, spell_argument
from orchestrator.errors import DefinitionError

D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
G = TypeVar("G")

Undoing = UndoAction[A, B] | TransactionalUndo[A, B, Any] | None


class Compensation(Sequential[In, Out]):
    """Pairs of do and undo, in order: `Compensation(((create, delete), (send, None)))`.

    A scope: when one fails, those before it are undone before the error goes outward.
    """

    def with_children(self, children: tuple[Primitive[Any, Any], ...]) -> Primitive[In, Out]:
        return Scope(Sequential(children))

    @overload
    def __init__(
        self: Compensation[A, B],
        pairs: tuple[tuple[Step[A, B], Undoing[A, B]]],
    ) -> None: ...
    @overload
    def __init__(
        self: Compensation[A, C],
        pairs: tuple[tuple[Step[A, B], Undoing[A, B]], tuple[Step[B, C], Undoing[B, C]]],
    ) -> None: ...
    @overload
    def __init__(
        self: Compensation[A, D],
        pairs: tuple[
            tuple[Step[A, B], Undoing[A, B]],
            tuple[Step[B, C], Undoing[B, C]],
            tuple[Step[C, D], Undoing[C, D]],
        ],
    ) -> None: ...
    @overload
    def __init__(
        self: Compensation[A, E],
        pairs: tuple[
            tuple[Step[A, B], Undoing[A, B]],
            tuple[Step[B, C], Undoing[B, C]],
            tuple[Step[C, D], Undoing[C, D]],
            tuple[Step[D, E], Undoing[D, E]],
        ],
    ) -> None: ...
    @overload
    def __init__(
        self: Compensation[A, F],
        pairs: tuple[
            tuple[Step[A, B], Undoing[A, B]],
            tuple[Step[B, C], Undoing[B, C]],
            tuple[Step[C, D], Undoing[C, D]],
            tuple[Step[D, E], Undoing[D, E]],
            tuple[Step[E, F], Undoing[E, F]],
        ],
    ) -> None: ...
    @overload
    def __init__(
        self: Compensation[A, G],
        pairs: tuple[
            tuple[Step[A, B], Undoing[A, B]],
            tuple[Step[B, C], Undoing[B, C]],
            tuple[Step[C, D], Undoing[C, D]],
            tuple[Step[D, E], Undoing[D, E]],
            tuple[Step[E, F], Undoing[E, F]],
            tuple[Step[F, G], Undoing[F, G]],
        ],
    ) -> None: ...
    def __init__(self, pairs: tuple[tuple[Step[Any, Any], Any], ...]) -> None:
        if not isinstance(pairs, tuple | list) or not all(map(_is_pair, pairs)):
            raise DefinitionError(
                f"Compensation: {shown(pairs)} is not a tuple of pairs; "
                "write Compensation(((do, undo), (do, None)))"
            )
        for do, _ in pairs:
            if not isinstance(do, Step):
                raise DefinitionError(
                    f"Compensation: a pair begins with a step; {shown(do)} is none; "
                    "make it one with @step"
                )
        super().__init__(tuple(do if undo is None else do.undo(undo) for do, undo in pairs))

    def __repr__(self) -> str:
        pairs = (f"({do!r}, {_spell_undo(do)})" for do in self.steps)
        return f"Compensation(({', '.join(pairs)},))"


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2


def _spell_undo(do: Primitive[Any, Any]) -> str:
    undo = do.undo_completed if isinstance(do, Step) else None
    return "None" if undo is None else spell_argument(undo.action)
