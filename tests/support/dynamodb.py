"""The DynamoDB API for tests: moto in a process of its own, tables of one test each, and faults on demand.

What moto is not: durable (a new process has no tables), limited (no throughput), eventually consistent, or distributed;
it checks no signature and no permission, and expires nothing. What depends on that is played by `fault`, with the
answers that AWS documents.
"""

import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from understudy.stores.dynamodb import table_description

from .ports import free_port

REGION = "eu-west-1"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIAUNDERSTUDYTESTS0",
    "AWS_SECRET_ACCESS_KEY": "secret-of-the-tests",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
"""The environment of whoever opens a store here."""


def dynamodb_missing() -> str | None:
    """Why no test can have a DynamoDB here; None if it can."""
    try:
        import aiobotocore  # noqa: F401
    except ImportError:
        return "needs aiobotocore: pip install 'understudy[dynamodb]'"
    try:
        import moto  # noqa: F401
    except ImportError:
        return "needs moto: pip install 'moto[server]'"
    return None


def fresh_table_name() -> str:
    """A name that no other test's table has."""
    return f"test-{secrets.token_hex(6)}"


class DynamoServer:
    """`with DynamoServer() as server`: on a free port of this machine. `certificate`: speak TLS with it and its key."""

    def __init__(self, certificate: tuple[Path, Path] | None = None) -> None:
        self.port = free_port()
        self._certificate = certificate
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http{'s' if self._certificate else ''}://127.0.0.1:{self.port}"

    def url(self, table: str, **options: object) -> str:
        """Of a store in `table`."""
        more = "".join(f"&{name}={value}" for name, value in options.items())
        return f"dynamodb://{table}?region={REGION}&endpoint={self.endpoint}{more}"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        front = Path(__file__).with_name("moto_front.py")
        command = [sys.executable, str(front), str(self.port), *map(str, self._certificate or ())]
        self._process = subprocess.Popen(command, env=os.environ | CREDENTIALS, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while True:
            if self._takes_connections():
                return self
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("moto did not start")
            time.sleep(0.02)

    def close(self) -> None:
        """End it; its tables are gone. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)

    def pause(self) -> None:
        """SIGSTOP: connections stay, and nothing is answered."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def away(self, away: bool) -> None:
        """Take no connection, and cut those that a request comes by, as while the service fails. The tables stay."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGUSR1 if away else signal.SIGUSR2)
        until = time.monotonic() + 10
        while self._takes_connections() == away:
            assert time.monotonic() < until
            time.sleep(0.01)

    def _takes_connections(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def fault(
        self,
        table: str,
        operation: str = "*",
        action: Literal["answer", "cut", "hang"] = "answer",
        *,
        done: bool = False,
        code: str = "",
        message: str = "",
        status: int = 400,
        times: int = 1,
        skip: int = 0,
        seconds: float = 30,
        text: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Do this to the next `times` requests of `operation` on `table`, after `skip` that pass. `done`: after they
        have been carried out."""
        body = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": message, **(details or {})}
        self._control(
            "/_faults",
            {
                "table": table,
                "operation": operation,
                "action": action,
                "done": done,
                "status": status,
                "times": times,
                "skip": skip,
                "seconds": seconds,
                "text": json.dumps(body) if text is None else text,
                "type": "application/x-amz-json-1.0" if text is None else "text/html",
            },
        )

    def create_table(self, table: str, **changes: object) -> None:
        """Make a table as `table_description` has it, but for `changes`."""
        wanted = table_description(table) | changes
        ttl = wanted.pop("TimeToLiveSpecification")
        self.call("CreateTable", **wanted)
        if ttl is not None:
            self.call("UpdateTimeToLive", TableName=table, TimeToLiveSpecification=ttl)

    def call(self, operation: str, **parameters: object) -> dict[str, Any]:
        """One request of the API, by a connection of its own; binary values are in base64."""
        headers = {
            "X-Amz-Target": f"DynamoDB_20120810.{operation}",
            "Content-Type": "application/x-amz-json-1.0",
            "Authorization": f"AWS4-HMAC-SHA256 Credential=x/20260101/{REGION}/dynamodb/aws4_request, Signature=x",
        }
        return self._post("/", json.dumps(parameters), headers)

    def counts(self, table: str) -> dict[str, int]:
        """Requests to `table` so far, by operation."""
        return self._control("/_counts", None).get(table, {})

    def _control(self, path: str, what: object) -> dict[str, dict[str, int]]:
        return self._post(path, json.dumps(what), {})

    def _post(self, path: str, body: str, headers: Mapping[str, str]) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("POST", path, body, dict(headers))
            response = connection.getresponse()
            text = response.read()
            assert response.status == 200, text
            return json.loads(text)
        finally:
            connection.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()
