//! How far a shard's log may be forgotten.

/// A member, as far as the log is kept for it.
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    /// The last entry that it has applied.
    pub applied: u64,
    /// How long it has not been heard of.
    pub silent_ms: u64,
}

/// What is known of one shard.
#[derive(Clone, Debug, Default)]
pub struct Shard {
    /// The last entry that the archive holds without a hole, found whole when it was read again.
    pub archived: u64,
    /// Where verified full snapshots stand, newest first.
    pub snapshots: Vec<u64>,
    /// All members.
    pub readers: Vec<Reader>,
}

/// What the user asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// So many of the newest snapshots must be able to go on from the log.
    pub snapshots: usize,
    /// So many entries stay, for nodes that are a little late.
    pub trailing: u64,
    /// A member that was silent for so long is brought back from a snapshot.
    pub expiry_ms: u64,
}

/// The last entry that nobody needs any more, or nothing if all are needed.
///
/// Nothing goes that the archive lacks, that one of the newest snapshots needs to go on, or that a member has still
/// to read.
#[must_use]
pub fn superfluous(shard: &Shard, wish: &Wish) -> Option<u64> {
    let oldest_needed = shard.snapshots.get(wish.snapshots.max(1) - 1)?;
    let slowest = shard.readers.iter().filter(|reader| reader.silent_ms < wish.expiry_ms).map(|reader| reader.applied);
    let safe = slowest.fold(shard.archived.min(*oldest_needed), u64::min);
    safe.checked_sub(wish.trailing).filter(|last| *last > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WISH: Wish = Wish { snapshots: 2, trailing: 10, expiry_ms: 1_000 };

    fn reader(applied: u64, silent_ms: u64) -> Reader {
        Reader { applied, silent_ms }
    }

    fn shard() -> Shard {
        Shard { archived: 900, snapshots: vec![800, 700, 600], readers: vec![reader(950, 0), reader(750, 10)] }
    }

    #[test]
    fn whoever_stands_lowest_decides() {
        assert_eq!(superfluous(&shard(), &WISH), Some(690), "the second newest snapshot");
        assert_eq!(superfluous(&Shard { archived: 500, ..shard() }, &WISH), Some(490), "the archive");
        let slow = Shard { readers: vec![reader(100, 999)], ..shard() };
        assert_eq!(superfluous(&slow, &WISH), Some(90), "a member");
    }

    #[test]
    fn who_was_silent_for_too_long_is_not_waited_for() {
        let away = Shard { readers: vec![reader(100, 1_000)], ..shard() };
        assert_eq!(superfluous(&away, &WISH), Some(690));
    }

    #[test]
    fn nothing_goes_without_enough_snapshots() {
        assert_eq!(superfluous(&Shard { snapshots: vec![800], ..shard() }, &WISH), None);
        assert_eq!(superfluous(&Shard { snapshots: Vec::new(), ..shard() }, &Wish { snapshots: 0, ..WISH }), None);
        assert_eq!(superfluous(&Shard { snapshots: vec![800], ..shard() }, &Wish { snapshots: 1, ..WISH }), Some(740));
    }

    #[test]
    fn what_trails_stays() {
        assert_eq!(superfluous(&shard(), &Wish { trailing: 700, ..WISH }), None);
        assert_eq!(superfluous(&shard(), &Wish { trailing: 10_000, ..WISH }), None);
        assert_eq!(superfluous(&shard(), &Wish { trailing: 0, ..WISH }), Some(700));
    }
}
