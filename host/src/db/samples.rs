//! Samples of what resolvers were asked and answered, for nodes to compare: every node has to be answered the same.
//!
//! Nothing depends on them. They are kept in memory, the latest of them are announced with where the node stands, and an
//! answer that differs from another node's is an alarm: the component doesn't only compute, or the machine is broken.

use super::Database;
use super::policy::{Answer, Decision};
use crate::log::{Announced, Difference, Sample, Shard};
use antiphon_core::codec::{digest, encode_row};
use antiphon_core::resolve::{Cause, Clash, Side, Verdict};
use antiphon_core::schema::Table;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Clashes of one question that are kept.
const SAMPLED: usize = 4;
/// Samples that are kept.
const LATEST_MAX: usize = 1_000;
/// Of every so many one is kept for longer, so that nodes which are not equally far have some in common.
const LANDMARK: u64 = 256;
const LANDMARKS_MAX: usize = 256;
/// Of each of the two so many are announced.
const ANNOUNCED: usize = 16;
/// Differences that are remembered: one a table and node.
const DIFFERENCES_MAX: usize = 16;

/// What was sampled, and what differed.
#[derive(Debug, Default)]
pub(super) struct Samples {
    latest: VecDeque<Kept>,
    landmarks: VecDeque<Kept>,
    differences: Vec<Difference>,
    /// How many were taken.
    taken: Arc<AtomicU64>,
}

#[derive(Clone, Debug)]
struct Kept {
    sample: Sample,
    table: String,
    policy: String,
}

impl Samples {
    fn keep(&mut self, kept: Kept) {
        let id = kept.sample.id();
        // A transaction that did not come to its end is tried again.
        let same = |known: &Kept| known.sample.id() == id;
        if let Some(known) = self.latest.iter_mut().rev().take(SAMPLED * 2).find(|known| same(known)) {
            *known = kept;
            return;
        }
        if kept.sample.of.is_multiple_of(LANDMARK) {
            push(&mut self.landmarks, kept.clone(), LANDMARKS_MAX);
        }
        push(&mut self.latest, kept, LATEST_MAX);
    }

    /// Compares another node's samples with those here; gives what is new.
    fn compare(&mut self, others: &[Announced]) -> Vec<Difference> {
        let here: BTreeMap<_, &Kept> =
            self.landmarks.iter().chain(&self.latest).map(|kept| (kept.sample.id(), kept)).collect();
        let mut found: Vec<Difference> = Vec::new();
        for Announced { member, .. } in others {
            for sample in &member.samples {
                let Some(kept) = here.get(&sample.id()) else { continue };
                let known = |difference: &Difference| difference.node == member.node && difference.table == kept.table;
                if kept.sample.asked == sample.asked
                    && kept.sample.said != sample.said
                    && !self.differences.iter().chain(&found).any(known)
                {
                    found.push(Difference {
                        node: member.node,
                        shard: sample.shard,
                        seq: sample.seq,
                        table: kept.table.clone(),
                        policy: kept.policy.clone(),
                    });
                }
            }
        }
        found.truncate(DIFFERENCES_MAX - self.differences.len().min(DIFFERENCES_MAX));
        self.differences.extend(found.iter().cloned());
        found
    }
}

fn push(kept: &mut VecDeque<Kept>, one: Kept, most: usize) {
    if kept.len() >= most {
        kept.pop_front();
    }
    kept.push_back(one);
}

/// Which of so many clashes of an entry are sampled: the same ones on all nodes that put them all at once.
pub(super) fn chosen(seq: u64, count: usize) -> impl Iterator<Item = usize> {
    let step = count.div_ceil(SAMPLED).max(1);
    let first = usize::try_from(seq % step as u64).unwrap_or(0);
    (first..count).step_by(step)
}

/// A clash as a sample, and what was answered.
pub(super) struct Asked<'a> {
    pub(super) shard: Shard,
    pub(super) seq: u64,
    /// As the resolver sees it.
    pub(super) table: &'a Table,
    pub(super) policy: &'a str,
    /// Whom the clash means by its numbers of nodes.
    pub(super) nodes: &'a [u64],
}

impl Asked<'_> {
    fn sample(&self, clash: &Clash, answer: &Answer) -> Sample {
        let mut asked = Vec::new();
        let mut text = |text: &str| {
            asked.extend(text.as_bytes());
            asked.push(0);
        };
        text(&self.table.name);
        for column in &self.table.columns {
            text(&column.name);
        }
        asked.extend(encode_row(&clash.key));
        let of = digest(&[&self.seq.to_le_bytes(), &asked[..]].concat());
        asked.push(u8::from(clash.cause == Cause::UniqueIndex));
        for Side { stamp, row } in [&clash.current, &clash.incoming] {
            let node = self.nodes.get(stamp.node as usize).copied().filter(|_| stamp.seq > 0).unwrap_or_default();
            for number in [node, stamp.clock, stamp.seq] {
                asked.extend(number.to_le_bytes());
            }
            asked.extend(row.as_ref().map(|row| encode_row(row)).unwrap_or_default());
            asked.push(u8::from(row.is_some()));
        }
        let said = match &answer.decision {
            Decision::Verdict(Verdict::Keep) => vec![0],
            Decision::Verdict(Verdict::Take) => vec![1],
            Decision::Verdict(Verdict::Remove) => vec![2],
            Decision::Parked(_) => vec![3],
            Decision::Verdict(Verdict::Merge(row)) => encode_row(row),
        };
        Sample { shard: self.shard, seq: self.seq, of, asked: digest(&asked), said: digest(&said) }
    }
}

impl Samples {
    /// Keeps some of these answers.
    pub(super) fn take(&mut self, asked: &Asked<'_>, clashes: &[Clash], answers: &[Answer]) {
        for at in chosen(asked.seq, clashes.len()) {
            if let (Some(clash), Some(answer)) = (clashes.get(at), answers.get(at)) {
                let sample = asked.sample(clash, answer);
                let (table, policy) = (asked.table.name.clone(), asked.policy.to_owned());
                self.keep(Kept { sample, table, policy });
                self.taken.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Database {
    /// Samples of what resolvers answered here, for others to compare with theirs.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        let Samples { latest, landmarks, .. } = &self.samples;
        let mut samples: Vec<Sample> = latest.iter().rev().take(ANNOUNCED).map(|kept| kept.sample).collect();
        let older = landmarks.iter().rev().map(|kept| kept.sample);
        let older: Vec<Sample> = older.filter(|sample| !samples.contains(sample)).take(ANNOUNCED).collect();
        samples.extend(older);
        samples
    }

    /// How many samples were taken, for whoever waits for more.
    #[must_use]
    pub fn sampled(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.samples.taken)
    }

    /// Where other nodes' resolvers answered otherwise than here.
    #[must_use]
    pub fn differences(&self) -> &[Difference] {
        &self.samples.differences
    }

    /// Compares what other members announced of their resolvers' answers with those here; gives what differs and was not
    /// known to.
    pub fn compare_samples(&mut self, members: &[Announced]) -> Vec<Difference> {
        let others: Vec<Announced> =
            members.iter().filter(|announced| announced.member.origin() != self.origin).cloned().collect();
        self.samples.compare(&others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Member;

    fn kept(seq: u64, said: u64) -> Kept {
        let sample = Sample { shard: 1, seq, of: seq * 256, asked: 7, said };
        Kept { sample, table: "t".to_owned(), policy: "mine".to_owned() }
    }

    fn announced(node: u64, samples: Vec<Sample>) -> Announced {
        Announced { member: Member { node, samples, ..Member::default() }, time: 0 }
    }

    #[test]
    fn an_answer_that_differs_is_told_once() {
        let mut here = Samples::default();
        (1..=5).for_each(|seq| here.keep(kept(seq, 1)));
        let same: Vec<Sample> = (1..=9).map(|seq| kept(seq, 1).sample).collect();
        assert_eq!(here.compare(&[announced(2, same.clone())]), []);
        let other: Vec<Sample> = (1..=9).map(|seq| kept(seq, 1 + seq / 4).sample).collect();
        let found = here.compare(&[announced(2, same), announced(3, other.clone())]);
        assert_eq!(found.iter().map(|found| (found.node, found.seq)).collect::<Vec<_>>(), [(3, 4)]);
        assert_eq!(here.compare(&[announced(3, other.clone())]), [], "once");
        // Where another thing was asked, another answer is none of the resolver's fault.
        let asked = other.into_iter().map(|sample| Sample { asked: 8, ..sample }).collect();
        assert_eq!(here.compare(&[announced(4, asked)]), []);
    }

    #[test]
    fn some_are_kept_for_longer() {
        let mut here = Samples::default();
        for seq in 1..=5_000 {
            let mut kept = kept(seq, 1);
            kept.sample.of = seq;
            here.keep(kept);
        }
        assert_eq!((here.latest.len(), here.latest[0].sample.seq), (LATEST_MAX, 4_001));
        assert_eq!((here.landmarks.len(), here.landmarks[0].sample.seq), (19, 256));
        // What is tried again is the same sample.
        here.keep(Kept { sample: Sample { of: 5_000, ..kept(5_000, 2).sample }, ..kept(5_000, 2) });
        assert_eq!(here.latest.iter().filter(|kept| kept.sample.seq == 5_000).count(), 1);
    }

    #[test]
    fn a_few_of_many_are_chosen_the_same_everywhere() {
        assert_eq!(chosen(5, 0).count(), 0);
        for count in 1..600 {
            let found: Vec<usize> = chosen(77, count).collect();
            assert!((1..=SAMPLED).contains(&found.len()), "{found:?} of {count}");
            assert_eq!(found, chosen(77, count).collect::<Vec<_>>());
        }
        assert_ne!(chosen(1, 500).next(), chosen(2, 500).next(), "not always the same place");
    }
}
