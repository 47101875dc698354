//! How to log in, and how the server is known: read from the files anew at each connection, so that what was replaced
//! there counts from the next one on.

use crate::failure::{Failure, Kind};
use async_nats::{Auth, AuthError, ConnectOptions};
use nkeys::KeyPair;
use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// How to log in, and how the server is known.
#[derive(Clone, Default)]
pub struct Login {
    /// Name and password.
    pub user: Option<(String, String)>,
    /// A token.
    pub token: Option<String>,
    /// A file with the NKey seed.
    pub seed_file: Option<PathBuf>,
    /// A file with a JWT and its seed.
    pub creds_file: Option<PathBuf>,
    /// Certificates that servers are checked against.
    pub ca_file: Option<PathBuf>,
    /// Our certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Refuse to speak without TLS.
    pub require_tls: bool,
}

/// Which of them are used, and no secret.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("user", &self.user.as_ref().map(|(name, _)| name))
            .field("seed_file", &self.seed_file)
            .field("creds_file", &self.creds_file)
            .field("ca_file", &self.ca_file)
            .field("certificate", &self.certificate)
            .field("require_tls", &self.require_tls)
            .finish_non_exhaustive()
    }
}

impl Login {
    /// Whether we say who we are.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.user.is_some()
            || self.token.is_some()
            || self.seed_file.is_some()
            || self.creds_file.is_some()
            || self.certificate.is_some()
    }

    /// Each file, by the name of its setting.
    fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let (certificate, key) = self.certificate.as_ref().map(|(one, other)| (one, other)).unzip();
        [
            ("seed_file", self.seed_file.as_ref()),
            ("creds_file", self.creds_file.as_ref()),
            ("ca_file", self.ca_file.as_ref()),
            ("cert_file", certificate),
            ("key_file", key),
        ]
        .into_iter()
        .filter_map(|(name, file)| Some((name, file?.as_path())))
    }

    /// Tells whether a file was replaced since: when each was changed, and which file it is.
    pub(super) fn stamps(&self) -> Vec<Option<(SystemTime, u64)>> {
        self.files()
            .map(|(_, file)| std::fs::metadata(file).and_then(|found| Ok((found.modified()?, found.ino()))).ok())
            .collect()
    }

    /// Looks at the files before anything is tried with them.
    ///
    /// # Errors
    /// When one can't be read, or holds no seed.
    pub(super) fn check(&self) -> Result<(), Failure> {
        for (name, file) in self.files() {
            let text = format!("cannot use `nats.{name}` `{}`", file.display());
            let found = std::fs::metadata(file).map_err(|error| Failure::caused(Kind::Config, &text, &error))?;
            let is_secret = !matches!(name, "ca_file" | "cert_file");
            if is_secret && found.mode() & 0o077 != 0 {
                tracing::warn!(file = %file.display(), "others on this machine can read this file, which is a secret; `chmod 600` it");
            }
            let read = std::fs::read_to_string(file).map_err(|error| Failure::caused(Kind::Config, &text, &error))?;
            let sound = match name {
                "seed_file" => keys(&read).map(drop),
                "creds_file" => credentials(&read).map(drop),
                _ if read.contains("-----BEGIN ") => Ok(()),
                _ => Err("there is no PEM block in it"),
            };
            sound.map_err(|why| Failure::config(format!("{text}: {why}")))?;
        }
        Ok(())
    }

    /// What a connection is made with.
    pub(super) fn options(&self) -> ConnectOptions {
        let login = self.clone();
        let mut options =
            if self.user.is_some() || self.token.is_some() || self.seed_file.is_some() || self.creds_file.is_some() {
                ConnectOptions::with_auth_callback(move |nonce| {
                    let auth = login.answer(&nonce).map_err(AuthError::new);
                    async move { auth }
                })
            } else {
                ConnectOptions::new()
            };
        if let Some(file) = &self.ca_file {
            options = options.add_root_certificates(file.clone());
        }
        if let Some((certificate, key)) = &self.certificate {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        options.require_tls(self.require_tls)
    }

    /// What the server is told, for the number it drew.
    fn answer(&self, nonce: &[u8]) -> Result<Auth, String> {
        let mut auth = Auth::new();
        if let Some((name, password)) = &self.user {
            (auth.username, auth.password) = (Some(name.clone()), Some(password.clone()));
        }
        auth.token.clone_from(&self.token);
        let read = |file: &Path| {
            std::fs::read_to_string(file).map_err(|error| format!("cannot read `{}`: {error}", file.display()))
        };
        let signed = |keys: &KeyPair| keys.sign(nonce).map_err(|error| error.to_string());
        if let Some(file) = &self.seed_file {
            let keys = keys(&read(file)?)?;
            (auth.nkey, auth.signature) = (Some(keys.public_key()), Some(signed(&keys)?));
        }
        if let Some(file) = &self.creds_file {
            let text = read(file)?;
            let (jwt, keys) = credentials(&text)?;
            (auth.jwt, auth.signature) = (Some(jwt.to_owned()), Some(signed(&keys)?));
        }
        Ok(auth)
    }
}

/// The keys that a seed stands for.
fn keys(seed: &str) -> Result<KeyPair, &'static str> {
    let seed = seed.lines().map(str::trim).find(|line| line.starts_with('S')).unwrap_or_default();
    KeyPair::from_seed(seed).map_err(|_| "there is no NKey seed in it")
}

/// The JWT and the keys of a file that `nsc` writes.
fn credentials(text: &str) -> Result<(&str, KeyPair), &'static str> {
    // Whole lines: a signature may well have dashes in it, and those end nothing.
    let block = |name: &str| {
        let mut after = text.lines().map(str::trim).skip_while(|line| !line.contains(&format!("BEGIN {name}"))).skip(1);
        after.find(|line| !line.is_empty()).filter(|line| !line.starts_with("---"))
    };
    let jwt = block("NATS USER JWT").ok_or("there is no user JWT in it")?;
    Ok((jwt, keys(block("USER NKEY SEED").unwrap_or_default())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_hold_nothing_of_use_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let refused = |login: Login| login.check().unwrap_err().to_string();
        let seed = || Login { seed_file: Some(file.clone()), ..Login::default() };
        assert!(refused(seed()).starts_with("cannot use `nats.seed_file`"));
        std::fs::write(&file, "no seed\n").unwrap();
        assert!(refused(seed()).ends_with("there is no NKey seed in it"));
        assert!(refused(Login { creds_file: Some(file.clone()), ..Login::default() }).ends_with("no user JWT in it"));
        std::fs::write(&file, "-----BEGIN NATS USER JWT-----\n\n------END NATS USER JWT------\n").unwrap();
        assert!(refused(Login { creds_file: Some(file.clone()), ..Login::default() }).ends_with("no user JWT in it"));
        std::fs::write(&file, "no seed\n").unwrap();
        assert!(refused(Login { ca_file: Some(file.clone()), ..Login::default() }).ends_with("no PEM block in it"));
        std::fs::write(&file, format!("# ours\n{}\n", KeyPair::new_user().seed().unwrap())).unwrap();
        seed().check().unwrap();
    }

    #[test]
    fn what_nsc_writes_is_read() {
        let keys = KeyPair::new_user();
        let text = format!(
            "-----BEGIN NATS USER JWT-----\neyJ0.a-b_c.---d----\n------END NATS USER JWT------\n\n*** IMPORTANT ***\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            keys.seed().unwrap()
        );
        let (jwt, read) = credentials(&text).unwrap();
        assert_eq!((jwt, read.public_key()), ("eyJ0.a-b_c.---d----", keys.public_key()));
    }

    #[test]
    fn no_secret_is_printed() {
        let user = Some(("bob".to_owned(), "s3cret".to_owned()));
        let login = Login { user, token: Some("t0ken".to_owned()), ..Login::default() };
        let shown = format!("{login:?}");
        assert!(!shown.contains("s3cret") && !shown.contains("t0ken"), "{shown}");
    }
}
