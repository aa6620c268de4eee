"""A file that somebody is writing is read when he is done, and no change of it goes unseen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from understudy.stores import settled_file
from understudy.stores.settled_file import FileUnsettled, read_settled, stamp_of

WHOLE = b"one line\nand the next\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_bytes(WHOLE[:9])
    return path


def test_what_is_half_written_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An editor has emptied the file and is at its first line."""
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 1:
            path.write_bytes(WHOLE)

    monkeypatch.setattr(settled_file.time, "sleep", pause)
    stamp, raw = read_settled(path, 100)
    assert raw == WHOLE
    assert stamp == stamp_of(path.stat())
    assert pauses == [0.1, 0.1]


def test_what_has_been_left_alone_is_read_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settled_file.time, "time", lambda: path.stat().st_ctime + 0.2)
    monkeypatch.setattr(settled_file.time, "sleep", pytest.fail)
    assert read_settled(path, 3) == (stamp_of(path.stat()), WHOLE[:3])


def test_what_was_just_put_in_place_with_an_old_time_is_not_taken_for_whole(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime(path, (1, 1))
    monkeypatch.setattr(settled_file.time, "sleep", lambda _: path.write_bytes(WHOLE))
    with pytest.raises(FileUnsettled, match="keeps changing"):
        read_settled(path, 100)


def test_a_change_that_keeps_size_and_time_is_one(path: Path) -> None:
    """As `rsync -t --inplace` and builds that set all times to one leave it."""
    before = path.stat()
    path.write_bytes(WHOLE[:9].upper())
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_mtime_ns, after.st_size, after.st_ino) == (before.st_mtime_ns, before.st_size, before.st_ino)
    assert stamp_of(after) != stamp_of(before)


def test_a_file_is_judged_before_it_is_read(path: Path) -> None:
    def refuse(status: os.stat_result) -> None:
        raise PermissionError(status.st_size)

    with pytest.raises(PermissionError, match="9"):
        read_settled(path, 100, refuse)
