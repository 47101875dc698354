//! How far the log may be forgotten.

use std::collections::BTreeMap;

/// Where something stands, shard by shard.
pub type Places = BTreeMap<u32, u64>;

/// A member, as far as the log is kept for it.
#[derive(Clone, Debug)]
pub struct Reader {
    /// The last entries that it has applied.
    pub applied: Places,
    /// How long it has not been heard of.
    pub silent_ms: u64,
}

/// What is known.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The last entries that the archive holds without a hole, found whole when they were read again. Nothing where no
    /// archive is kept.
    pub archived: Option<Places>,
    /// Where verified full snapshots stand, newest first.
    pub snapshots: Vec<Places>,
    /// All members.
    pub readers: Vec<Reader>,
}

/// What the user asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// So many of the newest snapshots must be able to go on from the log.
    pub snapshots: usize,
    /// So many entries of each shard stay, for nodes that are a little late.
    pub trailing: u64,
    /// A member that was silent for so long is brought back from a snapshot.
    pub expiry_ms: u64,
}

/// The last entry of each shard that nobody needs any more; nothing of a shard of which all are needed.
///
/// What goes lies before a snapshot that enough newer ones follow and that every member has passed: so each of them can
/// go on from the log, and build aside what it says, from a snapshot up to its own place. Nothing goes that the archive
/// lacks. The entry that the snapshot ends with stays, for by that one it is known that the log is still the same.
#[must_use]
pub fn superfluous(known: &Known, wish: &Wish) -> Places {
    let awake = || known.readers.iter().filter(|reader| reader.silent_ms < wish.expiry_ms);
    let at = |places: &Places, shard: u32| places.get(&shard).copied().unwrap_or(0);
    let is_passed = |snapshot: &Places| {
        awake().all(|reader| snapshot.iter().all(|(shard, seq)| at(&reader.applied, *shard) >= *seq))
    };
    // Somebody reads this log. Who that is will be known soon.
    if known.readers.is_empty() {
        return Places::new();
    }
    let enough = wish.snapshots.max(1) - 1;
    let Some(base) = known.snapshots.iter().skip(enough).find(|snapshot| is_passed(snapshot)) else {
        return Places::new();
    };
    let last = |(shard, seq): (&u32, &u64)| {
        let archived = known.archived.as_ref().map_or(*seq, |archived| at(archived, *shard));
        let last = archived.min(*seq).saturating_sub(wish.trailing.max(1));
        (last > 0).then_some((*shard, last))
    };
    base.iter().filter_map(last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WISH: Wish = Wish { snapshots: 2, trailing: 10, expiry_ms: 1_000 };

    fn at(seq: u64) -> Places {
        Places::from([(1, seq)])
    }

    fn reader(applied: u64, silent_ms: u64) -> Reader {
        Reader { applied: at(applied), silent_ms }
    }

    fn known() -> Known {
        Known {
            archived: Some(at(900)),
            snapshots: vec![at(800), at(700), at(600)],
            readers: vec![reader(950, 0), reader(750, 10)],
        }
    }

    #[test]
    fn whoever_stands_lowest_decides() {
        assert_eq!(superfluous(&known(), &WISH), at(690), "the second newest snapshot");
        assert_eq!(superfluous(&Known { archived: Some(at(500)), ..known() }, &WISH), at(490), "the archive");
        assert_eq!(superfluous(&Known { archived: Some(Places::new()), ..known() }, &WISH), Places::new());
        assert_eq!(superfluous(&Known { archived: None, ..known() }, &WISH), at(690), "no archive is kept");
        let slow = |applied| Known { readers: vec![reader(950, 0), reader(applied, 999)], ..known() };
        assert_eq!(superfluous(&slow(650), &WISH), at(590), "the newest snapshot that a member has passed");
        assert_eq!(superfluous(&slow(599), &WISH), Places::new(), "a member that stands before all snapshots");
    }

    #[test]
    fn who_was_silent_for_too_long_is_not_waited_for() {
        let away = Known { readers: vec![reader(100, 1_000)], ..known() };
        assert_eq!(superfluous(&away, &WISH), at(690));
    }

    #[test]
    fn nothing_goes_before_anybody_was_heard_of() {
        assert_eq!(superfluous(&Known { readers: Vec::new(), ..known() }, &WISH), Places::new());
    }

    #[test]
    fn nothing_goes_without_enough_snapshots() {
        assert_eq!(superfluous(&Known { snapshots: vec![at(700)], ..known() }, &WISH), Places::new());
        let none = Known { snapshots: Vec::new(), ..known() };
        assert_eq!(superfluous(&none, &Wish { snapshots: 0, ..WISH }), Places::new());
        let one = Known { snapshots: vec![at(700)], ..known() };
        assert_eq!(superfluous(&one, &Wish { snapshots: 1, ..WISH }), at(690));
    }

    #[test]
    fn what_trails_stays_and_so_does_the_entry_that_a_snapshot_ends_with() {
        assert_eq!(superfluous(&known(), &Wish { trailing: 700, ..WISH }), Places::new());
        assert_eq!(superfluous(&known(), &Wish { trailing: 10_000, ..WISH }), Places::new());
        assert_eq!(superfluous(&known(), &Wish { trailing: 0, ..WISH }), at(699));
    }

    #[test]
    fn a_snapshot_counts_only_if_it_was_passed_in_every_shard() {
        let places = |first, second| Places::from([(1, first), (2, second)]);
        let known = Known {
            archived: None,
            snapshots: vec![places(90, 90), places(80, 80), places(70, 40)],
            readers: vec![Reader { applied: places(85, 60), silent_ms: 0 }],
        };
        assert_eq!(superfluous(&known, &WISH), places(60, 30));
        let unheard = Reader { applied: at(99), silent_ms: 0 };
        assert_eq!(superfluous(&Known { readers: vec![unheard], ..known }, &WISH), Places::new());
    }
}
