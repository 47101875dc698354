//! Who archives a shard, and since when.
//!
//! Whoever begins to archive says up to where the archive counts; what others store behind that place under an earlier term
//! does not, for the log may have lost it since. Between his look at the archive and his word somebody else may have stored
//! something, and the log may have been cut because of it: then nobody would have it. So he says that he is about to look
//! before he does, and while that is open nothing is cut or pruned that only the archive of before holds. Of somebody who
//! died meanwhile the claim is taken back after a while; and if he only stood still, his term does not count.

use super::archive::Archive;
use super::repo::Repo;
use super::stored;
use crate::failure::{Failure, Kind};
use antiphon_core::snapshot::layout::{Claim, Object, Term};
use std::collections::BTreeSet;

/// How long a claim may be open.
const PATIENCE_MS: u64 = 15 * 60 * 1000;

/// What was said of who archives.
#[derive(Clone, Debug, Default)]
pub(super) struct Succession {
    /// Terms that count.
    pub(super) terms: BTreeSet<Term>,
    /// Claims that have not led to a term.
    open: Vec<Claim>,
}

impl Repo<'_> {
    /// Who archives the shards, and who is about to.
    pub(super) fn succession(&self) -> Result<Succession, Failure> {
        let term = |object| if let Object::Term(term) = object { Some(term) } else { None };
        let terms: Vec<Term> = self.objects("term/")?.into_iter().filter_map(|(_, object, _)| term(object)).collect();
        // Asked later: the claim of each of these was there before.
        let claim = |object| if let Object::Claim(claim) = object { Some(claim) } else { None };
        let claims: Vec<Claim> =
            self.objects("term/")?.into_iter().filter_map(|(_, object, _)| claim(object)).collect();
        let led_to =
            |claim: &Claim, term: &Term| (term.epoch, term.shard, term.term) == (claim.epoch, claim.shard, claim.term);
        Ok(Succession {
            open: claims.iter().filter(|claim| !terms.iter().any(|term| led_to(claim, term))).copied().collect(),
            terms: terms.into_iter().filter(|term| claims.iter().any(|claim| led_to(claim, term))).collect(),
        })
    }

    /// Says that this node is about to archive a shard; to be called before it looks how far that is archived.
    pub(super) fn claim(&self, epoch: u64, shard: u32, node: u64) -> Result<Claim, Failure> {
        let succession = self.succession()?;
        let of_shard = |claim: &&Claim| (claim.epoch, claim.shard) == (epoch, shard);
        let open: Vec<&Claim> = succession.open.iter().filter(of_shard).collect();
        for earlier in open.iter().filter(|claim| Term::is_of(claim.term, node)) {
            self.take_back(earlier)?;
        }
        let highest = open.iter().map(|claim| claim.term).chain([succession.highest(epoch, shard)]).max();
        let term = Term::after(highest.unwrap_or(0), node);
        let claim = Claim { epoch, shard, term, at_ms: crate::clock::unix_ms() };
        fault!("archive-claim");
        self.say(&Object::Claim(claim), b"{}")?;
        Ok(claim)
    }

    /// Says that who claimed it archives behind this place; the term's number.
    pub(super) fn begin_term(&self, claim: Claim, after: u64) -> Result<u64, Failure> {
        let Claim { epoch, shard, term, .. } = claim;
        let begun = Term { epoch, shard, term, after };
        fault!("archive-term");
        self.say(&Object::Term(begun), b"{}")?;
        if self.succession()?.terms.contains(&begun) {
            return Ok(term);
        }
        Err(Failure::new(Kind::Busy, format!("it took too long to see how far shard {shard} is archived"))
            .hint("it is tried again; if it stays so, compare the clocks of the nodes"))
    }

    /// Shards of whose archive it may be said at any moment that its end does not count: nothing may go that only that end
    /// holds. What is known of the archive must have been looked at before.
    pub(super) fn unsettled(&self, archive: &Archive) -> Result<BTreeSet<(u64, u32)>, Failure> {
        let now = self.succession()?;
        let limit = crate::clock::unix_ms().saturating_sub(PATIENCE_MS);
        for dead in now.open.iter().filter(|claim| claim.at_ms < limit) {
            tracing::warn!(
                shard = dead.shard,
                "somebody was about to archive this shard and never did; it is taken back"
            );
            self.take_back(dead)?;
        }
        let changed = now.terms.symmetric_difference(&archive.terms).map(|term| (term.epoch, term.shard));
        Ok(now.open.iter().map(|claim| (claim.epoch, claim.shard)).chain(changed).collect())
    }

    fn take_back(&self, claim: &Claim) -> Result<(), Failure> {
        let name = self.name(&Object::Claim(*claim))?;
        self.store().delete(&[name]).map_err(|error| stored("cannot take back a claim to archive", &error))
    }
}

impl Succession {
    /// The highest term of a shard; 0 if there was none.
    fn highest(&self, epoch: u64, shard: u32) -> u64 {
        let of = self.terms.iter().filter(|term| (term.epoch, term.shard) == (epoch, shard));
        of.map(|term| term.term).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::segment::tests::Small;
    use super::*;

    fn at(term: u64, after: u64) -> Term {
        Term { epoch: 3, shard: 1, term, after }
    }

    #[test]
    fn a_term_counts_from_its_claim_on() {
        let store = Small::default();
        let repo = Repo::new(&store, "c0ffee");
        let before = repo.archive().unwrap();
        assert!(repo.unsettled(&before).unwrap().is_empty());
        let claim = repo.claim(3, 1, 7).unwrap();
        assert_eq!(repo.unsettled(&before).unwrap(), BTreeSet::from([(3, 1)]));
        assert!(repo.archive().unwrap().terms.is_empty(), "it says nothing yet");
        let term = repo.begin_term(claim, 5).unwrap();
        assert_eq!(repo.archive().unwrap().terms, BTreeSet::from([at(term, 5)]));
        assert_eq!(repo.unsettled(&before).unwrap(), BTreeSet::from([(3, 1)]), "what was known is not true any more");
        assert!(repo.unsettled(&repo.archive().unwrap()).unwrap().is_empty());
        let next = repo.claim(3, 1, 8).unwrap();
        assert!(next.term > term);
        assert!(repo.claim(3, 1, 9).unwrap().term > next.term, "of two at once one is the later");
    }

    #[test]
    fn who_claims_again_was_not_to_go_on_with_the_first() {
        let store = Small::default();
        let repo = Repo::new(&store, "c0ffee");
        let first = repo.claim(3, 1, 7).unwrap();
        let second = repo.claim(3, 1, 7).unwrap();
        assert!(repo.begin_term(first, 5).unwrap_err().to_string().contains("took too long"));
        assert!(repo.archive().unwrap().terms.is_empty());
        repo.begin_term(second, 5).unwrap();
        assert!(repo.unsettled(&repo.archive().unwrap()).unwrap().is_empty());
    }

    #[test]
    fn a_claim_of_the_dead_is_taken_back() {
        let store = Small::default();
        let repo = Repo::new(&store, "c0ffee");
        let claim = Claim { at_ms: crate::clock::unix_ms() - PATIENCE_MS - 1, ..repo.claim(3, 1, 7).unwrap() };
        repo.say(&Object::Claim(claim), b"{}").unwrap();
        repo.take_back(&repo.succession().unwrap().open.iter().find(|open| **open != claim).copied().unwrap()).unwrap();
        let archive = repo.archive().unwrap();
        assert_eq!(repo.unsettled(&archive).unwrap(), BTreeSet::from([(3, 1)]));
        assert!(repo.unsettled(&archive).unwrap().is_empty());
        // It only stood still.
        repo.begin_term(claim, 5).unwrap_err();
        assert!(repo.unsettled(&archive).unwrap().is_empty(), "a term without a claim is none");
    }
}
