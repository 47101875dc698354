//! F01: deaths at any moment while snapshots are made, merged, pruned and brought back, and an application works on.

use super::*;
use antiphon_harness::Ended;
use std::process::Stdio;

/// Connections of the application.
const CONNECTIONS: usize = 4;

/// Writes whole transactions and looks at what is there, until told to stop; gives how many rows it was told are stored.
fn work(conn: &Connection, writer: usize, stop: &AtomicBool) -> u64 {
    let mut stored = 0;
    while !stop.load(Ordering::Acquire) {
        conn.execute_batch(&format!(
            "BEGIN IMMEDIATE; UPDATE shared SET v = v + 1; INSERT INTO item VALUES ('{writer}-{stored}', {stored}, 'x'); COMMIT"
        ))
        .unwrap();
        stored += 1;
        assert_eq!(of_shared(conn), 1, "writer {writer} sees a mix");
        std::thread::sleep(Duration::from_millis(3));
    }
    stored
}

/// How many values the rows have that are always changed together.
fn of_shared(conn: &Connection) -> i64 {
    conn.query_row("SELECT count(DISTINCT v) FROM shared", [], |row| row.get(0)).unwrap()
}

fn snapshot(place: &Place, arguments: &[&str]) -> Ended {
    place.run([&["snapshot"], arguments, &["--config", "a.toml"]].concat())
}

/// Whoever dies, and whenever: the newest snapshot comes back, nobody sees a part of a transaction, and at the end every row
/// is there that an application was told is stored.
#[test]
fn f01_c69_random_deaths_while_four_connections_work() {
    let kills = setting("KILLS", 60);
    let seed = setting("SEED", 20_260_301);
    println!("KILLS={kills} SEED={seed}");
    let mut random = Random(seed);
    let place = place();
    let text = "db_path = 'a.db'\n[log]\npath = 'log'\n[replication_log]\nmax_entries = 5\n[snapshot]\ninterval = 0\n\
                archive_interval = 50\nleader_ttl = 1500\nmerge_short = 200\nmerge_long = 1000\n";
    place.file("a.toml", text);
    let mut a = place.site("a", TABLES).arguments(["run", "--config", "a.toml"]);
    a.start();
    a.sql("INSERT INTO shared VALUES (1, 0), (2, 0), (3, 0)");
    eventually("it is sent", || a.is_quiet());
    assert_eq!(snapshot(&place, &["create"]).code, Some(0));
    let stop = AtomicBool::new(false);
    let mut died = [0; 7];
    let stored: Vec<u64> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..CONNECTIONS)
            .map(|writer| {
                let (conn, stop) = (a.connect(), &stop);
                scope.spawn(move || work(&conn, writer, stop))
            })
            .collect();
        let stopping = Stopping(&stop);
        for kill in 0..kills {
            let what = usize::try_from(random.below(died.len() as u64)).unwrap();
            let (arguments, of_host): (&[&str], bool) = match what {
                0 | 1 => (&["snapshot", "create"], true),
                2 => (&["snapshot", "create", "--incremental"], true),
                3 => (&["log", "truncate"], true),
                4 => (&["snapshot", "prune", "--grace", "0s"], false),
                5 => (&["snapshot", "merge"], false),
                _ => (&["snapshot", "restore", "--in-place"], false),
            };
            if what == 6 {
                a.term();
            }
            let command = [arguments, &["--config", "a.toml"]].concat();
            let mut asking = place.command(command).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(random.below(600)));
            if of_host {
                a.kill9();
                died[what] += 1;
            } else {
                // It may be done by now.
                died[what] += usize::from(asking.try_wait().unwrap().is_none());
                let _ = asking.kill();
            }
            asking.wait().unwrap();
            if of_host || what == 6 {
                let took = a.start();
                assert!(took < BOUND, "a start took {took:?}");
            }
            let file = format!("{kill}.db");
            let said = snapshot(&place, &["restore", "--output", &file]);
            assert_eq!(said.code, Some(0), "{arguments:?}: {}", said.stderr);
            let newest = Connection::open(place.path(&file)).unwrap();
            assert_eq!(of_shared(&newest), 1, "{arguments:?}");
            assert_eq!(newest.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap(), "ok");
            drop(newest);
            std::fs::remove_file(place.path(&file)).unwrap();
        }
        drop(stopping);
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    println!("killed: {died:?}; rows stored by each connection: {stored:?}");
    assert_eq!(stored.len(), CONNECTIONS);
    assert!(stored.iter().all(|stored| *stored > kills), "all of them worked throughout: {stored:?}");
    eventually("it is sent", || a.is_quiet());
    assert_eq!(a.one("PRAGMA integrity_check"), "ok");
    for (writer, stored) in stored.iter().enumerate() {
        let found = a.one(&format!("SELECT count(*) FROM item WHERE id LIKE '{writer}-%'"));
        assert_eq!(found, stored.to_string(), "rows of connection {writer}");
    }
    // The log was cut many times, and somebody else archived it after each death.
    let windows = snapshot(&place, &["list", "--pitr"]);
    assert_eq!(windows.code, Some(0), "{}", windows.stderr);
    assert!(!windows.stdout.contains("nobody has them"), "{}", windows.stdout);
    eventually("the newest is whole", || snapshot(&place, &["verify", "--level", "restore"]).code == Some(0));
}
