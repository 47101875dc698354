//! One suite for every log: what the contract of [`Log`] says, shown.

use super::{Announced, Appended, Bounds, Claimant, Error, Hold, Lease, Log, Member};
use antiphon_core::entry::Origin;
use std::time::Duration;

fn origin(node: u64) -> Origin {
    Origin { node, incarnation: 1 }
}

fn frames(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Runs the whole suite against empty logs that `fresh` makes.
///
/// # Errors
/// When a call of the log fails.
///
/// # Panics
/// Where the log breaks its contract.
pub async fn run(fresh: impl Fn() -> Box<dyn Log>) -> Result<(), Error> {
    positions_are_dense(&*fresh()).await?;
    a_fence_refuses_what_is_not_next(&*fresh()).await?;
    origins_and_shards_are_apart(&*fresh()).await?;
    only_one_begins(&*fresh()).await?;
    reads_are_bounded_and_never_empty_handed(&*fresh()).await?;
    a_look_back_comes_with_what_follows(&*fresh()).await?;
    what_goes_are_the_oldest(&*fresh()).await?;
    what_lost_all_begins_again(&*fresh()).await?;
    a_waiter_is_told(&*fresh()).await?;
    the_newest_announcement_of_each_origin_is_kept(&*fresh()).await?;
    a_lease_changes_only_over_the_term_that_stands(&*fresh()).await?;
    one_at_a_time_holds_a_lease(&*fresh(), &*fresh()).await
}

/// Runs what two processes that share a log must see of each other, for logs that can be opened twice.
///
/// # Errors
/// When a call of the log fails.
///
/// # Panics
/// Where the log breaks its contract.
pub async fn run_shared(one: &dyn Log, other: &dyn Log) -> Result<(), Error> {
    assert_eq!(one.append(1, origin(1), 1, &frames(&["a"])).await?, Appended::At(1));
    assert_eq!(other.read(1, 0, usize::MAX).await?.len(), 1);
    one.announce(&Member { node: 7, ..Member::default() }).await?;
    assert_eq!(other.members().await?.len(), 1);
    let mut here = Claimant::new("shared", origin(1), Duration::from_secs(30));
    let mut there = Claimant::new("shared", origin(2), Duration::from_secs(30));
    let at = Duration::from_secs;
    assert_eq!(here.hold(one, at(0)).await?, Hold::Held);
    assert_eq!(there.hold(other, at(0)).await?, Hold::HeldBy(origin(1)));
    here.release(one).await?;
    assert_eq!(there.hold(other, at(0)).await?, Hold::Held);
    assert_eq!(here.hold(one, at(1)).await?, Hold::HeldBy(origin(2)));
    // What one appended last is gone when it goes on, and that is no loss: others have let go of it.
    assert!(matches!(other.append(1, origin(2), 1, &frames(&["b", "c"])).await?, Appended::At(_)));
    other.truncate(1, other.bounds(1).await?.last).await?;
    let last = one.bounds(1).await?.last;
    assert_eq!(one.append(1, origin(1), 2, &frames(&["d"])).await?, Appended::At(last + 1));
    assert_eq!(one.append(1, origin(1), 2, &frames(&["d"])).await?, Appended::Fenced { last: 2 });
    Ok(())
}

/// What stands at a position is told together with what comes after it, also where all is large.
async fn a_look_back_comes_with_what_follows(log: &dyn Log) -> Result<(), Error> {
    assert_eq!(log.stands(1, 1).await?, None);
    let large = [vec![1; 300_000], vec![2; 2_000_000], vec![3; 100]];
    assert!(matches!(log.append(1, origin(1), 1, &large).await?, Appended::At(_)));
    let mut all = Vec::new();
    while all.len() < 3 {
        all.extend(log.read(1, all.last().map_or(0, |placed: &super::Placed| placed.seq), 1).await?);
    }
    for (position, placed) in all.iter().enumerate() {
        assert_eq!(log.stands(1, placed.seq).await?, Some(placed.placement()));
        for bytes_max in [1, 400_000, usize::MAX] {
            let (there, entries) = log.read_on(1, placed.seq, bytes_max).await?;
            assert_eq!(there, Some(placed.placement()));
            assert_eq!(entries.first(), all.get(position + 1));
        }
    }
    Ok(())
}

async fn positions_are_dense(log: &dyn Log) -> Result<(), Error> {
    assert_eq!(log.bounds(1).await?, Bounds { first: 1, last: 0 });
    assert_eq!(log.append(1, origin(1), 1, &frames(&["a", "b"])).await?, Appended::At(2));
    assert_eq!(log.append(1, origin(2), 1, &frames(&["c"])).await?, Appended::At(3));
    let read = log.read(1, 0, usize::MAX).await?;
    assert_eq!(read.iter().map(|placed| placed.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(read.into_iter().map(|placed| placed.frame).collect::<Vec<_>>(), frames(&["a", "b", "c"]));
    assert_eq!(log.bounds(1).await?, Bounds { first: 1, last: 3 });
    assert!(log.read(1, 3, usize::MAX).await?.is_empty());
    Ok(())
}

async fn a_fence_refuses_what_is_not_next(log: &dyn Log) -> Result<(), Error> {
    assert_eq!(log.append(1, origin(1), 1, &frames(&["a"])).await?, Appended::At(1));
    assert_eq!(log.append(1, origin(1), 1, &frames(&["a"])).await?, Appended::Fenced { last: 1 }, "a retry");
    assert_eq!(log.append(1, origin(1), 3, &frames(&["c"])).await?, Appended::Fenced { last: 1 }, "a hole");
    assert_eq!(log.append(1, origin(1), 2, &frames(&["b"])).await?, Appended::At(2));
    assert_eq!(log.read(1, 0, usize::MAX).await?.len(), 2);
    Ok(())
}

async fn origins_and_shards_are_apart(log: &dyn Log) -> Result<(), Error> {
    let reborn = Origin { incarnation: 2, ..origin(1) };
    assert_eq!(log.append(1, origin(1), 1, &frames(&["a"])).await?, Appended::At(1));
    assert_eq!(log.append(1, reborn, 1, &frames(&["b"])).await?, Appended::At(2));
    assert_eq!(log.append(2, origin(1), 1, &frames(&["c"])).await?, Appended::At(1));
    assert_eq!(log.read(2, 0, usize::MAX).await?.len(), 1);
    Ok(())
}

async fn only_one_begins(log: &dyn Log) -> Result<(), Error> {
    assert!(log.begin(1, b"first").await?);
    assert!(!log.begin(1, b"second").await?);
    assert_eq!(
        log.read(1, 0, usize::MAX).await?.into_iter().map(|placed| placed.frame).collect::<Vec<_>>(),
        frames(&["first"])
    );
    assert_eq!(log.append(1, origin(1), 1, &frames(&["a"])).await?, Appended::At(2));
    assert!(!log.begin(1, b"third").await?);
    Ok(())
}

async fn reads_are_bounded_and_never_empty_handed(log: &dyn Log) -> Result<(), Error> {
    let many: Vec<Vec<u8>> = (0..100u8).map(|n| vec![n; 1000]).collect();
    assert_eq!(log.append(1, origin(1), 1, &many).await?, Appended::At(100));
    let mut after = 0;
    let mut reads = 0;
    while after < 100 {
        let read = log.read(1, after, 10_000).await?;
        assert!(!read.is_empty() && read.len() <= 11, "{} entries in one read", read.len());
        for placed in read {
            after += 1;
            assert_eq!(placed.seq, after);
        }
        reads += 1;
    }
    assert!(reads >= 9, "{reads} reads");
    assert_eq!(log.read(1, 50, 1).await?.len(), 1, "one entry, however small the bound");
    Ok(())
}

/// A log that is cut goes on as if nothing had happened.
async fn what_goes_are_the_oldest(log: &dyn Log) -> Result<(), Error> {
    log.truncate(1, 5).await?;
    assert_eq!(log.bounds(1).await?, Bounds { first: 1, last: 0 }, "there is nothing yet");
    let many: Vec<Vec<u8>> = (0..50u8).map(|n| vec![n; 2_000]).collect();
    assert_eq!(log.append(1, origin(1), 1, &many).await?, Appended::At(50));
    // Larger than one message of a broker.
    let large = [vec![7; 2_500_000]];
    assert!(matches!(log.append(1, origin(2), 1, &large).await?, Appended::At(_)));
    let whole = log.bounds(1).await?.last;
    assert!(matches!(log.append(1, origin(1), 51, &many).await?, Appended::At(_)));
    let last = log.bounds(1).await?.last;
    log.truncate(1, 0).await?;
    assert_eq!(log.bounds(1).await?, Bounds { first: 1, last });
    log.truncate(1, 20).await?;
    log.truncate(1, 10).await?;
    assert_eq!(log.bounds(1).await?, Bounds { first: 21, last });
    assert_eq!(log.read(1, 0, 1).await?.first().map(|placed| placed.seq), Some(21), "a read begins with what is left");
    assert_eq!(log.read(1, 20, 1).await?.first().map(|placed| placed.frame.clone()), many.get(20).cloned());
    assert_eq!(log.stands(1, 15).await?.map(|stands| stands.seq), Some(21));
    log.truncate(1, whole).await?;
    assert_eq!(log.bounds(1).await?.first, whole + 1, "an entry in parts goes whole");
    log.truncate(1, u64::MAX).await?;
    assert_eq!(log.bounds(1).await?, Bounds { first: last, last }, "the newest stays");
    assert_eq!(log.append(1, origin(1), 101, &frames(&["next"])).await?, Appended::At(last + 1));
    assert_eq!(log.append(1, origin(1), 101, &frames(&["again"])).await?, Appended::Fenced { last: 101 });
    assert_eq!(log.append(1, origin(2), 2, &frames(&["of one whose are all gone"])).await?, Appended::At(last + 2));
    assert!(!log.begin(1, b"first").await?, "it began long ago");
    log.truncate(2, 9).await?;
    assert_eq!(log.bounds(2).await?, Bounds { first: 1, last: 0 });
    Ok(())
}

/// A shard that holds nothing goes on later, and everybody goes on behind his own last number.
async fn what_lost_all_begins_again(log: &dyn Log) -> Result<(), Error> {
    let numbers = [(origin(1), 7), (origin(2), 3)];
    assert_eq!(log.begin_again(1, 1_000, b"anew", &numbers).await?, Some(1_000));
    assert_eq!(log.begin_again(1, 1_000, b"anew", &numbers).await?, None, "it has begun");
    assert_eq!(log.begin_again(1, 2_000, b"anew", &numbers).await?, None);
    assert!(!log.begin(1, b"first").await?, "nor is it a new one");
    assert_eq!(log.bounds(1).await?, Bounds { first: 1_000, last: 1_000 });
    assert_eq!(log.stands(1, 999).await?.map(|stands| stands.seq), Some(1_000));
    assert_eq!(log.read(1, 0, usize::MAX).await?.first().map(|placed| placed.seq), Some(1_000));
    assert_eq!(log.append(1, origin(2), 4, &frames(&["b", "c"])).await?, Appended::At(1_002));
    assert_eq!(log.append(1, origin(1), 8, &frames(&["d"])).await?, Appended::At(1_003));
    assert_eq!(log.append(1, origin(1), 8, &frames(&["d"])).await?, Appended::Fenced { last: 8 }, "a retry");
    let read = log.read(1, 1_000, usize::MAX).await?;
    assert_eq!(read.into_iter().map(|placed| placed.frame).collect::<Vec<_>>(), frames(&["b", "c", "d"]));
    log.clear(1).await?;
    log.clear(2).await?;
    assert_eq!(log.bounds(1).await?, Bounds { first: 1_004, last: 1_003 });
    assert_eq!(log.begin_again(1, 500, b"anew", &[(origin(1), 4)]).await?, Some(1_004), "never before what was");
    // What was taken once, and is lost, is taken again.
    assert_eq!(log.append(1, origin(1), 5, &frames(&["e"])).await?, Appended::At(1_005));
    assert_eq!(log.append(1, origin(1), 6, &frames(&["f"])).await?, Appended::At(1_006));
    assert_eq!(log.append(1, origin(1), 7, &frames(&["g"])).await?, Appended::At(1_007));
    assert_eq!(log.append(1, origin(1), 8, &frames(&["h"])).await?, Appended::At(1_008));
    Ok(())
}

async fn a_waiter_is_told(log: &dyn Log) -> Result<(), Error> {
    let waiter = log.changed(1, 0);
    let frames = frames(&["a"]);
    let writer = log.append(1, origin(1), 1, &frames);
    let ((), appended) = futures::join!(waiter, writer);
    assert_eq!(appended?, Appended::At(1));
    log.changed(1, 0).await;
    Ok(())
}

async fn the_newest_announcement_of_each_origin_is_kept(log: &dyn Log) -> Result<(), Error> {
    assert!(log.members().await?.is_empty());
    let first = Member { node: 7, incarnation: 1, version: "1.0.0".to_owned(), ..Member::default() };
    log.announce(&first).await?;
    let reborn = Member { incarnation: 2, ..first.clone() };
    log.announce(&reborn).await?;
    let moved = Member {
        positions: [(1, 5), (2, u64::MAX)].into(),
        schemas: [("t\"é".to_owned(), u64::MAX)].into(),
        left: true,
        ..first.clone()
    };
    let before = log.members().await?;
    log.announce(&moved).await?;
    let after = log.members().await?;
    let said: Vec<_> = after.iter().map(|announced| announced.member.clone()).collect();
    assert_eq!(said, [moved, reborn], "one a life, by node and life, with its last words");
    let times = |members: &[Announced]| members.iter().map(|announced| announced.time).collect::<Vec<_>>();
    let (before, after) = (times(&before), times(&after));
    assert!(after.first() > before.first(), "the log says when it heard of it");
    assert_eq!(after.last(), before.last());
    assert_eq!(log.bounds(1).await?.last, 0, "an announcement is no entry");
    Ok(())
}

async fn a_lease_changes_only_over_the_term_that_stands(log: &dyn Log) -> Result<(), Error> {
    assert_eq!(log.lease("a").await?, Lease::default());
    let wanted = Lease { term: 0, holder: Some((1, u64::MAX >> 1)), ttl_ms: 30_000 };
    let (done, taken) = log.set_lease("a", wanted, 0).await?;
    assert!(done && taken.term > 0);
    assert_eq!(taken, Lease { term: taken.term, ..wanted });
    assert_eq!(log.lease("a").await?, taken);
    let other = Lease { holder: Some((2, 1)), ..wanted };
    assert_eq!(log.set_lease("a", other, 0).await?, (false, taken), "who saw an older value changes nothing");
    let (done, renewed) = log.set_lease("a", wanted, taken.term).await?;
    assert!(done && renewed.term > taken.term, "a renewal is another value");
    let (done, released) = log.set_lease("a", Lease::default(), renewed.term).await?;
    assert!(done && released.term > renewed.term && released.holder.is_none(), "terms never begin anew");
    assert_eq!(log.lease("b").await?, Lease::default(), "names are apart");
    Ok(())
}

async fn one_at_a_time_holds_a_lease(log: &dyn Log, apart: &dyn Log) -> Result<(), Error> {
    let at = Duration::from_secs;
    let ttl = at(30);
    let mut one = Claimant::new("work", origin(1), ttl);
    let mut two = Claimant::new("work", origin(2), ttl);
    let (first, second) = futures::join!(one.hold(log, at(0)), two.hold(log, at(0)));
    let held = [first?, second?].iter().filter(|hold| **hold == Hold::Held).count();
    assert_eq!(held, 1, "two that ask at once");
    let (winner, loser) = if one.is_held(at(0)) { (&mut one, &mut two) } else { (&mut two, &mut one) };
    assert_eq!(winner.hold(log, at(20)).await?, Hold::Held, "renewed by its holder");
    assert!(matches!(loser.hold(log, at(31)).await?, Hold::HeldBy(_)));
    assert_eq!(loser.hold(log, at(61)).await?, Hold::Held, "its holder was silent for 30 s");
    assert!(matches!(winner.hold(log, at(61)).await?, Hold::HeldBy(_)));
    loser.release(log).await?;
    assert_eq!(winner.hold(log, at(61)).await?, Hold::Held);
    assert_eq!(apart.lease("work").await?, Lease::default(), "another log has leases of its own");
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::log::{Local, Memory};

    #[tokio::test]
    async fn memory_keeps_the_contract() {
        super::run(|| Box::new(Memory::new())).await.unwrap();
    }

    #[tokio::test]
    async fn local_keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let next = std::cell::Cell::new(0);
        super::run(|| {
            next.set(next.get() + 1);
            Box::new(Local::open(&folder.path().join(next.get().to_string())).unwrap())
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn two_handles_share_a_local_log() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (Local::open(folder.path()).unwrap(), Local::open(folder.path()).unwrap());
        super::run_shared(&one, &other).await.unwrap();
    }
}
