"""`--nats` and its kin, and the URL that says the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from understudy.runtime.commands.nats_options import NatsOptions, nats_url
from understudy.stores.nats.errors import NatsSettingsError
from understudy.stores.nats.settings import NatsSettings, split_nats_url

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
files = st.none() | words.map(lambda text: Path("/") / text.replace("/", "-"))


@given(
    servers=st.lists(st.sampled_from(["nats://a:4222", "tls://b.example:1", "nats://[::1]:2"]), min_size=1, max_size=3),
    login=st.one_of(
        st.fixed_dictionaries({"user": words, "password": words}),
        st.fixed_dictionaries({"token": words}),
        st.just({}),
    ),
    ca=files,
)
def test_the_url_of_settings_means_the_same(servers: list[str], login: dict[str, str], ca: Path | None) -> None:
    settings = NatsSettings(tuple(servers), **login, ca=ca)  # type: ignore[arg-type]
    assert NatsSettings.from_url(nats_url(settings)) == settings
    assert split_nats_url(nats_url(settings, "bucket"))[:2] == (settings, "bucket")


def test_files_come_from_the_options_and_what_is_secret_from_the_environment() -> None:
    options = NatsOptions("nats://a", ca=Path("ca.pem"), cert=Path("c"), key=Path("k"))
    settings = options.settings({"UNDERSTUDY_NATS_USER": "u", "UNDERSTUDY_NATS_PASSWORD": "p"})
    assert (settings.user, settings.password, settings.ca, settings.key) == ("u", "p", Path("ca.pem"), Path("k"))
    assert options.settings({"UNDERSTUDY_NATS_TOKEN": "t"}).token == "t"


def test_two_ways_to_log_in_are_refused() -> None:
    with pytest.raises(NatsSettingsError, match="'user' and 'creds' exclude each other"):
        NatsOptions("nats://u:p@a", creds=Path("c")).settings({})


def test_a_secret_is_not_in_the_repr() -> None:
    assert "secret" not in repr(NatsOptions("nats://u:secret@a"))
