"""`merged-tags`: sets in JSON are merged.

A column holds a set of words, as `["red", "sale"]`. One node adds `new` while another, which can't see it, removes
`sale`: the row ends with `["new", "red"]` on all nodes. Every other column is that of the change later in the log.

The host asks this component on every node and must hear the same everywhere. So an answer may depend on the clash and
the settings, and on nothing else. Beware of the order of a `set`: whatever leaves this file is sorted.
"""

import json

# Made of `wit/`, which describes what the host and this component say to each other.
from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.conflict import Cause, Clash, Needs, Verdict, Verdict_Merge, Verdict_Take
from wit_world.exports.metadata import Info
from wit_world.imports.types import Table, Value, Value_Text

SETTINGS = """{
  "type": "object",
  "properties": {
    "columns": { "type": "string", "default": "tags", "description": "columns that hold sets, joined by commas" }
  },
  "additionalProperties": false
}"""

# The positions of sets in each table, by the table's number: what `configure` found out, for `resolve`.
sets: dict[int, list[int]] = {}


class Metadata(exports.Metadata):
    def describe(self) -> Info:
        return Info(
            name="merged-tags",
            version="0.1.0",
            description="sets in JSON are merged: what either side added is there, what either side removed is not",
            settings_schema=SETTINGS,
            laws=1,
        )


class Conflict(exports.Conflict):
    def configure(self, settings: list[tuple[str, str]], nodes: list[str], tables: list[Table]) -> Needs:
        """Called before the first clash, and again when the schema changes."""
        known = {"columns": "tags"} | dict(settings)
        if len(known) > 1:
            # The user reads this, and the host does not start.
            raise Err(f"there is no setting `{max(known)}`; there is only `columns`")
        names = [name.strip() for name in known["columns"].split(",")]
        for table in tables:
            # A key stays as it is: the row of a verdict must have the key of the clash.
            sets[table.id] = [
                place for place, column in enumerate(table.columns) if column.name in names and not column.pk_position
            ]
        # The row that stands and the row that both began with are wanted; who wrote them (`STAMPS`) is not.
        return Needs.CURRENT | Needs.BASE

    def resolve(self, batch: list[Clash]) -> list[Verdict]:
        """One verdict a clash. What is raised here stops the shard on every node: strange rows get an answer, too."""
        return [decide(clash) for clash in batch]


def decide(clash: Clash) -> Verdict:
    current, incoming = clash.current.row, clash.incoming.row
    # Two rows with different keys and one UNIQUE value; or a row that is gone: the later in the log stands.
    if clash.cause == Cause.UNIQUE_INDEX or current is None or incoming is None:
        return Verdict_Take()
    row = list(incoming)
    for place in sets[clash.table]:
        ours, theirs = words(current[place]), words(incoming[place])
        if ours is None or theirs is None:
            continue
        # The base is not always known. Without one, everything counts as added.
        base = (words(clash.base[place]) if clash.base else None) or set()
        merged = (ours & theirs) | (ours - base) | (theirs - base)
        row[place] = Value_Text(json.dumps(sorted(merged), ensure_ascii=False))
    return Verdict_Take() if row == incoming else Verdict_Merge(row)


def words(value: Value) -> set[str] | None:
    """The set in a value; None if there is none."""
    if not isinstance(value, Value_Text):
        return None
    try:
        items = json.loads(value.value)
    except (ValueError, RecursionError):
        return None
    return set(items) if isinstance(items, list) and all(isinstance(item, str) for item in items) else None
