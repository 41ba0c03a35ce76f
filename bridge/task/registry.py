"""The declared tasks: who takes which events, in which order, and the import of the modules that declare them."""

from __future__ import annotations

import importlib
import itertools
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bridge.errors import SettingsError
from bridge.messages.routing import Route


class _Declared(NamedTuple):
    """A declared task: its place in the order of definition, its module, where its function stands, what it takes."""

    sequence: int
    module: str
    where: str
    route: Route


_declared: dict[str, _Declared] = {}
_sequence = itertools.count()


def place_of(name: str) -> str | None:
    """Return ``file:line`` of the function declared under this task name, or None."""
    return _declared[name].where if name in _declared else None


def declare(module: str, where: str, route: Route) -> None:
    """Remember a task's route; ``where`` is ``file:line`` of its function. A later one of the same name replaces it."""
    _declared[route.task] = _Declared(next(_sequence), module, where, route)


def declared_routes(modules: Sequence[str] = ()) -> tuple[Route, ...]:
    """Return the routes in the order of ``modules``, then of definition; a module's submodules count as it."""

    def position(declared: _Declared) -> tuple[int, int]:
        owners = [n for n, name in enumerate(modules) if f"{declared.module}.".startswith(f"{name}.")]
        return (owners[0] if owners else len(modules), declared.sequence)

    return tuple(declared.route for declared in sorted(_declared.values(), key=position))


def import_tasks(modules: Sequence[str]) -> None:
    """Import the task modules; raises SettingsError with the place of the error in a module that fails."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as ``celery -A`` does, and as a user of my_files.py expects
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
                raise SettingsError(f"BRIDGE_TASK_MODULES={name}: there is no module {error.name}") from error
            raise SettingsError(f"BRIDGE_TASK_MODULES={name}: {_place(error)}") from error
        except (Exception, SystemExit) as error:  # anything a user's module may raise; a script among them may exit
            raise SettingsError(f"BRIDGE_TASK_MODULES={name}: {_place(error)}") from error


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    text = " ".join(str(error).split())
    return f"cannot be imported: {type(error).__name__}: {text}{where}"
