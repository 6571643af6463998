"""A deployment on a real Kafka, seen from outside: processes, topics, groups. Nothing here imports Ashi."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from command_lines import ASHI, clean_environment, without_machine
from recorded import PARTITIONS, SETTINGS, Recorded

LIVE_S = 2
"""How long feeds are watched after they have begun: their states are told within a tenth of that."""

Start = Callable[..., "subprocess.Popen[bytes]"]
"""Gets the arguments of `ashi`, and `env`, `stdout`, `stderr` and `cwd` as `subprocess.Popen` does."""


class Deployment:
    """One Kafka: runs commands of the version that is installed on it, and reads and writes its topics as they are."""

    def __init__(self, bootstrap: str, folder: Path, start: Start | None = None) -> None:
        """`start`: what starts `ashi …` otherwise than as a program."""
        self.bootstrap = bootstrap
        self.folder = folder
        self._start_otherwise = start
        self.records: list[Recorded] = []
        self.offsets: dict[str, dict[str, dict[str, int]]] = {}
        self.logs: dict[str, list[dict[str, Any]]] = {}
        self.metrics: dict[str, list[str]] = {}
        self._read: dict[TopicPartition, int] = {}

    def env(self, **more: str) -> dict[str, str]:
        return clean_environment(**{"ASHI_KAFKA_BOOTSTRAP": self.bootstrap} | SETTINGS | more)

    def _start(
        self, argv: Sequence[str], env: dict[str, str], stdout: IO[bytes], stderr: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        if self._start_otherwise is not None:
            return self._start_otherwise(argv, env=env, stdout=stdout, stderr=stderr, cwd=self.folder)
        return subprocess.Popen([str(ASHI), *argv], cwd=self.folder, env=env, stdout=stdout, stderr=stderr)

    def run(self, *argv: str, **env: str) -> dict[str, Any]:
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            status = self._start(argv, self.env(**env), stdout, stderr).wait()
            said = []
            for output in (stdout, stderr):
                output.seek(0)
                said.append(output.read().decode())
        masked = [without_machine(text, self.folder).replace(self.bootstrap, "BOOTSTRAP") for text in said]
        return {"argv": list(argv), "env": env, "status": status, "stdout": masked[0], "stderr": masked[1]}

    @contextmanager
    def stage(self, name: str, *argv: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
        """A worker; at the end it is told to stop, its metrics and log are kept."""
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            process = self._start(argv, self.env(**env), output, output)
        try:
            wait(lambda: '"metrics"' in log.read_text(), process)
            yield process
            address = json.loads(next(line for line in log.read_text().splitlines() if '"metrics"' in line))["metrics"]
            families = urllib.request.urlopen(address).read().decode().splitlines()
            self.metrics[name.partition("-")[0]] = [line for line in families if line.startswith("#")]
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()
        self.logs[name] = [json.loads(line) for line in log.read_text().splitlines()]

    async def dump(self, wave: int) -> None:
        """Read what has been written since the last time, and how far the groups are that have committed in it.

        Others may have been on the broker before: what they committed went with their topics, their names may stay.
        """
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        topics = [topic for topic in await admin.describe_topics() if not topic["topic"].startswith("__")]
        at = [TopicPartition(topic["topic"], entry["partition"]) for topic in topics for entry in topic["partitions"]]
        groups = [group for group, *_ in await admin.list_consumer_groups()]
        committed = {group: await admin.list_consumer_group_offsets(group) for group in sorted(groups)}
        await admin.close()
        places = {
            group: {f"{where.topic}/{where.partition}": found[where].offset for where in sorted(set(at) & set(found))}
            for group, found in committed.items()
        }
        self.offsets[str(wave)] = {group: found for group, found in places.items() if found}
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, enable_auto_commit=False)
        await consumer.start()
        consumer.assign(at)
        ends = await consumer.end_offsets(at)
        for where in sorted(at):
            consumer.seek(where, self._read.get(where, 0))
            while self._read.get(where, 0) < ends[where]:
                for record in (await consumer.getmany(where, timeout_ms=500)).get(where, []):
                    self.records.append(
                        Recorded(
                            wave,
                            record.topic,
                            record.partition,
                            record.offset,
                            record.timestamp,
                            record.timestamp_type,
                            record.key,
                            record.value,
                            list(record.headers),
                        )
                    )
                    self._read[where] = record.offset + 1
        await consumer.stop()

    async def publish(
        self, messages: list[tuple[str, int, bytes | None, bytes | None, list[tuple[str, bytes]]]]
    ) -> None:
        """Send messages: topic, partition, key, value, headers."""
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, enable_idempotence=True)
        await producer.start()
        for topic, partition, key, value, headers in messages:
            await producer.send(topic, value, key, partition=partition, headers=headers)
        await producer.stop()

    async def commit(self, groups: dict[str, dict[str, int]]) -> None:
        """Let groups that have no members go on from these offsets of `topic/partition`."""
        for group, offsets in groups.items():
            consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, group_id=group, enable_auto_commit=False)
            await consumer.start()
            at = {TopicPartition(*split_place(place)): offset for place, offset in offsets.items()}
            consumer.assign(list(at))
            await consumer.commit(at)
            await consumer.stop()

    async def markers(self) -> int:
        """How many markers have been written: a worker writes one for each partition that it has made durable."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, enable_auto_commit=False)
        await consumer.start()
        try:
            at = [TopicPartition("ashi-aggregate-markers-changelog", number) for number in range(PARTITIONS)]
            return sum((await consumer.end_offsets(at)).values())
        finally:
            await consumer.stop()

    async def caught_up(self, group: str, *topics: str) -> bool:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, enable_auto_commit=False)
        await admin.start()
        await consumer.start()
        try:
            at = [TopicPartition(topic, number) for topic in topics for number in range(PARTITIONS)]
            ends = {where: end for where, end in (await consumer.end_offsets(at)).items() if end}
            found = await admin.list_consumer_group_offsets(group)
            return all(where in found and found[where].offset == end for where, end in ends.items())
        except KafkaError:  # the group is new, and its coordinator still to be chosen
            return False
        finally:
            await consumer.stop()
            await admin.close()


def wait(condition: Any, process: subprocess.Popen[bytes], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, "the worker has ended"
        assert time.monotonic() < deadline
        time.sleep(0.1)


def split_place(place: str) -> tuple[str, int]:
    """`trades/1` as topic and partition."""
    topic, _, number = place.rpartition("/")
    return topic, int(number)


def rows_of(path: Path) -> list[list[Any]]:
    """The schema and all rows of all tables, in order."""
    with sqlite3.connect(path) as db:
        schema = db.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall()
        pragmas = [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
        rows = [["schema", *entry] for entry in schema] + [["pragmas", *pragmas]]
        for kind, name, _ in schema:
            if kind == "table":
                rows += [[name, *row] for row in sorted(db.execute(f"SELECT * FROM {name}"), key=repr)]
    return [[text.decode("latin-1") if isinstance(text, bytes) else text for text in row] for row in rows]


def events(log: list[dict[str, Any]]) -> list[list[str]]:
    """What a worker said, in order, without what it said it of."""
    return [[line["level"], line["service"], line["event"], " ".join(sorted(line.keys()))] for line in log]


def live_run(deployment: Deployment, venue: str, markets: list[str]) -> dict[str, Any]:
    """A live worker until its feeds have begun, and a moment longer; the states they went through are in the topics."""
    log = deployment.folder / f"sim-{venue}.log"
    with log.open("wb") as output:
        simulator = subprocess.Popen(
            [str(ASHI), "venue-sim", venue, *markets, "--rate", "40", "--seed", "7", "--start", "when-subscribed"],
            cwd=deployment.folder, env=deployment.env(PYTHONUNBUFFERED="1"), stdout=output, stderr=output,
        )  # fmt: skip
    try:
        wait(lambda: "ASHI_REST_URL" in log.read_text(), simulator)
        addresses = dict(re.findall(r"(ASHI_(?:WEBSOCKET|REST)_URL)=(\S+)", log.read_text()))
        env = addresses | {"ASHI_BINANCE_API_KEY": "a-key-the-simulator-takes"}
        name = f"ingest-{venue}"
        with deployment.stage(name, "ingest", venue, *markets, "--record", f"recorded-{venue}", **env) as worker:
            live_log = deployment.folder / f"{name}.log"
            wait(lambda: live_log.read_text().count('"event":"repaired"') == len(markets), worker)
            time.sleep(LIVE_S)
        said = re.sub(r"127\.0\.0\.1:\d+", "ADDRESS", log.read_text())
    finally:
        simulator.send_signal(signal.SIGTERM)
        simulator.wait(20)
    return {"simulator": said, "status": simulator.returncode}


def lake_groups(deployment: Deployment) -> dict[str, str]:
    """The groups that the sinks of a lake join, by what they keep."""
    groups = {}
    for topic in ("candles", "trades"):
        name = f"lake-{topic}"
        with deployment.stage(name, "sink", "lake", "--storage", "lake:///lake", "--topic", topic) as worker:
            log = deployment.folder / f"{name}.log"
            wait(lambda log=log: '"group":' in log.read_text(), worker)
        groups[topic] = next(line["group"] for line in deployment.logs[name] if "group" in line)
    return groups
