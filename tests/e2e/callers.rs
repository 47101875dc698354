//! X09: those who call at a node's pages and mean no good: very many, slow ones, and such as say too much.

use antiphon_harness::health::{at, is_well, serving};
use antiphon_harness::http::get;
use antiphon_harness::{Site, eventually};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::place;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, v);";
const CALLERS: usize = 1_000;

fn node(place: &antiphon_harness::Place) -> (Site, SocketAddr) {
    let mut a = serving(place.site("a", TABLE));
    a.start();
    is_well(&a);
    let health = at(&a, "health");
    (a, health)
}

/// What comes back to this, up to the end of the connection; nothing if there is no answer.
fn answered(mut stream: TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut text = Vec::new();
    let mut some = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut some) {
        text.extend_from_slice(&some[..read]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// A thousand at once that say their first lines letter by letter: who asks is answered, each time, and the node works.
#[test]
fn x09_a_thousand_slow_callers_keep_nobody_away() {
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).unwrap();
    let place = place();
    let (a, health) = node(&place);
    let mut slow: Vec<TcpStream> = (0..CALLERS).map(|_| TcpStream::connect(health).unwrap()).collect();
    let open = || std::fs::read_dir(format!("/proc/{}/fd", a.pid())).unwrap().count();
    for letter in b"GET /health HTTP/1.1\r\nHost" {
        for stream in &mut slow {
            // It may have been shown the door already.
            let _ = stream.write_all(&[*letter]);
        }
        assert_eq!(get(health, "/health").status, 200);
        assert!(open() < 200, "{} files are open", open());
    }
    a.sql("INSERT INTO t VALUES (1, 'x')");
    eventually("it is replicated all the same", || a.is_quiet());
    assert_eq!(get(health, "/livez").status, 200);
}

/// First lines of more than 16 KiB: refused, by their number of bytes, in one line or in many, and whatever they are.
#[test]
fn x09_first_lines_that_are_too_long_are_refused() {
    let place = place();
    let (_a, health) = node(&place);
    let long = "x".repeat(20 << 10);
    let many: String = (0..1_500).map(|number| format!("X-{number}: some words\r\n")).collect();
    for head in [
        format!("GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: {long}\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"),
        format!("{long}{long}"),
    ] {
        let mut stream = TcpStream::connect(health).unwrap();
        // It may be shown the door before it has said all.
        let _ = stream.write_all(head.as_bytes());
        let answer = answered(stream);
        let status = answer.split_whitespace().nth(1).unwrap_or_default();
        assert!(["", "400", "414", "431"].contains(&status), "{answer}");
        assert_eq!(get(health, "/health").status, 200);
    }
}

/// A body that comes byte by byte is not waited for: nobody wants one, and the connection ends.
#[test]
fn x09_a_slow_body_is_not_waited_for() {
    let place = place();
    let (_a, health) = node(&place);
    for method in ["GET", "POST"] {
        let mut stream = TcpStream::connect(health).unwrap();
        write!(stream, "{method} /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n").unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).unwrap();
        let expected = if method == "GET" { "HTTP/1.1 200" } else { "HTTP/1.1 405" };
        assert_eq!(String::from_utf8_lossy(&first), expected);
        eventually("the connection ends", || {
            std::thread::sleep(Duration::from_millis(100));
            stream.write_all(b"x").is_err()
        });
        assert_eq!(get(health, "/health").status, 200);
    }
}
