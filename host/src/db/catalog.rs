//! Which tables there are, which of them are replicated, and why the others are not.

use super::defaults::defaults;
use super::harmonylite;
use super::overlay::TableId;
use super::pattern::Pattern;
use super::policy::Rule;
use super::{Database, Doing as _, Error};
use crate::log::Shard;
use antiphon_core::capture::{self, EVENTS, PREFIX};
use antiphon_core::key::{COLLATIONS, KeyEncoder};
use antiphon_core::schema::{Column, ROWIDS, Table, Unique, quote};
use antiphon_core::value::Value;
use rusqlite::Connection;
use std::collections::BTreeSet;

/// Which tables the user wants replicated, by globs over their names.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// All of them, if there is none.
    include: Option<Vec<Pattern>>,
    exclude: Vec<Pattern>,
}

impl Filter {
    /// All tables that match one of `include` (all, if there is none) and none of `exclude`.
    ///
    /// # Errors
    /// When a pattern is no glob.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, globset::Error> {
        let set = |patterns: &[String]| patterns.iter().map(|pattern| Pattern::new(pattern)).collect::<Result<_, _>>();
        Ok(Self { include: if include.is_empty() { None } else { Some(set(include)?) }, exclude: set(exclude)? })
    }

    /// Just the tables of these names.
    #[must_use]
    pub fn of_names(names: &[String]) -> Self {
        let escaped: Vec<String> = names.iter().map(|name| globset::escape(name)).collect();
        Self::new(&escaped, &[]).unwrap_or_default()
    }

    /// What it says, in words that are the same for the same patterns; empty if all tables are wanted.
    #[must_use]
    pub fn words(&self) -> String {
        let include = self.include.iter().flatten().map(|pattern| pattern.text().to_owned());
        let exclude = self.exclude.iter().map(|pattern| format!("!{}", pattern.text()));
        let said: BTreeSet<String> = include.chain(exclude).collect();
        said.into_iter().collect::<Vec<_>>().join(" ")
    }

    /// Whether the user wants this table replicated. HarmonyLite's own are no one's data.
    #[must_use]
    pub fn wants(&self, table: &str) -> bool {
        let foreign =
            table.get(..harmonylite::PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(harmonylite::PREFIX));
        !foreign && self.include.as_deref().is_none_or(|include| any(include, table)) && !any(&self.exclude, table)
    }
}

fn any(patterns: &[Pattern], table: &str) -> bool {
    patterns.iter().any(|pattern| pattern.is_match(table))
}

/// A table that can't be replicated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The table.
    pub table: String,
    /// Why, and what to do.
    pub reason: String,
}

/// A table that is replicated, with what is made from its schema once.
#[derive(Clone, Debug)]
pub(super) struct Tracked {
    pub(super) id: TableId,
    pub(super) table: Table,
    /// Positions of the key's columns.
    pub(super) key: Vec<usize>,
    pub(super) encoder: KeyEncoder,
    /// Who decides clashes over its rows, shard by shard.
    pub(super) rules: Vec<Rule>,
    /// What each column holds in a row that was written before there was such a column, if that can be known.
    pub(super) defaults: Vec<Option<Value>>,
    /// All rows go to one shard.
    pub(super) whole: bool,
    /// The triggers are in place.
    pub(super) captured: bool,
    pub(super) marks: String,
    /// Reads a row as it was from a mark.
    pub(super) before: String,
    pub(super) has_marks: String,
}

impl Tracked {
    /// What holds for it in a shard.
    pub(super) fn rule(&self, shard: Shard) -> Rule {
        let at = usize::try_from(shard).unwrap_or(usize::MAX).saturating_sub(1);
        self.rules.get(at).copied().unwrap_or(Rule { policy: 0, resolved: self.table.resolved, since: 0 })
    }

    /// A column that a row's writer did not have holds its default, as it does in T.
    pub(super) fn fill(&self, image: &mut [Option<Value>]) {
        for (slot, default) in image.iter_mut().zip(&self.defaults) {
            if slot.is_none() {
                slot.clone_from(default);
            }
        }
    }
}

impl Database {
    /// Reads the schema if it changed; says whether it did.
    pub(super) fn refresh_schema(&mut self) -> Result<bool, Error> {
        let version = schema_version(&self.conn)?;
        if version == self.schema_version {
            return Ok(false);
        }
        // A resolver that failed over a table may take it as it is now.
        self.trials.clear();
        self.reload()?;
        Ok(true)
    }

    /// Reads the schema and tells the components.
    pub(super) fn read_schema(&mut self) -> Result<(), Error> {
        self.schema_version = schema_version(&self.conn)?;
        let (tables, refused) = read(&self.conn, &self.options.filter)?;
        let triggers = triggers(&self.conn)?;
        let shards = self.cluster.map_or(1, |cluster| cluster.shards);
        self.tables.clear();
        // It speaks of keys and columns as they were.
        self.surveys.clear();
        self.refused = refused;
        for mut table in tables {
            table.resolved = self.notes_rows(&table.name);
            let rules = self.rules(&table.name);
            let route = self.ledger.route(&table.name);
            if route == Some(false) && shards > 1 && !table.uniques.is_empty() && !crate::flaw!(UniqueSpread) {
                self.refused.push(Refused {
                    reason:
                        "its rows are spread over shards by key, and a UNIQUE index needs one order for all of them; \
                             drop the index, or exclude the table with `exclude` under `[capture]`"
                            .to_owned(),
                    table: table.name,
                });
                continue;
            }
            let captured = is_captured(&table, &triggers);
            let obstacle = if capture::fits(&table) {
                obstacle(&self.conn, &table)
            } else {
                Some("its policy asks for rows as they were, and it has too many columns for that".to_owned())
            };
            if let Some(obstacle) = obstacle {
                self.refused.push(Refused {
                    reason: format!("{obstacle}; exclude the table with `exclude` under `[capture]`"),
                    table: table.name,
                });
                continue;
            }
            if !captured && has_null_keys(&self.conn, &table)? {
                self.refused.push(Refused {
                    reason: "it has rows whose primary key is NULL, and nothing tells them apart; give each a key, or exclude \
                             the table with `exclude` under `[capture]`, and start again"
                        .to_owned(),
                    table: table.name,
                });
                continue;
            }
            let log = quote(&capture::change_log(&table.name));
            self.tables.push(Tracked {
                id: self.overlay.intern(&table.name),
                key: table.key_columns(),
                encoder: KeyEncoder::new(&table),
                rules,
                defaults: defaults(&self.conn, &table)?,
                whole: route.unwrap_or(!table.uniques.is_empty()),
                captured,
                marks: capture::read_marks(&table),
                before: capture::read_before(&table),
                has_marks: format!("SELECT 1 FROM main.{log} LIMIT 1"),
                table,
            });
        }
        self.marked = marked(&self.tables);
        let tables: Vec<Table> = self.tables.iter().map(|tracked| tracked.table.clone()).collect();
        self.hasher.configure(&tables)?;
        self.configure_policies()
    }

    /// The replicated table of this name, or that had this name before.
    pub(super) fn tracked(&self, name: &str) -> Option<usize> {
        self.tracked_exactly(name).or_else(|| self.tracked_exactly(self.attachments.now(name)?))
    }

    /// The replicated table of this name, as SQLite compares names.
    pub(super) fn tracked_exactly(&self, name: &str) -> Option<usize> {
        self.tables.iter().position(|tracked| tracked.table.name.eq_ignore_ascii_case(name))
    }
}

/// As many terms as SQLite surely takes in one statement.
const TABLES_AT_ONCE: usize = 100;

/// What gives the places of the captured tables that have marks. One statement speaks of many tables: the application waits
/// while they are looked at.
fn marked(tables: &[Tracked]) -> Vec<String> {
    let captured: Vec<String> = tables
        .iter()
        .enumerate()
        .filter(|(_, tracked)| tracked.captured)
        .map(|(index, tracked)| format!("SELECT {index} WHERE EXISTS ({})", tracked.has_marks))
        .collect();
    captured.chunks(TABLES_AT_ONCE).map(|tables| tables.join(" UNION ALL ")).collect()
}

fn schema_version(conn: &Connection) -> Result<i64, Error> {
    conn.prepare_cached("PRAGMA main.schema_version")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .doing("read the schema's version")
}

/// The statements of the host's triggers that are in place.
fn triggers(conn: &Connection) -> Result<BTreeSet<String>, Error> {
    conn.prepare("SELECT sql FROM main.sqlite_schema WHERE type = 'trigger' AND substr(name, 1, length(?1)) = ?1")
        .and_then(|mut statement| statement.query_map([PREFIX], |row| row.get(0))?.collect::<rusqlite::Result<_>>())
        .doing("read the triggers")
}

/// Names of those tables whose triggers are not all in place, be it those of a table with a policy or without.
pub(super) fn uncaptured(conn: &Connection, tables: &[Table]) -> Result<Vec<String>, Error> {
    let triggers = triggers(conn)?;
    let captured = |table: &Table, resolved| is_captured(&Table { resolved, ..table.clone() }, &triggers);
    let missing = tables.iter().filter(|table| !captured(table, false) && !captured(table, true));
    Ok(missing.map(|table| table.name.clone()).collect())
}

/// Whether all triggers a table should have are in place, to the letter, and none besides: a UNIQUE index over
/// other columns, or a key column under another name, needs other triggers of the same names.
fn is_captured(table: &Table, triggers: &BTreeSet<String>) -> bool {
    let wanted = capture::create_triggers(table);
    // SQLite keeps a trigger's statement without the name of the database.
    let kept = |sql: &str| triggers.contains(&sql.replacen("CREATE TRIGGER main.", "CREATE TRIGGER ", 1));
    let found = wanted.iter().filter(|sql| kept(sql)).count();
    let named = EVENTS.iter().map(|event| format!("CREATE TRIGGER {} ", quote(&capture::trigger(&table.name, event))));
    let named = named.filter(|start| triggers.range(start.clone()..).next().is_some_and(|sql| sql.starts_with(start)));
    let needed = wanted.len() - usize::from(crate::flaw!(MoveForgotten));
    found == needed && named.count() == needed
}

/// All tables of a database that is no node's.
pub(crate) fn tables(conn: &Connection) -> Result<(Vec<Table>, Vec<Refused>), Error> {
    read(conn, &Filter::default())
}

/// All tables: those that can be replicated, and those that can't.
pub(super) fn read(conn: &Connection, filter: &Filter) -> Result<(Vec<Table>, Vec<Refused>), Error> {
    let mut names = conn
        .prepare(
            "SELECT name, wr, strict FROM pragma_table_list
             WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name",
        )
        .doing("list the tables")?;
    let listed = names
        .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?, row.get::<_, bool>(2)?)))
        .doing("list the tables")?;
    let mut tables = Vec::new();
    let mut refused = Vec::new();
    for row in listed {
        let (name, without_rowid, strict) = row.doing("list the tables")?;
        if name.starts_with(PREFIX) || !filter.wants(&name) {
            continue;
        }
        match describe(conn, &name, without_rowid, strict)? {
            Ok(table) => tables.push(table),
            Err(reason) => refused.push(Refused { table: name, reason }),
        }
    }
    Ok((tables, refused))
}

/// One table's description, or why it can't be replicated.
fn describe(conn: &Connection, name: &str, without_rowid: bool, strict: bool) -> Result<Result<Table, String>, Error> {
    const READING: &str = "read a table's columns";
    if name.eq_ignore_ascii_case("_global") {
        return Ok(Err("its change log would have the name of the host's own table; rename it".to_owned()));
    }
    let mut columns = Vec::new();
    let mut rowids = ROWIDS.to_vec();
    let mut statement =
        conn.prepare_cached("SELECT name, type, \"notnull\", pk, hidden FROM pragma_table_xinfo(?1)").doing(READING)?;
    let mut rows = statement.query([name]).doing(READING)?;
    while let Some(row) = rows.next().doing(READING)? {
        let column_name: String = row.get(0).doing(READING)?;
        let hidden: u8 = row.get(4).doing(READING)?;
        rowids.retain(|rowid| !column_name.eq_ignore_ascii_case(rowid));
        // 2 and 3 are generated columns: SQLite computes them wherever the row is.
        if hidden != 0 {
            continue;
        }
        let (_, collation, ..) = conn.column_metadata(Some("main"), name, &column_name).doing(READING)?;
        columns.push(Column {
            decl_type: row.get(1).doing(READING)?,
            not_null: row.get(2).doing(READING)?,
            pk_position: row.get(3).doing(READING)?,
            collation: collation.map_or_else(|| "BINARY".to_owned(), |name| name.to_string_lossy().into_owned()),
            name: column_name,
        });
    }
    let rowid = rowids.first().filter(|_| !without_rowid).map(|&rowid| rowid.to_owned());
    let mut table = Table { name: name.to_owned(), columns, without_rowid, strict, rowid, ..Table::default() };
    let key = table.key_columns();
    if key.is_empty() {
        return Ok(Err("it has no primary key; add one, or exclude it with `exclude` under `[capture]`".to_owned()));
    }
    let mut key_index = false;
    for index in indexes(conn, name)? {
        if index.primary {
            key_index = true;
            for (position, collation) in &index.columns {
                if let Some(column) = position.and_then(|position| table.columns.get_mut(position)) {
                    column.collation.clone_from(collation);
                }
            }
        } else {
            let columns: Vec<_> = index
                .columns
                .iter()
                .filter_map(|(position, collation)| Some(((*position)?, collation.clone())))
                .collect();
            if columns.is_empty() {
                return Ok(Err(format!(
                    "its UNIQUE index `{}` is over an expression alone, so a REPLACE can't be followed; \
                     exclude the table with `exclude` under `[capture]`",
                    index.name
                )));
            }
            let partial = index.partial || columns.len() != index.columns.len();
            table.uniques.push(Unique { name: index.name, columns, partial });
        }
    }
    table.rowid_key = !key_index && !without_rowid;
    let folded = key.iter().filter_map(|&position| table.columns.get(position)).map(|column| column.collation.as_str());
    let folded =
        folded.chain(table.uniques.iter().flat_map(|unique| unique.columns.iter().map(|(_, name)| name.as_str())));
    for collation in folded {
        if !COLLATIONS.iter().any(|known| known.eq_ignore_ascii_case(collation)) {
            return Ok(Err(format!(
                "a key or UNIQUE index uses the application's own collation `{collation}`, which no other program knows; \
                 use BINARY, NOCASE or RTRIM there, or exclude the table"
            )));
        }
    }
    Ok(Ok(table))
}

/// Why the host can't write rows of a table, if it can't: its indexes, CHECKs, generated columns or defaults use
/// what only the application's own connections know.
fn obstacle(conn: &Connection, table: &Table) -> Option<String> {
    let name = quote(&table.name);
    let list = |columns: &mut dyn Iterator<Item = &Column>| {
        columns.map(|column| quote(&column.name)).collect::<Vec<_>>().join(", ")
    };
    let all = list(&mut table.columns.iter());
    let key = list(&mut table.columns.iter().filter(|column| column.pk_position > 0));
    let places = |width: usize| vec!["NULL"; width].join(", ");
    let statements = [
        format!("INSERT INTO main.{name} ({all}) VALUES ({})", places(table.columns.len())),
        format!("INSERT INTO main.{name} ({key}) VALUES ({})", places(table.key_columns().len())),
        format!("DELETE FROM main.{name} WHERE 0"),
    ];
    let refusal = statements.iter().find_map(|sql| conn.prepare(sql).err())?;
    Some(format!(
        "its schema uses a function or collation of the application's own, which no other program knows ({})",
        reason(&refusal)
    ))
}

/// SQLite's own words.
fn reason(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(words)) | rusqlite::Error::SqlInputError { msg: words, .. } => {
            words.clone()
        }
        _ => error.to_string(),
    }
}

/// Whether any row has a NULL in its key, which rowid tables allow.
pub(super) fn has_null_keys(conn: &Connection, table: &Table) -> Result<bool, Error> {
    if table.rowid_key || table.without_rowid {
        return Ok(false);
    }
    let nullable = table.columns.iter().filter(|column| column.pk_position > 0 && !column.not_null);
    let terms = nullable.map(|column| format!("{} IS NULL", quote(&column.name))).collect::<Vec<_>>();
    if terms.is_empty() {
        return Ok(false);
    }
    let sql = format!("SELECT 1 FROM main.{} WHERE {}", quote(&table.name), terms.join(" OR "));
    conn.prepare(&sql).and_then(|mut statement| statement.exists([])).doing("look for NULL keys")
}

struct Index {
    name: String,
    primary: bool,
    partial: bool,
    /// Position among the stored columns (`None`: an expression), and the collation.
    columns: Vec<(Option<usize>, String)>,
}

/// The table's UNIQUE indexes, the primary key's among them.
fn indexes(conn: &Connection, table: &str) -> Result<Vec<Index>, Error> {
    const READING: &str = "read a table's indexes";
    let mut list = conn
        .prepare_cached("SELECT name, origin = 'pk', partial FROM pragma_index_list(?1) WHERE \"unique\" ORDER BY name")
        .doing(READING)?;
    let indexes = list
        .query_map([table], |row| {
            Ok(Index { name: row.get(0)?, primary: row.get(1)?, partial: row.get(2)?, columns: Vec::new() })
        })
        .doing(READING)?
        .collect::<rusqlite::Result<Vec<_>>>()
        .doing(READING)?;
    // Positions count stored columns only, as `Table::columns` does.
    let mut info = conn
        .prepare_cached(
            "SELECT (SELECT count(*) FROM pragma_table_xinfo(?2) c WHERE c.hidden = 0 AND c.cid < i.cid), i.coll,
                    i.cid >= 0 AND EXISTS (SELECT 1 FROM pragma_table_xinfo(?2) c WHERE c.hidden = 0 AND c.cid = i.cid)
             FROM pragma_index_xinfo(?1) i WHERE i.key ORDER BY i.seqno",
        )
        .doing(READING)?;
    indexes
        .into_iter()
        .map(|mut index| {
            index.columns = info
                .query_map([index.name.as_str(), table], |row| {
                    let stored: bool = row.get(2)?;
                    let position: u32 = row.get(0)?;
                    Ok((stored.then_some(position as usize), row.get(1)?))
                })
                .doing(READING)?
                .collect::<rusqlite::Result<_>>()
                .doing(READING)?;
            Ok(index)
        })
        .collect()
}
