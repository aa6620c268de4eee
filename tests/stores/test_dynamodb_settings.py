"""`DynamoSettings` from URLs, and what the table must be: as data, as a template, as Terraform, and made."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.dynamodb import DynamoServer, fresh_table_name
from understudy import stores
from understudy.stores import StoreURLError, open_store
from understudy.stores.dynamodb import (
    DynamoSettings,
    cloudformation,
    create_table,
    iam_policy,
    table_description,
    terraform,
)
from understudy.stores.dynamodb.client import connect
from understudy.stores.dynamodb.errors import DynamoRefused, DynamoSettingsError
from understudy.stores.dynamodb.table import ACTIONS


def test_a_url_names_table_region_profile_endpoint_and_connections() -> None:
    url = "dynamodb://my.table_1?region=us-gov-west-1&profile=prod&endpoint=http://127.0.0.1:8000&connections=9"
    assert DynamoSettings.from_url(url) == DynamoSettings(
        "my.table_1", "us-gov-west-1", "http://127.0.0.1:8000", "prod", 9
    )
    assert DynamoSettings.from_url("dynamodb://sessions") == DynamoSettings("sessions", connections=64)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("dynamodb://", "3 to 255"),
        ("dynamodb://ab", "3 to 255"),
        ("dynamodb://sessions/", "3 to 255"),
        ("dynamodb://host:8000", "3 to 255"),
        ("dynamodb://sessions#x", "visible ASCII"),
        ("dynamodb://sessions?region", "name=value"),
        ("dynamodb://sessions?region=", "once, with a value"),
        ("dynamodb://sessions?region=a&region=b", "once, with a value"),
        ("dynamodb://sessions?region=Ireland", "no region of AWS"),
        ("dynamodb://sessions?aws_secret_access_key=x", "unknown option 'aws_secret_access_key'.* environment"),
        ("dynamodb://sessions?profile=a/b", "section of"),
        ("dynamodb://sessions?endpoint=localhost:8000", "http:// or https://"),
        ("dynamodb://sessions?endpoint=http://host:99999", "http:// or https://"),
        ("dynamodb://sessions?endpoint=http://host/path", "http:// or https://"),
        ("dynamodb://sessions?connections=0", "1 to 1000"),
        ("dynamodb://sessions?connections=many", "whole number"),
        ("dynamodb://key:secret@sessions", "no user and no password"),
    ],
)
async def test_a_url_that_makes_no_sense_says_why(url: str, says: str) -> None:
    with pytest.raises(StoreURLError, match=says) as caught:
        await open_store(url)
    assert isinstance(caught.value, DynamoSettingsError)
    assert "secret@" not in str(caught.value)


def test_nothing_of_botocore_is_imported_before_a_table_is_opened() -> None:
    script = (
        "import sys\n"
        "import understudy.stores, understudy.stores.dynamodb, understudy.runtime\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('botocore', 'aiobotocore', 'aiohttp')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_a_template_of_cloudformation_has_the_table_as_it_is_described() -> None:
    resources = json.loads(cloudformation("sessions"))["Resources"]
    assert resources["Sessions"]["Properties"] == table_description("sessions")
    assert resources["Sessions"]["DeletionPolicy"] == "Retain"
    statement = resources["SessionsAccess"]["Properties"]["PolicyDocument"]["Statement"][0]
    assert statement["Resource"] == {"Fn::GetAtt": ["Sessions", "Arn"]}
    assert statement["Action"] == [f"dynamodb:{action}" for action in ACTIONS]


def test_terraform_has_the_same_table() -> None:
    text = terraform("1.sessions")
    wanted = table_description("1.sessions")
    said = dict(re.findall(r'^ +(\w+) += "?([^"\n]+)"?$', text, re.MULTILINE))
    assert said["hash_key"] == wanted["KeySchema"][0]["AttributeName"]
    assert said["billing_mode"] == wanted["BillingMode"]
    assert said["attribute_name"] == wanted["TimeToLiveSpecification"]["AttributeName"]
    assert 'resource "aws_dynamodb_table" "_1_sessions"' in text
    assert 'name         = "1.sessions"' in text
    assert text.count("{") == text.count("}")
    assert all(f'"dynamodb:{action}"' in text for action in ACTIONS)


def test_the_policy_in_the_readme_is_the_one_that_is_needed() -> None:
    readme = Path(stores.__file__).with_name("README.md").read_text()
    (block,) = re.findall(r"^```json\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    policy = json.loads(block)
    assert policy == iam_policy(policy["Statement"][0]["Resource"])


async def test_a_table_is_made_once_with_its_time_to_live_and_opens(dynamodb_server: DynamoServer) -> None:
    name = fresh_table_name()
    url = dynamodb_server.url(name)
    settings = DynamoSettings.from_url(url)
    assert await create_table(settings) is True
    assert await create_table(settings) is False
    ttl = dynamodb_server.call("DescribeTimeToLive", TableName=name)["TimeToLiveDescription"]
    assert (ttl["TimeToLiveStatus"], ttl["AttributeName"]) == ("ENABLED", "ttl")
    store = await open_store(url)
    assert store.warnings == ()  # type: ignore[attr-defined]
    await store.aclose()


async def test_a_request_says_that_it_is_of_understudy_and_of_which_application(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_SDK_UA_APP_ID", "my shop#2")
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        client = await connect(DynamoSettings("sessions", "eu-west-1", endpoint), timeout=5.0)
        try:
            await client.operations["DescribeTable"](TableName="sessions")
        finally:
            await client.aclose()
    (agent,) = re.findall(r"User-Agent: (.*)\r\n", heard[0].decode())
    assert re.fullmatch(r"aiobotocore/[\d.]+ understudy app/my-shop#2 botocore/[\d.]+", agent)


async def test_a_table_that_may_not_be_made_is_said(dynamodb_server: DynamoServer) -> None:
    name = fresh_table_name()
    dynamodb_server.fault(name, "CreateTable", code="AccessDeniedException", message="not authorized")
    with pytest.raises(DynamoRefused, match="do not permit CreateTable"):
        await create_table(DynamoSettings.from_url(dynamodb_server.url(name)))
