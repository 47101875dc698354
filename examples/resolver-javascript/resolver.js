// `longest-text`: of two texts in one column the longer one stands.
//
// For notes and descriptions that people add to: one node appends a line while another, which can't see it, fixes a
// word. The longer text stays, whichever reaches the log last. Every other column is that of the change later in the
// log.
//
// The host asks this component on every node and must hear the same everywhere. So an answer may depend on the clash
// and the settings, and on nothing else; `Date` and `Math.random` would be the same on all nodes anyway.
//
// What the host and this component say to each other is described in `wit/`. A variant is `{ tag, val }`, a record an
// object with names in camelCase, an option `undefined` or the value, and an error is thrown.

const SETTINGS = `{
  "type": "object",
  "properties": {
    "columns": { "type": "string", "description": "columns that hold such texts, joined by commas; else all texts" }
  },
  "additionalProperties": false
}`;

export const metadata = {
  describe: () => ({
    name: "longest-text",
    version: "0.1.0",
    description: "of two texts in one column the longer one stands",
    settingsSchema: SETTINGS,
    laws: 1,
  }),
};

// The positions of such texts in each table, by the table's number: what `configure` found out, for `resolve`.
const texts = new Map();

export const conflict = {
  // Called before the first clash, and again when the schema changes.
  configure(settings, nodes, tables) {
    const { columns, ...others } = Object.fromEntries(settings);
    for (const name in others) {
      // The user reads this, and the host does not start.
      throw `there is no setting \`${name}\`; there is only \`columns\``;
    }
    const names = columns?.split(",").map((name) => name.trim());
    // A key stays as it is: the row of a verdict must have the key of the clash.
    const chosen = ({ name, pkPosition }) => pkPosition === 0 && (names?.includes(name) ?? true);
    for (const table of tables) {
      texts.set(table.id, table.columns.flatMap((column, place) => (chosen(column) ? [place] : [])));
    }
    // The row that stands is wanted. What both began with (`base`) and who wrote it (`stamps`) are not.
    return { current: true };
  },

  // One verdict a clash. What is thrown here stops the shard on every node: strange rows get an answer, too.
  resolve: (batch) => batch.map(decide),
};

function decide({ table, cause, current, incoming }) {
  // Two rows with different keys and one UNIQUE value; or a row that is gone: the later in the log stands.
  if (cause === "unique-index" || !current.row || !incoming.row) return { tag: "take" };

  const row = [...incoming.row];
  let changed = false;
  for (const place of texts.get(table)) {
    const [ours, theirs] = [current.row[place], row[place]];
    if (ours.tag === "text" && theirs.tag === "text" && ours.val.length > theirs.val.length) {
      row[place] = ours;
      changed = true;
    }
  }
  return changed ? { tag: "merge", val: row } : { tag: "take" };
}
