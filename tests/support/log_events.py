"""Every log event of the code, found by reading it: ``log.<level>("event", field=…)`` in bridge and tasks."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

from tests import REPOSITORY

LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
#: Level → what it is called in a line.
_NAMES = {"exception": "error"}

#: What stands behind ``**something`` in a call, by the words after the stars; any other is a fault of the test.
MESSAGE = frozenset({"message_id", "task_id", "task", "queue", "bucket", "key", "objects", "attempt"})
SETTLEMENT = MESSAGE | {"outcome", "reason", "error_type", "error", "receives", "body_sha256", "body_bytes"}


class Unread(Exception):  # noqa: N818 - says what the reader could not read
    """A call whose event or fields cannot be told from the source."""


class Found:
    """What the calls of one event have: their levels and all fields that a line of it may have."""

    def __init__(self) -> None:
        self.levels: set[str] = set()
        self.fields: set[str] = set()


def events(root: Path = REPOSITORY) -> dict[str, Found]:
    """Every event of the two packages. Raises Unread for a call that this reader does not understand."""
    found: dict[str, Found] = defaultdict(Found)
    for file in sorted([*(root / "bridge").rglob("*.py"), *(root / "tasks").rglob("*.py")]):
        read(file.read_text(encoding="utf-8"), str(file.relative_to(root)), found)
    return found


def read(source: str, where: str, found: dict[str, Found]) -> None:
    """Add what ``source`` logs to ``found``."""
    tree = ast.parse(source)
    for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
        for inner in ast.walk(function):
            inner.function = function  # type: ignore[attr-defined]  # the innermost wins: outer ones are walked first
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[target], value=value) if "get_logger(__name__)" in ast.unparse(value):
                if ast.unparse(target) != "log":
                    raise Unread(f"{where}:{node.lineno}: a logger is called log, or its events are not seen here")
        if not isinstance(node, ast.Call):
            continue
        levels = _levels(node.func)
        if not levels:
            continue
        place = f"{where}:{node.lineno}"
        if len(node.args) != 1:
            raise Unread(f"{place}: a log line has an event's name and fields")
        for event in _texts(node.args[0], place):
            found[event].levels |= {_NAMES.get(level, level) for level in levels}
            found[event].fields |= _fields(node, place) | ({"exception"} if "exception" in levels else set())


def _levels(function: ast.expr) -> set[str]:
    """The levels that a call logs at; ``(log.info if … else log.debug)("poll")`` has two; empty for other calls."""
    if isinstance(function, ast.IfExp):
        return _levels(function.body) | _levels(function.orelse)
    if not (isinstance(function, ast.Attribute) and function.attr in LEVELS):
        return set()
    owner = function.value
    is_log = (isinstance(owner, ast.Name) and owner.id == "log") or (
        isinstance(owner, ast.Call) and ast.unparse(owner.func).endswith("get_logger")
    )
    return {function.attr} if is_log else set()


def _texts(node: ast.expr, place: str) -> list[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.IfExp):
        return _texts(node.body, place) + _texts(node.orelse, place)
    raise Unread(f"{place}: the event's name is not a text")


def _fields(call: ast.Call, place: str) -> set[str]:
    fields: set[str] = set()
    for keyword in call.keywords:
        fields |= {keyword.arg} if keyword.arg else _behind(keyword.value, call, place)
    return {"exception" if field == "exc_info" else field for field in fields}


def _behind(value: ast.expr, call: ast.Call, place: str) -> set[str]:
    """The fields of ``**value``."""
    match value:
        case ast.Dict():
            fields: set[str] = set()
            for key, item in zip(value.keys, value.values, strict=True):
                if key is None:
                    fields |= _behind(item, call, place)
                else:
                    fields |= set(_texts(key, place))
            return fields
        case ast.IfExp():
            return _behind(value.body, call, place) | _behind(value.orelse, call, place)
        case ast.BinOp(op=ast.BitOr()):
            return _behind(value.left, call, place) | _behind(value.right, call, place)
        case ast.Attribute(attr="log_fields"):
            return set(MESSAGE)
        case ast.Call(func=ast.Name(id="_fields")) if place.startswith("bridge/delivery/settler.py"):
            return set(SETTLEMENT)
        case ast.Call(func=ast.Name(id="banner_fields")):
            return _returned("bridge/worker/banner.py", "banner_fields")
        case ast.Call(func=ast.Name(id="body_fields")):
            return _returned("bridge/log.py", "body_fields")
        case ast.Name(id=name):
            return _local(name, call, place)
    raise Unread(f"{place}: **{ast.unparse(value)} could be anything; teach tests/support/log_events.py what it is")


def _returned(file: str, name: str) -> set[str]:
    """The keys of all dicts written in a function."""
    tree = ast.parse((REPOSITORY / file).read_text(encoding="utf-8"))
    [function] = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name]
    return _keys(function)


def _keys(node: ast.AST) -> set[str]:
    return {
        key.value
        for inner in ast.walk(node)
        if isinstance(inner, ast.Dict)
        for key in inner.keys
        if isinstance(key, ast.Constant)
    }


def _local(name: str, call: ast.Call, place: str) -> set[str]:
    """The keys of a dict that the function around the call writes, or gets as ``**name`` from calls in its file."""
    function: ast.FunctionDef = call.function  # type: ignore[attr-defined]  # set by ``read``
    if function.args.kwarg is not None and function.args.kwarg.arg == name:
        tree = ast.parse((REPOSITORY / place.partition(":")[0]).read_text(encoding="utf-8"))
        own = {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)}
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        mine = [node for node in calls if ast.unparse(node.func).rpartition(".")[2] == function.name]
        return {keyword.arg for node in mine for keyword in node.keywords if keyword.arg} - own
    fields: set[str] = set()
    known = False
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[ast.Name(id=target)], value=ast.Dict()) if target == name:
                fields |= _keys(node)
                known = True
            case ast.AnnAssign(target=ast.Name(id=target), value=ast.Dict()) if target == name:
                fields |= _keys(node)
                known = True
            case ast.Assign(targets=[ast.Subscript(value=ast.Name(id=target), slice=ast.Constant(value=str(key)))]):
                fields |= {key} if target == name else set()
    if not known:
        raise Unread(f"{place}: **{name} is no dict written in this function")
    return fields
