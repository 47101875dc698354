//! What only time shows: three nodes on a real server, written to all the while, killed and started again, with
//! snapshots, increments, an archive and prunes, each snapshot verified, and a database brought back now and then.
//!
//! It takes a minute, or ten with `FULL=1`, and is alone on its machine: how it does under load is asked of it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a test that can't go on ends there"
)]

mod course;
mod drill;
mod shots;
mod vitals;
mod writer;

use antiphon_harness::{Broker, Place, Site, Stopping, settled};
use course::{Course, KILL_EVERY};
use drill::Drill;
use shots::Shots;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use vitals::Sample;
use writer::{Acknowledged, PACE, TABLES, Written, write};

const SAMPLE_EVERY: Duration = Duration::from_secs(1);
const WAL_MAX: u64 = 64 << 20;

fn site(place: &Place, name: &str, broker: &Broker, course: &Course) -> Site {
    // Without a jitter, for what is late is measured.
    let text = format!(
        "db_path = '{name}.db'\n[replication_log]\nshards = 2\n[logging]\nlevel = 'info,antiphon::snapshot::archivist=warn'\n[nats]\nurls = ['{}']\n\
         [snapshot]\nstore = 'file'\ninterval = {}\nincremental_interval = {}\nincremental_threshold = 0\njitter = 0\n\
         archive_interval = 1000\nleader_ttl = 1500\nretention_count = 2\nprune_grace = 5000\n\
         [snapshot.keep]\nverified = 0\n[snapshot.file]\npath = 'snapshots'\n",
        broker.url(),
        course.interval.as_millis(),
        course.incremental.as_millis(),
    );
    place.file(&format!("{name}.toml"), &text);
    place.site(name, TABLES).arguments(["run", "--config", &format!("{name}.toml")])
}

fn size(path: &Path) -> u64 {
    path.metadata().map_or(0, |found| found.len())
}

#[test]
fn three_nodes_are_written_to_and_killed() {
    let course = Course::chosen();
    let place = Place::new(antiphon_harness::program!());
    let broker = Broker::start();
    let mut sites = ["a", "b", "c"].map(|name| site(&place, name, &broker, &course));
    for site in &mut sites {
        site.spawn();
        site.wait_for_words("  log      ");
    }
    let connections = sites.each_ref().map(Site::connect);
    let known = [(); 3].map(|()| Acknowledged::none());
    let drill = Drill::new(&place, &sites, &known);
    let stop = AtomicBool::new(false);
    let mut wal = 0;
    let mut kills = 0;
    let mut samples = Vec::new();
    let (written, shots, end_ms) = std::thread::scope(|scope| {
        let stopping = Stopping(&stop);
        let (stop, known, course, place) = (&stop, &known, &course, &place);
        let writers: Vec<_> = (0..)
            .zip(connections)
            .map(|(writer, conn)| scope.spawn(move || write(&conn, writer, &known[writer as usize], stop)))
            .collect();
        let watcher = scope.spawn(move || Shots::watched(place, stop));
        let started = Instant::now();
        let driller = scope.spawn(move || {
            for number in 0..course.times(course.drill_every) {
                let due = started + course.drill_every / 2 + course.drill_every * number;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                drill.hold(number);
            }
        });
        let mut next_sample = started + SAMPLE_EVERY;
        while started.elapsed() < course.whole {
            std::thread::sleep(next_sample.saturating_duration_since(Instant::now()));
            next_sample += SAMPLE_EVERY;
            samples.push(Sample::of(sites[2].pid(), started.elapsed()));
            for site in &sites {
                wal = wal.max(size(&site.database.with_extension("db-wal")));
            }
            if started.elapsed() > KILL_EVERY * (kills + 1) {
                // The third one lives through it all, to be measured.
                let site = &mut sites[kills as usize % 2];
                site.kill9();
                site.spawn();
                kills += 1;
            }
        }
        let end_ms = shots::now_ms();
        driller.join().unwrap();
        drop(stopping);
        let written: Vec<Written> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        (written, watcher.join().unwrap(), end_ms)
    });

    settled(&sites.each_ref());
    for (writer, (written, known)) in written.iter().zip(&known).enumerate() {
        let share = written.writes as f64 / (written.took.as_secs_f64() * PACE as f64);
        println!("writer {writer}: {} writes in {:?}, {share:.4} of its pace", written.writes, written.took);
        // A soak of an idle cluster shows nothing.
        assert!(share >= course.pace_min, "{share}");
        let found = sites[2].rows(&format!("SELECT slot, n FROM item WHERE writer = {writer} ORDER BY slot"));
        let wanted: Vec<String> = known.rows().iter().map(|(slot, n)| format!("{slot}|{n}")).collect();
        assert!(found == wanted, "rows of writer {writer} were lost");
        let total = sites[2].one(&format!("SELECT n FROM total WHERE writer = {writer}"));
        assert_eq!(total, known.total().to_string(), "writer {writer}");
    }
    println!("{kills} kills, largest WAL: {wal} bytes");
    assert!(kills + 1 >= course.times(KILL_EVERY), "{kills}");
    assert!(wal > 0 && wal < WAL_MAX, "{wal}");
    vitals::check(&samples, &course);
    shots.check(&course, end_ms);
    for site in &mut sites {
        site.term();
    }
}
