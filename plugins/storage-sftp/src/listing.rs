//! The keys of a folder in the order of their bytes, no more of it looked at than is asked for.

use crate::bindings::antiphon::plugin::objects::Object;
use crate::client::{Answer, Client, Flight, Handle};
use crate::fault::{Fault, code};
use crate::object::{look, remove};
use crate::packet::{Attributes, Packet, Sort, kind};

/// The longest key. What is deeper is no object.
const KEY_BYTES_MAX: usize = 400;
/// The most bytes of names that one folder may have.
const NAMES_BYTES_MAX: usize = 24 << 20;
/// How many parts of a listing are asked for at once.
const PARTS_AT_ONCE: usize = 4;

/// The first `limit` objects below `root` whose keys begin with `prefix` and come after `after`.
pub(crate) fn list(
    client: &mut Client,
    root: &str,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<Object>, Fault> {
    let mut listing = Listing { client, prefix, after, limit, found: Vec::new() };
    // What all keys have in common need not be looked for. No key has a part that leads elsewhere.
    let above = prefix.rfind('/').and_then(|at| prefix.get(..=at)).unwrap_or_default();
    let parts = above.strip_suffix('/').unwrap_or_default();
    if !above.is_empty() && parts.split('/').any(|part| ["", ".", ".."].contains(&part)) {
        return Ok(Vec::new());
    }
    let folder = if parts.is_empty() { root.to_owned() } else { join(root, parts) };
    listing.walk(&folder, above)?;
    Ok(listing.found)
}

/// A path below a folder.
pub(crate) fn join(folder: &str, name: &str) -> String {
    format!("{}/{name}", folder.trim_end_matches('/'))
}

/// What a folder holds; nothing if it is not there.
fn entries(client: &mut Client, folder: &str, keep: &dyn Fn(&str) -> bool) -> Result<Vec<(String, Attributes)>, Fault> {
    let handle = match client.handle(kind::OPENDIR, |packet| packet.text(folder)) {
        Err(fault) if fault.is(code::NO_SUCH_FILE) => return Ok(Vec::new()),
        handle => handle?,
    };
    let mut reading = Reading { folder: &handle, keep, ended: false, asked: 0, bytes: 0, entries: Vec::new() };
    let read = client.fly(&mut reading);
    let entries = reading.entries;
    if read.as_ref().is_err_and(Fault::ends_it) {
        return read.map(|()| entries);
    }
    match client.close(&handle) {
        Err(fault) if fault.ends_it() => Err(fault),
        _ => read.map(|()| entries),
    }
}

/// A folder that is being read.
struct Reading<'a> {
    folder: &'a Handle,
    keep: &'a dyn Fn(&str) -> bool,
    ended: bool,
    asked: usize,
    bytes: usize,
    entries: Vec<(String, Attributes)>,
}

impl Flight for Reading<'_> {
    type Tag = ();

    fn request(&mut self, number: u32, out: &mut Vec<u8>) -> Option<()> {
        if self.ended || self.asked >= PARTS_AT_ONCE {
            return None;
        }
        self.asked += 1;
        Packet::begin(out, kind::READDIR).number(number).bytes(&self.folder.0).end();
        Some(())
    }

    fn answer(&mut self, (): (), answer: Answer<'_>) -> Result<(), Fault> {
        self.asked -= 1;
        let mut rest = match answer.of(kind::NAME) {
            Err(fault) if fault.is(code::EOF) => {
                self.ended = true;
                return Ok(());
            }
            rest => rest?,
        };
        let count = rest.number()?;
        if count == 0 {
            // Whoever says nothing again and again has nothing more to say.
            self.ended = true;
        }
        for _ in 0..count {
            let (name, _long) = (rest.bytes()?, rest.bytes()?);
            let attributes = rest.attributes()?;
            // What no object can be called is none, and leads nowhere.
            let Ok(name) = std::str::from_utf8(name) else { continue };
            if name.contains(['/', '\0']) || ["", ".", ".."].contains(&name) || !(self.keep)(name) {
                continue;
            }
            self.bytes += name.len() + size_of::<(String, Attributes)>();
            if self.bytes > NAMES_BYTES_MAX {
                return Err(Fault::nonsense("a folder without end"));
            }
            self.entries.push((name.to_owned(), attributes));
        }
        Ok(())
    }
}

/// Whether a file lies beside its place, not yet an object.
fn is_aside(name: &str) -> bool {
    name.starts_with('~')
}

fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

struct Listing<'a> {
    client: &'a mut Client,
    prefix: &'a str,
    after: Option<&'a str>,
    limit: usize,
    found: Vec<Object>,
}

impl Listing<'_> {
    /// Goes through a folder whose keys begin with `above`, and says whether there is room for more.
    fn walk(&mut self, folder: &str, above: &str) -> Result<bool, Fault> {
        let mut keys = Vec::new();
        for (name, mut known) in entries(self.client, folder, &is_plain)? {
            if above.len() + name.len() > KEY_BYTES_MAX {
                continue;
            }
            // With the `/` a folder stands where its keys do: `a.b` and `a-b` come before `a/b`.
            let (file, below) = (format!("{above}{name}"), format!("{above}{name}/"));
            if !self.may_hold(&file) && !self.may_hold(&below) {
                continue;
            }
            if known.sort() == Sort::Unsaid || (known.sort() == Sort::File && known.size.is_none()) {
                known = match look(self.client, &join(folder, &name)) {
                    // It was removed meanwhile.
                    Err(fault) if fault.is(code::NO_SUCH_FILE) => continue,
                    known => known?,
                };
            }
            match known.sort() {
                Sort::Folder => keys.push((below, known)),
                Sort::File => keys.push((file, known)),
                Sort::Other | Sort::Unsaid => {}
            }
        }
        keys.retain(|(key, _)| self.may_hold(key));
        keys.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        // A server may say a name twice.
        keys.dedup_by(|(one, _), (other, _)| one == other);
        for (key, known) in keys {
            if self.found.len() >= self.limit {
                return Ok(false);
            }
            if key.ends_with('/') {
                let name = key.get(above.len()..).unwrap_or_default().trim_end_matches('/');
                if !self.walk(&join(folder, name), &key)? {
                    return Ok(false);
                }
                continue;
            }
            self.found.push(Object {
                key,
                size: known.size.unwrap_or_default(),
                modified_ms: known.modified.map(|seconds| u64::from(seconds) * 1000),
                etag: None,
            });
        }
        Ok(true)
    }

    /// Whether a key is asked for, or one below a folder can be.
    fn may_hold(&self, key: &str) -> bool {
        let below = key.ends_with('/');
        let begins = key.starts_with(self.prefix) || (below && self.prefix.starts_with(key));
        begins && self.after.is_none_or(|after| key > after || (below && after.starts_with(key)))
    }
}

/// Removes what those left behind who were cut off, if it was last written before then, in seconds since 1970.
pub(crate) fn sweep(client: &mut Client, folder: &str, before: u32, depth: usize) -> Result<(), Fault> {
    if depth > KEY_BYTES_MAX / 2 {
        return Ok(());
    }
    for (name, known) in entries(client, folder, &|name| is_aside(name) || is_plain(name))? {
        let path = join(folder, &name);
        if known.sort() == Sort::Folder {
            sweep(client, &path, before, depth + 1)?;
        } else if is_aside(&name) && known.modified.is_some_and(|modified| modified < before) {
            match remove(client, &path) {
                Err(fault) if !fault.is(code::NO_SUCH_FILE) => return Err(fault),
                _ => {}
            }
        }
    }
    Ok(())
}
