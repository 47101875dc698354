//! The native twin of the component `xxh3`: the specification it is held to, written to be read.
//!
//! XXH3 of a key, seeded with that of the table's name; or of the values of the key columns that are to keep rows
//! together, and of nothing else.

use super::{Hash, PackedKeys, PluginError};
use crate::cbor::{self, Malformed, Reader};
use crate::schema::Table;
use crate::value::Value;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Hashes keys with XXH3.
#[derive(Clone, Debug, Default)]
pub struct Xxh3 {
    /// Another one spreads keys otherwise.
    pub seed: u64,
    /// Key columns that keep rows together, of whatever tables: those that have all of them in their key.
    pub columns: Vec<String>,
    tables: Vec<Table>,
}

impl Xxh3 {
    /// One with these settings.
    #[must_use]
    pub fn new(seed: u64, columns: &[&str]) -> Self {
        Self { seed, columns: columns.iter().map(|&name| name.to_owned()).collect(), tables: Vec::new() }
    }

    /// The positions, in a key of this table, of the columns that keep rows together; empty if the whole key counts.
    fn group(&self, table: &Table) -> Vec<usize> {
        let key = table.key_columns();
        let named = |name: &String, position: &usize| {
            table.columns.get(*position).is_some_and(|column| column.name.eq_ignore_ascii_case(name))
        };
        let group = self.columns.iter().map(|name| key.iter().position(|position| named(name, position)));
        group.collect::<Option<_>>().unwrap_or_default()
    }
}

impl Hash for Xxh3 {
    fn configure(&mut self, tables: &[Table]) -> Result<(), PluginError> {
        self.tables = tables.to_vec();
        Ok(())
    }

    fn hash(&mut self, table: u32, keys: &PackedKeys) -> Result<Vec<u64>, PluginError> {
        let found = self.tables.get(table as usize);
        let table = found.ok_or_else(|| PluginError(format!("there is no table {table}")))?;
        let of_table = xxh3_64_with_seed(table.name.to_ascii_lowercase().as_bytes(), self.seed);
        let group = self.group(table);
        keys.iter()
            .enumerate()
            .map(|(index, key)| {
                if group.is_empty() || key.is_empty() {
                    return Ok(xxh3_64_with_seed(key, of_table));
                }
                let part = part(table, &group, key).map_err(|err| PluginError(format!("key {index}: {err}")))?;
                Ok(xxh3_64_with_seed(&part, self.seed))
            })
            .collect()
    }
}

/// The bytes of the values at these positions of a key.
fn part(table: &Table, positions: &[usize], key: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut reader = Reader::new(key);
    let values: Vec<Value> = table.key_columns().iter().map(|_| reader.value()).collect::<Result<_, _>>()?;
    reader.finish()?;
    let mut part = Vec::new();
    for value in positions.iter().filter_map(|position| values.get(*position)) {
        cbor::write_value(&mut part, value);
    }
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Column;

    fn table(name: &str, key: &[&str]) -> Table {
        let columns = key.iter().zip(1..).map(|(name, pk_position)| Column {
            name: (*name).into(),
            pk_position,
            ..Column::default()
        });
        Table { name: name.into(), columns: columns.collect(), ..Table::default() }
    }

    fn hash(hasher: &mut Xxh3, table: Table, key: &[u8]) -> u64 {
        hasher.configure(&[table]).unwrap();
        let ends = vec![u32::try_from(key.len()).unwrap()];
        hasher.hash(0, &PackedKeys { bytes: key.to_vec(), ends }).unwrap()[0]
    }

    #[test]
    fn tables_and_seeds_spread_keys_otherwise() {
        let mut plain = Xxh3::default();
        let one = hash(&mut plain, table("a", &["id"]), &[1]);
        assert_eq!(one, hash(&mut plain, table("A", &["number"]), &[1]));
        assert_ne!(one, hash(&mut plain, table("b", &["id"]), &[1]));
        assert_ne!(one, hash(&mut Xxh3::new(1, &[]), table("a", &["id"]), &[1]));
    }

    #[test]
    fn rows_of_a_tenant_share_a_shard_in_all_tables() {
        let mut by_tenant = Xxh3::new(7, &["TENANT"]);
        let tenant = hash(&mut by_tenant, table("orders", &["tenant", "id"]), &[5, 1]);
        assert_eq!(tenant, hash(&mut by_tenant, table("orders", &["tenant", "id"]), &[5, 2]));
        assert_eq!(tenant, hash(&mut by_tenant, table("lines", &["id", "number", "Tenant"]), &[1, 2, 5]));
        assert_eq!(tenant, hash(&mut by_tenant, table("tenants", &["tenant"]), &[5]));
        assert_ne!(tenant, hash(&mut by_tenant, table("orders", &["tenant", "id"]), &[6, 1]));
        // One without tenants is spread as ever.
        let other = hash(&mut by_tenant, table("other", &["id"]), &[5]);
        assert_eq!(other, hash(&mut Xxh3::new(7, &[]), table("other", &["id"]), &[5]));
    }
}
