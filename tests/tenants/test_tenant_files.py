# ruff: noqa: ASYNC240
"""`tenant.files`: a folder that nothing leads out of, whatever it is called and whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.patience import PATIENCE
from tenants.running import as_tenant
from understudy.actors.session.tenants import folders as folders_module
from understudy.actors.session.tenants.errors import FilesBusy, FilesUnavailable, NotOffered
from understudy.actors.session.tenants.folders import TenantFolders
from understudy.actors.session.tenants.helpers import TenantHelpers
from understudy.actors.session.tenants.jail import Jail
from understudy.actors.session.tenants.names import checked_path, folder_name, schema_name
from understudy.runtime import FileMissing, Files, FilesError, PathRefused, QuotaExceeded, TenantContext, WrongTenant

SECRET = b"of somebody else"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside").write_bytes(SECRET)
    return tmp_path / "files"


def offering(root: Path, **options: Any) -> TenantHelpers:
    return TenantHelpers(files=TenantFolders(Files(root, **options)))


def home(root: Path, tenant: str = "acme") -> Path:
    return root / folder_name(tenant)


async def test_files_are_written_read_listed_moved_and_deleted(root: Path) -> None:
    async with offering(root) as helpers:
        with as_tenant(helpers, "acme") as acme:
            files = acme.files
            assert await files.list() == []
            await files.write("reports/2026/july.txt", "warm\n")
            await files.append("reports/2026/july.txt", b"and dry\n")
            await files.append("log", "begun here")
            assert await files.read_text("reports/2026/july.txt") == "warm\nand dry\n"
            assert [(each.name, each.is_folder, each.size) for each in await files.list()] == [
                ("log", False, 10),
                ("reports", True, 0),
            ]
            assert (await files.status("log")).size == 10
            await files.move("reports/2026/july.txt", "july/final.txt")
            assert not await files.exists("reports/2026/july.txt")
            await files.write("july/other.txt", "x")
            with pytest.raises(FilesError, match=r"'july/other.txt' already"):
                await files.move("july/final.txt", "july/other.txt")
            await files.move("july/final.txt", "july/other.txt", replace=True)
            assert await files.read("july/other.txt") == b"warm\nand dry\n"
            with pytest.raises(FilesError, match="not empty"):
                await files.delete("july")
            assert await files.delete("july/other.txt")
            assert await files.delete("july")
            assert not await files.delete("july", missing_ok=True)
            for gone in (files.read("july"), files.delete("july"), files.move("july", "june"), files.status("july")):
                with pytest.raises(FileMissing):
                    await gone
            with pytest.raises(FilesError, match="is a folder"):
                await files.read("reports")
            with pytest.raises(FilesError, match="is a folder"):
                await files.write("reports", "x")
            with pytest.raises(FilesError, match="inside itself"):
                await files.move("reports", "reports/2026/more")
            with pytest.raises(PathRefused, match="no folder"):
                await files.write("log/below", "x")


async def test_an_open_file_is_in_place_only_when_it_was_closed_in_order(root: Path) -> None:
    async with offering(root) as helpers:
        with as_tenant(helpers, "acme") as acme:
            async with acme.files.open("big", "w") as file:
                for number in range(50):
                    await file.write(b"%04d" % number * 5000)
                assert not await acme.files.exists("big")
            assert (await acme.files.status("big")).size == 50 * 4 * 5000
            async with acme.files.open("big") as file:
                await file.seek(20_000)
                assert await file.read(8) == b"00010001"

            async def fail() -> None:
                async with acme.files.open("big", "w") as file:
                    await file.write(b"half")
                    raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                await fail()
            assert (await acme.files.status("big")).size == 1_000_000
            async with acme.files.open("big", "a") as file:
                await file.write(b"more")
            assert (await acme.files.status("big")).size == 1_000_004
            mode: Any = "rb+"
            with pytest.raises(FilesError, match="mode 'rb\\+' is none"):
                async with acme.files.open("big", mode):
                    pass
            assert os.listdir(home(root)) == ["big"]


async def test_a_cancelled_write_leaves_nothing_behind(root: Path) -> None:
    async with offering(root) as helpers:
        with as_tenant(helpers, "acme") as acme:

            async def write() -> None:
                async with acme.files.open("file", "w") as file:
                    await file.write(b"x")
                    await asyncio.Event().wait()

            async with asyncio.timeout(PATIENCE):
                task = asyncio.get_running_loop().create_task(write())
                while not home(root).exists() or not os.listdir(home(root)):
                    await asyncio.sleep(0.01)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            assert os.listdir(home(root)) == []


async def test_sync_tools_have_the_same_without_the_event_loop(root: Path) -> None:
    async with offering(root) as helpers:
        with as_tenant(helpers, "acme") as acme:

            def work() -> list[str]:
                files = acme.files.blocking
                files.write("a/b", "text")
                files.append("a/b", b"!")
                assert files.read("a/b") == b"text!"
                assert files.read_text("a/b") == "text!"
                with files.open("a/c", "w") as file:
                    file.write(b"1\n2\n")
                with files.open("a/c") as file:
                    assert list(file) == [b"1\n", b"2\n"]
                files.move("a/c", "a/d")
                assert files.exists("a/d")
                assert files.status("a/d").size == 4
                assert files.delete("a/d")
                return [entry.name for entry in files.list("a")]

            assert await asyncio.to_thread(work) == ["b"]
            # Without the call's context there is no tenant.
            with pytest.raises(Exception, match="no call is running here"):
                await asyncio.get_running_loop().run_in_executor(None, work)


# The way out

ESCAPES = [
    "..",
    "../outside",
    "a/../../outside",
    "a/..",
    ".",
    "./a",
    "a/./b",
    "/etc/passwd",
    "//etc/passwd",
    "a//b",
    "a/",
    "",
    "\0",
    "a\0b",
    "a\nb",
    "a\x7fb",
    "\\..\\outside",
    "..\\outside",
    "C:\\windows\\x",
    "%2e%2e/outside",
    "..%2foutside",
    "%252e%252e/outside",
    "a%00b",
    "\uff0e\uff0e/outside",
    "\u2024\u2024/outside",
    "..\u2215outside",
    "..\uff0foutside",
    "..\uff3coutside",
    "\u2025/outside",
    "a\u202eb",
    "a\u200bb",
    "\ufeffa",
    "e\u0301",
    "\ud800",
    "a\u2028b",
    " a",
    "a ",
    "a.",
    "...",
    ".. ",
    ".~understudy-0123",
    ".~UnderStudy-0123",
    "x" * 192,
    "\u00e9" * 96,
    "a/" * 32 + "a",
    "a" * 100 + "/" + "/".join(["b" * 150] * 14),
]


@pytest.mark.parametrize("path", ESCAPES, ids=[ascii(path)[:30] for path in ESCAPES])
async def test_what_leads_out_or_may_be_read_otherwise_is_refused(root: Path, path: str) -> None:
    async with offering(root) as helpers:
        with as_tenant(helpers, "acme") as acme:
            files = acme.files
            await files.write("a/b", "mine")
            before = sorted(str(each.relative_to(root)) for each in root.rglob("*"))
            attempts: list[Any] = [
                files.read(path),
                files.write(path, "x"),
                files.append(path, "x"),
                files.delete(path, missing_ok=True),
                files.exists(path),
                files.status(path),
                files.move(path, "b"),
                files.move("a/b", path, replace=True),
                files.open(path, "w").__aenter__(),
            ]
            if path:
                attempts.append(files.list(path))
            for attempt in attempts:
                with pytest.raises(PathRefused, match="is refused") as caught:
                    await attempt
                assert str(root) not in str(caught.value)
                assert len(str(caught.value)) < 300
        assert sorted(str(each.relative_to(root)) for each in root.rglob("*")) == before
    assert (root.parent / "outside").read_bytes() == SECRET


def test_what_is_no_text_is_no_path() -> None:
    path: Any
    for path in (b"a", 1, None, ("a",)):
        with pytest.raises(PathRefused):
            checked_path(path)
    assert checked_path(Path("a/b")) == ("a", "b")
    assert checked_path("", folder=True) == ()
    for path in ("naïve", "日本語/ファイル", "a b", ".hidden", "100% sure", "a:b", "Ⅷ", "con"):
        assert "/".join(checked_path(path)) == path


@given(st.text(max_size=60) | st.lists(st.sampled_from(["..", ".", "a", "", "~", "%2e", "\u2024"])).map("/".join))
def test_no_name_that_passes_leads_anywhere_else(path: str) -> None:
    try:
        names = checked_path(path)
    except PathRefused:
        return
    assert os.path.normpath(path) == path
    assert not os.path.isabs(path)
    for name in names:
        assert name not in ("", ".", "..")
        assert not set(name) & set("/\\\0")


def put(root: Path, kind: str) -> Path:
    """Something in acme's folder that is no file, called `trap`."""
    trap = home(root) / "trap"
    other = home(root, "other")
    other.mkdir(parents=True, exist_ok=True)
    (other / "secret").write_bytes(SECRET)
    match kind:
        case "link to a file":
            trap.symlink_to(root.parent / "outside")
        case "link to another tenant":
            trap.symlink_to(other)
        case "link to the top":
            trap.symlink_to("/")
        case "link inside":
            (home(root) / "real").write_bytes(b"mine")
            trap.symlink_to("real")
        case "link to itself":
            trap.symlink_to("trap")
        case "link to nothing":
            trap.symlink_to("nothing")
        case "pipe":
            os.mkfifo(trap)
        case "socket":
            listener = socket.socket(socket.AF_UNIX)
            folder = os.open(home(root), os.O_RDONLY)
            listener.bind(f"/proc/self/fd/{folder}/trap")
            os.close(folder)
            listener.close()
        case _:
            os.mknod(trap, 0o020600, os.makedev(1, 5))
    return trap


KINDS = [
    "link to a file",
    "link to another tenant",
    "link to the top",
    "link inside",
    "link to itself",
    "link to nothing",
    "pipe",
    "socket",
    "device",
]


@pytest.mark.parametrize("kind", KINDS)
async def test_links_devices_pipes_and_sockets_are_refused(root: Path, kind: str) -> None:
    async with offering(root, timeout=5.0) as helpers:
        with as_tenant(helpers, "acme") as acme:
            files = acme.files
            await files.write("mine", "mine")
            try:
                trap = put(root, kind)
            except (PermissionError, OSError) as error:
                pytest.skip(f"cannot make a {kind} here: {error}")
            status = trap.lstat()
            for attempt in (
                files.read("trap"),
                files.read("trap/secret"),
                files.write("trap", "x"),
                files.write("trap/new", "x"),
                files.append("trap", "x"),
                files.append("trap/new", "x"),
                files.delete("trap"),
                files.delete("trap/secret"),
                files.list("trap"),
                files.move("trap", "b"),
                files.move("mine", "trap", replace=True),
                files.move("mine", "trap/new"),
                files.open("trap", "w").__aenter__(),
                files.open("trap", "r").__aenter__(),
            ):
                with pytest.raises(FilesError, match=r"link|device|folder") as caught:
                    await attempt
                assert str(root.parent) not in f"{caught.value!r} {caught.value.__cause__}"
                assert caught.value.__suppress_context__ or caught.value.__context__ is None
            assert not await files.exists("trap")
            assert "trap" not in [entry.name for entry in await files.list()]
            assert os.lstat(trap) == status or trap.lstat().st_ino == status.st_ino
        assert (root.parent / "outside").read_bytes() == SECRET
        assert os.listdir(home(root, "other")) == ["secret"]


async def test_a_tenants_own_folder_that_is_a_link_is_refused(root: Path) -> None:
    root.mkdir()
    home(root, "other").mkdir()
    home(root).symlink_to(home(root, "other"))
    async with offering(root) as helpers:
        with as_tenant(helpers, "acme") as acme:
            for attempt in (acme.files.list(), acme.files.write("a", "x"), acme.files.read("a")):
                with pytest.raises(PathRefused, match="link"):
                    await attempt
    assert os.listdir(home(root, "other")) == []


async def test_what_has_another_name_is_not_changed_through_this_one(root: Path) -> None:
    async with offering(root) as helpers:
        with as_tenant(helpers, "acme") as acme:
            await acme.files.write("here", "x")
            os.link(root.parent / "outside", home(root) / "twin")
            with pytest.raises(PathRefused, match="another name"):
                await acme.files.append("twin", "poison")
            await acme.files.write("twin", "written anew")
    assert (root.parent / "outside").read_bytes() == SECRET


def test_a_link_that_is_swapped_in_while_a_path_is_followed_leads_nowhere(root: Path) -> None:
    """The folder `a` and a link to another tenant's folder change places as fast as they can."""
    other = home(root, "other")
    (other / "b").mkdir(parents=True)
    (other / "b" / "file").write_bytes(SECRET)
    jail = Jail(root, folder_name("acme"))
    mine = home(root)
    (mine / "a" / "b").mkdir(parents=True)
    (mine / "a" / "b" / "file").write_bytes(b"mine")
    (mine / "link").symlink_to(other)
    (mine / "f").write_bytes(b"mine")
    (mine / "flink").symlink_to(root.parent / "outside")
    try:
        exchange(mine / "a", mine / "link")
    except (AttributeError, OSError) as error:
        pytest.skip(f"two names cannot be exchanged at once here: {error}")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            exchange(mine / "a", mine / "link")
            exchange(mine / "f", mine / "flink")

    swapping = threading.Thread(target=swap)
    swapping.start()
    outcomes = {"read": 0, "refused": 0}
    until = time.monotonic() + 1.0
    try:
        while time.monotonic() < until:
            work: Callable[[], bytes]
            for work in (
                lambda: read(jail, "a/b/file"),
                lambda: read(jail, "f"),
                lambda: write(jail, "a/b/new"),
                lambda: write(jail, "f"),
                lambda: b"mine" * (jail.delete("a/b/new") >= 0),
                lambda: b"mine" * bool(jail.list("a/b")),
            ):
                try:
                    assert work() == b"mine"
                    outcomes["read"] += 1
                except FilesError:
                    outcomes["refused"] += 1
    finally:
        stop.set()
        swapping.join()
    assert outcomes["read"] > 10, outcomes
    assert outcomes["refused"] > 10, outcomes
    assert (root.parent / "outside").read_bytes() == SECRET
    assert os.listdir(other / "b") == ["file"]
    assert (other / "b" / "file").read_bytes() == SECRET


def exchange(one: Path, two: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    here, both = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if libc.renameat2(here, os.fsencode(one), here, os.fsencode(two), both) != 0:
        raise OSError(ctypes.get_errno(), "renameat2 failed")


def read(jail: Jail, path: str) -> bytes:
    with os.fdopen(jail.open(path), "rb") as file:
        return file.read()


def write(jail: Jail, path: str) -> bytes:
    opened, temporary = jail.begin(path)
    try:
        os.write(opened, b"mine")
        jail.finish(path, temporary, opened)
    finally:
        jail.give_up(path, temporary)
        os.close(opened)
    return b"mine"


# Whose they are


def test_a_file_that_others_write_meanwhile_is_read_whole(root: Path) -> None:
    (home(root)).mkdir(parents=True)
    jail = Jail(root, folder_name("acme"))
    (home(root) / "latest").write_bytes(b"0" * 100)
    stop = threading.Event()

    def write_on() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            (home(root) / "new").write_bytes(str(number % 10).encode() * 100)
            (home(root) / "new").rename(home(root) / "latest")

    writing = threading.Thread(target=write_on)
    writing.start()
    try:
        seen = [read(jail, "latest") for _ in range(3000)]
    finally:
        stop.set()
        writing.join()
    assert {len(data) for data in seen} == {100}
    assert all(len(set(data)) == 1 for data in seen)
    assert len(set(seen)) > 1


async def test_what_one_tenant_writes_no_other_sees(root: Path) -> None:
    async with offering(root) as helpers:
        with as_tenant(helpers, "acme") as acme:
            await acme.files.write("file", "of acme")
            kept, opened = acme.files, acme.files.open("file")
            file = await opened.__aenter__()
        with as_tenant(helpers, "evil") as evil:
            assert await evil.files.list() == []
            for reach in (
                evil.files.read(f"../{folder_name('acme')}/file"),
                evil.files.read(f"{home(root)}/file"),
                kept.read("file"),
                kept.write("file", "poison"),
                kept.list(),
                file.read(),
            ):
                with pytest.raises((PathRefused, WrongTenant)):
                    await reach
            for reach in (lambda: kept.blocking.read("file"), lambda: TenantContext("acme", "ada").files):
                with pytest.raises(WrongTenant):
                    reach()
        with as_tenant(helpers, "acme"):
            await opened.__aexit__(None, None, None)


def test_no_two_tenants_have_one_folder_or_schema() -> None:
    ids = [
        "acme",
        "ACME",
        "Acme",
        "acme ",
        "acme/",
        "acme-corp",
        "acme_corp",
        "acme.corp",
        "acme%2ecorp",
        "\u00e9",
        "e\u0301",
        "\u212b",
        "\u00c5",
        "ß",
        "ss",
        "..",
        ".",
        "/",
        "con",
        "x" * 1024,
        "x" * 1023,
        "\u0131stanbul",
        "istanbul",
        folder_name("acme"),
        schema_name("acme"),
    ]
    for name in (folder_name, schema_name):
        names = [name(tenant) for tenant in ids]
        assert len({each.casefold() for each in names}) == len(ids)
        for each in names:
            assert checked_path(each) == (each,)
            assert each == each.lower()
            assert each.isascii()
    assert all(len(schema_name(tenant)) <= 63 for tenant in ids)
    assert all(schema_name(tenant).isidentifier() for tenant in ids)


async def test_without_a_folder_the_error_names_the_option() -> None:
    async with TenantHelpers() as helpers:
        with as_tenant(helpers, "acme") as acme, pytest.raises(NotOffered, match=r'Runtime\(..., files="dir"\)'):
            await acme.files.read("a")


# Bounds


async def test_a_quota_is_kept_and_a_file_can_be_written_anew_within_it(root: Path) -> None:
    async with offering(root, max_bytes=1000, max_files=5) as helpers:
        with as_tenant(helpers, "acme") as acme:
            files = acme.files
            await files.write("a", b"x" * 600)
            with pytest.raises(QuotaExceeded, match="600 of 1000 bytes are taken"):
                await files.write("b", b"x" * 401)
            assert not await files.exists("b")
            with pytest.raises(QuotaExceeded):
                await files.append("a", b"x" * 401)
            assert (await files.status("a")).size == 600
            await files.write("a", b"x" * 900)
            await files.write("b", b"x" * 100)
            with pytest.raises(QuotaExceeded):
                await files.append("b", b"x")
            await files.write("a", b"x" * 10)
            await files.append("b", b"x" * 890)
            await files.delete("b")
            await files.write("c", b"x" * 990)
            await files.move("c", "a", replace=True)
            await files.write("d", b"x" * 10)
            for name in "efg":
                await files.write(name, b"")
            with pytest.raises(QuotaExceeded, match="5 of 5 files"):
                await files.write("h", b"")
            with pytest.raises(QuotaExceeded):
                await files.append("h", b"")

            async def write_much() -> None:
                async with files.open("d", "w") as file:
                    for _ in range(30):
                        await file.write(b"x" * 100_000)

            with pytest.raises(QuotaExceeded):
                await write_much()
            assert (await files.status("d")).size == 10
        with as_tenant(helpers, "other") as other:
            await other.files.write("a", b"x" * 1000)
        # What is there is found by looking, not remembered.
        async with offering(root, max_bytes=1000) as again:
            with as_tenant(again, "acme") as acme, pytest.raises(QuotaExceeded, match="1000 of 1000"):
                await acme.files.append("a", b"x")


async def test_holes_and_folders_count_towards_a_quota(root: Path) -> None:
    async with offering(root, max_bytes=1000, max_files=6) as helpers:
        with as_tenant(helpers, "acme") as acme:
            files = acme.files.blocking

            def write_far(far: Any) -> None:
                with files.open("sparse", "w") as file:
                    far(file)

            for far in (lambda file: file.seek(1000) and file.write(b"x"), lambda file: file.truncate(1001)):
                with pytest.raises(QuotaExceeded):
                    write_far(far)
                assert not files.exists("sparse")
            with files.open("sparse", "w") as file:
                file.seek(400)
                file.write(b"x" * 100)
                file.flush()
                # What is written over is not there twice.
                file.seek(0)
                file.write(b"y" * 500)
            assert files.status("sparse").size == 500
            files.write("rest", b"x" * 500)
            with pytest.raises(QuotaExceeded, match="1000 of 1000 bytes"):
                files.append("rest", b"x")
            with pytest.raises(FilesError, match="cannot be cut"), files.open("rest", "a") as file:
                file.truncate(0)
            # Three files, and two folders.
            files.write("a/b/c", b"")
            with pytest.raises(QuotaExceeded, match="6 of 6 files"):
                files.write("a/d/e/f/g/h", b"")
            assert sorted(each.name for each in home(root).rglob("*") if each.is_dir()) == ["a", "b"]
            files.write("a/b/d", b"")


async def test_no_folder_is_moved_to_where_nobody_could_reach_what_is_in_it(root: Path) -> None:
    async with offering(root) as helpers:
        with as_tenant(helpers, "acme") as acme:
            files = acme.files
            await files.write("/".join(["deep"] * 31 + ["file"]), b"x")
            await files.write("other/file", b"y")
            with pytest.raises(FilesError, match="deeper than 32 folders"):
                await files.move("deep", "other/deep")
            await files.move("deep/deep", "other/shallow")
            assert await files.read("/".join(["other", "shallow", *["deep"] * 29, "file"])) == b"x"
            await files.move("other", "more")
            assert await files.read("more/file") == b"y"


async def test_what_a_crash_left_half_written_is_removed_and_never_shown(root: Path) -> None:
    left = home(root) / ".~understudy-0123456789abcdef"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x" * 100)
    async with offering(root, max_bytes=1000) as helpers:
        with as_tenant(helpers, "acme") as acme:
            assert await acme.files.list() == []
            os.utime(left, (1, 1))
            await acme.files.write("a", b"x" * 1000)
    assert os.listdir(left.parent) == ["a"]


async def test_a_file_that_is_too_large_is_not_read_into_memory(root: Path) -> None:
    async with offering(root, max_read=100) as helpers:
        with as_tenant(helpers, "acme") as acme:
            await acme.files.write("a", b"x" * 101)
            with pytest.raises(FilesError, match=r"more than 100 bytes; read it in pieces"):
                await acme.files.read("a")
            await acme.files.write("b", b"\xff")
            with pytest.raises(FilesError, match="not UTF-8"):
                await acme.files.read_text("b")


async def test_a_slow_disk_holds_up_neither_the_event_loop_nor_other_tenants(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders_module, "WAITING", 2)
    go_on = threading.Event()
    folders = TenantFolders(Files(root, timeout=0.2))
    async with TenantHelpers(files=folders) as helpers:
        try:
            with as_tenant(helpers, "slow") as slow:

                async def gets_stuck() -> None:
                    with pytest.raises(FilesUnavailable):
                        await folders.run("slow", go_on.wait)

                async with asyncio.TaskGroup() as tasks:
                    for _ in range(6):
                        tasks.create_task(gets_stuck())
                    await asyncio.sleep(0)
                    with pytest.raises(FilesBusy, match="wait already"):
                        await slow.files.exists("a")
                    with as_tenant(helpers, "other") as other:
                        await other.files.write("a", "quick")
                # The threads that still hang count, though nobody waits for them.
                with pytest.raises(FilesUnavailable, match=r"within 0\.2 s"):
                    await slow.files.exists("a")
                go_on.set()
                async with asyncio.timeout(PATIENCE):
                    while helpers.stats()["files_waiting_or_running"] or folders._queues:
                        await asyncio.sleep(0.01)
                assert not await slow.files.exists("a")
        finally:
            go_on.set()


async def test_a_folder_that_cannot_be_used_is_refused_at_the_start(root: Path) -> None:
    root.mkdir()
    root.chmod(0o777)
    with pytest.raises(FilesError, match="chmod o-w"):
        await offering(root).__aenter__()
    with pytest.raises(FilesError, match="cannot be used"):
        await offering(root.parent / "outside").__aenter__()
    with pytest.raises(ValueError, match="max_bytes of Files is 0"):
        Files(root, max_bytes=0)
