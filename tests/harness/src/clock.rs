//! The clock of one process's machine, set while the process runs: a library that is loaded before libc tells it the time.

use crate::process::{Place, Site};
use std::path::PathBuf;
use std::process::Command;

/// Every way in which the program and SQLite ask for the time of day. Time that only passes is left alone.
const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile long long *ahead;

__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("CLOCK_AHEAD"), O_RDONLY);
    void *place = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (place == MAP_FAILED) abort();
    ahead = place;
}

int clock_gettime(clockid_t which, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, which, now);
    if (!failed && which == CLOCK_REALTIME && ahead) now->tv_sec += *ahead;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *place) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (place) *place = now.tv_sec;
    return now.tv_sec;
}
"#;

/// A clock that a test sets.
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    ahead: PathBuf,
}

impl Clock {
    /// A clock that goes right, of this name.
    pub fn new(place: &Place, name: &str) -> Self {
        let source = place.file(&format!("{name}.c"), LIBRARY);
        let clock = Self { library: source.with_extension("so"), ahead: source.with_extension("ahead") };
        let built =
            Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&clock.library).arg(&source).output();
        let built = built.expect("cannot run a C compiler");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        std::fs::write(&clock.ahead, 0i64.to_le_bytes()).unwrap();
        clock
    }

    /// Has a site go by it from its next start on.
    pub fn tells(&self, site: Site) -> Site {
        let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
        site.with("LD_PRELOAD", text(&self.library)).with("CLOCK_AHEAD", text(&self.ahead))
    }

    /// It goes so many seconds ahead from now on.
    pub fn set(&self, ahead: i64) {
        use std::os::unix::fs::FileExt as _;
        // In place: the file is mapped.
        let file = std::fs::OpenOptions::new().write(true).open(&self.ahead).unwrap();
        file.write_all_at(&ahead.to_ne_bytes(), 0).unwrap();
    }
}
