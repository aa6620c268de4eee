"""The calls of `PostgresStore`: what each asks, what it sends for one and for many, and how answers are judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from ..address import Address
from ..errors import RecordExists, RecordNotFound, StaleEpoch
from ..record import Record, RecordInfo
from .connection import Connection, Failed
from .errors import Failure, PostgresUnavailable
from .statements import RecordStatements
from .waiting import ALONE, Kind

__all__ = ["NOTHING", "Adopt", "Claim", "Create", "Delete", "Load", "Records", "Save", "Touch"]

_MOST = 128
"""Records in one statement."""

NOTHING = (0, 0)
"""The epoch and the version of what an adopted record may be put over, where there may be nothing."""

_ATTEMPTS = 100
"""Times that one record is looked at again because another's write came between the judging and the reading."""


class Asked(Protocol):
    """A call about one record."""

    @property
    def address(self) -> Address: ...


class Create(NamedTuple):
    record: Record


class Adopt(NamedTuple):
    record: Record
    over: tuple[int, int]
    now: float


class Claim(NamedTuple):
    address: Address
    owner: str
    now: float


class Load(NamedTuple):
    address: Address
    now: float


class Save(NamedTuple):
    address: Address
    epoch: int
    version: int
    snapshot: bytes
    now: float
    expires: float


class Touch(NamedTuple):
    address: Address
    epoch: int
    now: float
    expires: float


class Delete(NamedTuple):
    address: Address
    epoch: int | None
    now: float


class Page(NamedTuple):
    tenant: str | None
    after: Address
    now: float
    limit: int


class Expire(NamedTuple):
    now: float
    limit: int


class Records:
    """The kinds of call, for the tables in one schema."""

    def __init__(self, schema: str) -> None:
        self._sql = RecordStatements(schema)
        self.create = Kind("create", True, self._create, _MOST)
        self.adopt = Kind("adopt", True, self._adopt, _MOST)
        self.claim = Kind("claim", True, self._claim, _MOST)
        self.load = Kind("load", False, self._load, _MOST)
        self.save = Kind("save", True, self._save, _MOST)
        self.touch = Kind("touch", True, self._touch, _MOST)
        self.delete = Kind("delete", True, self._delete, _MOST)
        self.page = Kind("list", False, self._page)
        self.expire = Kind("expire", True, self._expire)
        self.ping = Kind("ping", True, self._ping, 1000)

    async def _create(self, connection: Connection, asked: Sequence[Create]) -> list[Any]:
        # In the order of their keys, as every node has it: two that insert the same ones do not wait for each other.
        records = sorted((create.record for create in asked), key=lambda record: record.address)
        rows = await connection.fetch(
            self._sql.create,
            [record.address.kind for record in records],
            [record.address.id for record in records],
            [record.tenant for record in records],
            [record.owner for record in records],
            [record.created for record in records],
            [record.expires for record in records],
            [record.snapshot for record in records],
            writing=True,
        )
        made = {(kind, id) for kind, id in rows}
        return [record if record.address in made else RecordExists(record.address) for (record,) in asked]

    async def _adopt(self, connection: Connection, asked: Sequence[Adopt]) -> list[Any]:
        if len(asked) == 1:
            return [await self._adopt_one(connection, asked[0])]
        # As `_create` has it. What may be put over something, and what finds something there, is looked at alone.
        records = sorted((adopt.record for adopt in asked if adopt.over == NOTHING), key=lambda record: record.address)
        if not records:
            return [ALONE] * len(asked)
        rows = await connection.fetch(
            self._sql.adopt_many,
            [record.address.kind for record in records],
            [record.address.id for record in records],
            [record.tenant for record in records],
            [record.epoch for record in records],
            [record.version for record in records],
            [record.owner for record in records],
            [record.created for record in records],
            [record.updated for record in records],
            [record.expires for record in records],
            [record.snapshot for record in records],
            min(adopt.now for adopt in asked),
            writing=True,
        )
        made = {(kind, id) for kind, id in rows}
        return [None if adopt.record.address in made else ALONE for adopt in asked]

    async def _adopt_one(self, connection: Connection, adopt: Adopt) -> Any:
        record, over, now = adopt
        for _ in range(_ATTEMPTS):
            rows = await connection.fetch(
                self._sql.adopt,
                *record.address,
                record.tenant,
                record.epoch,
                record.version,
                record.owner,
                record.created,
                record.updated,
                record.expires,
                record.snapshot,
                now,
                *over,
                writing=True,
            )
            if rows:
                return None
            there = await connection.fetch(self._sql.load, *record.address, now, writing=False)
            if there:
                _, epoch, version, *_ = there[0]
                same = (epoch, version) == (record.epoch, record.version)
                return None if same else RecordExists(record.address)
        raise _contended(record.address)

    async def _claim(self, connection: Connection, asked: Sequence[Claim]) -> list[Any]:
        if len(asked) == 1:
            [(address, owner, now)] = asked
            rows = await connection.fetch(self._sql.claim, *address, owner, now, writing=True)
            return [Record(address, *rows[0]) if rows else RecordNotFound(address)]
        return await _many(
            connection,
            self._sql.claim_many,
            asked,
            [claim.owner for claim in asked],
            [claim.now for claim in asked],
            judge=_found,
        )

    async def _load(self, connection: Connection, asked: Sequence[Load]) -> list[Any]:
        if len(asked) == 1:
            [(address, now)] = asked
            rows = await connection.fetch(self._sql.load, *address, now, writing=False)
            return [Record(address, *rows[0]) if rows else None]
        return await _many(
            connection,
            self._sql.load_many,
            asked,
            [load.now for load in asked],
            judge=_found,
            missing=None,
            writing=False,
        )

    async def _save(self, connection: Connection, asked: Sequence[Save]) -> list[Any]:
        if len(asked) == 1:
            [save] = asked
            values = (_int8(save.epoch), _int8(save.version), save.snapshot, save.now, save.expires)
            return [await _one(connection, self._sql.save, save, *values, judge=_saved, missing=RecordNotFound)]
        return await _many(
            connection,
            self._sql.save_many,
            asked,
            [_int8(save.epoch) for save in asked],
            [_int8(save.version) for save in asked],
            [save.snapshot for save in asked],
            [save.now for save in asked],
            [save.expires for save in asked],
            judge=_saved,
        )

    async def _touch(self, connection: Connection, asked: Sequence[Touch]) -> list[Any]:
        if len(asked) == 1:
            [touch] = asked
            values = (_int8(touch.epoch), touch.now, touch.expires)
            return [await _one(connection, self._sql.touch, touch, *values, judge=_touched, missing=RecordNotFound)]
        return await _many(
            connection,
            self._sql.touch_many,
            asked,
            [_int8(touch.epoch) for touch in asked],
            [touch.now for touch in asked],
            [touch.expires for touch in asked],
            judge=_touched,
        )

    async def _delete(self, connection: Connection, asked: Sequence[Delete]) -> list[Any]:
        epochs = [None if delete.epoch is None else _int8(delete.epoch) for delete in asked]
        if len(asked) == 1:
            [delete] = asked
            values = (epochs[0], delete.now)
            return [await _one(connection, self._sql.delete, delete, *values, judge=_deleted, missing=_nothing_there)]
        return await _many(
            connection,
            self._sql.delete_many,
            asked,
            epochs,
            [delete.now for delete in asked],
            judge=_deleted,
        )

    async def _page(self, connection: Connection, asked: Sequence[Page]) -> list[Any]:
        [(tenant, after, now, limit)] = asked
        if tenant is None:
            rows = await connection.fetch(self._sql.page, *after, now, limit, writing=False)
        else:
            rows = await connection.fetch(self._sql.page_of_tenant, *after, now, limit, tenant, writing=False)
        return [[RecordInfo(Address(kind, id), *rest) for kind, id, *rest in rows]]

    async def _expire(self, connection: Connection, asked: Sequence[Expire]) -> list[Any]:
        [(now, limit)] = asked
        [(due, gone)] = await connection.fetch(self._sql.expire, now, limit, writing=True)
        return [(due, gone)]

    async def _ping(self, connection: Connection, asked: Sequence[float]) -> list[Any]:
        rows = await connection.fetch(self._sql.ping, max(asked), writing=True)
        return [rows[0][0] if rows else None] * len(asked)


async def _one(
    connection: Connection,
    statement: str,
    asked: Asked,
    *values: object,
    judge: Callable[..., Any],
    missing: Callable[[Address], Any],
) -> Any:
    """The answer of a call that has its statement to itself: `judge(asked, *row)`, asked for again while that is
    `ALONE`; `missing(address)` where there is no record."""
    for _ in range(_ATTEMPTS):
        rows = await connection.fetch(statement, *asked.address, *values, writing=True)
        if not rows:
            return missing(asked.address)
        verdict = judge(asked, *rows[0])
        if verdict is not ALONE:
            return verdict
    raise _contended(asked.address)


async def _many(
    connection: Connection,
    statement: str,
    asked: Sequence[Asked],
    *columns: Sequence[object],
    judge: Callable[..., Any],
    missing: Any = ALONE,
    writing: bool = True,
) -> list[Any]:
    """The answers of calls that share a statement, in their order: `judge(asked, *row)`, or `missing`, as what a write
    does not find may have been passed over."""
    kinds, ids = [each.address.kind for each in asked], [each.address.id for each in asked]
    rows = await connection.fetch(statement, kinds, ids, *columns, writing=writing)
    found = {(row[0], row[1]): row[2:] for row in rows}
    return [judge(each, *found[each.address]) if each.address in found else missing for each in asked]


def _found(asked: Asked, *row: Any) -> Record:
    return Record(asked.address, *row)


def _nothing_there(address: Address) -> bool:
    return False


def _saved(save: Save, epoch: int, version: int, written: bool) -> Any:
    """None if it was written, or is a repeat; the error; or `ALONE` if it should have been written and was not, as what
    was read was older than what it was compared with."""
    if written:
        return None
    if epoch == save.epoch:
        if version == save.version:
            return None
        if version == save.version - 1:
            return ALONE
    return StaleEpoch(save.address, held=save.epoch, stored=epoch)


def _touched(touch: Touch, epoch: int, written: bool) -> Any:
    if written:
        return None
    return ALONE if epoch == touch.epoch else StaleEpoch(touch.address, held=touch.epoch, stored=epoch)


def _deleted(delete: Delete, epoch: int, gone: bool) -> Any:
    if gone:
        return True
    if delete.epoch is None or delete.epoch == epoch:
        return ALONE
    return StaleEpoch(delete.address, held=delete.epoch, stored=epoch)


def _int8(number: int) -> int:
    """`number`, or one that no record has if PostgreSQL could not hold it."""
    return number if -(2**62) < number < 2**62 else -(2**62)


def _contended(address: Address) -> Failed:
    message = f"{address}: others write this record all the time; {_ATTEMPTS} attempts came too late; try again"
    return Failed(Failure(PostgresUnavailable, message))
