//! Loaded before everything else into a program under test: as long as a file says so, what the program writes below a
//! folder is refused, as a disk that has errors refuses it, or one on which a quota is used up.

use std::ffi::{c_char, c_int, c_void};

/// Names the file, in which a number of an error and a folder stand.
const TOLD: &str = "TEST_REFUSING";

/// The one that comes after this library.
const NEXT: *mut c_void = -1_isize as *mut c_void;

unsafe extern "C" {
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn __errno_location() -> *mut c_int;
}

fn refused(file: c_int) -> Option<c_int> {
    let told = std::fs::read_to_string(std::env::var_os(TOLD)?).ok()?;
    let (error, folder) = told.split_once(' ')?;
    let path = std::fs::read_link(format!("/proc/self/fd/{file}")).ok()?;
    path.starts_with(folder).then(|| error.parse().ok())?
}

macro_rules! refuse {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {$(
        /// # Safety
        /// As the real one.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(file: c_int, $($argument: $type),*) -> $result {
            if let Some(error) = refused(file) {
                unsafe { *__errno_location() = error };
                return -1;
            }
            type Real = unsafe extern "C" fn(c_int, $($type),*) -> $result;
            let real = unsafe { dlsym(NEXT, concat!(stringify!($name), "\0").as_ptr().cast()) };
            let real: Real = unsafe { std::mem::transmute(real) };
            unsafe { real(file, $($argument),*) }
        }
    )*};
}

refuse! {
    write(bytes: *const c_void, count: usize) -> isize;
    writev(parts: *const c_void, count: c_int) -> isize;
    pwrite(bytes: *const c_void, count: usize, at: i64) -> isize;
    pwrite64(bytes: *const c_void, count: usize, at: i64) -> isize;
    ftruncate(length: i64) -> c_int;
    ftruncate64(length: i64) -> c_int;
    fsync() -> c_int;
    fdatasync() -> c_int;
}
