"""What the table must be, as data: for CreateTable, as a CloudFormation template, as Terraform; and who may use it."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = [
    "ACTIONS",
    "KEY",
    "TTL_ATTRIBUTE",
    "cloudformation",
    "iam_policy",
    "table_description",
    "terraform",
]

KEY = "sessionId"
TTL_ATTRIBUTE = "ttl"

ACTIONS = (
    "DescribeTable",
    "DescribeTimeToLive",
    "GetItem",
    "PutItem",
    "UpdateItem",
    "DeleteItem",
    "Scan",
)
"""What a node asks of the table, without making it."""


def table_description(table: str) -> dict[str, Any]:
    """The wanted table in the words of the API: CreateTable's, and `TimeToLiveSpecification` of UpdateTimeToLive.

    One key, no range key, no index: an index would cost another write for each write, and lag behind the table.
    """
    return {
        "TableName": table,
        "AttributeDefinitions": [{"AttributeName": KEY, "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": KEY, "KeyType": "HASH"}],
        "BillingMode": "PAY_PER_REQUEST",
        "TimeToLiveSpecification": {"AttributeName": TTL_ATTRIBUTE, "Enabled": True},
    }


def cloudformation(table: str) -> str:
    """A template that makes the table and a managed policy for the nodes. Removing the stack leaves the table."""
    wanted = table_description(table)
    template = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "The sessions of understudy",
        "Resources": {
            "Sessions": {
                "Type": "AWS::DynamoDB::Table",
                "DeletionPolicy": "Retain",
                "UpdateReplacePolicy": "Retain",
                "Properties": wanted,
            },
            "SessionsAccess": {
                "Type": "AWS::IAM::ManagedPolicy",
                "Properties": {
                    "Description": "What the nodes of understudy ask of the table",
                    "PolicyDocument": iam_policy({"Fn::GetAtt": ["Sessions", "Arn"]}),
                },
            },
        },
        "Outputs": {
            "Table": {"Value": {"Ref": "Sessions"}},
            "Policy": {"Value": {"Ref": "SessionsAccess"}},
        },
    }
    return json.dumps(template, indent=2) + "\n"


def terraform(table: str) -> str:
    """The same for Terraform's or OpenTofu's provider `aws`."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", table)
    if not name[0].isalpha():
        name = f"_{name}"
    wanted = table_description(table)
    actions = ", ".join(f'"dynamodb:{action}"' for action in ACTIONS)
    return f"""\
resource "aws_dynamodb_table" "{name}" {{
  name         = "{table}"
  billing_mode = "{wanted["BillingMode"]}"
  hash_key     = "{KEY}"

  attribute {{
    name = "{KEY}"
    type = "S"
  }}

  ttl {{
    attribute_name = "{TTL_ATTRIBUTE}"
    enabled        = true
  }}

  lifecycle {{
    prevent_destroy = true
  }}
}}

data "aws_iam_policy_document" "{name}" {{
  statement {{
    actions   = [{actions}]
    resources = [aws_dynamodb_table.{name}.arn]
  }}
}}
"""


def iam_policy(table_arn: object) -> dict[str, Any]:
    """The least that the nodes' role needs. `table_arn`: text, or what a template has in its place."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": [f"dynamodb:{action}" for action in ACTIONS], "Resource": table_arn}
        ],
    }
