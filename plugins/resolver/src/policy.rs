//! A policy, and the component that it becomes.

use std::cell::RefCell;
use std::marker::PhantomData;

use crate::bindings::exports::antiphon::plugin::conflict::{Cause, Guest as Conflict};
use crate::bindings::exports::antiphon::plugin::metadata::Guest as Metadata;
use crate::{Clash, Info, Needs, Settings, Table, Verdict};

/// How clashes over a key are decided.
pub trait Policy: Sized + 'static {
    /// What it says about itself.
    fn describe() -> Info;

    /// What it wants to see of a clash.
    fn needs() -> Needs;

    /// Reads the settings. An error says which one is refused, and why.
    fn configure(settings: &Settings, nodes: &[String], tables: &[Table]) -> Result<Self, String>;

    /// Decides one clash over a key.
    fn decide(&self, clash: Clash) -> Result<Verdict, String>;
}

/// A policy as a component of world `resolver`; [`component!`](crate::component) exports it.
pub struct Component<P>(PhantomData<P>);

type Decide = Box<dyn Fn(Clash) -> Result<Verdict, String>>;

thread_local! {
    /// The policy as it was configured last. A component holds one policy, so one place is enough.
    static AT_WORK: RefCell<Option<Decide>> = const { RefCell::new(None) };
}

impl<P: Policy> Metadata for Component<P> {
    fn describe() -> Info {
        P::describe()
    }
}

impl<P: Policy> Conflict for Component<P> {
    fn configure(settings: Settings, nodes: Vec<String>, tables: Vec<Table>) -> Result<Needs, String> {
        let policy = P::configure(&settings, &nodes, &tables)?;
        AT_WORK.replace(Some(Box::new(move |clash| match clash.cause {
            // Two rows with different keys: there is nothing to merge, and the host evicts by the order of the log.
            Cause::UniqueIndex => Ok(Verdict::Take),
            Cause::SameKey => policy.decide(clash),
        })));
        Ok(P::needs())
    }

    fn resolve(batch: Vec<Clash>) -> Result<Vec<Verdict>, String> {
        AT_WORK.with_borrow(|at_work| {
            let decide = at_work.as_ref().ok_or("it was not configured")?;
            batch.into_iter().map(decide).collect()
        })
    }
}

/// Makes this crate the component of a policy.
#[macro_export]
macro_rules! component {
    ($policy:ident) => {
        type Exported = $crate::Component<$policy>;
        $crate::bindings::export!(Exported with_types_in $crate::bindings);
    };
}
