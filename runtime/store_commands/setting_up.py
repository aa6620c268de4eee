"""`store init` and `store migrate`: make what a store needs, or bring it forward."""

from __future__ import annotations

import os
from typing import Literal

import click

from ...stores import Address, StoreURLError, event_log_of, open_store
from ...stores.environment import AUTO, store_of_environment
from ...stores.inspection import Layout, Maker
from .reaching import NoStore, inspected

__all__ = ["bring_forward", "set_up", "template"]


async def set_up(url: str, *, dry_run: bool) -> None:
    """Make what is missing, and print what was there and what was made.

    Raises:
        StoreError: As `Inspector.look` and `open_store`.
    """
    async with inspected(url) as inspector:
        before = await inspector.look()
        click.echo(before.where)
        for part in before.there:
            click.echo(f"there: {part}")
        if dry_run:
            _echo_steps(before)
            return
        if before.steps:
            if isinstance(inspector, Maker):
                await inspector.make()
            await _make(url)
            after = await inspector.look()
            for part in after.there:
                if part not in before.there:
                    click.echo(f"made: {part}")
            if before.version is not None and before.version != after.version:
                click.echo(f"brought forward from format {before.version} to {after.version}")
            if after.steps:
                raise NoStore(f"{after.where} was made, and is not complete: {'; '.join(after.steps)}")
        else:
            after = before
            click.echo(f"complete, format {before.version}: nothing to do")
        for warning in after.warnings:
            click.echo(f"warning: {warning}", err=True)


async def bring_forward(url: str, *, dry_run: bool) -> None:
    """Bring a store of an older format to this version's.

    Raises:
        NoStore: There is none.
        StoreError: As `Inspector.look` and `open_store`.
    """
    async with inspected(url) as inspector:
        before = await inspector.look()
        click.echo(before.where)
        if before.version is None:
            raise NoStore(f"there is no store at {before.where}; `understudy store init` makes one")
        if before.version == before.newest:
            click.echo(f"format {before.version} already: nothing to do")
        elif dry_run:
            _echo_steps(before)
        else:
            await _make(url)
            after = await inspector.look()
            click.echo(f"brought forward from format {before.version} to {after.version}")


def template(url: str, kind: Literal["cloudformation", "terraform"]) -> str:
    """What makes the table of a store in DynamoDB.

    Raises:
        StoreURLError: `url` is not of such a store.
    """
    from ...stores.dynamodb import DynamoSettings, cloudformation, terraform

    if url == AUTO:
        url = store_of_environment(os.environ).url
    if url.partition(":")[0] != "dynamodb":
        raise StoreURLError(f"there is a template for {kind} only of dynamodb://: other stores are made by init itself")
    table = DynamoSettings.from_url(url).table
    return cloudformation(table) if kind == "cloudformation" else terraform(table)


def _echo_steps(layout: Layout) -> None:
    if not layout.steps:
        click.echo(f"complete, format {layout.version}: nothing to do")
    for step in layout.steps:
        click.echo(f"would: {step}")


async def _make(url: str) -> None:
    store = await open_store(url)
    try:
        log = event_log_of(store)
        if log is not None:
            # Some logs are made at their first use.
            await log.read(Address.new("check"), "none")
    finally:
        await store.aclose()
