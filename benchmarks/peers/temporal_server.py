"""Temporal's server on Postgres, built from its Go module once:

    python -m benchmarks.peers.temporal_server

The build needs Go, and ten minutes of a processor.
"""

import os
import subprocess
from pathlib import Path

from tests.servers.processes import Unavailable, cache_folder

VERSION = "1.30.4"
MODULE = "go.temporal.io/server"
PROGRAMS = {"server": "cmd/server", "sql": "cmd/tools/sql"}
DATABASES = {"temporal": "temporal", "temporal_visibility": "visibility"}
"""Names of the databases, and of their schemas."""

CONFIG = """\
log: {{stdout: true, level: warn}}
persistence:
  defaultStore: default
  visibilityStore: visibility
  numHistoryShards: 4
  datastores:
    default: {{sql: {{databaseName: temporal, maxConns: 20, maxIdleConns: 20, {sql}}}}}
    visibility: {{sql: {{databaseName: temporal_visibility, maxConns: 4, maxIdleConns: 4, {sql}}}}}
global:
  membership: {{maxJoinDuration: 30s, broadcastAddress: "127.0.0.1"}}
services:
  frontend: {{rpc: {{grpcPort: {0}, membershipPort: {1}, bindOnLocalHost: true}}}}
  matching: {{rpc: {{grpcPort: {2}, membershipPort: {3}, bindOnLocalHost: true}}}}
  history: {{rpc: {{grpcPort: {4}, membershipPort: {5}, bindOnLocalHost: true}}}}
  worker: {{rpc: {{grpcPort: {6}, membershipPort: {7}, bindOnLocalHost: true}}}}
clusterMetadata:
  enableGlobalNamespace: false
  failoverVersionIncrement: 10
  masterClusterName: active
  currentClusterName: active
  clusterInformation:
    active:
      enabled: true
      initialFailoverVersion: 1
      rpcName: frontend
      rpcAddress: "127.0.0.1:{0}"
dcRedirectionPolicy: {{policy: noop}}
publicClient: {{hostPort: "127.0.0.1:{0}"}}
"""
SQL = "pluginName: postgres12, connectAddr: '{address}', connectProtocol: tcp, user: {user}"
PORTS = 8


def folder() -> Path:
    return cache_folder() / f"temporal-{VERSION}"


def built(name: str) -> Path:
    """Return the path of a program.

    Raises:
        Unavailable: it is not built.
    """
    path = folder() / name
    if not path.exists():
        raise Unavailable("its server is not built: python -m benchmarks.peers.temporal_server")
    return path


def build() -> None:
    packages = [f"{MODULE}/{package}@v{VERSION}" for package in PROGRAMS.values()]
    subprocess.run(
        ["go", "install", *packages], check=True, env={**os.environ, "GOBIN": str(folder())}
    )


def create_databases(host: str, port: int, user: str) -> None:
    """Create the databases with their tables."""
    tool = [built("sql"), "--plugin", "postgres12", "--endpoint", host, "--port", str(port)]
    for database, schema in DATABASES.items():
        for step in (
            ("create-database",),
            ("setup-schema", "-v", "0.0"),
            ("update-schema", "--schema-name", f"postgresql/v12/{schema}"),
        ):
            command = [*tool, "--user", user, "--database", database, *step]
            subprocess.run(command, check=True, capture_output=True)


def config(address: str, user: str, ports: list[int]) -> str:
    """Return the configuration of a server on a Postgres."""
    return CONFIG.format(*ports, sql=SQL.format(address=address, user=user))


if __name__ == "__main__":
    build()
