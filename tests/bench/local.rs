//! One process: capture against plain inserts, seal, fold, bytes a row.

use crate::fixture::{self, INSERT, Kind, UPSERT};
use crate::report::{Report, per_second, rate, timed};
use antiphon::components;
use antiphon::config::{Config, Environment, Overrides, Sources};
use antiphon::db::{Database, Stop};
use antiphon::log::Placed;
use antiphon_core::entry::Genesis;
use std::path::Path;

const CLUSTER: [u8; 16] = [7; 16];

/// A member of a cluster, with the official components.
fn database(path: &Path) -> Database {
    let overrides = Overrides { db_path: Some(path.to_owned()), ..Overrides::default() };
    let config = Config::load(Sources { file: None, environment: Environment::default(), overrides }).unwrap().config;
    let parts = components::parts(&config, antiphon::custom::Pins::Required).unwrap();
    let options = antiphon::db::Options {
        path: path.to_owned(),
        node: 0,
        filter: parts.filter,
        changes_max: parts.changes_max,
        // What is measured is the fold; the pauses between slices are for other writers, and here are none.
        atomic_max: usize::MAX,
        publish: true,
        replicate: true,
        compress: parts.compress,
        replays: None,
    };
    let mut db = Database::open(options, parts.hasher, parts.policies).unwrap();
    db.enter(CLUSTER, &Genesis { shards: 1, resolver: "last-write-wins@1".into(), ..Genesis::default() }, true)
        .unwrap();
    db
}

/// All frames of the outbox, in place.
fn sealed(db: &mut Database) -> Vec<Placed> {
    let genesis = Genesis {
        shards: 1,
        hasher: String::new(),
        hasher_settings: Vec::new(),
        resolver: String::new(),
        wire: 1,
        ..Genesis::default()
    };
    let mut frames = vec![db.genesis(CLUSTER, genesis).unwrap()];
    let mut number = 0;
    loop {
        let batches = db.unsent(1, number, 64 << 20).unwrap();
        let Some(last) = batches.last() else { break };
        number = last.number;
        frames.extend(batches.into_iter().map(|batch| batch.frame));
    }
    frames.into_iter().zip(1..).map(|(frame, seq)| Placed::whole(seq, seq, frame)).collect()
}

fn drain(db: &mut Database) {
    while db.seal().unwrap() {}
}

fn apply_all(db: &mut Database, entries: &[Placed]) {
    let end = entries.last().unwrap().seq;
    while db.position(1).seq < end {
        let from = db.position(1).seq as usize;
        let applied = db.apply(1, &entries[from..]).unwrap();
        assert!(applied.entries > 0 || applied.stop == Some(Stop::Unsealed), "{applied:?}");
    }
}

pub fn run(report: &mut Report, rows: usize) {
    println!("one process, {rows} rows, 1,000 a transaction, WAL, synchronous = NORMAL");
    let folder = tempfile::tempdir().unwrap();

    let plain = fixture::create(&folder.path().join("plain.db"));
    let (plain_took, ()) = timed(|| fixture::fill(&plain, Kind::Ordinary, 0, rows, INSERT));
    report.figure("plain inserts", &rate(rows, plain_took));
    let (upserts_took, ()) = timed(|| fixture::fill(&plain, Kind::Ordinary, 0, rows, UPSERT));
    report.figure("plain upserts", &rate(rows, upserts_took));

    let path = folder.path().join("captured.db");
    let app = fixture::create(&path);
    let mut db = database(&path);
    let (captured_took, ()) = timed(|| fixture::fill(&app, Kind::Ordinary, 0, rows, INSERT));
    let cost = captured_took.as_secs_f64() / plain_took.as_secs_f64();
    report.mark(
        "captured inserts, cost against plain",
        &format!("{} = {cost:.2} times", rate(rows, captured_took)),
        "at most 2.5 times",
        cost <= 2.5,
    );
    let (seal_took, ()) = timed(|| drain(&mut db));
    report.figure(
        "seal, against plain upserts",
        &format!(
            "{} = {:.2} times",
            rate(rows, seal_took),
            per_second(rows, seal_took) / per_second(rows, upserts_took)
        ),
    );
    let entries = sealed(&mut db);
    let bytes: usize = entries.iter().map(|placed| placed.frame.len()).sum();
    let per_row = bytes as f64 / rows as f64;
    report.mark("bytes a row in the log, ordinary", &format!("{per_row:.1}"), "at most 20", per_row <= 20.0);

    let other = folder.path().join("other.db");
    drop(fixture::create(&other));
    let mut peer = database(&other);
    let (fold_took, ()) = timed(|| apply_all(&mut peer, &entries));
    report.figure(
        "fold of foreign rows, against plain upserts",
        &format!(
            "{} = {:.2} times",
            rate(rows, fold_took),
            per_second(rows, fold_took) / per_second(rows, upserts_took)
        ),
    );
    let (echo_took, ()) = timed(|| apply_all(&mut db, &entries));
    report.figure("fold of own echoes", &rate(rows, echo_took));

    let path = folder.path().join("random.db");
    let app = fixture::create(&path);
    let mut db = database(&path);
    let some = rows.min(50_000);
    fixture::fill(&app, Kind::Random, 0, some, INSERT);
    drain(&mut db);
    let bytes: usize = sealed(&mut db).iter().map(|placed| placed.frame.len()).sum();
    let per_row = bytes as f64 / some as f64;
    report.mark("bytes a row in the log, random", &format!("{per_row:.1}"), "at most 95", per_row <= 95.0);
}
