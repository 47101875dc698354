//! HTTP as spoken by hand: what a server answers, byte for byte, and a receiver that can be told to fail.

use crate::planted;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The value of a header, if there is one.
    pub fn header(&self, name: &str) -> Option<&str> {
        let line = self.head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
        line.and_then(|line| Some(line.split_once(':')?.1.trim()))
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Asks with this method and under this name.
pub fn ask(at: SocketAddr, method: &str, path: &str, host: &str) -> Answer {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = Vec::new();
    stream.read_to_end(&mut text).unwrap();
    planted::look(&format!("the answer to {method} {path}"), "pages", &text);
    let text = String::from_utf8_lossy(&text).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// Asks for a path.
pub fn get(at: SocketAddr, path: &str) -> Answer {
    ask(at, "GET", path, &at.to_string())
}

/// The first of the news that a node sends as long as anybody listens.
pub fn news(at: SocketAddr) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET /events HTTP/1.1\r\nHost: {at}\r\n\r\n").unwrap();
    let mut text = String::new();
    let mut reader = BufReader::new(stream);
    // The last minutes at first, and then the moment.
    while text.matches("\ndata: ").count() < 2 || !text.ends_with("\n\n") {
        let read = reader.read_line(&mut text).unwrap();
        assert!(read > 0, "the news end with: {text}");
    }
    planted::look("news of a node", "pages", &text);
    text
}

/// Who is told things by POST.
#[derive(Clone, Debug)]
pub struct Receiver {
    at: SocketAddr,
    /// Whole requests, heads and bodies.
    got: Arc<Mutex<Vec<(String, String)>>>,
    /// So many of the next are answered with 500.
    fails: Arc<AtomicU32>,
}

impl Receiver {
    /// One that takes all it gets.
    #[expect(clippy::new_without_default, reason = "it listens from here on")]
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let receiver = Self { at: listener.local_addr().unwrap(), got: Arc::default(), fails: Arc::default() };
        let mine = receiver.clone();
        // It ends with the process: tests are short.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                mine.take(stream);
            }
        });
        receiver
    }

    fn take(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        loop {
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap_or(0);
                }
                if line == "\r\n" {
                    break;
                }
                head.push_str(&line);
            }
            let mut body = vec![0; length];
            if reader.read_exact(&mut body).is_err() {
                return;
            }
            let fails = self.fails.load(Ordering::Relaxed);
            let status = if fails > 0 { "500 Internal Server Error" } else { "204 No Content" };
            self.fails.store(fails.saturating_sub(1), Ordering::Relaxed);
            planted::look("what a webhook was told", "alerts", &body);
            if fails == 0 {
                self.got.lock().unwrap().push((head, String::from_utf8_lossy(&body).into_owned()));
            }
            if write!(reader.get_mut(), "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").is_err() {
                return;
            }
        }
    }

    /// Where it is, with a secret in it.
    pub fn address(&self, path: &str) -> String {
        format!("http://{}{path}?token={}", self.at, planted::named("TOKEN_OF_A_WEBHOOK"))
    }

    /// Fails at the next few.
    pub fn fail(&self, times: u32) {
        self.fails.store(times, Ordering::Relaxed);
    }

    /// Whether all that was to fail has.
    pub fn has_failed(&self) -> bool {
        self.fails.load(Ordering::Relaxed) == 0
    }

    /// The heads of what it took.
    pub fn heads(&self) -> Vec<String> {
        self.got.lock().unwrap().iter().map(|(head, _)| head.clone()).collect()
    }

    /// What it took.
    pub fn bodies(&self) -> Vec<serde_json::Value> {
        self.got.lock().unwrap().iter().map(|(_, body)| serde_json::from_str(body).unwrap()).collect()
    }
}
