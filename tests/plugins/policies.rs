//! The policies: as their native twins decide, fit for SQLite, and of one mind in whatever order changes come.

use std::cell::RefCell;
use std::collections::BTreeMap;

use antiphon_bundle::World;
use antiphon_core::resolve::{Cause, Clash, Resolve, Side, Stamp, Verdict};
use antiphon_core::schema::{Column, Table};
use antiphon_core::value::{Row, Value};
use antiphon_harness::{ColumnMerge, Counter, FirstWriteWins, NewestWins, NodePriority};
use antiphon_plugin::{Limits, Resolver};
use proptest::prelude::*;
use rusqlite::types::{ToSqlOutput, ValueRef};

use super::{HOST, official};

fn policy(name: &str, settings: &[(&str, &str)]) -> Resolver {
    let settings: Vec<_> = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    HOST.resolver(&official(World::Resolver, name), &settings, Limits::default()).unwrap()
}

/// The same, compiled once a thread: for a test that asks it thousands of times.
fn with_policy<T>(name: &'static str, settings: &[(&str, &str)], ask: impl FnOnce(&mut Resolver) -> T) -> T {
    thread_local!(static POLICIES: RefCell<BTreeMap<&'static str, Resolver>> = const { RefCell::new(BTreeMap::new()) });
    POLICIES.with_borrow_mut(|policies| ask(policies.entry(name).or_insert_with(|| policy(name, settings))))
}

fn column(name: &str, decl_type: &str, pk_position: u16) -> Column {
    Column {
        name: name.into(),
        decl_type: decl_type.into(),
        pk_position,
        collation: "BINARY".into(),
        not_null: pk_position > 0,
    }
}

/// One that takes any value, a STRICT one, and one whose key has a counter's name.
fn tables() -> [Table; 3] {
    let mut named = column("n", "TEXT", 1);
    named.collation = "NOCASE".into();
    let mut whole = column("n", "INT", 0);
    whole.not_null = true;
    [
        Table {
            name: "loose".into(),
            columns: vec![
                column("N", "BIGINT", 0),
                column("id", "INTEGER", 1),
                column("x", "DECIMAL(9,2)", 0),
                column("r", "double precision", 0),
                column("t", "VARCHAR(9)", 0),
                column("b", "", 0),
                column("plain", "INTEGER", 0),
            ],
            ..Table::default()
        },
        Table {
            name: "strict".into(),
            columns: vec![column("id", "INTEGER", 1), whole, column("r", "REAL", 0), column("b", "ANY", 0)],
            strict: true,
            ..Table::default()
        },
        Table {
            name: "named".into(),
            columns: vec![named, column("x", "NUMERIC", 0), column("v", "BLOB", 0)],
            ..Table::default()
        },
    ]
}

/// Values that meet: few enough to be equal now and then, and those where sums and classes get difficult.
fn any_value() -> impl Strategy<Value = Value> {
    let reals = [0.0, 0.5, 1.0, 2.0, 1e300, 9_007_199_254_740_992.0, 9_223_372_036_854_775_807.0];
    let reals = reals.into_iter().chain([f64::INFINITY, f64::MIN_POSITIVE]);
    let reals: Vec<f64> = reals.flat_map(|real| [real, -real]).collect();
    prop_oneof![
        3 => Just(Value::Null),
        6 => (-3i64..4).prop_map(Value::Integer),
        2 => prop::sample::select(vec![i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX]).prop_map(Value::Integer),
        1 => any::<i64>().prop_map(Value::Integer),
        4 => prop::sample::select(reals).prop_map(Value::Real),
        1 => (-1e19..1e19).prop_map(Value::Real),
        2 => prop::sample::select(vec!["", "a", "A", "1"]).prop_map(Value::from),
        1 => prop::sample::select(vec![vec![], vec![0xff], b"a".to_vec()]).prop_map(Value::Blob),
        1 => Just(Value::Text(vec![b'a', 0xff])),
    ]
}

fn fits(table: &Table, column: &Column, value: &Value) -> bool {
    let wanted = match column.decl_type.as_str() {
        _ if column.not_null && *value == Value::Null => return false,
        _ if !table.strict || *value == Value::Null => return true,
        "INT" | "INTEGER" => "integer",
        "REAL" => "real",
        _ => return true,
    };
    value.type_name() == wanted
}

/// Base, current and incoming value of a column; each pair is equal often enough.
fn any_three(table: &Table, column: &Column) -> impl Strategy<Value = [Value; 3]> + use<> {
    let (table, column) = (table.clone(), column.clone());
    let any_fitting = any_value().prop_filter("of the column", move |value| fits(&table, &column, value));
    (prop::collection::vec(any_fitting, 3), 0..3usize, 0..3usize, 0..3usize)
        .prop_map(|(values, base, current, incoming)| [base, current, incoming].map(|at| values[at].clone()))
}

fn any_key(column: &Column) -> BoxedStrategy<[Value; 3]> {
    if column.collation == "NOCASE" {
        // One key in the spelling of whoever wrote it.
        let any_spelling = prop::sample::select(vec!["a", "A"]).prop_map(Value::from);
        return prop::array::uniform3(any_spelling).boxed();
    }
    (0..9i64).prop_map(|id| [Value::Integer(id), Value::Integer(id), Value::Integer(id)]).boxed()
}

/// Names of the nodes: numbers of different lengths, and what can't be one.
const NODES: [&str; 6] = ["7", "10", "18446744073709551615", "", "x", "9a"];

fn any_stamp() -> impl Strategy<Value = Stamp> {
    (0..6u32, 0..4u64, any::<u64>()).prop_map(|(node, clock, seq)| Stamp { node, clock, seq })
}

fn any_clash() -> impl Strategy<Value = Clash> {
    let rows = (0..3usize).prop_flat_map(|at| {
        let table = &tables()[at];
        let columns = table.columns.iter().map(|column| match column.pk_position {
            0 => any_three(table, column).boxed(),
            _ => any_key(column),
        });
        (Just(at), columns.collect::<Vec<_>>())
    });
    let there = || prop::bool::weighted(0.85);
    (rows, [there(), there(), there()], any_stamp(), any_stamp(), prop::bool::weighted(0.05)).prop_map(
        |((table, columns), there, current, incoming, unique)| {
            let row = |side: usize| columns.iter().map(|three| three[side].clone()).collect::<Row>();
            let [base, standing, coming] = [0, 1, 2].map(|side| there[side].then(|| row(side)));
            let key = tables()[table].key_columns().into_iter().map(|at| row(1)[at].clone()).collect();
            Clash {
                table: u32::try_from(table).unwrap(),
                key,
                cause: if unique { Cause::UniqueIndex } else { Cause::SameKey },
                base,
                current: Side { stamp: current, row: standing },
                incoming: Side { stamp: incoming, row: coming },
            }
        },
    )
}

fn names(nodes: &[&str]) -> Vec<String> {
    nodes.iter().map(|name| (*name).to_owned()).collect()
}

const COUNTERS: &str = " n,R , x,t,b,n";
const ORDER: &str = "010, x,99 ,7";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn policies_decide_as_their_twins_do(batch in prop::collection::vec(any_clash(), 1..20)) {
        type Pair = (&'static str, Resolver, Box<dyn Resolve>);
        thread_local!(static PAIRS: RefCell<Vec<Pair>> = {
            let counters: Vec<&str> = COUNTERS.split(',').map(str::trim).collect();
            let order: Vec<&str> = ORDER.split(',').map(str::trim).collect();
            let mut pairs: Vec<Pair> = vec![
                ("newest-wins", policy("newest-wins", &[]), Box::new(NewestWins::default())),
                ("first-write-wins", policy("first-write-wins", &[]), Box::new(FirstWriteWins)),
                ("column-merge", policy("column-merge", &[]), Box::new(ColumnMerge)),
                ("counter", policy("counter", &[("columns", COUNTERS)]), Box::new(Counter::new(&counters))),
                ("node-priority", policy("node-priority", &[("order", ORDER)]), Box::new(NodePriority::new(&order))),
            ];
            for (_, component, twin) in &mut pairs {
                let needs = component.configure(&names(&NODES), &tables()).unwrap();
                assert_eq!(needs, twin.configure(&names(&NODES), &tables()).unwrap());
            }
            pairs.into()
        });
        PAIRS.with_borrow_mut(|pairs| {
            for (name, component, twin) in pairs {
                let (answers, expected) = (component.resolve(&batch).unwrap(), twin.resolve(&batch).unwrap());
                for (clash, (answer, expected)) in batch.iter().zip(answers.iter().zip(&expected)) {
                    prop_assert_eq!(answer, expected, "{} of {:?}", name, clash);
                }
            }
            Ok(())
        })?;
    }

    /// What is merged is what SQLite stores, so that a row read back is the row that was decided upon.
    #[test]
    fn merged_rows_are_stored_as_they_are(clash in any_clash()) {
        thread_local!(static STORE: rusqlite::Connection = store());
        let table = &tables()[clash.table as usize];
        let mut counter = Counter::new(&COUNTERS.split(',').map(str::trim).collect::<Vec<_>>());
        counter.configure(&[], &tables()).unwrap();
        STORE.with(|store| {
            // The rows of a clash have been in a table.
            let stored = |row: &Option<Row>| row.as_ref().map(|row| stored(store, table, row));
            let clash = Clash {
                base: stored(&clash.base),
                current: Side { row: stored(&clash.current.row), ..clash.current },
                incoming: Side { row: stored(&clash.incoming.row), ..clash.incoming },
                ..clash
            };
            let batch = [clash];
            for verdict in [ColumnMerge.resolve(&batch), counter.resolve(&batch)] {
                if let Verdict::Merge(row) = &verdict.unwrap()[0] {
                    prop_assert_eq!(row, &self::stored(store, table, row));
                }
            }
            Ok(())
        })?;
    }

    /// Nothing that was added is lost or added twice, whoever is first; nor where the sum leaves 64 bits meanwhile.
    #[test]
    fn counters_add_up_in_any_order(
        start in any::<i64>(),
        (deltas, shuffled) in any_order(prop_oneof![-9i64..9, any::<i64>()]),
    ) {
        let change = |delta: i64| (Some(vec![1.into(), start.wrapping_add(delta).into()]), Stamp::default());
        let base = vec![1.into(), start.into()];
        let sum = deltas.iter().fold(start, |sum, delta| sum.wrapping_add(*delta));
        for order in [deltas, shuffled] {
            let changes = order.into_iter().map(change);
            let ended = with_policy("counter", &[("columns", "n")], |counter| fold(counter, &[], &base, changes));
            prop_assert_eq!(ended, Some(vec![1.into(), sum.into()]));
        }
    }

    /// Changes of different columns are all there in the end, whoever is first.
    #[test]
    fn different_columns_merge_in_any_order(
        (changes, shuffled) in any_order((1..7usize, any_value())),
        base in prop::collection::vec(any_value(), 6),
    ) {
        let base: Row = [Value::Integer(1)].into_iter().chain(base).collect();
        let mut expected = base.clone();
        // Of changes of one column the first is meant; so both orders hold the same changes.
        let mut first = BTreeMap::new();
        for (at, value) in &changes {
            first.entry(*at).or_insert_with(|| value.clone());
        }
        for (at, value) in &first {
            expected[*at] = value.clone();
        }
        for order in [changes, shuffled] {
            let mut left = first.clone();
            let once = order.into_iter().filter_map(|(at, _)| Some((at, left.remove(&at)?)));
            let rows = once.map(|(at, value)| {
                let mut row = base.clone();
                row[at] = value;
                (Some(row), Stamp::default())
            });
            let ended = with_policy("column-merge", &[], |merge| fold(merge, &[], &base, rows));
            prop_assert_eq!(ended, Some(expected.clone()));
        }
    }

    /// Neither the order of the log nor that of a node's list of nodes decides.
    #[test]
    fn the_newest_stands_in_any_order((changes, shuffled) in any_order((0..NODES.len(), 1..4u64, any::<bool>()))) {
        // No node stamps two changes of a key alike.
        let mut stamps = BTreeMap::new();
        for (node, clock, gone) in &changes {
            stamps.entry((*node, *clock)).or_insert(*gone);
        }
        let mut backwards = NODES;
        backwards.reverse();
        let ended = [(changes, NODES), (shuffled, backwards)].map(|(order, nodes)| {
            let mut left = stamps.clone();
            let rows = order.into_iter().filter_map(|(node, clock, _)| {
                let gone = left.remove(&(node, clock))?;
                let row = vec![1.into(), format!("{node} at {clock}").as_str().into()];
                let at = nodes.iter().position(|name| *name == NODES[node]).unwrap();
                Some(((!gone).then_some(row), Stamp { node: u32::try_from(at).unwrap(), clock, seq: 0 }))
            });
            with_policy("newest-wins", &[], |newest| fold(newest, &nodes, &[1.into(), Value::Null], rows))
        });
        prop_assert_eq!(&ended[0], &ended[1]);
    }
}

/// Some of these, and the same in another order.
fn any_order<T: Clone + std::fmt::Debug>(of: impl Strategy<Value = T>) -> impl Strategy<Value = (Vec<T>, Vec<T>)> {
    prop::collection::vec(of, 1..6).prop_flat_map(|some| (Just(some.clone()), Just(some).prop_shuffle()))
}

/// What is left of changes that were all made on `base`, each without knowing of the others.
fn fold(
    resolver: &mut Resolver,
    nodes: &[&str],
    base: &[Value],
    changes: impl IntoIterator<Item = (Option<Row>, Stamp)>,
) -> Option<Row> {
    let columns = ["id", "n", "c", "d", "e", "f", "g"].iter().zip([1, 0, 0, 0, 0, 0, 0]);
    let columns = columns.map(|(name, pk_position)| column(name, "", pk_position)).take(base.len()).collect();
    resolver.configure(&names(nodes), &[Table { name: "t".into(), columns, ..Table::default() }]).unwrap();
    let mut changes = changes.into_iter();
    let (row, stamp) = changes.next().unwrap();
    let mut current = Side { stamp, row };
    for (row, stamp) in changes {
        let incoming = Side { stamp, row };
        let clash = Clash {
            table: 0,
            key: vec![base[0].clone()],
            cause: Cause::SameKey,
            base: Some(base.to_vec()),
            current: current.clone(),
            incoming: incoming.clone(),
        };
        match resolver.resolve(&[clash]).unwrap().remove(0) {
            Verdict::Keep => {}
            Verdict::Take => current = incoming,
            Verdict::Merge(row) => current = Side { stamp, row: Some(row) },
            Verdict::Remove => current = Side { stamp, row: None },
        }
    }
    current.row
}

/// A database with the tables of clashes.
fn store() -> rusqlite::Connection {
    let store = rusqlite::Connection::open_in_memory().unwrap();
    for table in tables() {
        let columns: Vec<String> = table
            .columns
            .iter()
            .map(|column| {
                let key = if column.pk_position > 0 { " PRIMARY KEY" } else { "" };
                format!("{} {}{key}", column.name, column.decl_type)
            })
            .collect();
        let strict = if table.strict { " STRICT" } else { "" };
        store.execute_batch(&format!("CREATE TABLE {} ({}){strict}", table.name, columns.join(", "))).unwrap();
    }
    store
}

/// The row as it comes back from its table.
fn stored(store: &rusqlite::Connection, table: &Table, row: &Row) -> Row {
    let places = vec!["?"; row.len()].join(", ");
    let values = row.iter().map(|value| {
        ToSqlOutput::Borrowed(match value {
            Value::Null => ValueRef::Null,
            Value::Integer(number) => ValueRef::Integer(*number),
            Value::Real(number) => ValueRef::Real(*number),
            Value::Text(bytes) => ValueRef::Text(bytes),
            Value::Blob(bytes) => ValueRef::Blob(bytes),
        })
    });
    let name = &table.name;
    store
        .prepare_cached(&format!("INSERT INTO {name} VALUES ({places})"))
        .unwrap()
        .execute(rusqlite::params_from_iter(values))
        .unwrap();
    let read = store
        .prepare_cached(&format!("SELECT * FROM {name}"))
        .unwrap()
        .query_row([], |row| {
            let value = |at| {
                Ok(match row.get_ref(at)? {
                    ValueRef::Null => Value::Null,
                    ValueRef::Integer(number) => Value::Integer(number),
                    ValueRef::Real(number) => Value::Real(number),
                    ValueRef::Text(bytes) => Value::Text(bytes.to_vec()),
                    ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
                })
            };
            (0..table.columns.len()).map(value).collect()
        })
        .unwrap();
    store.prepare_cached(&format!("DELETE FROM {name}")).unwrap().execute([]).unwrap();
    read
}

fn said(err: &impl ToString) -> String {
    err.to_string().split_once("it says: ").unwrap().1.to_owned()
}

fn refusal(name: &str, settings: &[(&str, &str)], tables: &[Table]) -> String {
    said(&policy(name, settings).configure(&names(&NODES), tables).unwrap_err())
}

#[test]
fn policies_refuse_settings_by_name() {
    for name in ["newest-wins", "first-write-wins", "column-merge"] {
        let expected = format!("there is no setting `columns`: {name} has none");
        assert_eq!(refusal(name, &[("columns", "n")], &tables()), expected);
    }
    let refused = [
        refusal("counter", &[], &tables()),
        refusal("counter", &[("columns", "n"), ("colums", "n")], &tables()),
        refusal("counter", &[("columns", "n"), ("columns", "x")], &tables()),
        refusal("counter", &[("columns", "n,,x")], &tables()),
        refusal("node-priority", &[], &tables()),
        refusal("node-priority", &[("oder", "7")], &tables()),
        refusal("node-priority", &[("order", "")], &tables()),
        refusal("node-priority", &[("order", "7, 10, 07")], &tables()),
    ];
    insta::assert_snapshot!(refused.join("\n"), @r"
    the setting `columns` is missing, and counter can't do without it
    there is no setting `colums`: counter has only `columns`
    the setting `columns` is given twice
    the setting `columns` holds an empty name: `n,,x`
    the setting `order` is missing, and node-priority can't do without it
    there is no setting `oder`: node-priority has only `order`
    the setting `order` holds an empty name: ``
    the setting `order` names node `07` twice
    ");
}

#[test]
fn a_counter_that_no_table_has_is_refused_by_name() {
    let [loose, strict, named] = tables();
    let many: Vec<Table> = (0..7).map(|at| Table { name: format!("t{at}"), ..strict.clone() }).collect();
    let refused = [
        refusal("counter", &[("columns", "n, quantiy")], std::slice::from_ref(&loose)),
        refusal("counter", &[("columns", "quantiy")], &[loose, strict]),
        refusal("counter", &[("columns", "quantiy")], &many),
        refusal("counter", &[("columns", "N")], &[named]),
    ];
    insta::assert_snapshot!(refused.join("\n"), @r"
    the setting `columns` names `quantiy`, and table `loose` has no such column
    the setting `columns` names `quantiy`, and no table has such a column, not `loose`, `strict`
    the setting `columns` names `quantiy`, and no table has such a column, not `t0`, `t1`, `t2`, `t3`, `t4` and 2 more
    the setting `columns` names `N`, which is part of the primary key of table `named`
    ");
    // Tables may come later.
    policy("counter", &[("columns", "quantiy")]).configure(&[], &[]).unwrap();
}

#[test]
fn a_stamp_of_nobody_is_an_error() {
    let clash = |clock| Clash {
        table: 0,
        key: vec![1.into()],
        cause: Cause::SameKey,
        base: None,
        current: Side { stamp: Stamp { node: 9, clock, seq: 0 }, row: None },
        incoming: Side { stamp: Stamp { node: 0, clock: 1, seq: 0 }, row: None },
    };
    for (name, settings) in [("newest-wins", [].as_slice()), ("node-priority", &[("order", "7")])] {
        let mut policy = policy(name, settings);
        policy.configure(&names(&NODES), &[]).unwrap();
        assert_eq!(said(&policy.resolve(&[clash(1)]).unwrap_err()), "there is no node 9");
        // Of one that was forgotten no name is asked.
        assert_eq!(policy.resolve(&[clash(0)]).unwrap(), [Verdict::Take]);
    }
}

#[test]
fn rows_that_do_not_match_are_an_error() {
    let row = |values: i64| (0..values).map(Value::Integer).collect::<Row>();
    let clash = |table, base: Option<i64>, current, incoming| Clash {
        table,
        key: vec![0.into()],
        cause: Cause::SameKey,
        base: base.map(row),
        current: Side { stamp: Stamp::default(), row: Some(row(current)) },
        incoming: Side { stamp: Stamp::default(), row: Some(row(incoming)) },
    };
    let mut counter = policy("counter", &[("columns", "n")]);
    counter.configure(&[], &tables()[1..2]).unwrap();
    for (base, current, incoming) in [(None, 4, 3), (Some(3), 4, 4), (Some(5), 4, 4)] {
        let err = said(&counter.resolve(&[clash(0, base, current, incoming)]).unwrap_err());
        let base = base.unwrap_or_default();
        assert_eq!(err, format!("the rows of a clash of table 0 have {base}, {current} and {incoming} values"));
    }
    assert_eq!(said(&counter.resolve(&[clash(5, None, 4, 4)]).unwrap_err()), "there is no table 5");
}
