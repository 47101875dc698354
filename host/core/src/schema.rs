//! Tables and columns, as replication sees them.

/// A table that is replicated: its stored columns and what identifies its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The name as the schema spells it.
    pub name: String,
    /// Stored columns in table order. Generated columns are not among them: they are computed, never sent.
    pub columns: Vec<Column>,
    /// UNIQUE indexes besides the primary key.
    pub uniques: Vec<Unique>,
    /// Declared WITHOUT ROWID.
    pub without_rowid: bool,
    /// Declared STRICT.
    pub strict: bool,
    /// The primary key is the rowid itself (`INTEGER PRIMARY KEY`).
    pub rowid_key: bool,
    /// What statements can call the rowid, where it is not the key. None if columns have taken all of its names.
    pub rowid: Option<String>,
    /// Its policy asks what was there before: capture notes rows as they were, and when they changed.
    pub resolved: bool,
}

/// The names by which SQLite knows a rowid, unless a column has them.
pub const ROWIDS: [&str; 3] = ["rowid", "_rowid_", "oid"];

/// A stored column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// The name as the schema spells it.
    pub name: String,
    /// The declared type, as written; empty if there is none.
    pub decl_type: String,
    /// 1 for the first column of the primary key, 2 for the second, 0 for a column outside it.
    pub pk_position: u16,
    /// The collating sequence: `BINARY`, `NOCASE`, `RTRIM`. For a key's column that of the key, which may be another.
    pub collation: String,
    /// Declared NOT NULL.
    pub not_null: bool,
}

/// A UNIQUE index besides the primary key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unique {
    /// The index's name.
    pub name: String,
    /// Its columns, as positions in [`Table::columns`], with the collation the index compares by.
    pub columns: Vec<(usize, String)>,
    /// The index holds only some of the rows, or an expression: it can't be looked up by values alone.
    pub partial: bool,
}

impl Table {
    /// Positions of the primary key's columns, in key order.
    #[must_use]
    pub fn key_columns(&self) -> Vec<usize> {
        let mut key: Vec<(u16, usize)> = self
            .columns
            .iter()
            .enumerate()
            .filter(|(_, column)| column.pk_position > 0)
            .map(|(position, column)| (column.pk_position, position))
            .collect();
        key.sort_unstable();
        key.into_iter().map(|(_, position)| position).collect()
    }

    /// What makes a comparison with a key's column go by the key: ` COLLATE …`, or nothing where the key is the rowid.
    #[must_use]
    pub fn collate(&self, column: &Column) -> String {
        if self.rowid_key { String::new() } else { format!(" COLLATE {}", quote(&column.collation)) }
    }

    /// A number made of the table's columns and keys: equal for tables that are alike, in whatever order their columns
    /// stand. For people; nothing is decided by it.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut columns: Vec<String> = self
            .columns
            .iter()
            .map(|column| {
                let (name, decl) = (column.name.to_ascii_lowercase(), column.decl_type.to_ascii_lowercase());
                let (pk, not_null) = (column.pk_position, column.not_null);
                format!("{name:?} {decl:?} {pk} {not_null} {:?}", column.collation.to_ascii_lowercase())
            })
            .collect();
        columns.sort_unstable();
        let column = |position: usize| self.columns.get(position).map(|column| column.name.to_ascii_lowercase());
        let mut uniques: Vec<String> = self
            .uniques
            .iter()
            .map(|unique| {
                let columns =
                    unique.columns.iter().map(|(at, collation)| (column(*at), collation.to_ascii_lowercase()));
                format!("{:?} {}", columns.collect::<Vec<_>>(), unique.partial)
            })
            .collect();
        uniques.sort_unstable();
        xxhash_rust::xxh3::xxh3_64(format!("{columns:?} {uniques:?}").as_bytes())
    }

    /// Where `name` stands, compared as SQLite compares names of columns.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))
    }
}

/// `name` as an identifier in SQL, whatever it contains.
#[must_use]
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_whatever_they_contain() {
        assert_eq!(quote("select"), "\"select\"");
        assert_eq!(quote("a\"b;--"), "\"a\"\"b;--\"");
    }

    #[test]
    fn a_digest_goes_by_what_columns_are_and_not_where_they_stand() {
        let column = |name: &str, decl: &str| Column { name: name.into(), decl_type: decl.into(), ..Column::default() };
        let digest = |columns: &[Column]| Table { columns: columns.to_vec(), ..Table::default() }.digest();
        let (a, b) = (column("a", "TEXT"), column("b", ""));
        assert_eq!(digest(&[a.clone(), b.clone()]), digest(&[b.clone(), column("A", "text")]));
        assert_ne!(digest(&[a.clone(), b.clone()]), digest(&[column("a", "INTEGER"), b.clone()]));
        assert_ne!(digest(std::slice::from_ref(&a)), digest(&[a.clone(), b.clone()]));
        let key = Column { pk_position: 1, ..a.clone() };
        assert_ne!(digest(&[a, b.clone()]), digest(&[key, b]));
    }

    #[test]
    fn key_columns_come_in_key_order_not_table_order() {
        let column = |name: &str, pk_position| Column { name: name.into(), pk_position, ..Column::default() };
        let table = Table { columns: vec![column("b", 2), column("x", 0), column("a", 1)], ..Table::default() };
        assert_eq!(table.key_columns(), [2, 0]);
    }
}
