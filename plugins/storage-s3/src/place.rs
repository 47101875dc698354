//! Where the bucket is, and who asks it.

use http_client::{Client, Error, Given, Kind, Settings};
use opendal_core::{HttpTransporter, OperationContext, Operator};
use opendal_service_s3::S3;

/// What AWS's names end with.
const AWS: &str = ".amazonaws.com";

const KNOWN: &str = "`endpoint`, `use_ssl`, `ca_file`, `bucket`, `path`, `region`, `access_key`, `secret`, \
    `session_token`, `anonymous`, `force_path_style` and `storage_class`";

/// A bucket, as the settings name it.
#[derive(Clone)]
pub(crate) struct Place {
    /// `https://host:port`.
    pub(crate) endpoint: String,
    pub(crate) bucket: String,
    /// What all keys begin with: nothing, or a folder with its `/`.
    pub(crate) prefix: String,
    pub(crate) region: String,
    login: Option<(String, String)>,
    session_token: Option<String>,
    path_style: bool,
    storage_class: Option<String>,
}

impl Place {
    pub(crate) fn new(settings: Settings) -> Result<Self, Error> {
        let mut given = Given::new(settings);
        let missing = |what: &str| permanent(format!("`{what}` is not set"));
        let bucket = given.text("bucket").ok_or_else(|| missing("bucket"))?;
        if bucket.contains('/') {
            return Err(permanent(format!("`bucket` is a name, and a folder in it goes to `path`: `{bucket}`")));
        }
        let region = given.text("region").unwrap_or_else(|| "us-east-1".to_owned());
        let endpoint = given.text("endpoint").unwrap_or_else(|| format!("https://s3.{region}{AWS}"));
        let folder = given.text("path").unwrap_or_default();
        let folder = folder.trim_matches('/');
        let (key, secret) = (given.text("access_key"), given.text("secret"));
        let login = match (given.flag("anonymous")?.unwrap_or(false), key, secret) {
            (true, ..) | (false, None, None) => None,
            (false, Some(key), Some(secret)) => Some((key, secret)),
            (false, Some(_), None) => return Err(missing("secret")),
            (false, None, Some(_)) => return Err(missing("access_key")),
        };
        let place = Self {
            endpoint,
            bucket,
            prefix: if folder.is_empty() { String::new() } else { format!("{folder}/") },
            region,
            login,
            session_token: given.text("session_token"),
            path_style: given.flag("force_path_style")?.unwrap_or(true),
            storage_class: given.text("storage_class"),
        };
        given.none_left(KNOWN)?;
        Ok(place)
    }

    /// The same bucket, in a region that it named.
    pub(crate) fn in_region(&self, region: &str) -> Self {
        let mut place = self.clone();
        region.clone_into(&mut place.region);
        if self.endpoint.contains("://s3.") && self.endpoint.ends_with(AWS) {
            place.endpoint = format!("https://s3.{region}{AWS}");
        }
        place
    }

    pub(crate) fn open(&self, client: &Client) -> Result<Operator, Error> {
        let mut bucket = S3::default()
            .endpoint(&self.endpoint)
            .bucket(&self.bucket)
            .region(&self.region)
            // It would look for variables, files and a server of the machine's that tells credentials.
            .disable_config_load()
            .disable_ec2_metadata();
        bucket = match &self.login {
            Some((key, secret)) => bucket.access_key_id(key).secret_access_key(secret),
            None => bucket.skip_signature(),
        };
        if let Some(token) = &self.session_token {
            bucket = bucket.session_token(token);
        }
        if !self.path_style {
            bucket = bucket.enable_virtual_host_style();
        }
        if let Some(class) = &self.storage_class {
            bucket = bucket.default_storage_class(class);
        }
        let unfit = |error: opendal_core::Error| permanent(format!("cannot use these settings: {}", error.message()));
        let operator = Operator::new(bucket).map_err(unfit)?;
        let transport = HttpTransporter::new(client.clone());
        Ok(operator.with_context(OperationContext::new().with_http_transport(transport)))
    }

    /// Whether it has anything to log in with.
    pub(crate) fn is_anonymous(&self) -> bool {
        self.login.is_none()
    }
}

fn permanent(message: String) -> Error {
    Error { kind: Kind::Permanent, message, retry_after_ms: None }
}
