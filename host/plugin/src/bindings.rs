//! The worlds of `wit/`, as Rust. One module a world; what the worlds share is generated once.

#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]
pub(crate) mod resolver {
    wasmtime::component::bindgen!({ path: "../../wit", world: "resolver" });
}

#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]
pub(crate) mod hasher {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "hasher",
        with: {
            "antiphon:plugin/types": crate::bindings::resolver::antiphon::plugin::types,
            "antiphon:plugin/log": crate::bindings::resolver::antiphon::plugin::log,
        },
    });
}

#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]
pub(crate) mod storage {
    // What the storage worlds export is the same in all; what they import is linked by what is lent.
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "storage-file",
        exports: { default: async },
        with: {
            "antiphon:plugin/types": crate::bindings::resolver::antiphon::plugin::types,
            "antiphon:plugin/log": crate::bindings::resolver::antiphon::plugin::log,
        },
    });
}

#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]
mod nats {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "storage-nats",
        imports: { default: async },
        exports: { default: async },
        with: {
            "antiphon:plugin/types": crate::bindings::resolver::antiphon::plugin::types,
            "antiphon:plugin/log": crate::bindings::resolver::antiphon::plugin::log,
            "antiphon:plugin/objects": crate::bindings::storage::antiphon::plugin::objects,
        },
    });
}

#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]
mod ssh {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "storage-ssh",
        imports: { default: async | trappable },
        exports: { default: async },
        with: {
            "antiphon:plugin/types": crate::bindings::resolver::antiphon::plugin::types,
            "antiphon:plugin/log": crate::bindings::resolver::antiphon::plugin::log,
            "antiphon:plugin/objects": crate::bindings::storage::antiphon::plugin::objects,
            "antiphon:plugin/ssh-channel.channel": crate::lent::Channel,
        },
    });
}

pub(crate) use nats::antiphon::plugin::nats_bucket;
pub(crate) use resolver::antiphon::plugin::{log, types};
pub(crate) use resolver::exports::antiphon::plugin::conflict;
pub(crate) use ssh::antiphon::plugin::ssh_channel;
pub(crate) use storage::antiphon::plugin::objects;

/// The version of the package that the modules above were made from.
pub(crate) const VERSION: &str = "0.1.0";
