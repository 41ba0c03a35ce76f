"""The Job by which k8s/aws/deploy.sh asks the doctor, rendered beside an overlay as deploy.sh does."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from tests.deploy.k8s.kustomize import Document, copy, fill_in, one, render, use


def beside_the_job(folder: Path, *components: str) -> list[Document]:
    """The documents of the production overlay with these components, and of the check."""
    k8s = copy(folder)
    fill_in(k8s)
    overlay = k8s / "overlays/production"
    use(overlay, *components)
    if components:
        (overlay / "my_files.py").write_text("")
        path = overlay / "kustomization.yaml"
        generator = "configMapGenerator:\n"
        own = f"{generator}  - name: bucket-brigade-tasks\n    files: [my_files.py]\n"
        path.write_text(path.read_text().replace(generator, own))
    wrapper = k8s / "overlays/.deploy"
    wrapper.mkdir()
    job = (k8s / "aws/check-job.yaml").read_text().replace("NAMESPACE", "bucket-brigade")
    (wrapper / "check-job.yaml").write_text(job)
    (wrapper / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../production, check-job.yaml]\n"
    )
    return render(wrapper)


@pytest.mark.parametrize("components", [(), ("tasks-from-configmap",)])
def test_the_doctor_sees_what_the_workers_see(tmp_path: Path, check: ModuleType, components: tuple[str, ...]) -> None:
    """The Job has the workers' ConfigMaps under their hashed names; tasks from a ConfigMap can be imported in it."""
    documents = beside_the_job(tmp_path, *components)
    job = check.pod_spec(one(documents, "Job", "bucket-brigade-deploy-check"))
    worker = check.pod_spec(one(documents, "Deployment", "bucket-brigade-worker"))
    [asking], [working] = job["containers"], worker["containers"]
    assert asking["envFrom"] == working["envFrom"]
    theirs, given = check.environment(working, documents), check.environment(asking, documents)
    assert given["BRIDGE_TASK_MODULES"] == theirs["BRIDGE_TASK_MODULES"]
    volumes = {volume["name"]: volume for volume in job["volumes"]}
    assert volumes["tasks"]["configMap"]["optional"] is True
    if components:
        assert given["PYTHONPATH"] == theirs["PYTHONPATH"]
        [mounted] = [volume for volume in worker["volumes"] if volume["name"] == "tasks"]
        assert volumes["tasks"]["configMap"]["name"] == mounted["configMap"]["name"]
        assert mounted["configMap"]["name"] in {doc["metadata"]["name"] for doc in documents}
        paths = [
            {m["mountPath"] for m in container["volumeMounts"] if m["name"] == "tasks"}
            for container in (asking, working)
        ]
        assert paths[0] == paths[1]
