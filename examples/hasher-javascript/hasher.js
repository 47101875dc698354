// `by-tenant`: rows whose keys begin alike share a shard.
//
// With keys such as `PRIMARY KEY (tenant, id)` in every table, all rows of one tenant go to one shard: its changes stay
// in the order in which they were made, and a transaction that touches one tenant only arrives whole.
//
// The host asks this component on every node and must hear the same everywhere. So a hash may depend on the table, the
// key and the settings, and on nothing else.
//
// What the host and this component say to each other is described in `wit/`. A list of bytes is a `Uint8Array`, a 64-bit
// number a `BigInt`, a record an object with names in camelCase, and an error is thrown.

export const metadata = {
  describe: () => ({
    name: "by-tenant",
    version: "0.1.0",
    description: "rows whose keys begin alike share a shard",
    settingsSchema: '{ "type": "object", "additionalProperties": false }',
    laws: 1,
  }),
};

// Each table's name, by its number: what `configure` found out, for `hash`.
const names = new Map();

export const rowhash = {
  // Called before the first key, and again when the schema changes.
  configure(settings, tables) {
    for (const [name] of settings) {
      // The user reads this, and the host does not start.
      throw `there is no setting \`${name}\``;
    }
    for (const { id, name } of tables) names.set(id, utf8(name));
  },

  // One hash a key. `keys` holds them back to back, `ends` where each one ends.
  hash(table, keys, ends) {
    const hashes = new BigUint64Array(ends.length);
    let start = 0;
    ends.forEach((end, index) => {
      const key = keys.subarray(start, end);
      // The empty key stands for a table that goes to one shard whole: its name decides which.
      hashes[index] = fnv(key.length === 0 ? names.get(table) : key.subarray(0, length(key)));
      start = end;
    });
    return hashes;
  },
};

// How many bytes the first value takes. Values are CBOR, back to back.
function length(value) {
  const [kind, short] = [value[0] >> 5, value[0] & 31];
  const head = short < 24 ? 1 : 1 + 2 ** (short - 24);
  // What the head says besides the type: a length, for texts and blobs.
  const number = head === 1 ? short : value.subarray(1, head).reduce((number, byte) => number * 256 + byte, 0);
  if (kind === 2 || kind === 3) return head + number;
  // A tag is on a text that is not UTF-8, and its bytes follow.
  return kind === 6 ? head + length(value.subarray(head)) : head;
}

// FNV-1a in 64 bits: short, and it spreads short inputs well. In two halves, which are much faster than a `BigInt`: the
// prime is 2 ** 40 + 0x1b3.
function fnv(bytes) {
  let [high, low] = [0xcbf29ce4, 0x84222325];
  for (let at = 0; at < bytes.length; at++) {
    low = (low ^ bytes[at]) >>> 0;
    const product = low * 0x1b3;
    high = (Math.imul(high, 0x1b3) + Math.floor(product / 2 ** 32) + (low << 8)) >>> 0;
    low = product >>> 0;
  }
  return (BigInt(high) << 32n) | BigInt(low);
}

function utf8(text) {
  return new TextEncoder().encode(text);
}
