"""botocore's data is asked for only what a client needs, and means the same as botocore's own loader would say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiobotocore", reason="needs aiobotocore: pip install 'understudy[dynamodb]'")

from botocore.exceptions import UnknownServiceError
from botocore.loaders import Loader
from understudy.stores.dynamodb.client import connect
from understudy.stores.dynamodb.descriptions import descriptions
from understudy.stores.dynamodb.settings import DynamoSettings

ENDPOINT = DynamoSettings("sessions", "eu-west-1", "http://127.0.0.1:9")


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


async def test_a_client_is_made_without_a_list_of_all_services(monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[str] = []

    def list_available_services(loader: Loader, type_name: str) -> list[str]:
        listed.append(type_name)
        return ["dynamodb"]

    monkeypatch.setattr(Loader, "list_available_services", list_available_services)
    descriptions.cache_clear()
    client = await connect(ENDPOINT, timeout=1.0)
    await client.aclose()
    assert listed == []


async def test_a_second_client_reads_no_description_again(monkeypatch: pytest.MonkeyPatch) -> None:
    await (await connect(ENDPOINT, timeout=1.0)).aclose()
    read: list[str] = []

    def load_file(_: Any, path: str) -> None:
        read.append(path)

    monkeypatch.setattr(Loader.FILE_LOADER_CLASS, "load_file", load_file)
    await (await connect(ENDPOINT, timeout=1.0)).aclose()
    # The first found no extras of understudy's kind; that there are none is asked anew each time.
    assert [path for path in read if "sdk-extras" not in path] == []


@pytest.mark.parametrize("service", ["dynamodb", "sts", "sso", "sso-oidc"])
def test_what_gives_credentials_is_known_too(service: str) -> None:
    ours, theirs = descriptions(None), Loader()
    for kind in ("service-2", "endpoint-rule-set-1"):
        assert ours.load_service_model(service, kind) == theirs.load_service_model(service, kind)


def test_a_service_that_is_none_is_refused_as_botocore_does() -> None:
    said: list[str] = []
    for loader in (descriptions(None), Loader()):
        with pytest.raises(UnknownServiceError) as refused:
            loader.load_service_model("dynamo", "service-2")
        said.append(str(refused.value))
    assert said[0] == said[1]


def test_a_folder_of_ones_own_comes_first(tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "2030-01-01"
    folder.mkdir(parents=True)
    (folder / "service-2.json").write_text(json.dumps({"metadata": {}, "operations": {}}))
    loader = descriptions(str(tmp_path))
    assert loader.load_service_model("mine", "service-2") == {"metadata": {}, "operations": {}}
