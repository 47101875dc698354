//! From the settings of `s3` and `webdav` to the servers they are lent: whoever writes an address grants it by that.

use std::path::Path;

use antiphon_plugin::{Advice, Certificates, Web, WebServer};

use super::take;
use crate::config;
use crate::failure::{Failure, Kind};

/// Names and values.
type Settings = Vec<(String, String)>;

/// Where AWS keeps buckets of whatever region; one may turn out to be in another than was thought.
const AWS: &str = "https://s3.*.amazonaws.com";

/// Where something is written, for messages.
pub(super) struct Here {
    /// What the names of settings begin with: `snapshot.s3`.
    pub(super) settings: String,
    /// The table that grants stand in.
    pub(super) grants: String,
}

impl Here {
    /// The short form.
    pub(super) fn short(name: &str) -> Self {
        Self { settings: format!("snapshot.{name}"), grants: format!("[snapshot.{name}]") }
    }

    /// A `[plugin.NAME]`.
    pub(super) fn plugin(name: &str) -> Self {
        Self { settings: format!("plugin.{name}.settings"), grants: format!("[plugin.{name}.grants]") }
    }

    fn wrong(&self, setting: &str, why: impl std::fmt::Display) -> Failure {
        Failure::config(format!("cannot use `{}.{setting}`: {why}", self.settings))
    }

    /// What to write if more is meant to be reached.
    fn advice(&self, setting: &str) -> Advice {
        Advice {
            server: format!(
                "if that is where the objects are, write it to `{setting}` under `[{}]`: `{setting} = \"{{}}\"`",
                self.settings
            ),
            private: format!("if that is meant, add `private_networks = true` under `{}`", self.grants),
            certificates: format!(
                "if its certificate was signed by somebody of your own, add `ca_file = \"PATH\"` under `[{}]`",
                self.settings
            ),
        }
    }
}

/// What a component of the user's own is granted.
pub(super) fn custom(name: &str, grants: &config::Grants) -> Result<Option<Web>, Failure> {
    if grants.http.is_empty() {
        return Ok(None);
    }
    let wrong = |key: &str, why: String| Failure::config(format!("cannot use `plugin.{name}.grants.{key}`: {why}"));
    let servers = grants.http.iter().map(|server| WebServer::parse(server).map_err(|why| wrong("http", why)));
    let here = format!("under `[plugin.{name}.grants]`");
    Ok(Some(Web {
        servers: servers.collect::<Result<_, _>>()?,
        private_networks: grants.private_networks,
        certificates: certificates(&grants.ca_file).map_err(|why| wrong("ca_file", why))?,
        advice: Advice {
            server: format!("if it may, add `{{}}` to `http` {here}, as `http = [\"{{}}\"]`"),
            private: format!("if that is meant, add `private_networks = true` {here}"),
            certificates: format!(
                "if its certificate was signed by somebody of your own, add `ca_file = \"PATH\"` {here}"
            ),
        },
    }))
}

/// A variable of the environment, with something in it.
pub(super) type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The environment of this process.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Settings of `s3` as its component knows them, where the bucket is, and what it is lent for that.
pub(super) fn s3(
    settings: &mut Settings,
    here: &Here,
    private_networks: bool,
    variable: Variable<'_>,
) -> Result<(String, Web), Failure> {
    if let Some(secret) = take(settings, "secret_key") {
        put(settings, "secret", secret);
    }
    let anonymous = flag(settings, "anonymous", false).map_err(|why| here.wrong("anonymous", why))?;
    // A key and its secret belong together, and so do those of the environment.
    if !anonymous && !is_set(settings, "access_key") && !is_set(settings, "secret") {
        for (setting, name) in [
            ("access_key", "AWS_ACCESS_KEY_ID"),
            ("secret", "AWS_SECRET_ACCESS_KEY"),
            ("session_token", "AWS_SESSION_TOKEN"),
        ] {
            if let Some(value) = variable(name).filter(|_| !is_set(settings, setting)) {
                put(settings, setting, value);
            }
        }
    }
    if !is_set(settings, "region")
        && let Some(region) = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"))
    {
        put(settings, "region", region);
    }
    let use_ssl = flag(settings, "use_ssl", false).map_err(|why| here.wrong("use_ssl", why))?;
    let _ = take(settings, "use_ssl");
    let by_variables = || variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL"));
    let endpoint = take(settings, "endpoint").filter(|endpoint| !endpoint.is_empty()).or_else(by_variables);
    let endpoint = match endpoint {
        Some(endpoint) if endpoint.contains("://") => endpoint,
        Some(host) if use_ssl => format!("https://{host}"),
        Some(host) => format!("http://{host}"),
        None => format!("https://s3.{}.amazonaws.com", text(settings, "region").unwrap_or("us-east-1")),
    };
    let endpoint = endpoint.trim_end_matches('/');
    let server = WebServer::parse(endpoint).map_err(|why| here.wrong("endpoint", why))?.as_named();
    put(settings, "endpoint", server.to_string());
    let ca_file = take(settings, "ca_file").filter(|path| !path.is_empty()).or_else(|| variable("AWS_CA_BUNDLE"));
    let certificates = trusted(ca_file, here)?;
    let bucket = text(settings, "bucket").unwrap_or_default().to_owned();
    if bucket.is_empty() {
        return Err(Failure::config(format!("`{}.bucket` is not set", here.settings))
            .hint("name the bucket that objects are to be in: `bucket = \"NAME\"`"));
    }
    let mut servers = vec![server.clone()];
    if server.to_string().ends_with(".amazonaws.com") {
        servers.extend(WebServer::parse(AWS));
    }
    let path_style = flag(settings, "force_path_style", true).map_err(|why| here.wrong("force_path_style", why))?;
    if !path_style {
        servers = servers.iter().flat_map(|server| [server.clone(), server.below(&bucket)]).collect();
    }
    let folder = text(settings, "path").unwrap_or_default().trim_matches('/');
    let place = if folder.is_empty() { bucket } else { format!("{bucket}/{folder}") };
    let place = format!("bucket `{place}`, {server}");
    Ok((place, Web { servers, private_networks, certificates, advice: here.advice("endpoint") }))
}

/// The same for `webdav`. Its address may have a login and a folder in it.
pub(super) fn webdav(settings: &mut Settings, here: &Here, private_networks: bool) -> Result<(String, Web), Failure> {
    let missing = || {
        Failure::config(format!("`{}.url` is not set", here.settings))
            .hint("name the server: `url = \"https://host/folder?login=NAME&secret=PASSWORD\"`")
    };
    let url = take(settings, "url").filter(|url| !url.is_empty()).ok_or_else(missing)?;
    let (url, query) = url.split_once('?').unwrap_or((&url, ""));
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !["dir", "login", "secret"].contains(&name) {
            let name = name.escape_debug();
            return Err(
                here.wrong("url", format!("it has `{name}` after `?`, and there are `dir`, `login` and `secret`"))
            );
        }
        if !is_set(settings, name) {
            put(settings, name, decoded(value).ok_or_else(|| here.wrong("url", format!("its `{name}` is no text")))?);
        }
    }
    let no_scheme = || here.wrong("url", "it begins with neither `http://` nor `https://`");
    let (scheme, rest) = url.split_once("://").ok_or_else(no_scheme)?;
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    // `user:password@host` is understood, too.
    let host = match authority.rsplit_once('@') {
        Some((user, host)) => {
            let (login, secret) = user.split_once(':').unwrap_or((user, ""));
            for (name, value) in [("login", login), ("secret", secret)] {
                if !is_set(settings, name) {
                    let value = decoded(value).ok_or_else(|| here.wrong("url", "its login is no text"))?;
                    put(settings, name, value);
                }
            }
            host
        }
        None => authority,
    };
    let server = WebServer::parse(&format!("{scheme}://{host}")).map_err(|why| here.wrong("url", why))?.as_named();
    let path = path.trim_end_matches('/');
    put(settings, "url", format!("{server}{path}"));
    let ca_file = take(settings, "ca_file").filter(|path| !path.is_empty());
    let certificates = trusted(ca_file, here)?;
    let folder = text(settings, "dir").unwrap_or_default().trim_matches('/');
    let place = if folder.is_empty() { format!("{server}{path}/") } else { format!("{server}{path}/{folder}/") };
    let servers = vec![server];
    Ok((place, Web { servers, private_networks, certificates, advice: here.advice("url") }))
}

fn trusted(ca_file: Option<String>, here: &Here) -> Result<Certificates, Failure> {
    certificates(Path::new(&ca_file.unwrap_or_default())).map_err(|why| {
        let failure = here.wrong("ca_file", why);
        Failure::new(Kind::Missing, failure.to_string()).hint("name a file of certificates as PEM")
    })
}

fn certificates(path: &Path) -> Result<Certificates, String> {
    if path.as_os_str().is_empty() {
        return Ok(Certificates::default());
    }
    Certificates::read(path).map_err(|why| format!("cannot read `{}`: {why}", path.display()))
}

fn text<'a>(settings: &'a Settings, name: &str) -> Option<&'a str> {
    settings.iter().find(|(found, value)| found == name && !value.is_empty()).map(|(_, value)| value.as_str())
}

fn is_set(settings: &Settings, name: &str) -> bool {
    text(settings, name).is_some()
}

fn put(settings: &mut Settings, name: &str, value: String) {
    let _ = take(settings, name);
    settings.push((name.to_owned(), value));
}

fn flag(settings: &Settings, name: &str, usual: bool) -> Result<bool, String> {
    match text(settings, name) {
        None => Ok(usual),
        Some(value) => value.parse().map_err(|_| format!("it is `true` or `false`, and not `{value}`")),
    }
}

/// A text of an address as it was meant: `%2F` is `/`, and `+` a blank.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                digit(rest.next()?)? * 16 + digit(rest.next()?)?
            }
            b'+' => b' ',
            plain => plain,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn none(_: &str) -> Option<String> {
        None
    }

    fn of_s3(pairs: &[(&str, &str)], variable: Variable<'_>) -> (Settings, String, Vec<String>) {
        let mut settings = settings(pairs);
        let (place, web) = s3(&mut settings, &Here::short("s3"), false, variable).unwrap();
        settings.sort();
        (settings, place, web.servers.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn an_endpoint_has_a_scheme_or_use_ssl_says_which() {
        for (endpoint, use_ssl, server) in [
            ("minio:9000", "false", "http://minio:9000"),
            ("minio:9000", "true", "https://minio:9000"),
            ("http://minio:9000/", "true", "http://minio:9000"),
            ("https://s3.example.org", "false", "https://s3.example.org"),
        ] {
            let (_, place, servers) =
                of_s3(&[("bucket", "b"), ("endpoint", endpoint), ("use_ssl", use_ssl), ("path", "/a/")], &none);
            assert_eq!(servers, [server]);
            assert_eq!(place, format!("bucket `b/a`, {server}"));
        }
    }

    #[test]
    fn without_an_endpoint_it_is_aws_in_whatever_region() {
        let region = |name: &str| (name == "AWS_DEFAULT_REGION").then(|| "eu-west-3".to_owned());
        let (_, place, servers) = of_s3(&[("bucket", "b"), ("force_path_style", "false")], &region);
        assert_eq!(place, "bucket `b`, https://s3.eu-west-3.amazonaws.com");
        assert_eq!(
            servers,
            [
                "https://s3.eu-west-3.amazonaws.com",
                "https://b.s3.eu-west-3.amazonaws.com",
                "https://s3.*.amazonaws.com",
                "https://b.s3.*.amazonaws.com"
            ]
        );
    }

    #[test]
    fn variables_stand_in_for_what_is_not_set() {
        let variable = |name: &str| match name {
            "AWS_ACCESS_KEY_ID" => Some("key".to_owned()),
            "AWS_SECRET_ACCESS_KEY" => Some("secret".to_owned()),
            "AWS_SESSION_TOKEN" => Some("token".to_owned()),
            "AWS_ENDPOINT_URL" => Some("https://by.variable".to_owned()),
            _ => None,
        };
        let (found, _, servers) = of_s3(&[("bucket", "b")], &variable);
        let all = [
            ("access_key", "key"),
            ("bucket", "b"),
            ("endpoint", "https://by.variable"),
            ("secret", "secret"),
            ("session_token", "token"),
        ];
        assert_eq!(found, settings(&all));
        assert_eq!(servers, ["https://by.variable"]);
        // Half of a login is not made whole with half of another.
        let (found, ..) = of_s3(&[("bucket", "b"), ("access_key", "mine"), ("secret_key", "own")], &variable);
        let all = [("access_key", "mine"), ("bucket", "b"), ("endpoint", "https://by.variable"), ("secret", "own")];
        assert_eq!(found, settings(&all));
        let (found, ..) = of_s3(&[("bucket", "b"), ("anonymous", "true")], &variable);
        assert!(found.iter().all(|(name, _)| name != "access_key" && name != "session_token"), "{found:?}");
    }

    #[test]
    fn x07_a_login_leaves_the_address_of_webdav() {
        for url in [
            "https://dav.example.org/remote.php/dav?dir=%2Fbackups%2F&login=bob&secret=p%40ss+word",
            "https://bob:p%40ss%20word@dav.example.org/remote.php/dav/?dir=/backups",
        ] {
            let mut found = settings(&[("url", url)]);
            let (place, web) = webdav(&mut found, &Here::short("webdav"), false).unwrap();
            assert_eq!(place, "https://dav.example.org/remote.php/dav/backups/");
            assert_eq!(web.servers.iter().map(ToString::to_string).collect::<Vec<_>>(), ["https://dav.example.org"]);
            assert_eq!(text(&found, "url"), Some("https://dav.example.org/remote.php/dav"));
            assert_eq!((text(&found, "login"), text(&found, "secret")), (Some("bob"), Some("p@ss word")));
        }
        for url in ["dav.example.org", "ftp://x/", "https://x/?pass=hunter2", "https://x/?secret=%zz", "https:///x"] {
            let Err(error) = webdav(&mut settings(&[("url", url)]), &Here::short("webdav"), false) else {
                panic!("{url}")
            };
            assert!(error.to_string().contains("`snapshot.webdav.url`"), "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
