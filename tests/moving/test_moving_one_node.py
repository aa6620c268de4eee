"""`understudy serve --former-store` and `understudy store move`, as the operator of one node has them."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner
from cluster_cli.conftest import Session
from store_commands.conftest import run
from support import ServerProcess
from understudy.runtime.commands.cli import main

DEMO = "understudy.runtime.demo:server"


def test_one_node_moves_to_another_store_in_two_restarts_and_its_clients_go_on(tmp_path: Path) -> None:
    old, new = f"sqlite:///{tmp_path}/old.db", f"sqlite:///{tmp_path}/new.db"
    with ServerProcess(DEMO, "--store", old) as server:
        command = server.command[:-2]
        used, asleep, idle = (Session(server.url) for _ in range(3))
        assert [session.call("increment") for session in (used, asleep, idle, used)] == [1, 1, 1, 2]
        server.stop()
        server.command = [*command, "--store", new, "--former-store", old]
        server.start()
        assert f"sessions in {old} are brought from there" in server.output
        assert used.call("increment") == 3
        opened = Session(server.url)
        assert opened.call("increment") == 1
        left = run("stat", old, "--json")
        assert '"sessions": 2' in left.output
        moved = run("move", old, new)
        assert moved.exit_code == 0, moved.output
        assert "moved 2 sessions" in moved.output
        server.stop()
        server.command = [*command, "--store", new]
        server.start()
        assert [session.call("increment") for session in (used, asleep, idle, opened)] == [4, 2, 2, 2]


def test_a_move_that_cannot_be_is_refused_before_anything_starts(tmp_path: Path) -> None:
    old = f"sqlite:///{tmp_path}/old.db"
    result = CliRunner().invoke(main, ["serve", DEMO, "--store", old, "--next-store", old], prog_name="understudy")
    assert (result.exit_code, "name two stores" in result.output) == (2, True), result.output
    assert not (tmp_path / "old.db").exists()
