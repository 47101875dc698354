//! What streams, subjects and buckets are called.

use crate::log::{Sender, Shard};
use antiphon_core::entry::Origin;

/// The two prefixes that all names of a log are made from.
#[derive(Clone, Debug)]
pub struct Names {
    /// Of subjects.
    pub subject_prefix: String,
    /// Of streams and buckets.
    pub stream_prefix: String,
}

impl Names {
    pub(super) fn stream(&self, shard: Shard) -> String {
        format!("{}-{shard}", self.stream_prefix)
    }

    pub(super) fn subjects(&self, shard: Shard) -> String {
        format!("{}-{shard}.>", self.subject_prefix)
    }

    /// Where an origin publishes. The server lets it be published to by whom its permissions name.
    pub(super) fn subject(&self, shard: Shard, origin: Origin) -> String {
        format!("{}-{shard}.{}.{}", self.subject_prefix, origin.node, origin.incarnation)
    }

    /// Where the first entry of a shard is published, which is any node's to write.
    pub(super) fn begin(&self, shard: Shard) -> String {
        format!("{}-{shard}.begin", self.subject_prefix)
    }

    /// Whose subject this is; nobody's if it is that of a shard's first entry.
    pub(super) fn origin(subject: &str) -> Option<Origin> {
        let mut tokens = subject.rsplit('.');
        let incarnation = tokens.next()?.parse().ok()?;
        let node = tokens.next()?.parse().ok()?;
        Some(Origin { node, incarnation })
    }

    /// Who must have sent a message to this subject: the server lets nobody else.
    pub(super) fn sender(subject: &str) -> Sender {
        Self::origin(subject).map_or(Sender::Anyone, Sender::Origin)
    }

    pub(super) fn bucket(&self) -> String {
        format!("{}-kv", self.stream_prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_says_whose_it_is() {
        let names = Names { subject_prefix: "app.log".to_owned(), stream_prefix: "app".to_owned() };
        let origin = Origin { node: 7, incarnation: u64::MAX };
        let subject = names.subject(3, origin);
        assert_eq!(subject, "app.log-3.7.18446744073709551615");
        assert_eq!(Names::origin(&subject), Some(origin));
        assert_eq!(Names::origin(&names.begin(3)), None);
    }
}
