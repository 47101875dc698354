//! Secrets that stand elsewhere: `${file:/run/secrets/s3}` and `${env:S3_SECRET}`.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::failure::{Failure, Kind};

/// The largest file that holds a secret.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// The value that a setting stands for: the content of a file or a variable if it names one, else the text itself.
///
/// Of a file the last line end is left out. `key` is the setting's name, for messages.
///
/// # Errors
/// When what it names is not there.
pub fn expand(key: &str, text: &str) -> Result<String, Failure> {
    let Some(inner) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else {
        return Ok(text.to_owned());
    };
    match inner.split_once(':') {
        Some(("file", path)) if !path.is_empty() => read(key, Path::new(path)),
        Some(("env", name)) if !name.is_empty() => std::env::var(name).map_err(|_| {
            Failure::config(format!("`{key}` is to be the environment variable `{name}`, which is not set"))
                .hint(format!("set `{name}`, or write `${{file:PATH}}`"))
        }),
        _ => Err(Failure::config(format!("`{key}` is neither `${{file:PATH}}` nor `${{env:NAME}}`"))),
    }
}

fn read(key: &str, path: &Path) -> Result<String, Failure> {
    let shown = path.display();
    let unread = |error: &std::io::Error| {
        Failure::caused(Kind::Missing, format!("cannot read `{shown}`, which holds `{key}`"), error)
    };
    let found = std::fs::metadata(path).map_err(|error| unread(&error))?;
    if found.len() > SECRET_BYTES_MAX {
        return Err(Failure::config(format!("`{shown}`, which is to hold `{key}`, is too large for a secret")));
    }
    if found.mode() & 0o077 != 0 {
        tracing::warn!(setting = key, file = %shown, "others may read this secret; `chmod 600` keeps it to its owner");
    }
    let mut text = std::fs::read_to_string(path).map_err(|error| unread(&error))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        for (content, secret) in [("s3cr3t", "s3cr3t"), ("s3cr3t\n", "s3cr3t"), ("a\nb\r\n", "a\nb"), ("", "")] {
            std::fs::write(&file, content).unwrap();
            assert_eq!(expand("k", &format!("${{file:{}}}", file.display())).unwrap(), secret);
        }
        std::fs::remove_file(&file).unwrap();
        let error = expand("k", &format!("${{file:{}}}", file.display())).unwrap_err();
        assert_eq!(error.kind(), Kind::Missing);
    }

    #[test]
    fn a_secret_is_read_from_a_variable() {
        assert_eq!(expand("k", "${env:CARGO_PKG_NAME}").unwrap(), "antiphon");
        assert!(expand("k", "${env:NEVER_SET_BY_ANYBODY}").unwrap_err().to_string().contains("NEVER_SET"));
    }

    #[test]
    fn other_texts_are_what_they_are() {
        for text in ["", "plain", "${", "$file:x", "a${env:HOME}"] {
            assert_eq!(expand("k", text).unwrap(), text);
        }
        for text in ["${}", "${HOME}", "${env:}", "${file:}", "${vault:x}"] {
            assert!(expand("k", text).is_err(), "{text}");
        }
    }
}
