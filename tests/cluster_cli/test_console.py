"""What the operators' commands print."""

from __future__ import annotations

import pytest
from understudy.runtime.commands.console import age, plural, shown_url, size, table


def test_columns_are_as_wide_as_they_need_to_be_and_numbers_stand_to_the_right() -> None:
    rows = [("node-1", 7, True, None), ("n", 1234, False, "x")]
    assert table(("NODE", "N", "ON", "X"), rows) == (
        "NODE       N  ON   X\n"
        "node-1     7  yes  -\n"
        "n       1234  no   x"
    )  # fmt: skip


def test_a_table_without_rows_is_its_headers() -> None:
    assert table(("A", "B"), []) == "A  B"


def test_what_came_from_elsewhere_cannot_move_the_cursor() -> None:
    assert "\x1b" not in table(("TENANT",), [("\x1b[2Jmine\nme",)])
    assert table(("TENANT",), [("a\nb",)]).count("\n") == 1


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0s"),
        (0.84, "0.8s"),
        (42, "42s"),
        (119, "119s"),
        (180, "3m"),
        (7200, "2h"),
        (86400 * 3, "3d"),
        (-5, "-5.0s"),
    ],
)
def test_an_age_is_short(seconds: float, shown: str) -> None:
    assert age(seconds) == shown
    assert age(None) == "-"


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0B"), (1023, "1023B"), (2048, "2K"), (1.5 * 2**20, "1.5M"), (87 * 2**20, "87M"), (3 * 2**50, "3072T")],
)
def test_a_size_is_short(count: float, shown: str) -> None:
    assert size(count) == shown


def test_one_is_not_many() -> None:
    assert (plural(0, "node"), plural(1, "node"), plural(2, "node")) == ("0 nodes", "1 node", "2 nodes")


@pytest.mark.parametrize("login", ["user:secret@", "secret@", ""])
def test_a_url_is_shown_without_its_secret(login: str) -> None:
    shown = shown_url(f"nats://{login}host:4222/bucket?creds=/a@b")
    assert "secret" not in shown
    assert shown.endswith("host:4222/bucket?creds=/a@b")


def test_a_url_is_shown_without_the_secrets_among_its_options() -> None:
    shown = shown_url("redis://host/0?password=secret&prefix=shop&sentinel_password=secret&replicas=1")
    assert shown == "redis://host/0?password=***&prefix=shop&sentinel_password=***&replicas=1"
