"""Which sagas a process has, and what their steps need: named by module."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from orchestrator.domain.inbound import Inbound, OnEvent, OnSignal
from orchestrator.domain.saga import Saga
from orchestrator.errors import InvalidInputError, NotFoundError, OrchestratorError

Resources = Mapping[type, object]
OpenResources = Callable[[str], AbstractAsyncContextManager[Resources]]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Sagas with what opens the resources of their steps."""

    sagas: tuple[Saga[Any, Any], ...]
    resources: tuple[OpenResources, ...] = ()
    inbound: tuple[Inbound, ...] = ()


def load_catalogue(modules: Iterable[str]) -> Catalogue:
    """The sagas of modules, named as in an import statement, looked for in this directory too.

    A module offers its `SAGAS`, or all sagas at its top level; its `INBOUND`, or all `on_event`
    and `on_signal` at its top level; and, if it has one, its `resources`: a mapping from type to
    resource, or an async context manager that takes the database URL and yields one.
    """
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    sagas: dict[int, Saga[Any, Any]] = {}
    opens: list[OpenResources] = []
    inbound: dict[int, Inbound] = {}
    for name in modules:
        module = _import(name)
        found = getattr(module, "SAGAS", None) or [
            value for value in vars(module).values() if isinstance(value, Saga)
        ]
        declared = getattr(module, "INBOUND", None) or [
            value for value in vars(module).values() if isinstance(value, OnEvent | OnSignal)
        ]
        if not found and not declared:
            raise NotFoundError(
                f"module {name!r} holds no saga; give it a SAGAS tuple or a Saga at its top level"
            )
        inbound.update((id(one), one) for one in declared)
        sagas.update((id(saga), saga) for saga in found)
        resources = getattr(module, "resources", None)
        if resources is not None and not isinstance(resources, ModuleType):
            opens.append(_opening(name, resources))
    return Catalogue(tuple(sagas.values()), tuple(opens), tuple(inbound.values()))


def _opening(module: str, resources: Any) -> OpenResources:
    if callable(resources):
        return cast("OpenResources", resources)
    if isinstance(resources, Mapping):
        return lambda dsn: nullcontext(resources)
    raise InvalidInputError(
        f"{module}.resources is {type(resources).__name__}; give a mapping from type to resource, "
        "or an async context manager that takes the database URL and yields one"
    )


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except OrchestratorError:
        raise
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is None or not f"{name}.".startswith(f"{missing}."):
            raise InvalidInputError(
                f"module {name!r} cannot be imported: {type(error).__name__}: {error}"
            ) from error
        raise NotFoundError(
            f"there is no module {name!r}; name it as in an import statement, and run the command "
            f"in the directory that holds it (this is {Path.cwd()})"
        ) from error
