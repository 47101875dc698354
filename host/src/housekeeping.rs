//! Housekeeping: what nobody needs any more goes, in steps so short that no application notices.

use crate::db::{self, Db, Due, Pruned};
use crate::report::Board;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// What a step may cost at first, in bytes.
const ROOM_FIRST: u64 = 256 << 10;
const ROOM_MIN: u64 = 4 << 10;
const ROOM_MAX: u64 = 16 << 20;
/// How long a step is meant to hold the write lock.
const HOLD_GOAL: Duration = Duration::from_millis(15);
/// Between two steps: so many times what the last one took, so that the lock is free most of the time.
const PAUSE_TIMES: u32 = 4;
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// Batches measured at once: reading is quick, but seals wait for it.
const MEASURED_MAX: u32 = 4096;

/// For how long batches are kept that the log has, and records of clashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// How often it is looked.
    pub interval: Duration,
    /// A batch younger than this stays…
    pub age: Duration,
    /// … unless all of them together are larger than this.
    pub bytes: u64,
    /// A record of a clash younger than this stays. `None`: all of them do.
    pub records: Option<Duration>,
}

/// Removes batches from the outbox, and records of clashes. What it holds in memory is a measure, made again at each start.
#[derive(Debug)]
pub struct Housekeeper {
    db: Db,
    keep: Keep,
    room: u64,
    /// The same for a step that removes records.
    records_room: u64,
    /// The last row of the outbox that was measured, and the bytes of all up to it that are still there.
    measured: (i64, u64),
    /// How many they are.
    batches: u64,
    /// Who is told how much there is.
    board: Option<Board>,
}

impl Housekeeper {
    /// A housekeeper that has looked at nothing yet.
    #[must_use]
    pub fn new(db: Db, keep: Keep) -> Self {
        Self { db, keep, room: ROOM_FIRST, records_room: ROOM_FIRST, measured: (0, 0), batches: 0, board: None }
    }

    /// One that notes there how much is kept.
    #[must_use]
    pub fn telling(self, board: Board) -> Self {
        Self { board: Some(board), ..self }
    }

    /// Removes some of what is due at this moment, in milliseconds since 1970.
    ///
    /// # Errors
    /// When the database refuses; nothing is lost.
    pub async fn step(&mut self, now_ms: u64) -> Result<Pruned, db::Error> {
        let batches = self.outbox_step(now_ms).await?;
        let records = self.records_step(now_ms).await?;
        Ok(Pruned {
            batches: batches.batches,
            records: records.records,
            bytes: batches.bytes + records.bytes,
            more: batches.more || records.more,
            busy: batches.busy || records.busy,
            held: batches.held + records.held,
        })
    }

    async fn outbox_step(&mut self, now_ms: u64) -> Result<Pruned, db::Error> {
        let (last, bytes) = self.measured;
        let measured = self.db.call(move |db| db.measure_outbox(last, MEASURED_MAX)).await?;
        self.measured = (measured.last, bytes + measured.bytes);
        self.batches += u64::from(measured.batches);
        let due = Due {
            before_ms: before(now_ms, self.keep.age),
            excess_bytes: self.measured.1.saturating_sub(self.keep.bytes),
        };
        let room = self.room;
        let pruned = self.db.call(move |db| db.prune(due, room)).await?;
        self.measured.1 = self.measured.1.saturating_sub(pruned.bytes);
        self.batches = self.batches.saturating_sub(pruned.batches);
        if let Some(board) = &self.board {
            board.aside(|asides| asides.outbox = (self.batches, self.measured.1));
        }
        self.room = next_room(room, &pruned);
        // What was not measured yet may be in excess, too.
        Ok(Pruned { more: pruned.more || measured.batches == MEASURED_MAX, ..pruned })
    }

    async fn records_step(&mut self, now_ms: u64) -> Result<Pruned, db::Error> {
        let Some(age) = self.keep.records else { return Ok(Pruned::default()) };
        let (before_ms, room) = (before(now_ms, age), self.records_room);
        let pruned = self.db.call(move |db| db.prune_records(before_ms, room)).await?;
        self.records_room = next_room(room, &pruned);
        Ok(pruned)
    }

    /// Keeps house until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let (mut count, mut records) = (0, 0);
        loop {
            let pause = match self.step(crate::clock::unix_ms()).await {
                Ok(pruned) if pruned.more && !pruned.busy => {
                    count += pruned.batches;
                    records += pruned.records;
                    (pruned.held * PAUSE_TIMES).max(PAUSE_MIN)
                }
                Ok(pruned) => {
                    count += pruned.batches;
                    records += pruned.records;
                    if count > 0 {
                        debug!(count, "Cleaned up DB change logs");
                        count = 0;
                    }
                    if records > 0 {
                        debug!(records, "removed old records of clashes");
                        records = 0;
                    }
                    self.keep.interval
                }
                Err(db::Error::Closed) => return,
                Err(error) => {
                    warn!(%error, "Unable to cleanup change logs");
                    self.keep.interval
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

/// The moment before which something is older than `age`.
fn before(now_ms: u64, age: Duration) -> u64 {
    now_ms.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

/// What the next step may cost, by how long this one took.
fn next_room(room: u64, pruned: &Pruned) -> u64 {
    if pruned.busy || pruned.batches + pruned.records == 0 {
        room
    } else if pruned.held > HOLD_GOAL {
        (room / 2).max(ROOM_MIN)
    } else if pruned.held < HOLD_GOAL / 2 && pruned.more {
        (room * 2).min(ROOM_MAX)
    } else {
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(room: u64, held_ms: u64, more: bool, next: u64) {
        let pruned =
            Pruned { batches: 1, records: 0, bytes: 1, more, busy: false, held: Duration::from_millis(held_ms) };
        assert_eq!(next_room(room, &pruned), next);
    }

    #[test]
    fn a_step_that_took_long_is_followed_by_a_smaller_one() {
        check(1 << 20, 16, true, 1 << 19);
        check(ROOM_MIN, 400, true, ROOM_MIN);
    }

    #[test]
    fn a_short_step_is_followed_by_a_larger_one_if_there_is_more_to_do() {
        check(1 << 20, 3, true, 1 << 21);
        check(1 << 20, 3, false, 1 << 20);
        check(1 << 20, 10, true, 1 << 20);
        check(ROOM_MAX, 0, true, ROOM_MAX);
    }
}
