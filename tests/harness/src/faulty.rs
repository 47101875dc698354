//! A server that speaks HTTP badly, as a test tells it to.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request that came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// How it was asked.
    pub method: String,
    /// About what.
    pub path: String,
    /// Names in small letters, and values.
    pub headers: Vec<(String, String)>,
    /// What came with it.
    pub body: Vec<u8>,
}

impl Asked {
    /// A header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }
}

/// How an answer is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// As it should be.
    #[default]
    Whole,
    /// So many bytes of the body, and then the connection is closed.
    Cut(usize),
    /// So many bytes of the body, and then nothing more.
    Hangs(usize),
    /// Piece by piece, with a pause before each.
    Slowly(usize, Duration),
    /// The body again and again.
    Endless,
    /// Nothing at all, and the connection is closed.
    Nothing,
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// More headers, each with its line's end.
    pub headers: String,
    /// Its body.
    pub body: Vec<u8>,
    /// How it is sent.
    pub manner: Manner,
}

impl Answer {
    /// An answer with this status and body.
    pub fn of(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// Sent like this.
    #[must_use]
    pub fn sent(mut self, manner: Manner) -> Self {
        self.manner = manner;
        self
    }
}

type Reply = dyn Fn(&Asked) -> Answer + Send + Sync;

/// The server. It ends with this object.
pub struct Faulty {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    over: Arc<AtomicBool>,
}

impl Faulty {
    /// Starts a server that answers like this.
    pub fn start(reply: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::reading(Duration::ZERO, reply)
    }

    /// Starts a server that makes a pause after each quarter of a MiB that it reads, and answers like this.
    pub fn reading(pause: Duration, reply: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let server = Self { port, asked: Arc::clone(&asked), over: Arc::clone(&over) };
        let reply: Arc<Reply> = Arc::new(reply);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let (reply, asked, over) = (Arc::clone(&reply), Arc::clone(&asked), Arc::clone(&over));
                // What becomes of a connection is what the test is about.
                std::thread::spawn(move || stream.and_then(|stream| serve(stream, pause, &*reply, &asked, &over)));
            }
        });
        server
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(
    mut stream: TcpStream,
    pause: Duration,
    reply: &Reply,
    asked: &Mutex<Vec<Asked>>,
    over: &AtomicBool,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(()) };
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Asked { method, path, headers, body: Vec::new() };
    let length = request.header("content-length").parse().unwrap_or(0);
    request.body.resize(length, 0);
    for piece in request.body.chunks_mut(256 << 10) {
        reader.read_exact(piece)?;
        std::thread::sleep(pause);
    }
    asked.lock().unwrap().push(request.clone());
    let Answer { status, headers, body, manner } = reply(&request);
    if manner == Manner::Nothing {
        return Ok(());
    }
    let length = match manner {
        Manner::Endless => String::new(),
        _ => format!("content-length: {}\r\n", body.len()),
    };
    write!(stream, "HTTP/1.1 {status} so\r\n{headers}{length}connection: close\r\n\r\n")?;
    let empty = request.method == "HEAD";
    match manner {
        _ if empty => Ok(()),
        Manner::Whole | Manner::Nothing => stream.write_all(&body),
        Manner::Cut(bytes) => stream.write_all(&body[..bytes]),
        Manner::Hangs(bytes) => {
            stream.write_all(&body[..bytes])?;
            stream.flush()?;
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(())
        }
        Manner::Slowly(bytes, pause) => body.chunks(bytes).try_for_each(|piece| {
            std::thread::sleep(pause);
            stream.write_all(piece)
        }),
        Manner::Endless => loop {
            stream.write_all(&body)?;
        },
    }
}
