//! One suite for every log: what the contract of [`Log`] says, shown.

use super::{Appended, Bounds, Error, Log};
use antiphon_core::entry::Origin;

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
    a_waiter_is_told(&*fresh()).await
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

async fn a_waiter_is_told(log: &dyn Log) -> Result<(), Error> {
    let waiter = log.changed(1, 0);
    let frames = frames(&["a"]);
    let writer = log.append(1, origin(1), 1, &frames);
    let ((), appended) = futures::join!(waiter, writer);
    assert_eq!(appended?, Appended::At(1));
    log.changed(1, 0).await;
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
}
