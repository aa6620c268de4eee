"""nginx and HAProxy, with the very configurations that runtime/README.md shows."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from .patience import PATIENCE
from .ports import free_port
from .server import ROOT

GUIDE = ROOT / "runtime" / "README.md"
PUBLIC = 8080
NODES = (8001, 8002, 8003)
CONFIGS = {"haproxy": "haproxy.cfg", "nginx": "understudy.conf"}
# What the guide leaves out because every installation has it.
NGINX = """daemon off;
{user}
worker_processes 2;
pid {folder}/nginx.pid;
error_log stderr notice;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {config};
}}
"""


def find_balancer(name: str) -> str | None:
    """Its program; None where it is not installed."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def config_of(name: str) -> str:
    """What the guide says for this balancer."""
    blocks = re.findall(r"^```text\n# (\S+)\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    (config,) = [text for path, text in blocks if path.endswith(CONFIGS[name])]
    return config


class ShopBalancer:
    """One of them in front of nodes, on a free port: `with ShopBalancer("nginx", folder, ports) as balancer`.

    Args:
        folder: where it may write.
        nodes: the nodes' ports, in place of those in the guide.
        replaced: further changes to the guide's text, each of which must apply.
    """

    def __init__(
        self, name: str, folder: Path, nodes: Sequence[int], replaced: Mapping[str, str] | None = None
    ) -> None:
        program = find_balancer(name)
        assert program is not None, f"{name} is not installed"
        self.name = name
        self.port = free_port()
        config = config_of(name)
        changes = {
            f":{PUBLIC}": f":{self.port}",
            **{f":{old}": f":{new}" for old, new in zip(NODES, nodes, strict=True)},
        }
        for old, new in {**changes, **(replaced or {})}.items():
            assert old in config, f"the configuration for {name} has no {old!r}"
            config = config.replace(old, new)
        path = folder / CONFIGS[name]
        path.write_text(config)
        self._log = folder / f"{name}.log"
        if name == "nginx":
            whole = folder / "nginx.conf"
            user = "user root;" if os.geteuid() == 0 else ""
            whole.write_text(NGINX.format(folder=folder, config=path, user=user))
            self._command = [program, "-e", "stderr", "-p", str(folder), "-c", str(whole)]
        else:
            self._command = [program, "-db", "-f", str(path)]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.base_url}/mcp"

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def __enter__(self) -> Self:
        import http.client

        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
            try:
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    return self
            except OSError:
                pass
            finally:
                connection.close()
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise AssertionError(f"{self.name} did not become ready:\n{self.output}")
            time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
