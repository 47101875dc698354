//! What the resolvers are made with: the bindings of their world, and what more than one of them needs.
//!
//! An answer that changes here changes in every resolver that uses it: raise the laws of each.

mod node;
mod policy;
mod row;
mod settings;

/// The world, as the toolchain sees it.
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "resolver",
        pub_export_macro: true,
        default_bindings_module: "resolver::bindings",
    });
}

pub use bindings::antiphon::plugin::types::{Column, Row, Stamp, Table, Value};
pub use bindings::exports::antiphon::plugin::conflict::{Clash, Needs, Settings, Side, Verdict};
pub use bindings::exports::antiphon::plugin::metadata::Info;
pub use node::Node;
pub use policy::{Component, Policy};
pub use row::{chosen, merge, same};
pub use settings::{NO_SETTINGS, names, none};
