//! The members of folders, and of all of them the keys in the order of their bytes, no more looked at than is asked for.

use http_client::{Error, Kind, Object, is_name, seconds};
use opendal_core::Buffer;
use opendal_core::raw::percent_decode_path;

use crate::multistatus::{self, Member};
use crate::{Ask, Session};

/// What is asked of a resource.
const WANTED: &str = concat!(
    r#"<?xml version="1.0" encoding="utf-8"?><D:propfind xmlns:D="DAV:"><D:prop><D:resourcetype/>"#,
    "<D:getcontentlength/><D:getlastmodified/><D:getetag/></D:prop></D:propfind>"
);

/// Something in a folder.
pub(crate) struct Entry {
    /// Its key; that of a folder ends with `/`.
    pub(crate) key: String,
    pub(crate) folder: bool,
    pub(crate) object: Object,
}

impl Session {
    /// What is known of what is at a key, if anything is there.
    pub(crate) fn look(&self, what: &str, key: &str) -> Result<Option<Entry>, Error> {
        let Some(members) = self.members(what, key, "0")? else { return Ok(None) };
        Ok(members.into_iter().next().map(|member| entry(key.to_owned(), &member)))
    }

    /// What is in a folder, in the order of keys; nothing if there is no such folder.
    pub(crate) fn folder(&self, what: &str, folder: &str) -> Result<Vec<Entry>, Error> {
        let Some(members) = self.members(what, folder, "1")? else { return Ok(Vec::new()) };
        let paths: Vec<String> = members.iter().map(|member| path(&member.href)).collect();
        // A server behind another may know itself by another path; the folder is the one that all others begin with.
        let expected = self.place.path(folder);
        let own = match paths.iter().any(|path| path.trim_end_matches('/') == expected.trim_end_matches('/')) {
            true => expected.trim_end_matches('/'),
            false => {
                paths.iter().map(|path| path.trim_end_matches('/')).min_by_key(|path| path.len()).unwrap_or_default()
            }
        };
        let mut entries: Vec<Entry> = Vec::new();
        for (member, path) in members.iter().zip(&paths) {
            let Some(rest) = path.strip_prefix(own).and_then(|rest| rest.strip_prefix('/')) else { continue };
            let name = rest.trim_end_matches('/');
            if name.is_empty() || name.contains('/') {
                continue;
            }
            let slash = if member.folder { "/" } else { "" };
            entries.push(entry(format!("{folder}{name}{slash}"), member));
        }
        entries.sort_by(|one, other| one.key.cmp(&other.key));
        entries.dedup_by(|one, other| one.key == other.key);
        Ok(entries)
    }

    fn members(&self, what: &str, key: &str, depth: &str) -> Result<Option<Vec<Member>>, Error> {
        let request = self.place.request("PROPFIND", key).header("depth", depth);
        let request = request.header("content-type", "application/xml");
        let answer = self.send(what, request, Buffer::from(WANTED), Ask::Look)?;
        match answer.status().as_u16() {
            404 => Ok(None),
            // A path that leads through a file is nonsense to some servers, and the path of nothing to us.
            400 if self.leads_through_a_file(what, key)? => Ok(None),
            207 => {
                let told = String::from_utf8_lossy(answer.body());
                multistatus::read(&told).map(Some).map_err(|why| Error {
                    // What was cut off comes whole another time; what is nonsense stays so.
                    kind: if why.contains("middle") { Kind::Temporary } else { Kind::Permanent },
                    message: format!("cannot {what}: what the server lists can't be read: {why}"),
                    retry_after_ms: None,
                })
            }
            status => Err(Error {
                kind: Kind::Permanent,
                message: format!("cannot {what}: what is answered there is no WebDAV (status {status}); see `url`"),
                retry_after_ms: None,
            }),
        }
    }

    fn leads_through_a_file(&self, what: &str, key: &str) -> Result<bool, Error> {
        let Some((above, _)) = key.trim_end_matches('/').rsplit_once('/') else { return Ok(false) };
        let found = self.look(what, above)?;
        Ok(found.is_none_or(|entry| !entry.folder))
    }

    /// Adds the keys in a folder that are wanted to `found`, those in folders within it too, until there are enough.
    pub(crate) fn walk(
        &self,
        what: &str,
        folder: &str,
        wanted: &Wanted<'_>,
        found: &mut Vec<Object>,
    ) -> Result<(), Error> {
        for entry in self.folder(what, folder)? {
            if found.len() >= wanted.limit {
                return Ok(());
            }
            let key = &entry.key;
            if entry.folder {
                if is_name(key.trim_end_matches('/')) && wanted.may_be_below(key) {
                    self.walk(what, key, wanted, found)?;
                }
            } else if is_name(key) && wanted.is(key) {
                found.push(entry.object);
            }
        }
        Ok(())
    }
}

/// Which keys.
pub(crate) struct Wanted<'a> {
    pub(crate) prefix: &'a str,
    pub(crate) after: Option<&'a str>,
    pub(crate) limit: usize,
}

impl Wanted<'_> {
    fn is(&self, key: &str) -> bool {
        key.starts_with(self.prefix) && self.after.is_none_or(|after| key > after)
    }

    /// Whether a folder may hold any of them.
    fn may_be_below(&self, folder: &str) -> bool {
        let begins = folder.starts_with(self.prefix) || self.prefix.starts_with(folder);
        begins && self.after.is_none_or(|after| folder > after || after.starts_with(folder))
    }
}

/// The path of a resource, decoded; some servers write whole addresses.
fn path(href: &str) -> String {
    let path = match href.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| rest.split_at(at).1),
        None => href,
    };
    percent_decode_path(path)
}

fn entry(key: String, member: &Member) -> Entry {
    let modified = member.modified.as_deref().and_then(seconds).and_then(|at| u64::try_from(at).ok());
    let object = Object {
        key: key.clone(),
        size: member.size,
        modified_ms: modified.map(|at| at.saturating_mul(1000)),
        etag: member.etag.clone(),
    };
    Entry { key, folder: member.folder, object }
}
