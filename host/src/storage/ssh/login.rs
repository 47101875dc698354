//! The ways to log in, one after the other: the key of a file, the keys of the agent, the password.

use std::path::Path;
use std::sync::Arc;

use antiphon_core::store::{ErrorKind, StoreError};
use russh::client::{AuthResult, Handle, Handler, KeyboardInteractiveAuthResponse};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg};
use russh::{MethodKind, MethodSet};

use super::place::Place;

/// A server closes after a few tries, and an agent may have many keys.
const AGENT_KEYS_MAX: usize = 5;
/// A server may ask for the password again and again.
const QUESTIONS_MAX: usize = 4;

/// Logs in, in any way there is.
pub(super) async fn log_in<H: Handler>(handle: &mut Handle<H>, place: &Place) -> Result<(), StoreError> {
    let mut login = Login { handle, place, tried: Vec::new(), taken: MethodSet::empty() };
    // What opens a key is looked at first: a file that can't be read is the user's to mend, whatever else there is.
    let key = place.key_file.as_deref().map(|file| key(file, place.passphrase.as_deref())).transpose()?;
    if let Some(key) = key
        && login.key(key).await?
    {
        return Ok(());
    }
    if let Some(socket) = &place.agent
        && login.agent(socket).await?
    {
        return Ok(());
    }
    if let Some(password) = &place.password
        && login.password(password).await?
    {
        return Ok(());
    }
    Err(login.refused())
}

/// The private key of a file.
fn key(file: &Path, passphrase: Option<&str>) -> Result<PrivateKey, StoreError> {
    let shown = file.display();
    let denied = |why: String| StoreError::new(ErrorKind::Denied, why);
    let text = std::fs::read_to_string(file)
        .map_err(|error| denied(format!("cannot read the private key `{shown}`: {error}")).hint("see `key_file`"))?;
    if std::os::unix::fs::MetadataExt::mode(
        &std::fs::metadata(file).map_err(|error| denied(format!("cannot look at `{shown}`: {error}")))?,
    ) & 0o077
        != 0
    {
        tracing::warn!(file = %shown, "others may read this private key; `chmod 600` keeps it to its owner");
    }
    let wrong = match russh::keys::decode_secret_key(&text, passphrase) {
        Ok(key) => return Ok(key),
        Err(error) => error,
    };
    let is_encrypted = matches!(wrong, russh::keys::Error::KeyIsEncrypted)
        || PrivateKey::from_openssh(&text).is_ok_and(|key| key.is_encrypted())
        || text.contains("ENCRYPTED");
    Err(match (is_encrypted, passphrase) {
        (true, None) => denied(format!("the private key `{shown}` is protected by a passphrase, and none is set"))
            .hint("write `passphrase = \"${file:PATH}\"` beside `key_file`"),
        (true, Some(_)) => denied(format!("the passphrase is not that of the private key `{shown}`")),
        (false, _) => denied(format!("`{shown}` holds no private key that can be read: {wrong}"))
            .hint("keys of OpenSSH are read: Ed25519, RSA and ECDSA; `ssh-keygen -t ed25519` makes one"),
    })
}

struct Login<'a, H: Handler> {
    handle: &'a mut Handle<H>,
    place: &'a Place,
    /// What the server did not take.
    tried: Vec<String>,
    /// What it would.
    taken: MethodSet,
}

impl<H: Handler> Login<'_, H> {
    fn lost(&self, error: &dyn std::fmt::Display) -> StoreError {
        let why = format!("cannot log in at `{}`: {error}", self.place.address());
        StoreError::new(ErrorKind::Temporary, why)
    }

    /// Notes what the server says to a try.
    fn note(&mut self, what: String, said: AuthResult) -> bool {
        match said {
            AuthResult::Success => true,
            AuthResult::Failure { remaining_methods, .. } => {
                self.tried.push(what);
                self.taken = remaining_methods;
                false
            }
        }
    }

    /// How an RSA key signs there.
    async fn hash(&self) -> Result<Option<HashAlg>, StoreError> {
        let hash = self.handle.best_supported_rsa_hash().await.map_err(|error| self.lost(&error))?;
        // A server that says nothing of it is an old one, and knows this.
        Ok(hash.unwrap_or(Some(HashAlg::Sha256)))
    }

    async fn key(&mut self, key: PrivateKey) -> Result<bool, StoreError> {
        let file = self.place.key_file.as_deref().unwrap_or(Path::new("")).display();
        let what = format!("the key `{file}` ({})", key.fingerprint(HashAlg::Sha256));
        let hash = if key.algorithm().is_rsa() { self.hash().await? } else { None };
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), hash);
        let said = self.handle.authenticate_publickey(self.place.user.as_str(), key).await;
        let said = said.map_err(|error| self.lost(&error))?;
        Ok(self.note(what, said))
    }

    async fn agent(&mut self, socket: &Path) -> Result<bool, StoreError> {
        let unasked = |error: russh::keys::Error| {
            let why = format!("cannot ask the SSH agent at `{}`: {error}", socket.display());
            StoreError::new(ErrorKind::Denied, why)
                .hint("see that `ssh-agent` runs, and that `SSH_AUTH_SOCK` names its socket")
        };
        let mut agent = AgentClient::connect_uds(socket).await.map_err(unasked)?;
        let identities = agent.request_identities().await.map_err(unasked)?;
        if identities.is_empty() {
            self.tried.push("the SSH agent, which has no key (`ssh-add` gives it one)".to_owned());
        }
        let hash = match identities.iter().any(|identity| identity.public_key().algorithm().is_rsa()) {
            true => self.hash().await?,
            false => None,
        };
        for identity in identities.into_iter().take(AGENT_KEYS_MAX) {
            let (user, what) = (self.place.user.as_str(), identity.public_key());
            let hash = if what.algorithm().is_rsa() { hash } else { None };
            let what = format!("the agent's key {}", what.fingerprint(HashAlg::Sha256));
            let said = match identity {
                AgentIdentity::PublicKey { key, .. } => {
                    self.handle.authenticate_publickey_with(user, key, hash, &mut agent).await
                }
                AgentIdentity::Certificate { certificate, .. } => {
                    self.handle.authenticate_certificate_with(user, certificate, hash, &mut agent).await
                }
            };
            match said {
                Ok(said) if self.note(what.clone(), said.clone()) => return Ok(true),
                Ok(_) => {}
                // It may be locked, or its owner may have said no.
                Err(error) => self.tried.push(format!("{what}, for which the agent does not sign ({error})")),
            }
        }
        Ok(false)
    }

    async fn password(&mut self, password: &str) -> Result<bool, StoreError> {
        let said = self.handle.authenticate_password(self.place.user.as_str(), password).await;
        let said = said.map_err(|error| self.lost(&error))?;
        if self.note("the password".to_owned(), said) {
            return Ok(true);
        }
        // Some servers take a password only as the answer to a question.
        if !self.taken.contains(&MethodKind::KeyboardInteractive) {
            return Ok(false);
        }
        let user = self.place.user.as_str();
        let mut said = self.handle.authenticate_keyboard_interactive_start(user, None::<String>).await;
        for _ in 0..QUESTIONS_MAX {
            match said.map_err(|error| self.lost(&error))? {
                KeyboardInteractiveAuthResponse::Success => return Ok(true),
                KeyboardInteractiveAuthResponse::Failure { .. } => return Ok(false),
                KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => {
                    // What may be seen while it is typed is no password.
                    let answers = prompts.iter().map(|prompt| if prompt.echo { "" } else { password }.to_owned());
                    let answers = answers.collect();
                    said = self.handle.authenticate_keyboard_interactive_respond(answers).await;
                }
            }
        }
        Ok(false)
    }

    fn refused(&self) -> StoreError {
        let Place { user, .. } = self.place;
        let tried = self.tried.join(", nor ");
        let not = if self.tried.is_empty() { "nothing" } else { "neither " };
        let not = if self.tried.len() > 1 { format!("{not}{tried}") } else { format!("not {tried}") };
        let why = format!("the SSH server `{}` does not let `{user}` in: it takes {not}", self.place.address());
        let taken: Vec<&str> = self.taken.iter().map(<&str>::from).collect();
        let takes = if taken.is_empty() { String::new() } else { format!("it would take: {}; ", taken.join(", ")) };
        StoreError::new(ErrorKind::Denied, why)
            .hint(format!("{takes}see that the user and the way to log in are right, and known to the server"))
    }
}
