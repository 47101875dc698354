"""`by-tenant`: rows whose keys begin alike share a shard.

With keys such as `PRIMARY KEY (tenant, id)` in every table, all rows of one tenant go to one shard: its changes stay in
the order in which they were made, and a transaction that touches one tenant only arrives whole.

The host asks this component on every node and must hear the same everywhere. So a hash may depend on the table, the key
and the settings, and on nothing else. Python's own `hash` is not for this: its answers differ from build to build.
"""

# Made of `wit/`, which describes what the host and this component say to each other.
from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.metadata import Info
from wit_world.imports.types import Table

# Each table's name, by its number: what `configure` found out, for `hash`.
names: dict[int, str] = {}


class Metadata(exports.Metadata):
    def describe(self) -> Info:
        return Info(
            name="by-tenant",
            version="0.1.0",
            description="rows whose keys begin alike share a shard",
            settings_schema='{ "type": "object", "additionalProperties": false }',
            laws=1,
        )


class Rowhash(exports.Rowhash):
    def configure(self, settings: list[tuple[str, str]], tables: list[Table]) -> None:
        """Called before the first key, and again when the schema changes."""
        for name, _ in settings:
            # The user reads this, and the host does not start.
            raise Err(f"there is no setting `{name}`")
        names.update((table.id, table.name) for table in tables)

    def hash(self, table: int, keys: bytes, ends: list[int]) -> list[int]:
        """One hash a key. `keys` holds them back to back, `ends` where each one ends."""
        starts = [0, *ends[:-1]]
        return [hash_of(table, keys[start:end]) for start, end in zip(starts, ends)]


def hash_of(table: int, key: bytes) -> int:
    # The empty key stands for a table that goes to one shard whole: its name decides which.
    return fnv(key[: length(key)] if key else names[table].encode())


def length(value: bytes) -> int:
    """How many bytes the first value takes. Values are CBOR, back to back."""
    kind, short = divmod(value[0], 32)
    head = 1 if short < 24 else 1 + 2 ** (short - 24)
    # What the head says besides the type: a length, for texts and blobs.
    number = short if head == 1 else int.from_bytes(value[1:head], "big")
    if kind in (2, 3):
        return head + number
    # A tag is on a text that is not UTF-8, and its bytes follow.
    return head + length(value[head:]) if kind == 6 else head


def fnv(data: bytes) -> int:
    """FNV-1a in 64 bits: short, and it spreads short inputs well."""
    number = 0xCBF29CE484222325
    for byte in data:
        number = (number ^ byte) * 0x100000001B3 % 2**64
    return number
