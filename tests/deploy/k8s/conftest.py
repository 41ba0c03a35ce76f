"""Everything that can be applied, rendered once."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from types import ModuleType

import pytest

from tests.deploy.k8s.kustomize import K8S, Document, copy, fill_in, render, use

Rendered = Callable[[str], list[Document]]

#: The production overlay with components, in the order of its kustomization.
PRODUCTION: dict[str, tuple[str, ...]] = {
    "production": (),
    "scaled-job": ("scaled-job",),
    "tasks-from-configmap": ("tasks-from-configmap",),
    "long-tasks": ("long-tasks",),
    "archive": ("archive",),
    "job-launcher": ("job-launcher",),
    "spot": ("spot",),
    "monitoring": ("monitoring",),
    "flower-ingress": ("flower-ingress",),
    "jobs-on-spot": ("scaled-job", "tasks-from-configmap", "spot", "monitoring"),
    "workers-on-spot": ("tasks-from-configmap", "job-launcher", "spot", "monitoring", "flower-ingress"),
}
ALONE = {"dev": "overlays/dev", "logging": "components/logging"}
EVERYTHING = [*PRODUCTION, *ALONE]


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """The documents of what EVERYTHING names, with all placeholders answered."""
    done: dict[str, list[Document]] = {}

    def of(name: str) -> list[Document]:
        if name not in done:
            k8s = copy(tmp_path_factory.mktemp("k8s"))
            fill_in(k8s)
            folder = k8s / ALONE.get(name, "overlays/production")
            use(folder, *PRODUCTION.get(name, ()))
            if "tasks-from-configmap" in PRODUCTION.get(name, ()):
                (folder / "my_files.py").write_text("")
                path = folder / "kustomization.yaml"
                generator = "configMapGenerator:\n"
                own = f"{generator}  - name: bucket-brigade-tasks\n    files: [my_files.py]\n"
                path.write_text(path.read_text().replace(generator, own))
            done[name] = render(folder)
        return done[name]

    return of


@pytest.fixture(scope="session")
def check() -> ModuleType:
    """k8s/check.py as a module."""
    spec = importlib.util.spec_from_file_location("k8s_check", K8S / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
