//! What a server says of the members of a folder: the XML of a multistatus, read piece by piece.
//!
//! Nothing is expanded but the five entities that XML has by itself, a document type is refused, and what nests deeper
//! than any server's answer is, too. So an answer is never more than the bytes that it came as.

use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::Event;

/// How deep elements are within each other at most; those of a multistatus are six.
const DEPTH_MAX: usize = 32;

/// What is known of a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its path on the server, as it was written.
    pub(crate) href: String,
    pub(crate) folder: bool,
    pub(crate) size: u64,
    /// As HTTP writes dates.
    pub(crate) modified: Option<String>,
    pub(crate) etag: Option<String>,
}

/// Which resources an answer tells of. The text of an error says what is wrong with it.
pub(crate) fn read(xml: &str) -> Result<Vec<Member>, String> {
    let mut reader = Reader::from_str(xml);
    reader.config_mut().expand_empty_elements = true;
    let mut members = Vec::new();
    let (mut member, mut found, mut good) = (Member::default(), Member::default(), true);
    let (mut text, mut depth, mut any) = (String::new(), 0_usize, false);
    loop {
        match reader.read_event().map_err(|error| error.to_string())? {
            Event::Start(start) => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(format!("its elements are more than {DEPTH_MAX} deep"));
                }
                text.clear();
                match start.local_name().into_inner() {
                    "multistatus" => any = true,
                    "response" => member = Member::default(),
                    "propstat" => (found, good) = (Member::default(), true),
                    "collection" => found.folder = true,
                    _ => {}
                }
            }
            Event::End(end) => {
                depth = depth.saturating_sub(1);
                let said = text.trim();
                match end.local_name().into_inner() {
                    "href" if member.href.is_empty() => said.clone_into(&mut member.href),
                    "getcontentlength" => found.size = said.parse().unwrap_or_default(),
                    "getlastmodified" => found.modified = Some(said.to_owned()),
                    "getetag" => found.etag = Some(said.to_owned()),
                    // Of properties that it doesn't have, a server says so.
                    "status" => good = said.split(' ').nth(1) == Some("200"),
                    "propstat" if good => {
                        let href = std::mem::take(&mut member.href);
                        member = Member { href, ..std::mem::take(&mut found) };
                    }
                    "response" if !member.href.is_empty() => members.push(std::mem::take(&mut member)),
                    _ => {}
                }
                text.clear();
            }
            Event::Text(piece) => text.push_str(&piece.xml10_content()),
            Event::CData(piece) => text.push_str(&piece.xml10_content()),
            Event::GeneralRef(reference) => {
                let sign = reference.resolve_char_ref().map_err(|error| error.to_string())?;
                match sign {
                    Some(sign) => text.push(sign),
                    None => {
                        let name = reference.into_inner();
                        let meant = resolve_xml_entity(&name);
                        text.push_str(meant.ok_or("it has entities of its own, which are not expanded")?);
                    }
                }
            }
            Event::DocType(_) => return Err("it has a document type, which no multistatus has".to_owned()),
            Event::Eof if depth > 0 => return Err("it ends in the middle".to_owned()),
            Event::Eof if any => return Ok(members),
            Event::Eof => return Err("it is no multistatus".to_owned()),
            _ => {}
        }
    }
}
