//! The official components give what their native twins give.

use std::sync::LazyLock;

use antiphon_bundle::World;
use antiphon_core::hash::fnv::Fnv;
use antiphon_core::hash::xxh3::Xxh3;
use antiphon_core::hash::{Hash as _, PackedKeys};
use antiphon_core::key::KeyEncoder;
use antiphon_core::resolve::{Cause, Clash, LastWriteWins, Needs, Resolve as _, Side, Stamp};
use antiphon_core::schema::{Column, Table};
use antiphon_core::value::Value;
use antiphon_plugin::{Limits, PluginHost};
use proptest::prelude::*;

use super::{HOST, fnv, last_write_wins, official, packed, table};

fn any_match(regex: &str) -> impl Strategy<Value = String> + use<> {
    prop::string::string_regex(regex).unwrap()
}

fn any_value() -> impl Strategy<Value = Value> {
    let date = "[0-9]{4}-(0[0-9]|1[0-3])-([0-2][0-9]|3[0-2])";
    let time = "[T ]{1,2}[0-9]{1,2}:[0-5][0-9](:[0-6][0-9]([.,][0-9]{0,10})?([+-][0-2][0-9]:[0-6][0-9])?)?";
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::Integer),
        (-2i64..300).prop_map(Value::Integer),
        // Where seconds end and milliseconds begin.
        (-1_000_000_000_003i64..-999_999_999_997).prop_map(Value::Integer),
        (999_999_999_997i64..1_000_000_000_003).prop_map(Value::Integer),
        any::<f64>().prop_map(Value::Real),
        (-9i32..9).prop_map(|number| Value::Real(number.into())),
        any::<String>().prop_map(|text| Value::Text(text.into_bytes())),
        any::<Vec<u8>>().prop_map(Value::Text),
        any::<Vec<u8>>().prop_map(Value::Blob),
        "[a-z]{20,40}".prop_map(|text| Value::Text(text.into_bytes())),
        any_match(&format!("{date}({time})?Z?")).prop_map(|text| Value::Text(text.into_bytes())),
        any_match(&format!("{date}{time}")).prop_map(|text| Value::Text(text.into_bytes())),
        Just("0001-01-01".into()),
        Just("0001-01-01 00:00:00.0000000001".into()),
        Just(Value::Integer(-62_135_596_800)),
    ]
}

fn any_column() -> impl Strategy<Value = Column> {
    let types = ["", "INTEGER", "text", "boolean", "Boolean", "bool", "DATE", "DateTime", "timestamp", "timestamptz"];
    let collations = ["BINARY", "NOCASE", "RTRIM"];
    ("[a-zA-Zé]{0,3}|[a-z]{30}", prop::sample::select(types.to_vec()), prop::sample::select(collations.to_vec()))
        .prop_map(|(name, decl_type, collation)| Column {
            name,
            decl_type: decl_type.into(),
            collation: collation.into(),
            ..Column::default()
        })
}

/// A table and keys of it. The key's columns stand in the table in reverse, so that the order of neither will do.
fn any_keys() -> impl Strategy<Value = (Table, Vec<Vec<Value>>)> {
    let columns = prop::collection::vec(any_column(), 0..4);
    ("[a-zA-Zé ]{0,30}", columns).prop_flat_map(|(name, mut columns)| {
        columns.sort_by(|a, b| a.decl_type.cmp(&b.decl_type));
        columns.dedup_by(|a, b| a.name == b.name);
        for (column, pk_position) in columns.iter_mut().rev().zip(1..) {
            column.pk_position = pk_position;
        }
        // Two columns of one name can't be in one table, and their order is nobody's.
        let mut names = std::collections::HashSet::new();
        let unique = columns.iter().all(|column| names.insert(column.name.clone()));
        let columns = if unique { columns } else { Vec::new() };
        let width = columns.len().max(1);
        let table = Table { name, columns, ..Table::default() };
        (Just(table), prop::collection::vec(prop::collection::vec(any_value(), width), 0..20))
    })
}

/// The keys of these rows, and the empty one, which stands for the whole table.
fn packed_rows(table: &Table, rows: &[Vec<Value>]) -> PackedKeys {
    let mut keys = PackedKeys::default();
    let encoder = KeyEncoder::new(table);
    for row in rows {
        if table.columns.is_empty() {
            antiphon_core::cbor::write_value(&mut keys.bytes, &row[0]);
        } else {
            encoder.write(&mut keys.bytes, row.iter());
        }
        keys.end();
    }
    keys.end();
    keys
}

fn xxh3(settings: &[(String, String)]) -> antiphon_plugin::Hasher {
    // Each has settings of its own and so is a plugin of its own: compiled once is enough.
    static HOST: LazyLock<PluginHost> = LazyLock::new(super::cached);
    HOST.hasher(&official(World::Hasher, "xxh3"), settings, Limits::default()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn fnv_hashes_as_its_twin_does((table, rows) in any_keys()) {
        thread_local!(static FNV: std::cell::RefCell<antiphon_plugin::Hasher> = fnv().into());
        let keys = packed_rows(&table, &rows);
        let tables = [super::table("other", &[("id", "INTEGER")]), table];
        let mut twin = Fnv::default();
        twin.configure(&tables).unwrap();
        let hashes = FNV.with_borrow_mut(|fnv| {
            fnv.configure(&tables).unwrap();
            fnv.hash(1, &keys)
        });
        prop_assert_eq!(hashes.unwrap(), twin.hash(1, &keys).unwrap());
    }

    #[test]
    fn xxh3_hashes_as_its_twin_does(
        (table, rows) in any_keys(),
        seed in prop_oneof![Just(None), Just(Some(0)), any::<u64>().prop_map(Some)],
        picked in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        stranger in prop::bool::weighted(0.1),
    ) {
        let mut columns: Vec<String> = Vec::new();
        let names = table.columns.iter().map(|column| column.name.as_str()).filter(|name| !name.is_empty());
        let names: Vec<&str> = names.chain(stranger.then_some("stranger")).collect();
        for index in picked.iter().filter(|_| !names.is_empty()) {
            let name = names[index.index(names.len())];
            if !columns.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                // As SQLite compares names of columns.
                columns.push(name.to_ascii_uppercase());
            }
        }
        let mut settings = Vec::new();
        settings.extend(seed.map(|seed| ("seed".to_owned(), seed.to_string())));
        settings.extend((!columns.is_empty()).then(|| ("columns".to_owned(), columns.join(" , "))));
        let keys = packed_rows(&table, &rows);
        let tables = [super::table("other", &[("id", "INTEGER")]), table];
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        let mut twin = Xxh3::new(seed.unwrap_or_default(), &columns);
        twin.configure(&tables).unwrap();
        let mut xxh3 = xxh3(&settings);
        xxh3.configure(&tables).unwrap();
        prop_assert_eq!(xxh3.hash(1, &keys).unwrap(), twin.hash(1, &keys).unwrap());
    }

    #[test]
    fn last_write_wins_decides_as_its_twin_does(rows in prop::collection::vec((any_value(), any_value()), 0..20)) {
        thread_local!(static LWW: std::cell::RefCell<antiphon_plugin::Resolver> = last_write_wins().into());
        let clash = |(key, value): (Value, Value)| Clash {
            table: 0,
            key: vec![key.clone()],
            cause: if value == Value::Null { Cause::UniqueIndex } else { Cause::SameKey },
            base: None,
            current: Side { stamp: Stamp { node: 1, clock: 2, seq: 3 }, row: Some(vec![key.clone(), value.clone()]) },
            incoming: Side { stamp: Stamp::default(), row: (value != Value::Null).then(|| vec![key, value]) },
        };
        let batch: Vec<Clash> = rows.into_iter().map(clash).collect();
        let (nodes, tables) = (["a".to_owned(), "b".to_owned()], [table("t", &[("id", "INTEGER")])]);
        LWW.with_borrow_mut(|resolver| {
            prop_assert_eq!(resolver.configure(&nodes, &tables).unwrap(), Needs::default());
            prop_assert_eq!(resolver.resolve(&batch).unwrap(), LastWriteWins.resolve(&batch).unwrap());
            Ok(())
        })?;
    }
}

#[test]
fn fnv_keeps_the_shards_of_harmonylite() {
    let check = |table: Table, key: &[u8], hash: u64| {
        let mut fnv = fnv();
        fnv.configure(&[table]).unwrap();
        assert_eq!(fnv.hash(0, &packed(&[key])).unwrap(), [hash]);
    };
    check(table("Books", &[("id", "INTEGER")]), &[0x08], 106_709_661_037_676_149);
    check(table("Books", &[("id", "INTEGER")]), &[0x01], 106_701_964_456_278_618);
    check(table("kv", &[("b", ""), ("a", "")]), &[0x22, 0x61, b'x'], 5_182_215_014_661_869_534);
    check(table("kv", &[("k", "")]), &[0x42, 0xde, 0xad], 13_120_097_224_516_372_789);
    check(table("kv", &[("k", "")]), &[0xfb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0], 11_748_166_169_381_420_252);
    check(table("kv", &[("k", "")]), &[0xf6], 14_542_624_141_806_902_604);
    check(table("nopk", &[]), &[0x05], 5_207_817_719_885_581_588);
    let date = b"\x78\x182024-01-02T03:04:05.678Z";
    check(table("tm", &[("d", "DateTime")]), date, 10_578_527_803_410_592_479);
}

#[test]
fn fnv_refuses_bytes_that_are_no_key() {
    let mut fnv = fnv();
    fnv.configure(&[table("t", &[("a", ""), ("b", "")])]).unwrap();
    let mut check = |table: u32, key: &[u8]| fnv.hash(table, &packed(&[&[1, 2], key])).unwrap_err().to_string();
    let said = |err: String| err.split_once("): ").unwrap().1.to_owned();
    insta::assert_snapshot!(said(check(0, &[1])), @"it says: key 1 is not the 2 values of table `t`'s key");
    for key in [&[1, 2, 3][..], &[1, 0x62, 0x61], &[1, 0x9f], &[1, 0xc6, 0xc6], &[1, 0x1b, 0]] {
        assert!(check(0, key).contains("key 1 is not"), "{key:02x?}");
    }
    insta::assert_snapshot!(said(check(7, &[1, 2])), @"it says: there is no table 7");
}

/// The numbers are those of the reference implementation, `xxhsum -H3`; the seed of whole keys is that of the table's name.
#[test]
fn xxh3_is_xxh3() {
    let hash = |settings: &[(&str, &str)], table: Table, key: &[u8]| {
        let settings: Vec<_> = settings.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let mut xxh3 = xxh3(&settings);
        xxh3.configure(&[table]).unwrap();
        xxh3.hash(0, &packed(&[key])).unwrap()[0]
    };
    let orders = || table("Orders", &[("tenant", "INTEGER"), ("id", "INTEGER")]);
    let by_tenant = [("columns", "tenant")];
    // Longer than 240 bytes, and in between: XXH3 has another way for each length.
    let text = |len: u16| [&[0x79], &len.to_be_bytes()[..], &vec![b'a'; len.into()]].concat();
    let tenants = table("tenants", &[("tenant", "TEXT")]);
    let long = [3, 16, 17, 100, 200, 300, 2000].map(|len| hash(&by_tenant, tenants.clone(), &text(len)));
    insta::assert_debug_snapshot!(long, @r"
    [
        15990073133322382162,
        10086623270400741091,
        12832883926582184817,
        5290776518945068682,
        15485338675786010280,
        17535205602851306809,
        6584525190270613891,
    ]
    ");
    insta::assert_debug_snapshot!(
        [
            hash(&[], orders(), &[5, 1]),
            hash(&[("seed", "18446744073709551615")], orders(), &[5, 1]),
            hash(&by_tenant, orders(), &[5, 1]),
            hash(&[("columns", "id,tenant"), ("seed", "7")], orders(), &[5, 1]),
            hash(&by_tenant, orders(), &[]),
        ],
        @r"
        [
            12058207907369043280,
            3412288965103148433,
            10564940656230153954,
            6759865749480636517,
            6911837638384333987,
        ]
        "
    );
}

#[test]
fn xxh3_refuses_bytes_that_are_no_key() {
    let mut xxh3 = xxh3(&[("columns".into(), "b".into())]);
    xxh3.configure(&[table("t", &[("a", ""), ("b", "")])]).unwrap();
    let mut check = |table: u32, key: &[u8]| xxh3.hash(table, &packed(&[&[1, 2], key])).unwrap_err().to_string();
    for key in [&[1][..], &[1, 2, 3], &[1, 0x62, 0x61], &[1, 0x9f], &[1, 0xc6, 0xc6], &[1, 0x1b, 0]] {
        assert!(check(0, key).ends_with("it says: key 1 is not the 2 values of table `t`'s key"), "{key:02x?}");
    }
    assert!(check(7, &[1, 2]).ends_with("it says: there is no table 7"));
}

#[test]
fn xxh3_refuses_settings_it_does_not_understand() {
    let refused = |settings: &[(&str, &str)]| {
        let settings: Vec<_> = settings.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let err = xxh3(&settings).configure(&[]).unwrap_err().to_string();
        err.split_once("it says: ").unwrap().1.to_owned()
    };
    let all = [
        refused(&[("sead", "1")]),
        refused(&[("seed", "+1")]),
        refused(&[("seed", "")]),
        refused(&[("seed", "18446744073709551616")]),
        refused(&[("seed", "1"), ("seed", "1")]),
        refused(&[("columns", "")]),
        refused(&[("columns", "a, ,b")]),
        refused(&[("columns", "a,b,A")]),
    ];
    insta::assert_snapshot!(all.join("\n"), @r"
    there is no setting `sead`: xxh3 has `seed` and `columns`
    the setting `seed` is `+1`, and it is a whole number from 0 to 18446744073709551615
    the setting `seed` is ``, and it is a whole number from 0 to 18446744073709551615
    the setting `seed` is `18446744073709551616`, and it is a whole number from 0 to 18446744073709551615
    the setting `seed` is given twice
    the setting `columns` holds an empty name: ``
    the setting `columns` holds an empty name: `a, ,b`
    the setting `columns` names `A` twice
    ");
}

#[test]
fn official_components_say_who_they_are() {
    let (fnv, resolver) = (fnv(), last_write_wins());
    assert_eq!((fnv.identity(), resolver.identity()), ("fnv@1", "last-write-wins@1"));
    for component in antiphon_bundle::ALL {
        let source = official(component.world, component.name);
        let info = match component.world {
            World::Hasher => HOST.hasher(&source, &[], Limits::default()).unwrap().info().clone(),
            World::Resolver => HOST.resolver(&source, &[], Limits::default()).unwrap().info().clone(),
            World::Storage => HOST.describe_storage(&source, Limits::default()).unwrap(),
        };
        assert_eq!(info.name, component.name);
        assert_eq!(info.sha256, antiphon_plugin::sha256(component.bytes));
        assert!(!info.description.is_empty() && !info.version.is_empty());
    }
}

#[test]
fn official_components_refuse_settings_by_name() {
    let settings = [("sead".to_owned(), "1".to_owned())];
    let mut fnv = HOST.hasher(&official(World::Hasher, "fnv"), &settings, Limits::default()).unwrap();
    let err = fnv.configure(&[]).unwrap_err().to_string();
    assert!(err.ends_with("it says: there is no setting `sead`: fnv has none"), "{err}");
    assert!(err.starts_with("cannot configure plugin `fnv` (builtin, sha256 "), "{err}");

    let source = official(World::Resolver, "last-write-wins");
    let mut resolver = HOST.resolver(&source, &settings, Limits::default()).unwrap();
    let err = resolver.configure(&[], &[]).unwrap_err().to_string();
    assert!(err.ends_with("there is no setting `sead`: last-write-wins has none"), "{err}");
    // What was refused is not half in place.
    assert!(resolver.resolve(&[]).unwrap_err().to_string().ends_with("it is not configured"));
}
