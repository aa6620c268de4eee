"""Finding the cluster that runs here: by a file that counts only while its writer lives."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from understudy.runtime.commands.finding import NoCluster, announced, find_cluster, running_clusters
from understudy.runtime.commands.nats_options import NatsOptions
from understudy.stores.nats.settings import NatsSettings

SETTINGS = NatsSettings.from_url("nats://u:p%2F@127.0.0.1:4222")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    runtime = tmp_path / "run"
    runtime.mkdir()
    return {"XDG_RUNTIME_DIR": str(runtime), "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)}


def test_the_cluster_that_runs_here_is_found_with_all_that_is_needed_to_reach_it(environment: dict[str, str]) -> None:
    with announced("shop", SETTINGS, environment):
        found = find_cluster(NatsOptions(), None, environment)
        assert (found.name, found.settings, found.pid) == ("shop", SETTINGS, os.getpid())
    with pytest.raises(NoCluster, match="start one with `understudy cluster TARGET`"):
        find_cluster(NatsOptions(), None, environment)


def test_it_is_found_from_another_environment(environment: dict[str, str]) -> None:
    elsewhere = {**environment, "XDG_RUNTIME_DIR": ""}
    with announced("shop", SETTINGS, elsewhere):
        assert find_cluster(NatsOptions(), None, environment).name == "shop"


def test_nobody_else_can_read_how_to_log_in(environment: dict[str, str]) -> None:
    with announced("shop", SETTINGS, environment):
        (file,) = Path(environment["XDG_RUNTIME_DIR"]).rglob("*.json")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_one_that_was_named_wins_and_needs_none_that_runs(environment: dict[str, str]) -> None:
    with announced("shop", SETTINGS, environment):
        found = find_cluster(NatsOptions("nats://elsewhere"), "other", environment)
    assert (found.name, found.settings.where) == ("other", "nats://elsewhere:4222")
    assert find_cluster(NatsOptions("nats://elsewhere"), None, environment).name is None


def test_one_that_was_named_by_nothing_is_not_taken_for_the_one_that_runs_here(environment: dict[str, str]) -> None:
    with announced("shop", SETTINGS, environment):
        with pytest.raises(NoCluster, match="--nats is empty: name a NATS server"):
            find_cluster(NatsOptions(" "), None, environment)
        with pytest.raises(NoCluster, match="--nats-ca, --nats-cert and --nats-key go with --nats URL"):
            find_cluster(NatsOptions(ca=Path("ca.pem")), None, environment)


def test_its_files_are_found_from_another_directory(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with announced("shop", NatsSettings.from_url("tls://a?ca=tls/ca.pem"), environment):
        found = find_cluster(NatsOptions(), None, environment)
    assert found.settings.ca == tmp_path / "tls" / "ca.pem"


def test_of_several_the_one_started_last_is_meant_unless_one_is_named(environment: dict[str, str]) -> None:
    with announced("mine", SETTINGS, environment), _another("theirs", environment):
        assert [found.name for found in running_clusters(environment)] == ["theirs", "mine"]
        assert find_cluster(NatsOptions(), None, environment).name == "theirs"
        assert find_cluster(NatsOptions(), "mine", environment).name == "mine"
        with pytest.raises(NoCluster, match="no cluster 'shop' was started here, only mine, theirs; name its NATS"):
            find_cluster(NatsOptions(), "shop", environment)


def test_what_a_killed_process_left_behind_means_nothing_and_goes(environment: dict[str, str]) -> None:
    with _another("shop", environment) as other:
        other.kill()
        other.wait()
        assert list(Path(environment["XDG_RUNTIME_DIR"]).rglob("*.json"))
        # Its number may be another process's by now, so that the number says nothing.
        assert running_clusters(environment) == []
        assert not list(Path(environment["XDG_RUNTIME_DIR"]).rglob("*.json"))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": 1, "name": "a", "nats": "http://x"}'])
def test_a_file_that_says_nothing_sensible_is_passed_over(environment: dict[str, str], text: str) -> None:
    with announced("shop", SETTINGS, environment):
        (file,) = Path(environment["XDG_RUNTIME_DIR"]).rglob("*.json")
        file.write_text(text)
        assert running_clusters(environment) == []


def test_a_directory_that_others_may_write_to_is_not_trusted(environment: dict[str, str]) -> None:
    open_to_all = Path(environment["XDG_RUNTIME_DIR"]) / "understudy"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with announced("shop", SETTINGS, environment):
        assert not list(open_to_all.iterdir())
        (file,) = (Path(environment["HOME"]) / ".local" / "state" / "understudy").iterdir()
        # A stranger's word would send an operator, and the passwords in its answers, to a server of the stranger's.
        (open_to_all / "cluster-1.json").write_text(file.read_text().replace("shop", "trap"))
        assert [found.name for found in running_clusters(environment)] == ["shop"]


def test_no_place_for_the_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    nowhere = {"XDG_STATE_HOME": str(tmp_path / "file"), "TMPDIR": str(tmp_path / "file")}
    with pytest.raises(NoCluster, match="set XDG_RUNTIME_DIR"), announced("shop", SETTINGS, nowhere):
        pass


class _another:  # noqa: N801 - used as a function
    """Another process that has announced a cluster."""

    def __init__(self, name: str, environment: dict[str, str]) -> None:
        program = """
import json, sys
from understudy.runtime.commands.finding import announced
from understudy.stores.nats.settings import NatsSettings
with announced(sys.argv[1], NatsSettings(), json.loads(sys.argv[2])):
    print("here", flush=True)
    sys.stdin.read()
"""
        self._args = [sys.executable, "-c", program, name, json.dumps(environment)]

    def __enter__(self) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._args, stdin=pipe, stdout=pipe, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "here\n"
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
