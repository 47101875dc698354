//! A disk that refuses what one program writes to it, as no mount of a test's own can be made to.

use crate::{Place, Site};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the program is told of it; the shim knows the same name.
const TOLD: &str = "TEST_REFUSING";

/// Between a program and the calls with which it writes.
pub struct Refusing {
    library: PathBuf,
    told: PathBuf,
}

impl Refusing {
    /// Refuses nothing yet.
    pub fn new(place: &Place) -> Self {
        let source = place.file("refusing.rs", include_str!("../shim/refusing.rs"));
        let library = place.path("refusing.so");
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition", "2024", "--crate-type", "cdylib", "-O", "-o"]).arg(&library).arg(source);
        let built = rustc.output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Self { library, told: place.path("refused") }
    }

    /// Has this one write through it, from its next start on.
    pub fn before(&self, site: Site) -> Site {
        let [library, told] = [&self.library, &self.told].map(|path| path.to_str().unwrap());
        site.with("LD_PRELOAD", library).with(TOLD, told)
    }

    /// Refuses what is written below this folder from now on, with this error.
    pub fn refuse(&self, folder: &Path, error: rustix::io::Errno) {
        // By one step: nobody reads half of it.
        let next = self.told.with_extension("next");
        std::fs::write(&next, format!("{} {}", error.raw_os_error(), folder.display())).unwrap();
        std::fs::rename(next, &self.told).unwrap();
    }

    /// Refuses nothing any more.
    pub fn allow(&self) {
        std::fs::remove_file(&self.told).unwrap();
    }
}
