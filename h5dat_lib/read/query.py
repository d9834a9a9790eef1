"""A condition in SQL and the columns it names -> the rows that meet it, by DuckDB, which sees nothing but those columns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from h5dat_lib.columns import Array
from h5dat_lib.errors import InputError

_SETTINGS: dict[str, Any] = {
    "enable_external_access": "false",  # no files, no network, no extensions
    "python_enable_replacements": "false",  # nor variables of this program
    "lock_configuration": "true",
}


class Condition:
    """What stands behind WHERE: an expression of columns, constants and functions. Raises InputError when it is something else."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._database = _database()
        self.columns = sorted(set(self._columns()))
        """Names of the columns in it, as they are written."""

    def mask(self, table: pa.Table) -> Array:
        """(rows,) bool: whether each row of the table meets it. Raises InputError when it cannot be evaluated, as for its types."""
        met: Array = self._run(f"SELECT coalesce(({self.text}\n)::BOOLEAN, false) AS met FROM t", table)
        return met

    def _columns(self) -> Iterator[str]:
        query = f"SELECT 1 FROM t WHERE ({self.text}\n)"
        parsed = json.loads(self._database.execute("SELECT json_serialize_sql(?)", [query]).fetchall()[0][0])
        if parsed["error"]:
            raise self._refused(parsed["error_message"])
        [node] = [statement["node"] for statement in parsed["statements"]][:1]
        if len(parsed["statements"]) != 1 or node["type"] != "SELECT_NODE" or node["modifiers"]:
            raise self._refused("more than a condition")
        for part in _parts(node["where_clause"]):
            if part.get("class") in _REFUSED:
                raise self._refused(_REFUSED[part["class"]])
            if part.get("class") == "COLUMN_REF":
                *table, name = part["column_names"]
                if table:
                    raise self._refused(f"{'.'.join(part['column_names'])}: write a name with a dot in double quotes")
                yield name

    def _run(self, query: str, table: pa.Table) -> Any:
        import duckdb

        connection = self._database.cursor()
        try:
            connection.register("t", table)
            return connection.execute(query).fetchnumpy()["met"]
        except duckdb.Error as exc:
            raise self._refused(str(exc).splitlines()[0]) from exc
        finally:
            connection.close()

    def _refused(self, found: str) -> InputError:
        return InputError(f"{self.text!r}: found {found}, expected a condition in SQL, such as label = 'Shirts' and height > 1000")


_REFUSED = {"SUBQUERY": "a query within it", "WINDOW": "a window over rows", "STAR": "a star", "PARAMETER": "a parameter"}
"""What does not depend on its own row alone, and would give something else when rows come in slabs."""


def _parts(node: Any) -> Iterator[dict[str, Any]]:
    """All nodes of a parsed expression."""
    if isinstance(node, dict):
        yield node
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _parts(part)


def _database() -> Any:
    try:
        import duckdb
    except ImportError as exc:
        raise InputError("a condition in SQL needs DuckDB, which is not installed; pip install 'h5dat[query]'") from exc
    return duckdb.connect(":memory:", config=_SETTINGS)
