//! The page for people, in a real browser: light and dark, on a desk and on a phone, and by keyboard alone.

use antiphon_harness::browser::{Browser, Key};
use antiphon_harness::{Site, eventually, settled};
use std::path::{Path, PathBuf};

use super::observed::{at, serving};
use super::place;

/// Where pictures go: those of the guide where they are asked for, as with `UPDATE_DOCS=1`.
fn picture(name: &str) -> PathBuf {
    match std::env::var_os("UPDATE_DOCS") {
        Some(_) => Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/images").join(name),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).join("page").join(name),
    }
}

const TABLES: &str = "CREATE TABLE guests (id INTEGER PRIMARY KEY, name TEXT NOT NULL, seat TEXT);
                      CREATE TABLE orders (id INTEGER PRIMARY KEY, guest INTEGER, dish TEXT);
                      CREATE TABLE notes (body TEXT);";

/// What stands under a heading.
fn text(browser: &mut Browser, id: &str) -> String {
    browser.eval(&format!("document.getElementById('{id}').innerText")).as_str().unwrap_or_default().to_owned()
}

/// Takes a picture, in which the test's own folder is somebody's home.
fn take(browser: &mut Browser, name: &str) {
    browser.eval(
        "(() => { const all = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT); let text; \
         while (text = all.nextNode()) text.data = text.data.replace(/\\/tmp\\/antiphon-test-\\w+/, '/home/ada'); })()",
    );
    browser.picture(&picture(name));
}

fn write(site: &Site, from: u32, to: u32) {
    let rows: Vec<String> = (from..to).map(|id| format!("({id}, 'guest {id}', '{}A')", id % 30)).collect();
    site.sql(&format!("INSERT INTO guests VALUES {}", rows.join(",")));
}

#[test]
fn the_page_shows_how_a_node_is_and_what_to_do() {
    let place = place();
    let (mut a, mut b) = (place.site("a", TABLES), serving(place.site("b", TABLES)));
    a.start();
    b.start();
    write(&a, 1, 400);
    write(&b, 1000, 1100);
    settled(&[&a, &b]);
    // A clash, for the record.
    a.term();
    a.sql("UPDATE guests SET seat = 'a' WHERE id < 4");
    b.sql("UPDATE guests SET seat = 'b' WHERE id < 4");
    eventually("it is sent", || b.is_quiet());
    a.start();
    settled(&[&a, &b]);

    let address = format!("http://{}/", at(&b, "page"));
    let mut browser = Browser::new();
    browser.look(1280, 900, false);
    browser.go(&address);
    browser.until("document.getElementById('pill').textContent === 'well'");
    browser.until("document.getElementById('tables').innerText.includes('guests')");
    let node = b.node().to_string();
    assert!(text(&mut browser, "who").contains(&node), "numbers of nodes are shown to the last digit");
    for number in [a.node(), b.node()] {
        browser.until(&format!("document.getElementById('nodes').innerText.includes('{number}')"));
    }
    browser.until("document.getElementById('tables').innerText.includes('499')");
    assert!(text(&mut browser, "tables").contains("left out"), "a table without a key is named");
    browser.until("document.getElementById('clashes').innerText.includes('last-write-wins')");
    browser.until("document.getElementById('plugins').innerText.includes('fnv')");
    let digest = "[...document.querySelectorAll('#plugins code')].some(code => /^[0-9a-f]{64}$/.test(code.title))";
    browser.until(digest);
    browser.until(
        "(() => { const [shard, position, end] = [...document.querySelectorAll('#shards td')].map(cell => cell.innerText); \
         return shard === '1' && position === end && Number(position.replace(/\\D/g, '')) > 3 })()",
    );
    // Snapshots, and from when to when any moment can be gone back to.
    browser.until("document.querySelectorAll('#snapshots .line i').length > 0");
    browser.until("document.querySelectorAll('#snapshots .line b').length > 0");
    browser.until("/as of any moment from .* to /.test(document.querySelector('#snapshots .reach').innerText)");
    assert!(text(&mut browser, "wrong").starts_with("All is well"));

    // A picture of the guide shows some minutes.
    for round in 0..if std::env::var_os("UPDATE_DOCS").is_some() { 90 } else { 2 } {
        write(&a, 2000 + round * 300, 2000 + round * 300 + 40 + (round * 37) % 90);
        write(&b, 100_000 + round * 200, 100_000 + round * 200 + 10 + (round * 23) % 60);
        std::thread::sleep(std::time::Duration::from_millis(600));
    }
    browser.until("document.querySelectorAll('#flow path').length === 4");
    // It is live: what is written now is seen without anybody's doing.
    browser.eval("window.loaded = 'once'");
    let is_told = |browser: &mut Browser, chart: &str, what: &str| {
        let figure =
            format!("document.getElementById('{chart}').getAttribute('aria-label').match(/{what}: ([0-9.]+)/)");
        browser.eval(&format!("(figure => figure !== null && Number(figure[1]) > 0)({figure})")) == true
    };
    let mut id = 500_000;
    eventually("what flows is told, both ways", || {
        write(&a, id, id + 5);
        write(&b, id + 5, id + 10);
        id += 10;
        ["applied from others", "published from here"].iter().all(|what| is_told(&mut browser, "flow", what))
    });
    assert_eq!(browser.eval("window.loaded"), "once");

    // By keyboard alone: the first stop leads to what matters, and the charts answer to the arrows.
    browser.press(Key::Tab);
    assert_eq!(browser.eval("document.activeElement.className"), "skip");
    browser.press(Key::Enter);
    browser.until("location.hash !== '' && document.querySelector(location.hash) !== null");
    browser.until(
        "(() => { const { top, bottom } = document.querySelector(location.hash).getBoundingClientRect(); \
         return bottom > 0 && top < innerHeight })()",
    );
    browser.press(Key::Tab);
    assert_eq!(browser.eval("document.activeElement.id"), "flow");
    browser.press(Key::ArrowLeft);
    browser.until("document.querySelector('#flow-key em') !== null");
    browser.eval("document.activeElement.blur()");

    let fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth";
    for (name, width, height, dark) in
        [("desk-light", 1280, 900, false), ("desk-dark", 1280, 900, true), ("phone-light", 390, 844, false)]
    {
        browser.look(width, height, dark);
        browser.until(fits);
        // The words and what is behind them are far apart, whichever of them is dark.
        let bright = |of: &str| {
            format!("getComputedStyle(document.body).{of}.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 3")
        };
        let [paper, ink] = ["backgroundColor", "color"].map(|of| browser.eval(&bright(of)).as_f64().unwrap());
        assert!(if dark { paper < 64.0 && ink > 160.0 } else { paper > 192.0 && ink < 96.0 }, "{name}: {paper} {ink}");
        take(&mut browser, &format!("page-{name}.png"));
    }

    // What is wrong stands at the top, in words, with what to do.
    a.sql("ALTER TABLE orders ADD COLUMN price; INSERT INTO orders VALUES (1, 1, 'soup', 4)");
    browser.look(390, 844, true);
    browser.until("document.getElementById('pill').textContent === 'not well'");
    browser.until(fits);
    eventually("it is told how far it is behind", || is_told(&mut browser, "lag", "not applied yet"));
    let wrong = text(&mut browser, "wrong");
    let said = wrong.to_lowercase();
    assert!(said.contains("shard 1 is paused") && said.contains("antiphon status"), "{wrong}");
    assert!(browser.eval("document.title").as_str().unwrap().starts_with('●'));
    take(&mut browser, "page-phone-dark.png");
    b.sql("ALTER TABLE orders ADD COLUMN price");
    browser.until("document.getElementById('pill').textContent === 'well'");

    // A name in the database is text, whatever it looks like.
    b.sql("CREATE TABLE \"<img src=x onerror=document.title='gone'>\" (id INTEGER PRIMARY KEY)");
    browser.until("document.getElementById('tables').innerText.includes('<img src=x')");
    assert_ne!(browser.eval("document.title"), "gone");
    assert_eq!(browser.complaints(), [""; 0], "nothing is missing, and no policy was in the way");

    // When the node is gone the page says so, and comes back with it.
    b.term();
    browser.until("document.getElementById('pill').textContent.startsWith('no answer since')");
}
