"""The checks of make deploy-check on Databricks' bundle and Kubernetes' pods, without a network.

The bundle is read by Databricks' own classes, which refuse fields that they do not know; each pod that the operator
makes of the manifest is held against Kubernetes' schema, strictly.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from databricks.bundles.jobs import Job

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
KUBERNETES = "1.33"

# What of the operator's driver and executor goes into the pod, and what into its container.
_OF_POD = {"tolerations": "tolerations", "nodeSelector": "nodeSelector", "serviceAccount": "serviceAccountName"}
_OF_POD |= {"podSecurityContext": "securityContext"}
_OF_CONTAINER = ("env", "volumeMounts", "securityContext")


def check_bundle(file: Path) -> int:
    """Read each job of a bundle, its variables filled in; how many there are."""
    text = file.read_text("utf-8")
    values = yaml.safe_load(text)["variables"]
    filled = re.sub(r"\$\{var\.(\w+)\}", lambda match: str(values[match[1]].get("default", "s3://bucket/x")), text)
    jobs = yaml.safe_load(filled)["resources"]["jobs"]
    for job in jobs.values():
        Job.from_dict(job)
    return len(jobs)


def pod_of(role: str, spec: dict[str, Any]) -> dict[str, Any]:
    """The pod that the operator makes of a manifest's driver or executor, by what we set of it."""
    part = spec[role]
    container = {"name": role, "image": spec["image"], **{name: part[name] for name in _OF_CONTAINER if name in part}}
    within = {_OF_POD[name]: part[name] for name in _OF_POD if name in part}
    pod = {"containers": [container], "volumes": spec.get("volumes", []), **within}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": role}, "spec": pod}


def check_application(file: Path) -> int:
    """Hold driver and executor of a manifest against Kubernetes' schema of pods; how many parts there are."""
    parts = [part for part in yaml.safe_load_all(file.read_text("utf-8")) if part]
    for part in parts:
        if part["kind"] == "SparkApplication":
            for role in ("driver", "executor"):
                kubernetes_validate.validate(pod_of(role, part["spec"]), KUBERNETES, strict=True)
        else:
            kubernetes_validate.validate(part, KUBERNETES, strict=True)
    return len(parts)


def main() -> int:
    print(f"Databricks: {check_bundle(DEPLOY / 'databricks/databricks.yml')} jobs")
    print(f"Kubernetes: {check_application(DEPLOY / 'kubernetes/spark-application.yaml')} parts")
    return 0


if __name__ == "__main__":
    sys.exit(main())
