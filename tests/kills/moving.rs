//! F01: the points that only a file comes by that is taken over from HarmonyLite: it is theirs or ours, never half.

use super::*;
use antiphon_harness::{finish, harmonylite};

#[test]
fn f01_deaths_while_a_file_is_taken_over() {
    let objects = |site: &Site, prefix: &str| {
        site.rows(&format!("SELECT name FROM sqlite_schema WHERE substr(name, 1, 10) = '{}'", &prefix[..10])).len()
    };
    for (point, is_ours) in [
        ("adopt-triggers:1", false),
        ("adopt-marked:1", false),
        ("adopt-dropped:2", false),
        ("adopting:1", false),
        ("adopted-all:1", true),
    ] {
        let place = place();
        let mut a = place.site("a", TABLES);
        let mut b = place.site("b", TABLES);
        for site in [&a, &b] {
            let conn = site.connect();
            harmonylite::install(&conn, &["item", "total"]);
            conn.execute_batch(ITEMS).unwrap();
            harmonylite::sent(&conn, &["item", "total"]);
        }
        b.sql("UPDATE item SET v = 20 WHERE id = 'b'; DELETE FROM item WHERE id = 'a'");
        let adopt = |site: &Site, die_at: Option<&str>| {
            let mut command = site.command(&["adopt", site.database.to_str().unwrap()]);
            finish(command.envs(die_at.map(|point| (DIE_AT, point))))
        };
        let before = b.schema();
        let died = adopt(&b, Some(point));
        assert_eq!(died.code, None, "{point}: {}", died.stderr);
        let (theirs, ours) = (objects(&b, "__harmonylite__"), objects(&b, "__antiphon__"));
        assert_eq!((theirs == 0, ours > 0), (is_ours, is_ours), "{point}");
        assert!(is_ours || b.schema() == before, "{point}");
        for site in [&a, &b] {
            assert_eq!(adopt(site, None).code, Some(0), "{point}");
        }
        a.start();
        eventually("the founder is done", || a.is_quiet());
        b.start();
        settled(&[&a, &b]);
        assert_eq!(a.rows("SELECT id, v FROM item"), ["b|20"], "{point}");
    }
}
