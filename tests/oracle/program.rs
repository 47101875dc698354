//! Programs: a schema, and what an application does with it. Few keys and few values, so that they collide.

use antiphon_harness::Dice;
use std::fmt::{Display, Formatter};

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Sql(String),
    /// On all nodes, outside of a transaction.
    Schema(String),
    /// The host gets its turn, outside of a transaction.
    Sync,
}

#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) settings: String,
    pub(crate) schema: String,
    /// Most changes in one piece of what a node sends.
    pub(crate) piece: usize,
    pub(crate) steps: Vec<Step>,
}

/// A program without pieces: everything that was committed goes out at once.
pub(crate) const WHOLE: usize = 10_000;

impl Display for Program {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "-- sent in pieces of {}\n{}\n{}", self.piece, self.settings, self.schema)?;
        for step in &self.steps {
            match step {
                Step::Sql(sql) => writeln!(f, "{sql};")?,
                Step::Schema(sql) => writeln!(f, "{sql}; -- on all nodes")?,
                Step::Sync => writeln!(f, "-- the host's turn")?,
            }
        }
        Ok(())
    }
}

/// A table, as the generator knows it: columns that can be written, the key first.
struct Table {
    name: &'static str,
    key: &'static [&'static str],
    /// Others, with whether a UNIQUE index holds them.
    columns: Vec<&'static str>,
    unique: &'static [&'static str],
    strict: bool,
}

const OR: &[&str] = &["", "", "", "", "OR REPLACE", "OR REPLACE", "OR IGNORE", "OR ABORT", "OR FAIL", "OR ROLLBACK"];
const WEIRD: &[&str] = &[
    "NULL",
    "0",
    "-0.0",
    "1.5",
    "1e308",
    "-9223372036854775808",
    "9223372036854775807",
    "9007199254740993",
    "4.9e-324",
    "''",
    "x''",
    "x'00ff'",
    "CAST(x'ff00fe' AS TEXT)",
    "'a' || char(0) || 'b'",
    "'é'",
    "'it''s'",
    "'1'",
    "1.0",
    "9e999",
    "zeroblob(300)",
    "hex(zeroblob(40))",
];
const SMALL: &[&str] = &["1", "2", "3", "4", "5"];
const KEYS: &[&str] = &["1", "2", "3", "'a'", "'A'", "'b'", "1.0", "'2'", "x'01'"];
const UNIQUES: &[&str] = &["NULL", "1", "2", "'x'", "'X'", "'y'", "1.0"];

struct Maker {
    dice: Dice,
    tables: Vec<Table>,
    depth: u32,
    indexes: u32,
}

impl Program {
    pub(crate) fn new(seed: u64) -> Self {
        let mut maker = Maker { dice: Dice::new(seed + 1), tables: Vec::new(), depth: 0, indexes: 0 };
        let settings = format!(
            "PRAGMA foreign_keys = {}; PRAGMA recursive_triggers = {};",
            maker.pick(&["ON", "ON", "ON", "OFF"]),
            maker.pick(&["OFF", "OFF", "ON"])
        );
        let schema = maker.schema();
        let length = 20 + maker.dice.below(50);
        let mut steps = Vec::new();
        for _ in 0..length {
            maker.step(&mut steps);
        }
        // Drawn apart: a program is the same, however it is sent.
        let piece = *Dice::new(!seed).pick(&[WHOLE, WHOLE, 1, 2, 3]);
        Self { settings, schema, piece, steps }
    }
}

impl Maker {
    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        self.dice.pick::<&'static str>(from)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.dice.below(100) < percent
    }

    fn schema(&mut self) -> String {
        let mut sql = String::new();
        let auto = self.pick(&["", "", " AUTOINCREMENT"]);
        let conflict = self.pick(&["", "", "", " ON CONFLICT REPLACE", " ON CONFLICT IGNORE"]);
        let generated =
            self.pick(&["", ", g GENERATED ALWAYS AS (coalesce(v, '') || id) STORED", ", g AS (typeof(v)) VIRTUAL"]);
        sql += &format!(
            "CREATE TABLE item (id INTEGER PRIMARY KEY{auto}, u UNIQUE{conflict}, w TEXT COLLATE NOCASE, v, n INT DEFAULT 7{generated});\n"
        );
        sql += "CREATE UNIQUE INDEX item_w ON item (w);\n";
        let mut unique: &[&str] = &["u", "w"];
        if self.chance(30) {
            sql += "CREATE UNIQUE INDEX item_two ON item (n, v) WHERE n > 2;\n";
            unique = &["u", "w", "n"];
        }
        self.tables.push(Table {
            name: "item",
            key: &["id"],
            columns: vec!["u", "w", "v", "n"],
            unique,
            strict: false,
        });
        sql += "CREATE TABLE pair (k ANY, g TEXT COLLATE NOCASE, v, PRIMARY KEY (k, g)) WITHOUT ROWID;\n";
        self.tables.push(Table { name: "pair", key: &["k", "g"], columns: vec!["v"], unique: &[], strict: false });
        let rowless = self.pick(&["", ", WITHOUT ROWID"]);
        sql += &format!(
            "CREATE TABLE hard (id TEXT PRIMARY KEY NOT NULL, i INTEGER, r REAL, b BLOB, t TEXT, a ANY, CHECK (i IS NULL OR i < 100)) STRICT{rowless};\n"
        );
        self.tables.push(Table {
            name: "hard",
            key: &["id"],
            columns: vec!["i", "r", "b", "t", "a"],
            unique: &[],
            strict: true,
        });
        let actions = ["CASCADE", "SET NULL", "RESTRICT", "NO ACTION", "SET DEFAULT", "CASCADE"];
        let (on_delete, on_update) = (self.pick(&actions), self.pick(&actions));
        let deferred = self.pick(&["", "", " DEFERRABLE INITIALLY DEFERRED"]);
        sql += "CREATE TABLE parent (id INTEGER PRIMARY KEY, v UNIQUE);\n";
        sql += &format!(
            "CREATE TABLE child (id INTEGER PRIMARY KEY, p DEFAULT 1 REFERENCES parent (id) ON DELETE {on_delete} ON UPDATE {on_update}{deferred}, v);\n"
        );
        self.tables.push(Table { name: "parent", key: &["id"], columns: vec!["v"], unique: &["v"], strict: false });
        self.tables.push(Table { name: "child", key: &["id"], columns: vec!["p", "v"], unique: &[], strict: false });
        sql += "CREATE TABLE log (id INTEGER PRIMARY KEY, what, old, new);\n";
        self.tables.push(Table { name: "log", key: &["id"], columns: vec!["what"], unique: &[], strict: false });
        for number in 0..self.dice.below(5) {
            sql += &format!("{};\n", self.trigger(number));
        }
        sql
    }

    /// A trigger of the application's.
    fn trigger(&mut self, number: u64) -> String {
        let table = self.pick(&["item", "pair", "parent", "child", "hard"]);
        let when = self.pick(&["BEFORE", "AFTER", "AFTER"]);
        let event = self.pick(&["INSERT", "UPDATE", "DELETE"]);
        let column = if table == "hard" { "t" } else { "v" };
        let row = if event == "DELETE" { "OLD" } else { "NEW" };
        let key = if table == "pair" { "k" } else { "id" };
        let raise = self.pick(&["IGNORE", "ABORT, 'no'", "FAIL, 'no'", "ROLLBACK, 'no'"]);
        let body = match self.dice.below(6) {
            0 => format!("SELECT RAISE({raise}) WHERE {row}.{column} IN (3, '3', 'é')"),
            1 => format!("INSERT INTO log (what, old) VALUES ('{event} {table}', {row}.{column})"),
            2 => format!("UPDATE parent SET v = v || 'x' WHERE id = {row}.{key}"),
            3 => format!("DELETE FROM child WHERE id = {row}.{key}"),
            4 => format!("INSERT OR REPLACE INTO item (id, u, v) VALUES ({row}.{key}, 1, {row}.{column})"),
            _ if when == "AFTER" && event == "UPDATE" => {
                format!(
                    "UPDATE {table} SET {column} = {column} || '+' WHERE {key} = NEW.{key} AND length({column}) < 6"
                )
            }
            _ => format!("INSERT OR IGNORE INTO pair VALUES ({row}.{key}, {row}.{column}, 'by trigger')"),
        };
        format!("CREATE TRIGGER user_{number} {when} {event} ON {table} BEGIN {body}; END")
    }

    fn step(&mut self, steps: &mut Vec<Step>) {
        let sql = match self.dice.below(100) {
            0..10 => return steps.push(Step::Sync),
            10..16 => {
                let sql = self.ddl();
                // Rows that REPLACE takes away through an index that the host has not seen yet are not marked. Whose
                // values they held the log says, but for a partial index: there the host must come first.
                let partial = sql.contains(" WHERE ");
                steps.push(Step::Schema(sql));
                if partial {
                    steps.push(Step::Sync);
                }
                return;
            }
            16..22 => self.pick(&["BEGIN", "BEGIN IMMEDIATE", "BEGIN"]).to_owned(),
            22..31 => self.pick(&["COMMIT", "COMMIT", "COMMIT", "ROLLBACK"]).to_owned(),
            31..35 => {
                self.depth += 1;
                format!("SAVEPOINT s{}", self.depth % 3)
            }
            35..40 => format!("{} s{}", self.pick(&["RELEASE", "ROLLBACK TO"]), self.depth % 3),
            _ => self.write(),
        };
        steps.push(Step::Sql(sql));
    }

    fn write(&mut self) -> String {
        let index = usize::try_from(self.dice.below(12)).unwrap();
        let table = [0, 0, 0, 0, 1, 1, 2, 2, 3, 4, 4, 5][index];
        match self.dice.below(100) {
            0..45 => self.insert(table),
            45..80 => self.update(table),
            _ => self.delete(table),
        }
    }

    fn value(&mut self, table: usize, column: &str) -> &'static str {
        let Table { name, unique, strict, .. } = self.tables[table];
        if unique.contains(&column) {
            return self.pick(UNIQUES);
        }
        if self.tables[table].key.contains(&column) {
            return match (name, column) {
                ("pair", "k") => self.pick(KEYS),
                ("pair", _) => self.pick(&["'a'", "'A'", "'b'", "1", "'é'"]),
                ("hard", _) => self.pick(&["'a'", "'b'", "'A'", "1", "''"]),
                _ => self.pick(SMALL),
            };
        }
        if column == "p" {
            return self.pick(&["1", "2", "3", "9", "NULL"]);
        }
        if strict && self.chance(70) {
            return match column {
                "i" => self.pick(&["1", "99", "100", "NULL", "2.0"]),
                "r" => self.pick(&["1", "-0.0", "1e308", "9007199254740993"]),
                "b" => self.pick(&["x''", "x'ff'", "zeroblob(9)"]),
                "t" => self.pick(&["''", "'3'", "'é'", "7"]),
                _ => self.pick(WEIRD),
            };
        }
        if self.chance(50) { self.pick(SMALL) } else { self.pick(WEIRD) }
    }

    /// Which columns, and what they get.
    fn values(&mut self, table: usize, with_key: bool) -> (Vec<&'static str>, Vec<&'static str>) {
        let mut names: Vec<&'static str> = Vec::new();
        if with_key {
            names.extend(self.tables[table].key);
        }
        for column in self.tables[table].columns.clone() {
            if self.chance(75) {
                names.push(column);
            }
        }
        let values = names.iter().map(|name| self.value(table, name)).collect();
        (names, values)
    }

    fn insert(&mut self, table: usize) -> String {
        let name = self.tables[table].name;
        // Without its key an INTEGER PRIMARY KEY gets the next number.
        let with_key = self.chance(88) || matches!(name, "pair" | "hard");
        let or = self.pick(OR);
        if self.chance(10) {
            let (names, _) = self.values(table, true);
            let (from, key) = (self.pick(&["item", "child", "parent"]), self.pick(&["id + 1", "id", "id - 1"]));
            let sources: Vec<&str> =
                names.iter().map(|name| if *name == "id" || *name == "k" { key } else { "v" }).collect();
            return format!("INSERT {or} INTO {name} ({}) SELECT {} FROM {from}", names.join(", "), sources.join(", "));
        }
        let (names, values) = self.values(table, with_key);
        if names.is_empty() {
            return format!("INSERT {or} INTO {name} DEFAULT VALUES");
        }
        let mut rows = format!("({})", values.join(", "));
        for _ in 0..self.dice.below(3) {
            let values: Vec<&str> = names.iter().map(|name| self.value(table, name)).collect();
            rows += &format!(", ({})", values.join(", "));
        }
        let upsert = if self.chance(25) { self.upsert(table) } else { String::new() };
        let returning = if self.chance(8) { " RETURNING *" } else { "" };
        format!("INSERT {or} INTO {name} ({}) VALUES {rows}{upsert}{returning}", names.join(", "))
    }

    fn upsert(&mut self, table: usize) -> String {
        let Table { key, unique, .. } = self.tables[table];
        let column = self.tables[table].columns[0];
        let target = if unique.is_empty() || self.chance(60) { key.join(", ") } else { unique[0].to_owned() };
        let value = self.value(table, column);
        match self.dice.below(5) {
            0 => " ON CONFLICT DO NOTHING".to_owned(),
            1 => format!(" ON CONFLICT ({target}) DO NOTHING"),
            2 => format!(
                " ON CONFLICT ({target}) DO UPDATE SET {column} = excluded.{column} WHERE {column} IS NOT {value}"
            ),
            3 => format!(" ON CONFLICT ({target}) DO UPDATE SET {} = excluded.{}", key[0], key[0]),
            _ => format!(" ON CONFLICT ({target}) DO UPDATE SET {column} = {value} ON CONFLICT DO NOTHING"),
        }
    }

    fn condition(&mut self, table: usize) -> String {
        let key = self.tables[table].key[0];
        let value = self.value(table, key);
        match self.dice.below(10) {
            0 => String::new(),
            1 => format!(" WHERE {key} > {value}"),
            2 => {
                let column = self.tables[table].columns[0];
                format!(" WHERE {column} IS {}", self.value(table, column))
            }
            3 => format!(" WHERE {key} IN (SELECT id FROM item)"),
            _ => format!(" WHERE {key} = {value}"),
        }
    }

    fn update(&mut self, table: usize) -> String {
        let Table { name, key, .. } = self.tables[table];
        let or = self.pick(OR);
        let mut sets = Vec::new();
        if self.chance(25) {
            let moved = match name {
                "pair" => self.pick(&["g = upper(g)", "k = k + 1", "g = lower(g)", "k = 2"]),
                "hard" => self.pick(&["id = upper(id)", "id = id || 'a'", "id = 'b'"]),
                _ => self.pick(&["id = id + 1", "id = id - 1", "id = -id", "id = 3"]),
            };
            sets.push(moved.to_owned());
        }
        let (names, values) = self.values(table, false);
        sets.extend(names.iter().zip(values).map(|(name, value)| format!("{name} = {value}")));
        if sets.is_empty() {
            sets.push(format!("{0} = {0}", key[0]));
        }
        let from = if self.chance(6) && name != "child" { " FROM child AS c" } else { "" };
        let condition =
            if from.is_empty() { self.condition(table) } else { format!(" WHERE c.id = {name}.{}", key[0]) };
        let returning = if self.chance(6) { " RETURNING *" } else { "" };
        format!("UPDATE {or} {name} SET {}{from}{condition}{returning}", sets.join(", "))
    }

    fn delete(&mut self, table: usize) -> String {
        let name = self.tables[table].name;
        let condition = self.condition(table);
        let returning = if self.chance(6) { " RETURNING *" } else { "" };
        format!("DELETE FROM {name}{condition}{returning}")
    }

    fn ddl(&mut self) -> String {
        self.indexes += 1;
        let number = self.indexes;
        match self.dice.below(12) {
            0 => format!("CREATE UNIQUE INDEX more_{number} ON item (v, n)"),
            1 => format!("CREATE INDEX more_{number} ON item (v)"),
            2 => format!("CREATE UNIQUE INDEX more_{number} ON pair (v)"),
            3 => format!("CREATE UNIQUE INDEX more_{number} ON child (v) WHERE v > 1"),
            4 => "DROP INDEX item_w".to_owned(),
            5 => format!("DROP INDEX more_{}", number.saturating_sub(1)),
            6 => {
                self.tables[1].columns.push("extra");
                "ALTER TABLE pair ADD COLUMN extra DEFAULT 'none'".to_owned()
            }
            7 => {
                self.tables[4].columns.push("extra");
                "ALTER TABLE child ADD COLUMN extra".to_owned()
            }
            8 => {
                self.tables[0].columns.push("note");
                "ALTER TABLE item RENAME COLUMN n TO note".to_owned()
            }
            9 => "ALTER TABLE item DROP COLUMN n".to_owned(),
            10 => "ALTER TABLE child DROP COLUMN extra".to_owned(),
            _ => "ALTER TABLE hard ADD COLUMN more TEXT DEFAULT 'x'".to_owned(),
        }
    }
}
