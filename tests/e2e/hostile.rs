//! X05: snapshots by somebody who can write to the storage, and makes all hashes hold.

use super::place;
use super::snapshots::Says;
use antiphon_core::snapshot::frame::{self, FRAME_BYTES, Packing};
use antiphon_core::snapshot::manifest::{Index, Manifest, Stored};
use antiphon_harness::{Ended, Place, Site, eventually, settled};
use rusqlite::Connection;
use std::path::{Path, PathBuf};

const TABLE: &str =
    "CREATE TABLE t (id INTEGER PRIMARY KEY, v, w UNIQUE); CREATE TABLE other (id INTEGER PRIMARY KEY, v);";
/// Of a database's file.
const PAGE: usize = 4096;

/// A snapshot that is written anew, with other files in it.
struct Forge {
    id: String,
    manifest: PathBuf,
    folder: PathBuf,
    scratch: PathBuf,
}

fn unpacked(object: &Path) -> Vec<u8> {
    let mut raw = Vec::new();
    frame::unpack(&std::fs::read(object).unwrap(), |part| {
        raw.extend_from_slice(part);
        Ok::<_, frame::Error>(())
    })
    .unwrap();
    raw
}

fn packed(raw: &[u8]) -> Vec<u8> {
    let mut object = Vec::new();
    raw.chunks(FRAME_BYTES).for_each(|raw| frame::pack(raw, &Packing::default(), &mut object).unwrap());
    object
}

impl Forge {
    /// Of the snapshot of this name. Its files lie in one object each.
    fn new(place: &Place, id: &str) -> Self {
        let store = place.path("log/snapshots");
        let cluster = std::fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir());
        let cluster = cluster.unwrap();
        let manifests = std::fs::read_dir(cluster.join("snap")).unwrap().map(|entry| entry.unwrap().path());
        let manifest = manifests.into_iter().find(|path| path.to_str().unwrap().contains(id)).unwrap();
        Self { id: id.to_owned(), manifest, folder: cluster.join("base").join(id), scratch: place.path("forged.db") }
    }

    fn file(&self, part: &str) -> Vec<u8> {
        unpacked(&self.folder.join(format!("{part}-000000.frm")))
    }

    /// Puts other files into the snapshot; all that is said of them is true.
    fn put(&self, image: &[u8], state: &[u8]) {
        let put = |part: &str, raw: &[u8]| {
            let object = packed(raw);
            std::fs::write(self.folder.join(format!("{part}-000000.frm")), &object).unwrap();
            Stored::of(&object)
        };
        let mut index: Index = serde_json::from_slice(&self.file("index")).unwrap();
        assert_eq!((index.image.len(), index.state.len()), (1, 1));
        (index.image, index.state) = (vec![put("image", image)], vec![put("state", state)]);
        let mut manifest = Manifest::from_bytes(&std::fs::read(&self.manifest).unwrap()).unwrap();
        let of = manifest.image.as_mut().unwrap();
        (of.bytes, of.blake3) = (image.len() as u64, Stored::of(image).blake3);
        manifest.index = Some(put("index", &serde_json::to_vec(&index).unwrap()));
        std::fs::write(&self.manifest, manifest.to_bytes()).unwrap();
    }

    /// A file with something done to it.
    fn changed(&self, file: &[u8], sql: &str) -> Vec<u8> {
        std::fs::write(&self.scratch, file).unwrap();
        let conn = Connection::open(&self.scratch).unwrap();
        conn.execute_batch("PRAGMA journal_mode = DELETE").unwrap();
        conn.execute_batch(sql).unwrap();
        drop(conn);
        std::fs::read(&self.scratch).unwrap()
    }
}

fn site(place: &Place, name: &str) -> Site {
    let text = format!("db_path = '{name}.db'\n[log]\npath = 'log'\n[snapshot]\ninterval = 0\n");
    place.file(&format!("{name}.toml"), &text);
    place.site(name, TABLE).arguments(["run", "--config", &format!("{name}.toml")])
}

fn snapshot(place: &Place, arguments: &[&str]) -> Ended {
    place.run([&["snapshot"], arguments, &["--config", "a.toml"]].concat())
}

fn create(place: &Place) -> String {
    let said = snapshot(place, &["create", "--json"]);
    said.says(0, &[]);
    let said: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    said["id"].as_str().unwrap().to_owned()
}

/// So many entries more.
fn write(site: &Site, count: u32) {
    for _ in 0..count {
        site.sql("INSERT INTO t (v) VALUES ('later')");
        eventually("it is sent", || site.is_quiet());
    }
}

/// A node with rows, and two snapshots: the newer one can be forged. The log begins with the entry of the older one.
fn made(place: &Place) -> (Site, Forge) {
    let mut a = site(place, "a");
    a.start();
    a.sql(
        "WITH RECURSIVE k(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM k WHERE n < 2000)
         INSERT INTO t SELECT n, 'value ' || n, 'w' || (n * 7919 % 2003) FROM k; INSERT INTO other VALUES (1, 'one')",
    );
    eventually("it is sent", || a.is_quiet());
    create(place);
    write(&a, 3);
    let forge = Forge::new(place, &create(place));
    write(&a, 3);
    let log = Connection::open(place.path("log/log.db")).unwrap();
    log.execute("DELETE FROM shard_1 WHERE seq < (SELECT max(seq) FROM shard_1) - 6", []).unwrap();
    (a, forge)
}

/// Trees that lead nowhere, cells that overlap, lengths beyond the end: such a file is refused in words, or what comes out
/// of it is a database without fault. Nothing panics, hangs or ends by a signal.
#[test]
fn x05_trees_that_were_broken_by_hand() {
    let place = place();
    let (_a, forge) = made(&place);
    let (image, state) = (forge.file("image"), forge.file("state"));
    let mut refused = 0;
    let mut tries = 0;
    for (page, start) in (0..image.len()).step_by(PAGE).enumerate() {
        // The head of a page, where its cells are, and one of them.
        let heads = [(0, [0x05, 0xff]), (1, [0xff, 0xff]), (3, [0xff, 0xff])];
        for (offset, bytes) in heads.into_iter().chain([(8 + page % 40, [0xff, 0xfe]), (PAGE - 109, [0xff, 0xff])]) {
            let at = start + offset + if start == 0 { 100 } else { 0 };
            let mut broken = image.clone();
            broken[at..at + 2].copy_from_slice(&bytes);
            forge.put(&broken, &state);
            let output = format!("out-{tries}.db");
            let said = match tries % 3 {
                0 => snapshot(&place, &["verify", &forge.id, "--level", "restore"]),
                _ => snapshot(&place, &["restore", &forge.id, "--output", &output]),
            };
            assert!(!said.stderr.contains("panicked"), "{}", said.stderr);
            match said.code {
                Some(3 | 65) => refused += 1,
                Some(0) => {}
                _ => panic!("at {at}: {:?} {}", said.code, said.stderr),
            }
            if tries % 3 != 0 && said.code == Some(0) {
                let conn = Connection::open(place.path(&output)).unwrap();
                let found: String = conn.query_row("PRAGMA quick_check", [], |row| row.get(0)).unwrap();
                assert_eq!(found, "ok", "at {at}");
            }
            tries += 1;
        }
    }
    println!("{tries} broken files, {refused} of them refused");
    assert!(tries >= 100 && refused * 2 > tries, "{refused} of {tries}");
    forge.put(&image, &state);
    snapshot(&place, &["verify", &forge.id, "--level", "restore"]).says(0, &[]);
}

/// What a node takes of a snapshot are rows. What else lies in it is neither run nor kept.
#[test]
fn x05_what_is_planted_is_never_run() {
    let place = place();
    let (a, forge) = made(&place);
    let (image, state) = (forge.file("image"), forge.file("state"));
    let planted = forge.changed(
        &image,
        "CREATE TRIGGER planted AFTER INSERT ON t BEGIN INSERT INTO other VALUES (new.id + 1000, 'planted'); END;
         CREATE TRIGGER planted_2 BEFORE DELETE ON t BEGIN UPDATE other SET v = 'planted'; END;
         CREATE VIEW planted_3 AS SELECT * FROM t;",
    );
    forge.put(&planted, &state);
    let mut b = site(&place, "b");
    b.start();
    let words = format!("joined from a snapshot; these entries are read on id={}", forge.id);
    assert!(b.said().contains(&words), "{}", b.said());
    settled(&[&a, &b]);
    assert_eq!(b.one("SELECT count(*) FROM t"), "2006");
    assert_eq!(b.rows("SELECT * FROM other"), ["1|one"]);
    assert_eq!(b.one("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'planted%'"), "0");
    write(&b, 2);
    settled(&[&a, &b]);
    assert_eq!(a.rows("SELECT * FROM other"), ["1|one"]);
}

/// Something stands where the host's own tables are to be, or a view where a table was: such a snapshot is none.
#[test]
fn x05_what_no_snapshot_holds_makes_it_none() {
    let place = place();
    let (mut a, forge) = made(&place);
    let (image, state) = (forge.file("image"), forge.file("state"));
    let endless =
        "WITH RECURSIVE k(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM k) SELECT n AS id, 1 AS v, 2 AS w FROM k";
    let ours = "CREATE TABLE \"__ANTIPHON___stamp\" (tbl, key, seq, node, incarnation, other, clock)";
    let view = "CREATE VIEW \"__antiphon___meta\" AS SELECT 'node' AS name, 7 AS value";
    let forged = [
        (forge.changed(&image, &format!("DROP TABLE t; CREATE VIEW t AS {endless}")), state.clone(), "no table `t`"),
        (forge.changed(&image, ours), state.clone(), "holds the table `__ANTIPHON___stamp`"),
        (forge.changed(&image, view), state.clone(), "holds the view `__antiphon___meta`"),
        (
            image.clone(),
            forge.changed(
                &state,
                "DROP TABLE \"__antiphon___stamp\"; CREATE VIEW \"__antiphon___stamp\" AS SELECT 1 AS tbl",
            ),
            "holds the view `__antiphon___stamp`",
        ),
        (image.clone(), b"no database at all".to_vec(), "can't be put together"),
        (image.clone(), forge.changed(&state, "UPDATE \"__antiphon___position\" SET seq = 'many'"), ""),
    ];
    for (number, (image, state, word)) in forged.into_iter().enumerate() {
        forge.put(&image, &state);
        if !word.is_empty() {
            snapshot(&place, &["verify", &forge.id, "--level", "restore"]).says(3, &[word]);
        }
        let mut late = site(&place, &format!("late{number}"));
        late.start();
        assert!(late.said().contains("a snapshot is passed over"), "{word}: {}", late.said());
        settled(&[&a, &late]);
        assert_eq!(late.one("SELECT count(*) FROM t"), "2006", "the one before leads to all");
        late.term();
    }
    // Nor is L built upon it, to be compared with.
    a.term();
    let said = place.run(["repair", "--dry-run", "--config", "a.toml"]);
    said.says(0, &["a snapshot is passed over", "table t: as the log says"]);
}
