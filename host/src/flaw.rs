//! Planted bugs and fault points, for tests alone: a checker that finds no planted bug proves nothing.
//!
//! Without the feature `testing`, every switch is the constant `false` and every fault point is nothing.

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "testing"), allow(dead_code, reason = "only tests plant bugs"))]
pub enum Flaw {
    /// A foreign change is written over a pending one.
    NoShadow,
    /// Entries an origin had sent before are applied again.
    WatermarkSkipped,
    /// Entries are applied while committed changes are in no batch yet.
    SealSkipped,
    /// The own echo is not taken for the confirmation it is: nothing pending ever ends.
    EchoIgnored,
    /// Rows that may be gone are published whether they are or not.
    MaybeGonePublished,
    /// Rows are applied by REPLACE, which takes others with them.
    ReplaceApply,
    /// A key that moved leaves its old row behind.
    MoveForgotten,
    /// Integers travel as floats.
    FloatForInteger,
    /// The application's triggers fire again while applying.
    TriggersWhileApplying,
    /// The position is stored without the rows.
    PositionFirst,
    /// What the broker acknowledged counts as confirmed.
    AckIsEcho,
    /// A batch that the log refused counts as sent.
    LostWhenRefused,
    /// Rows that no trigger saw are not marked before entries are applied.
    ScanSkipped,
    /// The pieces of a unit are applied one by one.
    UnitAtOnce,
    /// Every piece says that its unit ends with it.
    UnitClosedEarly,
    /// What is received counts as applied after a start, staged or not.
    ReceivedIsDone,
    /// Staged pieces are forgotten at a start.
    StagedForgotten,
    /// Rows of a unit don't make room for one another's UNIQUE values.
    PassOneSkipped,
    /// A pending row loses its place in the table to an entry's UNIQUE value.
    PendingEvicted,
    /// Rows hidden behind a pending one are not tried again.
    HiddenForgotten,
    /// Tables with a UNIQUE index are spread over shards by key.
    UniqueSpread,
    /// A column that the origin lacks loses its value behind a shadow.
    ColumnForgotten,
    /// Clashes remember what was rolled back.
    RollbackRemembered,
    /// What could not be read again after an error stays in memory as it was.
    StaleAfterError,
    /// Entries are applied, and batches appended, whatever stands at the node's position in the log.
    PlacementUnchecked,
    /// The node's clock follows the wall clock back.
    ClockFollowsWall,
    /// A stamp knows the last change alone, and not the last one by anyone else.
    OneStamp,
    /// A key that becomes pending leaves no shadow behind.
    ShadowOmitted,
    /// The resolver is shown the row in the table for the log's.
    CurrentFromTable,
    /// A stamp moves although the change was overruled.
    StampOnKeep,
    /// A stamp moves although the change was parked.
    StampOnPark,
    /// What a change was made upon is taken from the log, not from this node's own last change.
    BaseFromLog,
    /// A row that REPLACE removed is not what the new one was made upon.
    ReplaceUponNothing,
    /// All changes of a batch count as made upon what the batch had seen.
    SeenByBatch,
    /// Batches leave the outbox when they are received, whether they have taken effect or not.
    ReceivedPruned,
    /// Of a unit that is applied in slices, those that are done are forgotten at a start.
    SliceForgotten,
    /// After a start, keys of our own wait again for changes that came back in slices that are done.
    SlicesPendAgain,
    /// A slice evicts whoever holds a UNIQUE value, although a later slice may move it elsewhere.
    SliceEvicts,
    /// Within a unit that is applied in slices, every image of a key counts as one of its own.
    SliceRepeats,
    /// Stamps from before a policy count as if it had always been there.
    PolicyWithoutFloor,
    /// A change whose node did not note what it was made upon is put to the resolver.
    BaselessResolved,
    /// A policy comes into force although L's rows behind pending ones are not known.
    PolicyUncovered,
    /// A copy waits for nothing that was sealed after it was made.
    CopyEndsEarly,
    /// A snapshot's rows are written over those that are on their way.
    RestoredOver,
    /// What was made upon entries that were lost counts as made upon those that a log begins again with.
    AnewUnnoticed,
    /// A log begins again with what this node shows, and what it knows to stand behind is forgotten.
    AnewForgets,
}

impl Flaw {
    /// All of them.
    pub const ALL: [Self; 46] = [
        Self::NoShadow,
        Self::WatermarkSkipped,
        Self::SealSkipped,
        Self::EchoIgnored,
        Self::MaybeGonePublished,
        Self::ReplaceApply,
        Self::MoveForgotten,
        Self::FloatForInteger,
        Self::TriggersWhileApplying,
        Self::PositionFirst,
        Self::AckIsEcho,
        Self::LostWhenRefused,
        Self::ScanSkipped,
        Self::UnitAtOnce,
        Self::UnitClosedEarly,
        Self::ReceivedIsDone,
        Self::StagedForgotten,
        Self::PassOneSkipped,
        Self::PendingEvicted,
        Self::HiddenForgotten,
        Self::UniqueSpread,
        Self::ColumnForgotten,
        Self::RollbackRemembered,
        Self::StaleAfterError,
        Self::PlacementUnchecked,
        Self::ClockFollowsWall,
        Self::OneStamp,
        Self::ShadowOmitted,
        Self::CurrentFromTable,
        Self::StampOnKeep,
        Self::StampOnPark,
        Self::BaseFromLog,
        Self::ReplaceUponNothing,
        Self::SeenByBatch,
        Self::ReceivedPruned,
        Self::SliceForgotten,
        Self::SlicesPendAgain,
        Self::SliceEvicts,
        Self::SliceRepeats,
        Self::PolicyWithoutFloor,
        Self::BaselessResolved,
        Self::PolicyUncovered,
        Self::CopyEndsEarly,
        Self::RestoredOver,
        Self::AnewUnnoticed,
        Self::AnewForgets,
    ];
}

#[cfg(feature = "testing")]
pub mod testing {
    //! The switches, per thread: histories run side by side. One switch is the whole process's, for tests that
    //! watch it die: `ANTIPHON_DIE_AT=commit:3` kills it at the third passing of `commit`, in whatever thread.
    use super::Flaw;
    use std::cell::{Cell, RefCell};
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    thread_local! {
        static PLANTED: Cell<Option<Flaw>> = const { Cell::new(None) };
        static FAULT: RefCell<Box<dyn FnMut(&'static str) -> bool>> = RefCell::new(Box::new(|_| false));
    }

    /// Plants a bug in this thread, or none.
    pub fn plant(flaw: Option<Flaw>) {
        PLANTED.set(flaw);
    }

    /// Whether this bug is planted.
    #[must_use]
    pub fn planted(flaw: Flaw) -> bool {
        PLANTED.get() == Some(flaw)
    }

    /// Decides at each fault point of this thread whether the process "dies" there.
    pub fn on_fault(decide: impl FnMut(&'static str) -> bool + 'static) {
        FAULT.set(Box::new(decide));
    }

    /// The variable that names a fault point and which passing of it is the last.
    pub const DIE_AT: &str = "ANTIPHON_DIE_AT";

    /// The point, and how many passings are left.
    static DIE: LazyLock<Option<(String, AtomicU64)>> = LazyLock::new(|| {
        let value = std::env::var(DIE_AT).ok()?;
        let (point, passing) = value.split_once(':').unwrap_or((&value, "1"));
        Some((point.to_owned(), AtomicU64::new(passing.parse().ok()?)))
    });

    /// Passes a fault point; true = die here.
    #[must_use]
    pub fn dies_at(point: &'static str) -> bool {
        if let Some((wanted, left)) = &*DIE
            && wanted == point
            && left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            // As the kernel would: no unwinding, no buffers written, no locks let go but by the end itself.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            std::process::abort();
        }
        FAULT.with_borrow_mut(|decide| decide(point))
    }
}

/// Whether a bug is planted; `false` in every build that ships.
#[macro_export]
#[doc(hidden)]
macro_rules! flaw {
    ($name:ident) => {{
        #[cfg(feature = "testing")]
        let planted = $crate::flaw::testing::planted($crate::flaw::Flaw::$name);
        #[cfg(not(feature = "testing"))]
        let planted = false;
        planted
    }};
}

/// A start passes fault points as well, and ends with words for its user.
#[cfg(feature = "testing")]
impl From<crate::db::Error> for crate::failure::Failure {
    fn from(error: crate::db::Error) -> Self {
        Self::caused(crate::failure::Kind::General, "a fault point was passed", &error)
    }
}

/// A place where a test may end the process; nothing in every build that ships.
macro_rules! fault {
    ($point:literal) => {
        #[cfg(feature = "testing")]
        if $crate::flaw::testing::dies_at($point) {
            return Err($crate::db::Error::Closed.into());
        }
    };
}
