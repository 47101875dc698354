//! The server of `shelf-store`: keeps objects in memory, for whoever connects. Build it with `rustc -O server.rs`.
//!
//! A request is a line of words, and the bytes of an object behind it; an answer is a line, and what it announces.
//!
//! | request | answers |
//! |---|---|
//! | `put KEY LENGTH replace`, or `absent`, then the bytes | `ok`, `exists` |
//! | `get KEY OFFSET LENGTH`, or `-` for all that is left | `ok LENGTH`, then the bytes; `missing` |
//! | `stat KEY` | `ok SIZE MILLISECONDS`, `missing` |
//! | `list LIMIT =PREFIX =AFTER` | `ok COUNT`, then lines of `SIZE MILLISECONDS KEY` |
//! | `delete KEY` | `ok` |

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Bound;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

const OBJECT_BYTES_MAX: usize = 32 << 20;
const LINE_BYTES_MAX: u64 = 2048;

/// Objects by key: their bytes, and when they came, in milliseconds since 1970.
type Shelf = Arc<Mutex<BTreeMap<String, (Arc<Vec<u8>>, u128)>>>;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9130".to_owned());
    let listener = TcpListener::bind(&address)?;
    println!("shelf at {}", listener.local_addr()?);
    let shelf = Shelf::default();
    for client in listener.incoming() {
        let (client, shelf) = (client?, Arc::clone(&shelf));
        std::thread::spawn(move || {
            if let Err(error) = serve(&client, &shelf) {
                eprintln!("a client is gone: {error}");
            }
        });
    }
    Ok(())
}

fn serve(client: &TcpStream, shelf: &Shelf) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (mut from, mut to) = (BufReader::new(client), BufWriter::new(client));
    loop {
        let mut line = String::new();
        if (&mut from).take(LINE_BYTES_MAX).read_line(&mut line)? == 0 {
            return Ok(());
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match answer(&words, &mut from, &mut to, shelf) {
            Some(done) => done?,
            None => return Err(io::Error::other("that is no request")),
        }
        to.flush()?;
    }
}

/// Does what is asked; none if that is nothing.
fn answer(words: &[&str], from: &mut impl Read, to: &mut impl Write, shelf: &Shelf) -> Option<io::Result<()>> {
    Some(match words {
        ["put", key, length, how] => {
            let length = length.parse().ok().filter(|length| *length <= OBJECT_BYTES_MAX)?;
            let mut body = vec![0; length];
            if let Err(error) = from.read_exact(&mut body) {
                return Some(Err(error));
            }
            let mut shelf = shelf.lock().ok()?;
            if *how == "absent" && shelf.contains_key(*key) {
                return Some(writeln!(to, "exists"));
            }
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis());
            shelf.insert((*key).to_owned(), (Arc::new(body), now));
            writeln!(to, "ok")
        }
        ["get", key, offset, length] => {
            let found = shelf.lock().ok()?.get(*key).map(|(body, _)| Arc::clone(body));
            let Some(body) = found else { return Some(writeln!(to, "missing")) };
            let begin = offset.parse::<usize>().ok()?.min(body.len());
            let length = if *length == "-" { usize::MAX } else { length.parse().ok()? };
            let part = &body[begin..begin.saturating_add(length).min(body.len())];
            writeln!(to, "ok {}", part.len()).and_then(|()| to.write_all(part))
        }
        ["stat", key] => match shelf.lock().ok()?.get(*key) {
            Some((body, at)) => writeln!(to, "ok {} {at}", body.len()),
            None => writeln!(to, "missing"),
        },
        ["list", limit, prefix, after] => {
            let limit = limit.parse().ok()?;
            let (prefix, after) = (prefix.strip_prefix('=')?, after.strip_prefix('=')?);
            let from = if after >= prefix { Bound::Excluded(after) } else { Bound::Included(prefix) };
            let shelf = shelf.lock().ok()?;
            let found = shelf.range::<str, _>((from, Bound::Unbounded));
            let found: Vec<_> = found.take_while(|(key, _)| key.starts_with(prefix)).take(limit).collect();
            let listed = found.iter().map(|(key, (body, at))| format!("{} {at} {key}\n", body.len()));
            write!(to, "ok {}\n{}", found.len(), listed.collect::<String>())
        }
        ["delete", key] => {
            shelf.lock().ok()?.remove(*key);
            writeln!(to, "ok")
        }
        _ => return None,
    })
}
