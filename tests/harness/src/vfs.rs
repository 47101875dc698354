//! A file system that fails: a SQLite VFS before the real one, which counts calls and refuses the n-th.
//!
//! Registered as the default, so that it also sees files which the host opens by itself, the log's among them.
//! Files outside of a watched folder pass through untouched. Syncs are counted and not done: that a disk keeps
//! what it was told to is not what is asked here.
#![allow(
    unsafe_code,
    reason = "a VFS is a table of C functions; no safe wrapper of one exists, and only tests are built with it"
)]

use rusqlite::ffi::{
    SQLITE_CANTOPEN, SQLITE_FULL, SQLITE_IOERR_ACCESS, SQLITE_IOERR_DELETE, SQLITE_IOERR_FSTAT, SQLITE_IOERR_FSYNC,
    SQLITE_IOERR_LOCK, SQLITE_IOERR_READ, SQLITE_IOERR_SHMLOCK, SQLITE_IOERR_SHMMAP, SQLITE_IOERR_TRUNCATE,
    SQLITE_IOERR_WRITE, SQLITE_OK, sqlite3_file, sqlite3_io_methods, sqlite3_vfs, sqlite3_vfs_find,
    sqlite3_vfs_register,
};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, Once, PoisonError};

/// What SQLite asked of the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Open,
    Read,
    Write,
    Sync,
    Truncate,
    Size,
    Lock,
    Map,
    Delete,
    Access,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// EIO: nothing was done.
    Error,
    /// ENOSPC: nothing was written.
    Full,
    /// Half of it was written.
    Short,
}

impl Fault {
    pub const ALL: [Self; 3] = [Self::Error, Self::Full, Self::Short];

    /// Whether such a call can fail so.
    #[must_use]
    pub fn strikes(self, call: Call) -> bool {
        match self {
            Self::Error => true,
            Self::Full => matches!(call, Call::Write | Call::Map),
            Self::Short => call == Call::Write,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<Call>,
    /// The call from which on it fails, how, and whether at every one that follows.
    plan: Option<(usize, Fault, bool)>,
    struck: u64,
}

/// The files beneath one folder.
#[derive(Clone, Debug)]
pub struct Disk {
    folder: Arc<PathBuf>,
    state: Arc<Mutex<State>>,
}

static DISKS: LazyLock<Mutex<Vec<Disk>>> = LazyLock::new(Mutex::default);

impl Disk {
    /// Watches all database files beneath a folder, until [`Disk::forget`].
    ///
    /// # Panics
    /// When SQLite has no VFS to put this one before.
    #[must_use]
    pub fn watch(folder: &Path) -> Self {
        static REGISTERED: Once = Once::new();
        REGISTERED.call_once(register);
        let folder = folder.canonicalize().unwrap();
        let disk = Self { folder: Arc::new(folder), state: Arc::default() };
        disks().push(disk.clone());
        disk
    }

    /// Stops watching; files that are open still answer to it.
    pub fn forget(&self) {
        disks().retain(|disk| !Arc::ptr_eq(&disk.state, &self.state));
    }

    /// Counts from here on.
    pub fn begin(&self) {
        *self.state() = State::default();
    }

    /// Counts from here on, and fails the first call from the `nth` on (1 = the next) that can fail so; if it is
    /// sticky, all that follow, too.
    pub fn fail(&self, nth: usize, fault: Fault, sticky: bool) {
        *self.state() = State { plan: Some((nth, fault, sticky)), ..State::default() };
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        self.state().plan = None;
    }

    /// The calls since the count began.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// How many calls were made to fail.
    #[must_use]
    pub fn struck(&self) -> u64 {
        self.state().struck
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call is made: whether and how it fails.
    fn ask(&self, call: Call) -> Option<Fault> {
        let mut state = self.state();
        state.calls.push(call);
        let (nth, fault, sticky) = state.plan?;
        if state.calls.len() < nth || !fault.strikes(call) {
            return None;
        }
        state.struck += 1;
        if !sticky {
            state.plan = None;
        }
        Some(fault)
    }
}

fn disks() -> MutexGuard<'static, Vec<Disk>> {
    DISKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The disk that a file lies on, if it is watched.
fn disk_of(name: *const c_char) -> Option<Disk> {
    if name.is_null() {
        return None;
    }
    // SAFETY: SQLite gives names as strings that end with a zero byte and outlive the call.
    let name = unsafe { CStr::from_ptr(name) }.to_str().ok()?;
    disks().iter().find(|disk| Path::new(name).starts_with(&*disk.folder)).cloned()
}

/// Whether a call on a watched file fails, as SQLite's own code for it.
fn refused(disk: Option<&Disk>, call: Call, code: c_int) -> Option<c_int> {
    let fault = disk?.ask(call)?;
    Some(if fault == Fault::Error { code } else { SQLITE_FULL })
}

/// An open file; the real VFS's own follows it in the same piece of memory, which SQLite allocates.
#[repr(C)]
struct File {
    base: sqlite3_file,
    /// A [`Disk`] in a box of its own, or null where the file is not watched.
    disk: *mut Disk,
}

const FILE_SIZE: usize = size_of::<File>();

/// # Safety
/// `file` is one that [`open`] has opened.
unsafe fn disk<'a>(file: *mut sqlite3_file) -> Option<&'a Disk> {
    // SAFETY: `open` wrote a `File` there, and its `disk` is null or lives until `close`.
    unsafe { (*file.cast::<File>()).disk.as_ref() }
}

/// # Safety
/// `file` has room for a [`File`] and the real VFS's file behind it.
unsafe fn real(file: *mut sqlite3_file) -> *mut sqlite3_file {
    // SAFETY: within the piece of memory that `szOsFile` asked for; its start is aligned for any type, and
    // `FILE_SIZE` is two pointers.
    unsafe { file.cast::<u8>().add(FILE_SIZE).cast() }
}

/// Calls the real file's method.
macro_rules! pass {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        // SAFETY: `file` is open, so the real VFS has set its methods; a VFS of SQLite's own has all of them.
        unsafe {
            let real = real($file);
            ((*(*real).pMethods).$method.unwrap())(real $(, $argument)*)
        }
    }};
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    let code = pass!(file, xClose);
    // SAFETY: the box was made in `open`, and SQLite closes a file once.
    unsafe {
        let disk = std::mem::replace(&mut (*file.cast::<File>()).disk, std::ptr::null_mut());
        if !disk.is_null() {
            drop(Box::from_raw(disk));
        }
    }
    code
}

unsafe extern "C" fn read(file: *mut sqlite3_file, into: *mut c_void, amount: c_int, offset: i64) -> c_int {
    // SAFETY: SQLite calls methods of open files alone; so it is in all that follow.
    let disk = unsafe { disk(file) };
    refused(disk, Call::Read, SQLITE_IOERR_READ).unwrap_or_else(|| pass!(file, xRead, into, amount, offset))
}

unsafe extern "C" fn write(file: *mut sqlite3_file, from: *const c_void, amount: c_int, offset: i64) -> c_int {
    // SAFETY: as in `read`.
    match unsafe { disk(file) }.and_then(|disk| disk.ask(Call::Write)) {
        None => pass!(file, xWrite, from, amount, offset),
        Some(Fault::Error) => SQLITE_IOERR_WRITE,
        Some(Fault::Full) => SQLITE_FULL,
        Some(Fault::Short) => {
            pass!(file, xWrite, from, amount / 2, offset);
            SQLITE_FULL
        }
    }
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: i64) -> c_int {
    // SAFETY: as in `read`.
    let disk = unsafe { disk(file) };
    refused(disk, Call::Truncate, SQLITE_IOERR_TRUNCATE).unwrap_or_else(|| pass!(file, xTruncate, size))
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: as in `read`.
    match unsafe { disk(file) } {
        None => pass!(file, xSync, flags),
        watched => refused(watched, Call::Sync, SQLITE_IOERR_FSYNC).unwrap_or(SQLITE_OK),
    }
}

unsafe extern "C" fn size(file: *mut sqlite3_file, into: *mut i64) -> c_int {
    // SAFETY: as in `read`.
    let disk = unsafe { disk(file) };
    refused(disk, Call::Size, SQLITE_IOERR_FSTAT).unwrap_or_else(|| pass!(file, xFileSize, into))
}

unsafe extern "C" fn lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    // SAFETY: as in `read`.
    let disk = unsafe { disk(file) };
    refused(disk, Call::Lock, SQLITE_IOERR_LOCK).unwrap_or_else(|| pass!(file, xLock, level))
}

/// Letting go of a lock does not fail on a file system that took it.
unsafe extern "C" fn unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    pass!(file, xUnlock, level)
}

unsafe extern "C" fn check_reserved(file: *mut sqlite3_file, into: *mut c_int) -> c_int {
    pass!(file, xCheckReservedLock, into)
}

unsafe extern "C" fn control(file: *mut sqlite3_file, op: c_int, argument: *mut c_void) -> c_int {
    pass!(file, xFileControl, op, argument)
}

unsafe extern "C" fn sector_size(file: *mut sqlite3_file) -> c_int {
    pass!(file, xSectorSize)
}

unsafe extern "C" fn characteristics(file: *mut sqlite3_file) -> c_int {
    pass!(file, xDeviceCharacteristics)
}

unsafe extern "C" fn shm_map(
    file: *mut sqlite3_file,
    page: c_int,
    size: c_int,
    extend: c_int,
    into: *mut *mut c_void,
) -> c_int {
    // SAFETY: as in `read`.
    let disk = unsafe { disk(file) };
    refused(disk, Call::Map, SQLITE_IOERR_SHMMAP).unwrap_or_else(|| pass!(file, xShmMap, page, size, extend, into))
}

unsafe extern "C" fn shm_lock(file: *mut sqlite3_file, offset: c_int, count: c_int, flags: c_int) -> c_int {
    // SAFETY: as in `read`. Letting go does not fail.
    let disk = unsafe { disk(file) }.filter(|_| flags & rusqlite::ffi::SQLITE_SHM_LOCK != 0);
    refused(disk, Call::Lock, SQLITE_IOERR_SHMLOCK).unwrap_or_else(|| pass!(file, xShmLock, offset, count, flags))
}

unsafe extern "C" fn shm_barrier(file: *mut sqlite3_file) {
    pass!(file, xShmBarrier);
}

unsafe extern "C" fn shm_unmap(file: *mut sqlite3_file, delete: c_int) -> c_int {
    pass!(file, xShmUnmap, delete)
}

/// Version 2: with shared memory, and without mapped pages, which would be read past this.
static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved),
    xFileControl: Some(control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// The VFS that this one stands before.
///
/// # Safety
/// `vfs` is the one that [`register`] made.
unsafe fn beneath(vfs: *mut sqlite3_vfs) -> *mut sqlite3_vfs {
    // SAFETY: `register` put it there, and neither is ever freed.
    unsafe { (*vfs).pAppData.cast() }
}

unsafe extern "C" fn open(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    let disk = disk_of(name);
    // SAFETY: SQLite has allocated `szOsFile` bytes for `file`; without methods it will not close it.
    unsafe { (*file).pMethods = std::ptr::null() };
    if let Some(code) = refused(disk.as_ref(), Call::Open, SQLITE_CANTOPEN) {
        return code;
    }
    // SAFETY: the real VFS gets its own file, behind ours, and the name SQLite gave, parameters and all.
    unsafe {
        let below = beneath(vfs);
        let inner = real(file);
        let code = ((*below).xOpen.unwrap())(below, name, inner, flags, flags_out);
        if code == SQLITE_OK {
            let disk = disk.map_or(std::ptr::null_mut(), |disk| Box::into_raw(Box::new(disk)));
            file.cast::<File>().write(File { base: sqlite3_file { pMethods: &raw const METHODS }, disk });
        } else if !(*inner).pMethods.is_null() {
            ((*(*inner).pMethods).xClose.unwrap())(inner);
        }
        code
    }
}

unsafe extern "C" fn delete(vfs: *mut sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    let disk = disk_of(name);
    let sync = if disk.is_some() { 0 } else { sync };
    // SAFETY: the real VFS, with the name SQLite gave.
    refused(disk.as_ref(), Call::Delete, SQLITE_IOERR_DELETE).unwrap_or_else(|| unsafe {
        let below = beneath(vfs);
        ((*below).xDelete.unwrap())(below, name, sync)
    })
}

unsafe extern "C" fn access(vfs: *mut sqlite3_vfs, name: *const c_char, flags: c_int, into: *mut c_int) -> c_int {
    // SAFETY: the real VFS, with the name SQLite gave.
    refused(disk_of(name).as_ref(), Call::Access, SQLITE_IOERR_ACCESS).unwrap_or_else(|| unsafe {
        let below = beneath(vfs);
        ((*below).xAccess.unwrap())(below, name, flags, into)
    })
}

/// Puts this VFS before the default one, for the rest of the process's life.
fn register() {
    // SAFETY: the default VFS is static. The copy is never freed, as SQLite wants it; what is not replaced in it
    // (paths, randomness, the clock) does not look at the structure it is called with but for the longest path.
    unsafe {
        let below = sqlite3_vfs_find(std::ptr::null());
        assert!(!below.is_null(), "SQLite has no VFS");
        let shim = Box::leak(Box::new(*below));
        shim.zName = c"failing".as_ptr();
        shim.pNext = std::ptr::null_mut();
        shim.pAppData = below.cast();
        shim.szOsFile += c_int::try_from(FILE_SIZE).unwrap();
        shim.xOpen = Some(open);
        shim.xDelete = Some(delete);
        shim.xAccess = Some(access);
        assert_eq!(sqlite3_vfs_register(shim, 1), SQLITE_OK, "the VFS was not registered");
    }
}
