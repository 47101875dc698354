//! The keys of a folder in the order of their bytes, no more of it looked at than is asked for.

use std::ffi::OsStr;
use std::path::Path;
use std::{fs, io};

use super::bindings::antiphon::plugin::objects::Object;
use super::milliseconds;

/// The first `limit` objects whose keys begin with `prefix` and come after `after`.
pub(crate) fn list(root: &Path, prefix: &str, after: Option<&str>, limit: usize) -> io::Result<Vec<Object>> {
    let mut listing = Listing { prefix, after, limit, found: Vec::new() };
    listing.walk(root, "")?;
    Ok(listing.found)
}

/// What is known of the object at a path.
pub(crate) fn object(key: String, path: &Path) -> io::Result<Object> {
    let known = fs::metadata(path)?;
    if known.is_dir() {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(Object { key, size: known.len(), modified_ms: known.modified().ok().and_then(milliseconds), etag: None })
}

/// Whether a file lies beside its place, not yet an object.
pub(crate) fn is_aside(name: &OsStr) -> bool {
    name.to_str().is_none_or(|name| name.starts_with('~'))
}

struct Listing<'a> {
    prefix: &'a str,
    after: Option<&'a str>,
    limit: usize,
    found: Vec<Object>,
}

impl Listing<'_> {
    /// Goes through a folder whose keys begin with `above`, and says whether there is room for more.
    fn walk(&mut self, folder: &Path, above: &str) -> io::Result<bool> {
        let mut keys = Vec::new();
        let entries = match fs::read_dir(folder) {
            // It was emptied and removed meanwhile.
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(true),
            entries => entries?,
        };
        for entry in entries {
            let entry = match entry {
                // It got another name meanwhile, or was removed.
                Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
                entry => entry?,
            };
            let name = entry.file_name();
            if let Some(text) = name.to_str().filter(|_| !is_aside(&name)) {
                let kind = match entry.file_type() {
                    Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
                    kind => kind?,
                };
                // With the `/` a folder stands where its keys do: `a.b` and `a-b` come before `a/b`.
                if kind.is_dir() {
                    keys.push(format!("{above}{text}/"));
                } else if kind.is_file() {
                    keys.push(format!("{above}{text}"));
                }
            }
        }
        keys.retain(|key| self.may_hold(key));
        keys.sort_unstable();
        for key in keys {
            if self.found.len() >= self.limit {
                return Ok(false);
            }
            let name = key.get(above.len()..).unwrap_or_default().trim_end_matches('/');
            let path = folder.join(name);
            if key.ends_with('/') {
                if !self.walk(&path, &key)? {
                    return Ok(false);
                }
                continue;
            }
            match object(key, &path) {
                Ok(object) => self.found.push(object),
                // It was removed meanwhile.
                Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                Err(err) => return Err(err),
            }
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
