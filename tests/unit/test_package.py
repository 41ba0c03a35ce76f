from __future__ import annotations

import subprocess
import sys

import pytest

import bridge


def modules_after(statement: str) -> set[str]:
    """What a fresh interpreter has imported after a statement."""
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    return set(done.stdout.split())


def test_the_public_names_are_there():
    """The six names of the package, and no others by accident."""
    assert {name: getattr(bridge, name).__name__ for name in bridge.__all__} == {name: name for name in bridge.__all__}
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = bridge.no_such_name


@pytest.mark.slow
def test_the_pytest_plugin_brings_no_celery_app():
    """Another project's pytest run loads it; a Celery app of ours there would become the current one."""
    assert not {"celery", "boto3", "bridge.celery"} & modules_after("import bridge.pytest_plugin")


@pytest.mark.slow
def test_a_module_of_tasks_brings_no_sdk():
    """Importing tasks reads no settings and needs neither boto3 nor pydantic."""
    assert not {"boto3", "botocore", "pydantic", "bridge.settings.loading"} & modules_after(
        "from bridge import file_task"
    )
