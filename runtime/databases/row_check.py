"""`row_problems`: what would let a tenant see another's rows although there are policies."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

__all__ = ["role_problems", "row_problems"]

_ROLE: Final = """
SELECT current_user AS name, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user
"""

_ROLES_WITHIN_REACH: Final = """
SELECT rolname, rolsuper FROM pg_roles
WHERE (rolsuper OR rolbypassrls) AND rolname <> current_user AND pg_has_role(current_user, oid, 'MEMBER')
ORDER BY rolname
"""

_RELATIONS: Final = """
SELECT
  n.nspname || '.' || c.relname AS name, c.relkind::text AS kind, c.relrowsecurity AS enabled,
  c.relforcerowsecurity AS forced, pg_has_role(current_user, c.relowner, 'MEMBER') AS owned,
  o.rolname AS owner, o.rolsuper OR o.rolbypassrls AS owner_bypasses,
  coalesce('security_invoker=true' = ANY (c.reloptions) OR 'security_invoker=on' = ANY (c.reloptions), false) AS invoker
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles o ON o.oid = c.relowner
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%'
  AND has_schema_privilege(n.oid, 'USAGE')
  AND (has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE')
    OR has_any_column_privilege(c.oid, 'SELECT, INSERT, UPDATE'))
  AND NOT EXISTS (
    SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e')
ORDER BY 1
"""

_OPEN_POLICIES: Final = """
SELECT schemaname || '.' || tablename AS name, policyname FROM pg_policies
WHERE permissive = 'PERMISSIVE' AND (qual = 'true' OR with_check = 'true')
  AND (roles = '{public}' OR EXISTS (
    SELECT FROM pg_roles r WHERE r.rolname = ANY (roles) AND pg_has_role(current_user, r.oid, 'USAGE')))
ORDER BY 1, 2
"""

_DEFAULT: Final = "SELECT nullif(current_setting($1, true), '')"


async def row_problems(raw: Any, setting: str, shared: Collection[str]) -> list[str]:
    """What is wrong, each in words that say what to do. `shared`: tables and views that are not looked at.

    Raises:
        asyncpg.PostgresError: The server refused to say.
    """
    problems = await role_problems(raw)
    for row in await raw.fetch(_RELATIONS):
        if row["name"] not in shared:
            problems += _problems_of(row)
    for row in await raw.fetch(_OPEN_POLICIES):
        if row["name"] not in shared:
            problems.append(
                f"the policy {row['policyname']} on {row['name']} lets everybody in: drop it, or name a tenant"
            )
    if (default := await raw.fetchval(_DEFAULT, setting)) is not None:
        problems.append(
            f"{setting} is {default[:64]!r} outside of all transactions: ALTER ROLE ... RESET {setting}, and the same "
            "for the database and the server"
        )
    return problems


async def role_problems(raw: Any) -> list[str]:
    """What is wrong with the role that we connect as, whatever the pattern."""
    role = await raw.fetchrow(_ROLE)
    problems: list[str] = []
    if role["rolsuper"]:
        problems.append(f"the role {role['name']} is a superuser, whom no policy binds: connect as a role of its own")
    elif role["rolbypassrls"]:
        problems.append(f"the role {role['name']} has BYPASSRLS: ALTER ROLE {role['name']} NOBYPASSRLS")
    if not role["rolsuper"]:
        for row in await raw.fetch(_ROLES_WITHIN_REACH):
            what = "a superuser" if row["rolsuper"] else "one with BYPASSRLS"
            problems.append(f"the role {role['name']} is a member of {row['rolname']}, {what}: REVOKE that")
    return problems


def _problems_of(row: Any) -> list[str]:
    name, share = row["name"], "or name it in shared="
    match row["kind"]:
        case "v" if not row["invoker"] and row["owner_bypasses"]:
            return [
                f"the view {name} reads with the rights of {row['owner']}, whom no policy binds: "
                f"ALTER VIEW {name} SET (security_invoker = true) (PostgreSQL 15), {share}"
            ]
        case "v":
            return []
        case "m":
            return [
                f"the materialized view {name} holds rows of all tenants and can have no policy: revoke it, {share}"
            ]
        case "f":
            return [f"the foreign table {name} can have no policy: revoke it, {share}"]
        case _:
            pass
    problems: list[str] = []
    if not row["enabled"]:
        problems.append(
            f"the table {name} has no row-level security: ALTER TABLE {name} ENABLE ROW LEVEL SECURITY, {share}"
        )
    if row["owned"] and not row["forced"]:
        problems.append(
            f"the table {name} belongs to the role that we connect as (or one that it is a member of), whom its "
            f"policies do not bind: ALTER TABLE {name} FORCE ROW LEVEL SECURITY, or have another role own it"
        )
    return problems
