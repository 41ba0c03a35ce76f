"""ElasticMQ, an SQS server in Java, from Maven Central: fetched once, then run from a cache in the checkout."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests import REPOSITORY

_POM = REPOSITORY / "tests" / "support" / "elasticmq" / "pom.xml"
_CONFIGURATION = REPOSITORY / "tests" / "support" / "elasticmq" / "elasticmq.conf"
_CACHE = REPOSITORY / ".cache" / "elasticmq"

ANNOUNCEMENT = r"visible server address (http://\S+)"


def missing_tool() -> str | None:
    """Say which program is needed to run ElasticMQ and not on the PATH; None when nothing is missing."""
    if not shutil.which("java"):
        return "ElasticMQ needs `java` (17 or later) on the PATH"
    if not is_fetched() and not shutil.which("mvn"):
        return "ElasticMQ has to be fetched once, which needs `mvn` on the PATH"
    return None


def is_fetched() -> bool:
    """Tell whether the cache holds ElasticMQ."""
    return _jars_folder().exists()


def command() -> list[str]:
    """Return the command line that starts ElasticMQ, fetched before if need be (see ``fetch``).

    The compiler's first stage and the serial collector start it in half the time and with half the memory, which
    matters more to tests than throughput.
    """
    if not is_fetched():
        fetch()
    return [
        "java",
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        "-Xmx256m",
        f"-Dconfig.file={_CONFIGURATION}",
        "-cp",
        str(_jars_folder() / "*"),
        "org.elasticmq.server.Main",
    ]


def fetch() -> None:
    """Fetch ElasticMQ and all it needs with Maven; takes half a minute. Raises RuntimeError with Maven's output.

    The folder with the jars appears all at once: a fetch that is cut short leaves none half full.
    """
    _CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_CACHE) as unfinished:
        maven = subprocess.run(
            ["mvn", "-B", "-f", str(_POM), "dependency:copy-dependencies", f"-DoutputDirectory={unfinished}/jars"],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if maven.returncode:
            raise RuntimeError(f"mvn could not fetch ElasticMQ:\n{maven.stdout}")
        try:
            os.rename(f"{unfinished}/jars", _jars_folder())  # noqa: PTH104 - fails on a folder that exists, as it should
        except OSError:
            # Another test run was faster; its jars are the same.
            if not is_fetched():
                raise


def _jars_folder() -> Path:
    # Named after the pom's content, so that another version there is fetched anew.
    return _CACHE / hashlib.sha256(_POM.read_bytes()).hexdigest()[:12]
