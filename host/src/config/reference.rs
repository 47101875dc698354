//! The configuration as a page of the guide, made from the declarations of the tables.

use std::fmt::Write as _;

use super::SECTIONS;
use super::section::{Key, Kind, Section};
use crate::pages::row;

const HEAD: &str = "\
# Configuration

Made from the declarations in `host/src/config/`, with which a test compares it; `antiphon config example` prints the same
as a file to begin with, and `antiphon config show` what a node has.

A setting comes from a flag, else from the environment, else from the file that `--config` names, else from its default. In
the environment `shards` of `[replication_log]` is `ANTIPHON_REPLICATION_LOG__SHARDS`: two underscores for each dot. Relative
paths are relative to the file. A name that is unknown is refused, with the one that was probably meant. Times are in
milliseconds unless their name says otherwise; an amount of bytes is a number or a text as `\"64 MiB\"`. A secret is best
written as `\"${file:/run/secrets/name}\"` or `\"${env:NAME}\"`; none is ever shown.
";

/// The page.
#[must_use]
pub(super) fn page() -> String {
    let mut page = HEAD.to_owned();
    for section in SECTIONS {
        let _ = writeln!(page, "\n## {}\n", header(section));
        for line in section.about {
            let _ = writeln!(page, "{}", line.trim());
        }
        page.push_str("\n| key | what stands there | default | meaning |\n|---|---|---|---|\n");
        for key in section.keys {
            let about = key.about.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
            row(&mut page, &[&format!("`{}`", key.name()), key.kind.name(), &default(section, key), &about]);
        }
    }
    page
}

fn header(section: &Section) -> String {
    match section.path.strip_suffix("[]") {
        _ if section.path.is_empty() => "At the top".to_owned(),
        Some(path) => format!("`[[{path}]]`"),
        None => format!("`[{}]`", section.path.replace('*', "NAME")),
    }
}

fn default(section: &Section, key: &Key) -> String {
    match (section.defaults)().get(key.name()) {
        _ if key.kind == Kind::Free => "`{}`".to_owned(),
        Some(default) => format!("`{default}`"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_of_the_guide_is_the_declarations() {
        crate::pages::compare("configuration.md", &super::page());
    }
}
