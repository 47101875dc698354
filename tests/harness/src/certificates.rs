//! Certificates for tests, made by `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// An authority of a test's own.
pub struct Authority {
    folder: PathBuf,
    name: String,
}

fn openssl(folder: &Path, arguments: &str) {
    let made = Command::new("openssl").current_dir(folder).args(arguments.split_whitespace()).output();
    let made = made.unwrap_or_else(|error| panic!("openssl is missing; on Debian: apt-get install openssl: {error}"));
    assert!(made.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&made.stderr));
}

impl Authority {
    /// Makes one in this folder.
    pub fn new(folder: &Path, name: &str) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        openssl(
            folder,
            &format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN={name} \
                 -keyout {name}.key -out {name}.pem"
            ),
        );
        Self { folder: folder.to_owned(), name: name.to_owned() }
    }

    /// Its own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join(format!("{}.pem", self.name))
    }

    /// Issues a certificate that holds for these names, as `IP:127.0.0.1`; gives the files of it and its key.
    pub fn issue(&self, name: &str, alternatives: &str) -> (PathBuf, PathBuf) {
        let (folder, authority) = (&self.folder, &self.name);
        openssl(
            folder,
            &format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={name} -keyout {name}.key \
                 -out {name}.csr"
            ),
        );
        std::fs::write(folder.join(format!("{name}.ext")), format!("subjectAltName={alternatives}\n")).unwrap();
        openssl(
            folder,
            &format!(
                "x509 -req -in {name}.csr -CA {authority}.pem -CAkey {authority}.key -CAcreateserial -days 30 \
                 -extfile {name}.ext -out {name}.pem"
            ),
        );
        (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")))
    }
}
