//! The host's own word to a server over HTTP, by the way that plugins' requests take: the same trust in certificates, the
//! same patience, and no redirect is followed, so that no token goes where it was not meant to.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};

use super::{Certificates, Connections, Troubles, Web, WebServer};

/// How long the other side may say and take nothing.
const SILENCE: Duration = Duration::from_secs(10);

/// One address that is told things.
#[derive(Clone)]
pub struct Post {
    connections: Arc<Connections>,
    uri: Uri,
    server: WebServer,
    authorization: Option<HeaderValue>,
}

impl std::fmt::Debug for Post {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The path of an address may be a secret.
        f.debug_struct("Post").field("server", &self.server.to_string()).finish_non_exhaustive()
    }
}

impl Post {
    /// An address, as `https://host/path`. Who writes it means it, wherever its name leads.
    ///
    /// # Errors
    /// Why it is none. The address itself is not in the words, for it may be a secret.
    pub fn new(address: &str, token: Option<&str>, certificates: Certificates) -> Result<Self, String> {
        let uri = Uri::try_from(address).map_err(|err| format!("it is no address: {err}"))?;
        let server = WebServer::of(&uri).ok_or("it is no address of a server; write it as `https://host/path`")?;
        let authorization = token.map(|token| {
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                .map_err(|_| "the token has signs in it that no token has".to_owned())?;
            value.set_sensitive(true);
            Ok::<_, String>(value)
        });
        let server = server.as_named();
        let web = Web { servers: vec![server.clone()], private_networks: true, certificates, ..Web::default() };
        let connections = Arc::new(Connections::new(web, SILENCE));
        Ok(Self { connections, uri, server, authorization: authorization.transpose()? })
    }

    /// The server, for people to read.
    #[must_use]
    pub fn server(&self) -> String {
        self.server.to_string()
    }

    /// Sends this JSON; gives the answer's status.
    ///
    /// # Errors
    /// What stood in the way.
    pub async fn send(&self, json: Vec<u8>) -> Result<StatusCode, String> {
        let mut request = Request::builder().method(Method::POST).uri(self.uri.clone());
        request = request.header(CONTENT_TYPE, "application/json").header(USER_AGENT, "antiphon");
        if let Some(authority) = self.uri.authority() {
            request = request.header(HOST, authority.as_str());
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let body = Full::new(Bytes::from(json)).map_err(|never| match never {}).boxed_unsync();
        let request = request.body(body).map_err(|err| err.to_string())?;
        let troubles = Troubles::default();
        match self.connections.send(request, &troubles).await {
            Ok(response) => Ok(response.status()),
            Err(err) => Err(troubles.take().map_or_else(|| format!("{err:?}"), |trouble| trouble.why)),
        }
    }
}
