//! What a storage plugin can reach: what its grants name, and nothing else.
//!
//! A storage does real work, so its clocks go and its randomness is random. It has no environment, no arguments, nothing
//! to print to, and of folders, servers and addresses those that the configuration names.

mod bucket;
mod channel;
mod http;
mod sockets;

use std::fmt;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::umask;
use tokio::runtime::Runtime as Tokio;
use wasmtime::Engine;
use wasmtime::component::{Component, HasSelf, InstancePre, Linker, ResourceTable};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::bindings;
use crate::component::chain;
use crate::engine::Runtime;
use crate::error::Reason;
use crate::inert;
use crate::limits::{Limits, Meter};
use crate::log::GuestLog;

pub use bucket::Bucket;
pub(crate) use http::Trouble;
pub use http::{Advice, Certificates, Post, Web, WebServer};
use http::{Connections, Sender};

#[expect(unreachable_pub, reason = "what is generated names it as if it were seen outside")]
pub use channel::Channel;
pub use channel::{Conversation, Server};
pub use sockets::Socket;
use sockets::{Reach, Refused};

const RESOURCES_MAX: usize = 1_000;

/// What a storage plugin may reach. The default is nothing.
#[derive(Clone, Default)]
pub struct Grants {
    /// The folder that it sees as `/`. It is made if it is not there, for its owner alone.
    pub folder: Option<PathBuf>,
    /// The bucket of an object store.
    pub bucket: Option<Arc<dyn Bucket>>,
    /// The server to whose SFTP it may open channels.
    pub server: Option<Arc<dyn Server>>,
    /// The servers that it may connect to.
    pub sockets: Vec<Socket>,
    /// Whether they may be this machine, or in a private network.
    pub private_networks: bool,
    /// The servers that it may speak HTTP with.
    pub web: Option<Web>,
    /// What the settings hold that nobody may see: it is taken out of whatever the plugin says.
    pub secrets: Vec<String>,
}

/// Without the secrets.
impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let web = self.web.as_ref().map(|web| &web.servers);
        f.debug_struct("Grants")
            .field("folder", &self.folder)
            .field("bucket", &self.bucket.is_some())
            .field("server", &self.server.is_some())
            .field("sockets", &self.sockets)
            .field("web", &web)
            .field("private_networks", &self.private_networks)
            .finish()
    }
}

/// Texts that must not get out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Secrets(Vec<String>);

impl Secrets {
    fn new(mut secrets: Vec<String>) -> Self {
        // Shorter ones are parts of ordinary words; a secret of three signs is none.
        secrets.retain(|secret| secret.len() > 3);
        // One may be the beginning of another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(secrets)
    }

    /// A text without them.
    pub(crate) fn hidden(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
    }
}

/// What all storage plugins share: the engine, and the threads that read and write for them.
pub(crate) struct Lending {
    pub(crate) runtime: Arc<Runtime>,
    tokio: Option<Tokio>,
}

impl Lending {
    pub(crate) fn new(runtime: Arc<Runtime>) -> Result<Self, String> {
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("storage")
            .on_thread_start(files_are_private)
            .enable_all()
            .build()
            .map_err(|err| err.to_string())?;
        Ok(Self { runtime, tokio: Some(tokio) })
    }

    /// Runs a future to its end on this thread; what it waits for comes from other ones.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        Some(self.tokio.as_ref()?.block_on(future))
    }

    /// Does something later, if the program is still there.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        if let Some(tokio) = &self.tokio {
            drop(tokio.spawn(future));
        }
    }
}

impl Drop for Lending {
    fn drop(&mut self) {
        if let Some(tokio) = self.tokio.take() {
            // It may be dropped where waiting is not allowed, and there is nothing to wait for.
            tokio.shutdown_background();
        }
    }
}

/// Lets this thread make files for their owner alone, whatever the rest of the process does.
#[expect(unsafe_code, reason = "the mask is of all threads that share it, and this one is to have its own")]
fn files_are_private() {
    // SAFETY: it takes no pointer. What the thread stops sharing is its working directory, its root and the mask; the
    // open files stay shared.
    let own = unsafe { libc::unshare(libc::CLONE_FS) };
    if own == 0 {
        umask(Mode::from_raw_mode(0o077));
    } else {
        // The folder keeps others out in any case.
        tracing::debug!("files of storages are made as the process makes files");
    }
}

/// What the host keeps for one instance of a storage plugin.
pub(crate) struct Lent {
    wasi: WasiCtx,
    table: ResourceTable,
    pub(crate) meter: Meter,
    pub(crate) log: GuestLog,
    pub(crate) secrets: Secrets,
    bucket: Option<Arc<dyn Bucket>>,
    server: Option<Arc<dyn Server>>,
    /// How many channels to it are open.
    channels: usize,
    /// The last failure that the host told it with a hint, and the hint, which gets lost on the way through it.
    hinted: Option<(String, String)>,
    reach: Reach,
    refused: Refused,
    http: WasiHttpCtx,
    sender: Sender,
}

impl Lent {
    /// What may help whoever hears of the plugin's failure: the host's own words of it, and a hint.
    pub(crate) fn hint(&mut self) -> Option<(String, String)> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).take();
        let refused = refused.map(|address| {
            let hint = format!("it wanted to connect to `{address}`, which `sockets` under its grants does not name");
            // Whatever the plugin says of it.
            (String::new(), hint)
        });
        refused.or_else(|| self.hinted.take())
    }

    /// What stood in the way of the last request, if it did not come through.
    pub(crate) fn take_trouble(&self) -> Option<Trouble> {
        self.sender.troubles.take()
    }
}

impl WasiHttpView for Lent {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.sender, table: &mut self.table, ctx: &mut self.http }
    }
}

impl WasiView for Lent {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// Makes what instances of a plugin are lent.
pub(crate) struct Lender {
    grants: Grants,
    /// It is lent nothing, and may import what it wants: it is only asked what it is.
    describing: bool,
    pub(crate) secrets: Secrets,
    connections: Option<Arc<Connections>>,
}

impl Lender {
    /// `silence`: how long the other side of a connection may be silent.
    pub(crate) fn new(mut grants: Grants, silence: Duration) -> Self {
        let secrets = Secrets::new(std::mem::take(&mut grants.secrets));
        let connections = grants.web.take().map(|web| Arc::new(Connections::new(web, silence)));
        Self { grants, describing: false, secrets, connections }
    }

    /// Lends nothing to a plugin that is only asked what it is.
    pub(crate) fn of_nothing() -> Self {
        Self { grants: Grants::default(), describing: true, secrets: Secrets::default(), connections: None }
    }

    /// Gives a component its imports, if it is granted all that it needs.
    pub(crate) fn link(&self, engine: &Engine, component: &Component, name: &str) -> Result<InstancePre<Lent>, Reason> {
        for (import, _) in component.component_type().imports(engine) {
            if !self.describing {
                self.check(import, name)?;
            }
        }
        let unlinkable = |err: wasmtime::Error| Reason::Unlinkable(chain(&err));
        let mut linker = Linker::new(engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(unlinkable)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker).map_err(unlinkable)?;
        bindings::log::add_to_linker::<Lent, HasSelf<Lent>>(&mut linker, |lent| lent).map_err(unlinkable)?;
        bindings::nats_bucket::add_to_linker::<Lent, HasSelf<Lent>>(&mut linker, |lent| lent).map_err(unlinkable)?;
        bindings::ssh_channel::add_to_linker::<Lent, HasSelf<Lent>>(&mut linker, |lent| lent).map_err(unlinkable)?;
        sockets::link(&mut linker).map_err(unlinkable)?;
        linker.instantiate_pre(component).map_err(unlinkable)
    }

    fn check(&self, import: &str, name: &str) -> Result<(), Reason> {
        let interface = import.split_once('@').map_or(import, |(name, _)| name);
        let not_granted = |grant: &str| Reason::NotGranted {
            import: import.to_owned(),
            grant: format!("plugin.{name}.grants.{grant}"),
        };
        match interface.split_once('/') {
            Some(("wasi:http", "types" | "outgoing-handler")) if self.connections.is_some() => Ok(()),
            Some(("wasi:http", _)) => Err(not_granted("http")),
            Some(("antiphon:plugin", "nats-bucket")) if self.grants.bucket.is_some() => Ok(()),
            Some(("antiphon:plugin", "nats-bucket")) => {
                Err(Reason::NotGranted { import: import.to_owned(), grant: "[snapshot] store = \"nats\"".to_owned() })
            }
            Some(("antiphon:plugin", "ssh-channel")) if self.grants.server.is_some() => Ok(()),
            Some(("antiphon:plugin", "ssh-channel")) => {
                Err(Reason::NotGranted { import: import.to_owned(), grant: "[snapshot] store = \"sftp\"".to_owned() })
            }
            _ if interface == "antiphon:plugin/objects" || inert::is_linked(import) => Ok(()),
            _ => Err(Reason::UnknownImport(import.to_owned())),
        }
    }

    /// Makes a call where it is to be made: what writes to a folder has a thread of its own, which makes files for their
    /// owner alone.
    pub(crate) fn on_its_thread<T: Send>(&self, call: impl FnOnce() -> T + Send) -> T {
        if self.grants.folder.is_none() {
            return call();
        }
        std::thread::scope(|scope| {
            let called = scope.spawn(|| {
                files_are_private();
                call()
            });
            called.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// What a new instance is lent.
    pub(crate) async fn lend(&self, limits: &Limits, log: GuestLog) -> Result<Lent, Reason> {
        let mut wasi = WasiCtx::builder();
        wasi.max_random_size(1 << 16).allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
        let (reach, refused) =
            (Reach::of(&self.grants.sockets, self.grants.private_networks).await?, Refused::default());
        reach.lend(&mut wasi, &refused);
        if let Some(folder) = &self.grants.folder {
            let unlendable =
                |why: String| Reason::Unlendable { what: format!("the folder `{}`", folder.display()), why };
            make(folder).map_err(|err| unlendable(err.to_string()))?;
            // Handing each small thing to another thread would take as long as the thing itself.
            wasi.allow_blocking_current_thread(true);
            wasi.preopened_dir(folder, "/", FsPerms::ReadWrite).map_err(|err| unlendable(chain(&err)))?;
        }
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        Ok(Lent {
            wasi: wasi.build(),
            table,
            meter: Meter::new(limits),
            log,
            secrets: self.secrets.clone(),
            bucket: self.grants.bucket.clone(),
            server: self.grants.server.clone(),
            channels: 0,
            hinted: None,
            reach,
            refused,
            http: WasiHttpCtx::new(),
            sender: Sender::new(self.connections.clone()),
        })
    }
}

/// Makes a folder for its owner alone, if there is none.
fn make(folder: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x07_secrets_do_not_get_out() {
        let secrets = Secrets::new(vec!["hunter2".into(), "hunter2-and-more".into(), "abc".into(), String::new()]);
        assert_eq!(secrets.hidden("abc: hunter2, xhunter2-and-morey"), "abc: ***, x***y");
    }
}
