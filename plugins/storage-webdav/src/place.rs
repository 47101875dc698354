//! Where the folder is, and who asks for it.

use http::Request;
use http::request::Builder;
use http_client::{Client, Error, Given, Kind, Settings};
use opendal_core::raw::{
    format_authorization_by_basic, format_authorization_by_bearer, percent_decode_path, percent_encode_path,
};
use opendal_core::{HttpTransporter, OperationContext, Operator};
use opendal_service_webdav::Webdav;

const KNOWN: &str = "`url`, `dir`, `login`, `secret`, `token` and `ca_file`";

/// A folder on a server, as the settings name it.
pub(crate) struct Place {
    /// `https://host:port/folder`, without a `/` at its end.
    url: String,
    /// Folders within that, from `/` to `/`.
    dir: String,
    login: Option<(String, String)>,
    token: Option<String>,
    authorization: Option<String>,
}

impl Place {
    pub(crate) fn new(settings: Settings) -> Result<Self, Error> {
        let mut given = Given::new(settings);
        let url = given.text("url").ok_or_else(|| permanent("`url` is not set".to_owned()))?;
        let dir = given.text("dir").unwrap_or_default();
        if dir.split('/').any(|part| part == ".." || part == ".") {
            return Err(permanent(format!("`dir` leads out of itself: `{dir}`")));
        }
        let parts: Vec<&str> = dir.split('/').filter(|part| !part.is_empty()).collect();
        let (login, secret, token) = (given.text("login"), given.text("secret"), given.text("token"));
        given.none_left(KNOWN)?;
        let login = match (login, secret) {
            (Some(login), secret) => Some((login, secret.unwrap_or_default())),
            (None, None) => None,
            (None, Some(_)) => return Err(permanent("`login` is not set, and `secret` is".to_owned())),
        };
        let unfit = |error: opendal_core::Error| permanent(format!("cannot log in like that: {}", error.message()));
        let authorization = match (&token, &login) {
            (Some(token), _) => Some(format_authorization_by_bearer(token).map_err(unfit)?),
            (None, Some((login, secret))) => Some(format_authorization_by_basic(login, secret).map_err(unfit)?),
            (None, None) => None,
        };
        let dir = if parts.is_empty() { "/".to_owned() } else { format!("/{}/", parts.join("/")) };
        Ok(Self { url: url.trim_end_matches('/').to_owned(), dir, login, token, authorization })
    }

    pub(crate) fn open(&self, client: &Client) -> Result<Operator, Error> {
        let mut folder = Webdav::default().endpoint(&self.url).root(&self.dir).disable_create_dir(true);
        if let Some((login, secret)) = &self.login {
            folder = folder.username(login).password(secret);
        }
        if let Some(token) = &self.token {
            folder = folder.token(token);
        }
        let unfit = |error: opendal_core::Error| permanent(format!("cannot use these settings: {}", error.message()));
        let operator = Operator::new(folder).map_err(unfit)?;
        let transport = HttpTransporter::new(client.clone());
        Ok(operator.with_context(OperationContext::new().with_http_transport(transport)))
    }

    /// A request about what is at a key, or about the folder at one that ends with `/`.
    pub(crate) fn request(&self, method: &str, key: &str) -> Builder {
        let request = Request::builder().method(method).uri(self.address(key));
        match &self.authorization {
            Some(authorization) => request.header("authorization", authorization),
            None => request,
        }
    }

    /// The address of a key.
    pub(crate) fn address(&self, key: &str) -> String {
        format!("{}{}", self.url, percent_encode_path(&format!("{}{key}", self.dir)))
    }

    /// The path of a key as a server writes it, decoded.
    pub(crate) fn path(&self, key: &str) -> String {
        let base = self.url.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| rest.split_at(at).1));
        format!("{}{}{key}", percent_decode_path(base.unwrap_or_default()), self.dir)
    }

    /// The folders from the outermost to that of a key, each with its `/`; those of `dir` among them.
    pub(crate) fn folders(&self, key: &str) -> Vec<String> {
        let within = key.rsplit_once('/').map_or("", |(folder, _)| folder);
        let whole = format!("{}{within}", self.dir);
        let parts: Vec<&str> = whole.split('/').filter(|part| !part.is_empty()).collect();
        (1..=parts.len()).map(|count| format!("/{}/", parts.get(..count).unwrap_or_default().join("/"))).collect()
    }

    /// A request about one of these.
    pub(crate) fn about_folder(&self, method: &str, folder: &str) -> Builder {
        let request = Request::builder().method(method).uri(format!("{}{}", self.url, percent_encode_path(folder)));
        match &self.authorization {
            Some(authorization) => request.header("authorization", authorization),
            None => request,
        }
    }
}

pub(crate) fn permanent(message: String) -> Error {
    Error { kind: Kind::Permanent, message, retry_after_ms: None }
}
