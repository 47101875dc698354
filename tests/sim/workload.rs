//! What applications do: few keys, few UNIQUE values, every kind of write that SQLite knows.
//!
//! Every row image carries a number of its own, so that the checker can tell who wrote what; but for that,
//! two nodes are made to collide as often as possible.

use crate::random::Random;
use crate::schema::{LATE, Rows};

/// One statement, and the name it is counted by.
pub(crate) type Statement = (&'static str, String);

/// What the application does in one step.
pub(crate) struct Work {
    pub(crate) kind: &'static str,
    pub(crate) statements: Vec<Statement>,
}

/// What the application's schema has by now.
#[derive(Clone, Copy)]
pub(crate) struct Has {
    pub(crate) late: bool,
    pub(crate) wide: bool,
    pub(crate) stock: bool,
}

/// Makes up one step of an application that sees these rows; `mark` is unique to the step.
pub(crate) fn work(random: &mut Random, mark: u64, rows: &Rows, has: Has) -> Work {
    let mut maker = Maker { random, mark: mark * 100, rows, has };
    let kind =
        maker.random.weighted(&[(70, "single"), (12, "transaction"), (8, "savepoint"), (3, "rollback"), (7, "swap")]);
    let mut statements = Vec::new();
    match kind {
        "single" => statements.push(maker.statement()),
        "transaction" | "rollback" => maker.several(&mut statements, 2, 4),
        "savepoint" => {
            maker.several(&mut statements, 1, 2);
            statements.push(("", "SAVEPOINT s".to_owned()));
            maker.several(&mut statements, 1, 3);
            statements.push(("rollback to", "ROLLBACK TO s".to_owned()));
            maker.several(&mut statements, 0, 2);
        }
        _ => maker.swap(&mut statements),
    }
    if kind != "single" {
        statements.insert(0, ("", "BEGIN".to_owned()));
        statements.push(("", if kind == "rollback" { "ROLLBACK" } else { "COMMIT" }.to_owned()));
    }
    Work { kind, statements }
}

struct Maker<'a> {
    random: &'a mut Random,
    mark: u64,
    rows: &'a Rows,
    has: Has,
}

impl Maker<'_> {
    fn several(&mut self, statements: &mut Vec<Statement>, low: u64, high: u64) {
        for _ in 0..self.random.within(low, high) {
            let statement = self.statement();
            statements.push(statement);
        }
    }

    fn statement(&mut self) -> Statement {
        if self.has.stock && self.random.chance(30) {
            return self.stock();
        }
        let table = self.random.weighted(&[(50, "item"), (22, "plain"), (16, "family"), (12, "late")]);
        match table {
            "plain" => self.plain(),
            "family" => self.family(),
            "late" if self.has.late => self.late(),
            _ => self.item(),
        }
    }

    /// A number that no other row image has.
    fn fresh(&mut self) -> u64 {
        self.mark += 1;
        self.mark
    }

    fn id(&mut self) -> u64 {
        self.random.within(1, 5)
    }

    /// A UNIQUE value: few of them, some equal to one another in another storage class, some NULL.
    fn u(&mut self) -> &'static str {
        self.random.pick(&["1", "2", "3", "2.0", "'x'", "NULL", "1", "3.0"])
    }

    fn w(&mut self) -> &'static str {
        self.random.pick(&["'a'", "'A'", "'b'", "'B'", "NULL", "NULL"])
    }

    fn item(&mut self) -> Statement {
        let (id, other, u, w, n) = (self.id(), self.id(), self.u(), self.w(), self.fresh());
        let values = format!("VALUES ({id}, {u}, {w}, 'v{n}', 'new')");
        if self.has.wide && self.random.chance(15) {
            return ("update extra", format!("UPDATE item SET a = 'v{n}', extra = 'e{n}' WHERE id = {id}"));
        }
        match self.random.weighted(&[
            (10, 0),
            (10, 1),
            (8, 2),
            (6, 3),
            (5, 4),
            (5, 5),
            (10, 6),
            (8, 7),
            (8, 8),
            (5, 9),
            (7, 10),
            (5, 11),
            (8, 12),
            (2, 13),
            (3, 14),
        ]) {
            0 => ("insert", format!("INSERT INTO item (id, u, w, a, touched) {values}")),
            1 => ("insert or replace", format!("INSERT OR REPLACE INTO item (id, u, w, a, touched) {values}")),
            2 => ("insert or ignore", format!("INSERT OR IGNORE INTO item (id, u, w, a, touched) {values}")),
            3 => (
                "upsert on key",
                format!(
                    "INSERT INTO item (id, u, w, a, touched) {values} ON CONFLICT (id) DO UPDATE SET u = excluded.u, a = excluded.a"
                ),
            ),
            4 => (
                "upsert on unique",
                format!(
                    "INSERT INTO item (id, u, w, a, touched) {values} ON CONFLICT (u) DO UPDATE SET w = excluded.w, a = excluded.a"
                ),
            ),
            5 => ("upsert nothing", format!("INSERT INTO item (id, u, w, a, touched) {values} ON CONFLICT DO NOTHING")),
            6 => ("update", format!("UPDATE item SET a = 'v{n}' WHERE id = {id}")),
            7 => ("update unique", format!("UPDATE item SET u = {u}, a = 'v{n}' WHERE id = {id}")),
            8 => (
                "update or replace",
                format!("UPDATE OR REPLACE item SET u = {u}, w = {w}, a = 'v{n}' WHERE id = {id}"),
            ),
            9 => (
                "update or ignore",
                format!("UPDATE OR IGNORE item SET u = {u}, a = 'v{n}-' || id WHERE id IN ({id}, {other})"),
            ),
            10 => {
                let by = self.random.pick(&[10, -10]);
                ("move", format!("UPDATE item SET id = id + {by}, a = 'v{n}-' || id WHERE id IN ({id}, {id} + 10)"))
            }
            11 => ("move or replace", format!("UPDATE OR REPLACE item SET id = {other}, a = 'v{n}' WHERE id = {id}")),
            12 => ("delete", format!("DELETE FROM item WHERE id IN ({id}, {id} + 10)")),
            13 => ("delete all", "DELETE FROM item".to_owned()),
            _ => ("update all", format!("UPDATE item SET a = 'v{n}-' || id")),
        }
    }

    /// A value of any storage class that no other row has.
    fn value(&mut self) -> String {
        let n = self.fresh();
        match self.random.below(4) {
            0 => format!("{n}"),
            1 => format!("{n}.5"),
            2 => format!("x'{n:016x}'"),
            _ => format!("'v{n}'"),
        }
    }

    fn plain(&mut self) -> Statement {
        let (k, g, v, n) = (
            self.random.pick(&["1", "2", "3", "2.0", "'2'"]),
            self.random.pick(&["'a'", "'A'", "'b'"]),
            self.value(),
            self.fresh(),
        );
        match self.random.weighted(&[(20, 0), (12, 1), (8, 2), (10, 3), (15, 4), (10, 5), (12, 6), (5, 7)]) {
            0 => ("insert", format!("INSERT INTO plain VALUES ({k}, {g}, {v})")),
            1 => ("insert or replace", format!("INSERT OR REPLACE INTO plain VALUES ({k}, {g}, {v})")),
            2 => ("insert or ignore", format!("INSERT OR IGNORE INTO plain VALUES ({k}, {g}, {v})")),
            3 => (
                "upsert on key",
                format!("INSERT INTO plain VALUES ({k}, {g}, {v}) ON CONFLICT (k, g) DO UPDATE SET v = excluded.v"),
            ),
            4 => ("update", format!("UPDATE plain SET v = {v} WHERE k = {k} AND g = {g}")),
            5 => (
                "move or replace",
                format!("UPDATE OR REPLACE plain SET k = k + 1, v = 'v{n}-' || k || g WHERE k = {k}"),
            ),
            6 => ("delete", format!("DELETE FROM plain WHERE k = {k}")),
            _ => ("change of case", format!("UPDATE plain SET g = upper(g), v = 'v{n}-' || k || g WHERE k = {k}")),
        }
    }

    fn family(&mut self) -> Statement {
        let (id, parent, v) = (self.id(), self.random.within(1, 3), self.value());
        let n = self.fresh();
        if self.has.wide && self.random.chance(20) {
            return ("update extra", format!("UPDATE parent SET v = {v}, extra = 'e{n}' WHERE id = {parent}"));
        }
        match self.random.below(8) {
            0 | 1 => ("insert", format!("INSERT OR IGNORE INTO parent (id, v) VALUES ({parent}, {v})")),
            2 | 3 => ("insert child", format!("INSERT INTO child VALUES ({id}, {parent}, {v})")),
            4 => ("update", format!("UPDATE child SET parent = {parent}, v = {v} WHERE id = {id}")),
            5 => ("cascade", format!("DELETE FROM parent WHERE id = {parent}")),
            6 => ("cascade of a key", format!("UPDATE parent SET id = id + 1, v = 'v{n}-' || id WHERE id = {parent}")),
            _ => ("update", format!("UPDATE parent SET v = {v} WHERE id = {parent}")),
        }
    }

    /// Sums never cancel out, for no number is added twice.
    fn stock(&mut self) -> Statement {
        let (id, other, n, m) = (self.random.within(1, 3), self.random.within(1, 3), self.fresh(), self.fresh());
        match self.random.weighted(&[(35, 0), (10, 1), (10, 2), (8, 3), (8, 4), (6, 5), (8, 6), (5, 7), (4, 8)]) {
            0 => ("count", format!("UPDATE stock SET n = n + {n} WHERE id = {id}")),
            1 => ("update", format!("UPDATE stock SET a = 'v{n}' WHERE id = {id}")),
            2 => (
                "count and insert",
                format!(
                    "INSERT INTO stock VALUES ({id}, 'v{m}', NULL, {n}) ON CONFLICT (id) DO UPDATE SET n = n + {n}"
                ),
            ),
            3 => ("insert or replace", format!("REPLACE INTO stock VALUES ({id}, 'v{m}', 'b', {n})")),
            4 => ("insert or ignore", format!("INSERT OR IGNORE INTO stock VALUES ({id}, 'v{m}', NULL, {n})")),
            5 => ("move or replace", format!("UPDATE OR REPLACE stock SET id = {other}, n = n + {n} WHERE id = {id}")),
            6 => ("delete", format!("DELETE FROM stock WHERE id = {id}")),
            7 => ("update all", format!("UPDATE stock SET a = 'v{n}-' || id")),
            _ => ("update", format!("UPDATE stock SET b = 'v{n}', n = NULL WHERE id = {id}")),
        }
    }

    fn late(&mut self) -> Statement {
        let (id, u, v) = (self.id(), self.u(), self.value());
        match self.random.below(5) {
            0 | 1 => ("insert or replace", format!("INSERT OR REPLACE INTO late VALUES ({id}, {u}, {v})")),
            2 => ("insert", format!("INSERT INTO late VALUES ({id}, {u}, {v})")),
            3 => ("update", format!("UPDATE late SET v = {v} WHERE id = {id}")),
            _ => ("delete", format!("DELETE FROM late WHERE id = {id}")),
        }
    }

    /// Two rows change their UNIQUE values, as a reordering of a list does.
    fn swap(&mut self, statements: &mut Vec<Statement>) {
        let table = if self.has.late && self.random.chance(15) { LATE } else { 0 };
        let holders: Vec<(&String, &String)> = self
            .rows
            .iter()
            .filter(|(key, row)| key.0 == table && row[1] != "n")
            .map(|(key, row)| (&key.1[0], &row[1]))
            .collect();
        if holders.len() < 2 {
            let statement = self.item();
            return statements.push(statement);
        }
        let first = usize::try_from(self.random.below(holders.len() as u64)).unwrap();
        let second = (first + 1) % holders.len();
        let [a, b] = [first, second].map(|at| (&holders[at].0[1..], literal(holders[at].1)));
        let (name, column) = if table == LATE { ("late", "v") } else { ("item", "a") };
        for (id, u) in [(a.0, "NULL".to_owned()), (b.0, a.1), (a.0, b.1)] {
            let n = self.fresh();
            statements.push(("swap", format!("UPDATE {name} SET u = {u}, {column} = 'v{n}' WHERE id = {id}")));
        }
    }
}

/// A rendered value as SQL.
fn literal(rendered: &str) -> String {
    let (class, rest) = rendered.split_at(1);
    match class {
        "i" => rest.to_owned(),
        "r" => format!("{:?}", f64::from_bits(u64::from_str_radix(rest, 16).unwrap())),
        _ => format!("'{rest}'"),
    }
}
