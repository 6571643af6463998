"""A real kube-apiserver on this machine: built once, started on nothing, asked over HTTPS."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import secrets
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import trustme

from ashi_cli.onemachine.children import spawn, stop_all
from ashi_cli.onemachine.jars import cache_directory
from servers.free_ports import HOST, free_port
from waits import until

Object = Mapping[str, Any]

MODULE = Path(__file__).with_name("kube_apiserver")
SOURCES = ("go.mod", "go.sum", "main.go")
READY_S = 300.0
"""It takes some ten seconds; on a machine that does other things, more."""
STOP_S = 30.0
ANSWER_S = 60.0
KEPT_OF_ITS_LOG = 2_000
"""Characters, for whoever reads why it ended."""


class ServerError(Exception):
    """The server cannot be built, or started, or does not answer; the text says what to do."""


def version() -> str:
    """Of Kubernetes, as the module is locked: `v1.36.3`."""
    [found] = re.findall(r"^\tk8s\.io/kubernetes (v\S+)$", (MODULE / "go.mod").read_text(), re.MULTILINE)
    return str(found)


def program(directory: Path) -> Path:
    """Where the server is, or will be: by what it is made of, so that another is not taken for it."""
    digest = hashlib.sha256(b"".join((MODULE / name).read_bytes() for name in SOURCES)).hexdigest()[:12]
    return directory / "kube-apiserver" / f"{version()}-{digest}"


def built(say: Callable[[str], None], directory: Path | None = None) -> Path:
    """The program of the user's cache; made by Go where it is not there. Raises ServerError."""
    path = program(directory or cache_directory())
    if path.exists():
        return path
    go = shutil.which("go")
    if go is None:
        raise ServerError(
            "go is missing: kube-apiserver is built from its source. Install Go 1.26 or newer, and have it in PATH"
        )
    say(f"building kube-apiserver {version()} and etcd into {path}: once; some eight minutes of CPU, 3 GB of caches")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}")
    began_s = time.monotonic()
    flags = f"-s -w -X k8s.io/component-base/version.gitVersion={version()}"
    try:
        done = subprocess.run(
            [go, "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", str(draft), "."],
            cwd=MODULE,
            env=os.environ | {"CGO_ENABLED": "0"},
            check=False,
        )
        if done.returncode != 0:
            raise ServerError(f"go build in {MODULE} ended with {done.returncode}: its own words are above")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    say(f"built in {time.monotonic() - began_s:.0f} s, {path.stat().st_size / 1e6:.0f} MB")
    return path


@dataclass(frozen=True)
class Answer:
    """What a server says of an object."""

    status: int
    message: str = ""
    """Why it was refused; empty where it was not."""
    warnings: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        return self.status in {http.client.OK, http.client.CREATED}


class Cluster(Protocol):
    """What takes objects."""

    def apply(self, manifest: Object, *, dry_run: bool = True) -> Answer:
        """Server-side, with every field that is not known refused. Raises ServerError where there is no answer."""


@dataclass
class ApiServer:
    """One that listens on this machine."""

    port: int
    authority: trustme.CA
    token: str
    _paths: dict[str, dict[str, tuple[str, bool]]] = field(default_factory=dict)
    """By `apiVersion` and kind: the name in a path, and whether it is in a namespace."""

    def ask(self, method: str, path: str, body: Object | None = None) -> tuple[int, Any, tuple[str, ...]]:
        """The status, what was answered (of JSON, or as text), and the warnings. Raises OSError."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        connection = http.client.HTTPSConnection(HOST, self.port, timeout=ANSWER_S, context=context)
        try:
            headers = {"Authorization": f"Bearer {self.token}"}
            if body is not None:
                headers["Content-Type"] = "application/apply-patch+yaml"
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        warned = [re.findall(r'"((?:[^"\\]|\\.)*)"', each) for each in response.headers.get_all("Warning", [])]
        answered = json.loads(text) if "json" in response.headers.get("Content-Type", "") else text
        return response.status, answered, tuple(each.replace('\\"', '"') for found in warned for each in found)

    def apply(self, manifest: Object, *, dry_run: bool = True) -> Answer:
        path = self._path(manifest)
        if path is None:
            return Answer(http.client.NOT_FOUND, f"the server knows no {manifest['kind']} of {manifest['apiVersion']}")
        path += "?fieldManager=ashi&force=true&fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
        try:
            status, answered, warnings = self.ask("PATCH", path, manifest)
        except OSError as error:
            raise ServerError(f"kube-apiserver does not answer: {error}") from error
        if status in {http.client.OK, http.client.CREATED}:
            return Answer(status, warnings=warnings)
        message = answered.get("message", "") if isinstance(answered, dict) else answered
        return Answer(status, message or f"status {status}", warnings)

    def _path(self, manifest: Object) -> str | None:
        """Of an object; None for a kind that the server does not have."""
        api = manifest["apiVersion"]
        root = f"/apis/{api}" if "/" in api else f"/api/{api}"
        if manifest["kind"] not in self._paths.get(api, {}):
            status, answered, _ = self.ask("GET", root)
            if status not in {http.client.OK, http.client.NOT_FOUND, http.client.SERVICE_UNAVAILABLE}:
                raise ServerError(f"kube-apiserver answers {status} when asked which kinds of {api} it has: {answered}")
            listed = answered["resources"] if status == http.client.OK else []
            self._paths[api] = {
                each["kind"]: (each["name"], each["namespaced"]) for each in listed if "/" not in each["name"]
            }
        if manifest["kind"] not in self._paths[api]:
            return None
        plural, namespaced = self._paths[api][manifest["kind"]]
        metadata = manifest["metadata"]
        within = f"/namespaces/{metadata['namespace']}" if namespaced else ""
        return f"{root}{within}/{plural}/{metadata['name']}"

    def ready(self) -> bool:
        try:
            return self.ask("GET", "/readyz")[0] == http.client.OK
        except OSError:
            return False

    def define(self, definition: Object) -> None:
        """Have it take objects of a kind, and wait until it does. Raises ServerError."""
        # A server that is ready may still be finding out which kinds it has.
        until("the server takes definitions", lambda: self._path(definition), READY_S)
        answer = self.apply(definition, dry_run=False)
        name = definition["metadata"]["name"]
        if not answer.accepted:
            raise ServerError(f"the definition {name} was refused: {answer.message}")

        def established() -> bool:
            _, answered, _ = self.ask("GET", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
            conditions = answered.get("status", {}).get("conditions", [])
            wrong = [each["message"] for each in conditions if each["type"] == "NonStructuralSchema"]
            if wrong:
                raise ServerError(f"the definition {name} is not structural: {wrong[0]}")
            return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)

        until(f"the definition {name} is established", established, READY_S)
        spec = definition["spec"]
        one = {
            "apiVersion": f"{spec['group']}/{spec['versions'][-1]['name']}",
            "kind": spec["names"]["kind"],
            "metadata": {"name": "one", "namespace": "default"},
        }
        until(f"the server takes a {one['kind']}", lambda: self._path(one), READY_S)


@contextmanager
def serving(path: Path, folder: Path) -> Iterator[ApiServer]:
    """A server with nothing in it, its data and keys in `folder`, until the end of the block. Raises ServerError."""
    authority = trustme.CA()
    certificate = authority.issue_cert(HOST)
    chain, key, tokens = folder / "server.crt", folder / "server.key", folder / "tokens.csv"
    certificate.cert_chain_pems[0].write_to_path(str(chain))
    certificate.private_key_pem.write_to_path(str(key))
    token = secrets.token_hex()
    tokens.write_text(f"{token},dry-run,dry-run,system:masters\n")
    tokens.chmod(0o600)
    server = ApiServer(free_port(), authority, token)
    flags = {
        "bind-address": HOST,
        "advertise-address": HOST,
        "secure-port": server.port,
        "tls-cert-file": chain,
        "tls-private-key-file": key,
        "token-auth-file": tokens,
        "anonymous-auth": "false",
        "authorization-mode": "RBAC",
        "endpoint-reconciler-type": "none",  # it tells others of no address
        "service-cluster-ip-range": "10.0.0.0/24",
        "service-account-issuer": "https://ashi.invalid",
        "service-account-key-file": key,
        "service-account-signing-key-file": key,
    }
    log_path = folder / "server.log"
    with log_path.open("wb") as log:
        child = spawn(
            [str(path), str(folder / "etcd"), *(f"--{name}={value}" for name, value in flags.items())],
            stdout=log,
            stderr=log,
            cwd=folder,
        )
        try:

            def ready() -> bool:
                if child.poll() is not None:
                    last = log_path.read_text(errors="replace")[-KEPT_OF_ITS_LOG:]
                    raise ServerError(f"kube-apiserver ended with {child.returncode}, and its last words:\n{last}")
                return server.ready()

            until("kube-apiserver is ready", ready, READY_S)
            yield server
        finally:
            stop_all([child], STOP_S)
