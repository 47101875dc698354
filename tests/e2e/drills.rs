//! Snapshots are put together on trial, long before anybody needs one.

use antiphon_harness::health::{is_unwell, is_well, serving};
use antiphon_harness::{Place, eventually};
use serde_json::Value;

use super::observed::metric;
use super::place;
use super::snapshots::{Says as _, objects};
use super::travel::snapshot;

/// Snapshots as `list` has them, the newest first.
fn listed(place: &Place) -> Vec<Value> {
    let said = snapshot(place, &["list", "--json"]).stdout;
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The newest snapshot of all rows is put together by itself; for one that would bring nothing back another is made at once,
/// and it is told until it goes.
#[test]
fn a_snapshot_that_would_bring_nothing_back_is_found_by_itself() {
    let place = place();
    place.file(
        "a.toml",
        "db_path = 'a.db'\n[log]\npath = 'log'\n[snapshot]\nleader_ttl = 1500\nverify_interval = 400\n",
    );
    let site = place.site("a", "CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    let mut a = serving(site.arguments(["run", "--config", "a.toml"]));
    a.start();
    a.sql("INSERT INTO t VALUES (1, 'x')");
    a.wait_for_words("snapshot restored on trial");
    for (name, least) in [
        ("harmonylite_snapshot_restored_age_seconds", 0.0),
        ("harmonylite_snapshot_job_cpu_seconds{job=\"verifying\"}", 1e-6),
        ("harmonylite_snapshot_job_scratch_bytes{job=\"verifying\"}", 4096.0),
        ("harmonylite_snapshot_job_stored_bytes{job=\"verifying\"}", 4.0),
    ] {
        let stands = |value: f64| value.is_finite() && value >= least;
        eventually(&format!("{name} is {least} at least"), || metric(&a, name).is_some_and(stands));
    }
    is_well(&a);
    let [only] = listed(&place).try_into().unwrap();
    assert!(only["marks"]["restored_ms"].is_number(), "{only}");

    let id = only["id"].as_str().unwrap().to_owned();
    let folder = place.path("log/snapshots");
    let image = objects(&folder).into_iter().find(|path| path.to_string_lossy().contains(&format!("{id}/image-")));
    let image = image.unwrap();
    let mut damaged = std::fs::read(&image).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(&image, damaged).unwrap();
    a.wait_for_words("a snapshot is not what was put there; another is made");
    eventually("another was made and put together", || {
        let all = listed(&place);
        all.len() == 2 && all[0]["id"] != *id && all[0]["marks"]["restored_ms"].is_number()
    });
    let what = is_unwell(&a, "snapshot-damaged");
    assert!(what.contains(&id), "{what}");
    assert_eq!(listed(&place).len(), 2, "one is enough");
    snapshot(&place, &["forget", &id]).says(0, &[]);
    snapshot(&place, &["create"]).says(0, &[]);
    is_well(&a);
}
