//! Two files, table by table: equal, or where they differ.
//!
//! Each file is read in one transaction of its own and each table in the order of its keys, so that neither rowids nor
//! the order of insertion count, and one row of each is in memory. The digests say the same of any other file.

use super::inspect::Look;
use super::merge::{Encoding, KeyOrder, Side, merge};
use super::{Doing as _, Error, Filter, catalog};
use antiphon_core::codec::encode_row;
use antiphon_core::schema::Table;
use antiphon_core::value::{Row, Value};

/// What two files have in common and what not.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Tables that both have.
    pub tables: Vec<Compared>,
    /// Tables that only the first has.
    pub only_a: Vec<String>,
    /// Tables that only the second has.
    pub only_b: Vec<String>,
    /// Tables that are not compared, as the file they are in, their name, and why.
    pub left_out: Vec<(char, String, String)>,
}

/// A table that both files have.
#[derive(Debug, Default)]
pub struct Compared {
    /// Its name.
    pub table: String,
    /// Digest of all rows of the columns that both have, of the first file and of the second.
    pub digests: [String; 2],
    /// Rows in each.
    pub rows: [u64; 2],
    /// Rows that only the first has, only the second has, and that both have with other values.
    pub only_a: u64,
    /// See `only_a`.
    pub only_b: u64,
    /// See `only_a`.
    pub changed: u64,
    /// Rows of each without a key: they are not replicated, and not compared.
    pub keyless: [u64; 2],
    /// Columns of the key.
    pub key: Vec<String>,
    /// Columns that both have.
    pub columns: Vec<String>,
    /// Columns that only the first, and only the second has.
    pub local: [Vec<String>; 2],
    /// Why rows can't be compared at all, if so: the keys are not the same.
    pub obstacle: Option<String>,
    /// What differs in the schemas and can make the rows differ.
    pub remarks: Vec<String>,
    /// The first rows that differ.
    pub differing: Vec<Differing>,
}

/// A key under which the files differ.
#[derive(Debug)]
pub struct Differing {
    /// The key.
    pub key: Row,
    /// The row of each, in [`Compared::columns`]; `None` = there is none.
    pub rows: [Option<Row>; 2],
}

impl Compared {
    /// Whether all that is compared is equal.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.obstacle.is_none() && self.only_a == 0 && self.only_b == 0 && self.changed == 0
    }
}

impl Comparison {
    /// Whether the files have the same tables with the same rows.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        self.only_a.is_empty() && self.only_b.is_empty() && self.tables.iter().all(Compared::is_equal)
    }
}

/// Compares two files, each as it stands at one moment. At most `limit` rows a table are kept to be shown.
///
/// # Errors
/// When a file can't be read.
pub fn compare_files(a: &Look, b: &Look, filter: &Filter, limit: usize) -> Result<Comparison, Error> {
    const BEGINNING: &str = "begin a transaction";
    for look in [a, b] {
        look.conn().execute_batch("BEGIN").doing(BEGINNING)?;
        // It begins with the first read.
        look.conn().query_row("SELECT count(*) FROM main.sqlite_schema", [], |_| Ok(())).doing(BEGINNING)?;
    }
    let compared = compare(a, b, filter, limit);
    for look in [a, b] {
        look.conn().execute_batch("COMMIT").doing("end a transaction")?;
    }
    compared
}

fn compare(a: &Look, b: &Look, filter: &Filter, limit: usize) -> Result<Comparison, Error> {
    let (mut comparison, mut found) = (Comparison::default(), Vec::new());
    for (letter, look) in [('A', a), ('B', b)] {
        let (tables, refused) = catalog::read(look.conn(), filter)?;
        comparison.left_out.extend(refused.into_iter().map(|refused| (letter, refused.table, refused.reason)));
        found.push(tables);
    }
    let (theirs, ours) = (found.pop().unwrap_or_default(), found.pop().unwrap_or_default());
    let is_left_out = |name: &str| comparison.left_out.iter().any(|(_, table, _)| table.eq_ignore_ascii_case(name));
    let encodings = [Encoding::of(a.conn())?, Encoding::of(b.conn())?];
    for here in &ours {
        match theirs.iter().find(|there| there.name.eq_ignore_ascii_case(&here.name)) {
            Some(there) => comparison.tables.push(compare_table((a, here), (b, there), encodings, limit)?),
            None if is_left_out(&here.name) => {}
            None => comparison.only_a.push(here.name.clone()),
        }
    }
    for there in &theirs {
        let known = ours.iter().any(|here| here.name.eq_ignore_ascii_case(&there.name));
        if !known && !is_left_out(&there.name) {
            comparison.only_b.push(there.name.clone());
        }
    }
    Ok(comparison)
}

fn compare_table(
    (a, here): (&Look, &Table),
    (b, there): (&Look, &Table),
    encodings: [Encoding; 2],
    limit: usize,
) -> Result<Compared, Error> {
    let mut compared = Compared { table: here.name.clone(), ..Compared::default() };
    let name = |table: &Table, position: usize| table.columns.get(position).map(|column| column.name.clone());
    compared.key = here.key_columns().into_iter().filter_map(|position| name(here, position)).collect();
    let shared: Vec<(usize, usize)> = here
        .columns
        .iter()
        .enumerate()
        .filter_map(|(position, column)| Some((position, there.column(&column.name)?)))
        .collect();
    let (columns_here, columns_there): (Vec<usize>, Vec<usize>) = shared.iter().copied().unzip();
    compared.columns = columns_here.iter().filter_map(|&position| name(here, position)).collect();
    let alone = |table: &Table, common: &[usize]| {
        (0..table.columns.len())
            .filter(|position| !common.contains(position))
            .filter_map(|position| name(table, position))
            .collect::<Vec<_>>()
    };
    compared.local = [alone(here, &columns_here), alone(there, &columns_there)];
    compared.remarks = remarks(here, there, &shared);
    compared.obstacle = if key_of(here) != key_of(there) {
        Some(format!(
            "the primary keys are not the same: ({}) and ({})",
            key_of(here).join(", "),
            key_of(there).join(", ")
        ))
    } else if encodings.first() != encodings.last() {
        Some("the files keep text in different encodings, which order it differently".to_owned())
    } else {
        None
    };
    compared.keyless = [a.keyless(here)?, b.keyless(there)?];
    if compared.obstacle.is_some() {
        return Ok(compared);
    }
    let mut digests = [blake3::Hasher::new(), blake3::Hasher::new()];
    let one = Side { conn: a.conn(), table: here, columns: &columns_here };
    let other = Side { conn: b.conn(), table: there, columns: &columns_there };
    let order = KeyOrder::new(here, encodings.first().copied().unwrap_or(Encoding::Utf8));
    merge(one, other, &order, |pair| {
        let rows = [pair.here, pair.there];
        for ((row, digest), count) in rows.iter().zip(&mut digests).zip(&mut compared.rows) {
            if let Some(row) = row {
                *count += 1;
                // The encoding tells storage classes apart and says how long everything is.
                digest.update(&encode_row(row));
            }
        }
        match &rows {
            [Some(a), Some(b)] if a == b => return Ok(()),
            [Some(_), Some(_)] => compared.changed += 1,
            [Some(_), None] => compared.only_a += 1,
            _ => compared.only_b += 1,
        }
        if compared.differing.len() < limit {
            compared.differing.push(Differing { key: pair.key, rows });
        }
        Ok(())
    })?;
    compared.digests = digests.map(|digest| digest.finalize().to_hex().chars().take(32).collect());
    Ok(compared)
}

/// The key as it identifies rows: names and collations.
fn key_of(table: &Table) -> Vec<String> {
    let key = table.key_columns().into_iter().filter_map(|position| table.columns.get(position));
    key.map(|column| match column.collation.to_ascii_uppercase().as_str() {
        "BINARY" => column.name.to_ascii_lowercase(),
        other => format!("{} COLLATE {other}", column.name.to_ascii_lowercase()),
    })
    .collect()
}

/// What differs in the schemas and can make rows differ, or be refused on one side.
fn remarks(here: &Table, there: &Table, shared: &[(usize, usize)]) -> Vec<String> {
    let mut remarks = Vec::new();
    for &(at, to) in shared {
        let (Some(a), Some(b)) = (here.columns.get(at), there.columns.get(to)) else { continue };
        if !a.decl_type.eq_ignore_ascii_case(&b.decl_type) {
            let shown = |text: &str| if text.is_empty() { "no type".to_owned() } else { text.to_owned() };
            remarks.push(format!(
                "column {} is declared {} in A and {} in B",
                a.name,
                shown(&a.decl_type),
                shown(&b.decl_type)
            ));
        }
        if a.not_null != b.not_null {
            let side = if a.not_null { 'A' } else { 'B' };
            remarks.push(format!("column {} is NOT NULL in {side} alone", a.name));
        }
    }
    let (ours, theirs) = (uniques(here), uniques(there));
    for (side, unique) in ours
        .iter()
        .filter(|unique| !theirs.contains(unique))
        .map(|unique| ('A', unique))
        .chain(theirs.iter().filter(|unique| !ours.contains(unique)).map(|unique| ('B', unique)))
    {
        remarks.push(format!("UNIQUE ({unique}) is in {side} alone"));
    }
    if here.strict != there.strict {
        remarks.push(format!("the table is STRICT in {} alone", if here.strict { 'A' } else { 'B' }));
    }
    remarks
}

fn uniques(table: &Table) -> Vec<String> {
    let unique = |columns: &[(usize, String)], partial: bool| {
        let names = columns.iter().filter_map(|(position, collation)| {
            let name = table.columns.get(*position)?.name.to_ascii_lowercase();
            Some(if collation.eq_ignore_ascii_case("BINARY") { name } else { format!("{name} COLLATE {collation}") })
        });
        let names = names.collect::<Vec<_>>().join(", ");
        if partial { format!("{names}, partial") } else { names }
    };
    table.uniques.iter().map(|found| unique(&found.columns, found.partial)).collect()
}

/// Names of the columns in which two rows differ.
#[must_use]
pub fn changed_columns<'a>(columns: &'a [String], a: &[Value], b: &[Value]) -> Vec<&'a str> {
    let pairs = columns.iter().zip(a.iter().zip(b));
    pairs.filter(|(_, (a, b))| a != b).map(|(name, _)| name.as_str()).collect()
}
