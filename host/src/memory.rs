//! Where the program's memory comes from: small pieces from mimalloc, large ones from the system itself, and back to it at
//! once.
//!
//! Rows are many small pieces that come and go in batches, which the system's allocator is slow at. Batches of them and
//! objects of snapshots are a few large ones, given back by another thread than the one that took them: mimalloc keeps the
//! room until that one asks for such a piece again, on every thread that ever had one.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::{copy_nonoverlapping, null_mut};

use mimalloc::MiMalloc;

/// From so many bytes on a piece is a large one: most batches of a busy node are.
const LARGE_BYTES: usize = 128 << 10;

/// From so many bytes on it is worth asking for huge pages: each of the others costs an interrupt when it is first written.
const HUGE_BYTES: usize = 4 << 20;

/// What the system's pages are aligned to, at least.
const PAGE_BYTES: usize = 4096;

/// The program's allocator.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory;

fn is_large(size: usize, align: usize) -> bool {
    size >= LARGE_BYTES && align <= PAGE_BYTES
}

/// Pages of the system, all zero; null if it has none.
#[expect(unsafe_code, reason = "it is an allocator")]
fn map(size: usize) -> *mut u8 {
    // SAFETY: no address is asked for, so nothing that is there is touched.
    let place = unsafe {
        libc::mmap(null_mut(), size, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    };
    if place == libc::MAP_FAILED {
        return null_mut();
    }
    if size >= HUGE_BYTES {
        // SAFETY: it was just mapped with this size. A system that has none gives the usual ones.
        unsafe { libc::madvise(place, size, libc::MADV_HUGEPAGE) };
    }
    place.cast()
}

#[expect(unsafe_code, reason = "it is an allocator")]
// SAFETY: whether a piece is large is told by its layout alone, which is the same when it is given back; each kind goes back
// to where it came from. Pages are aligned to more than is asked for, and belong to nobody else until they are unmapped.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_large(layout.size(), layout.align()) {
            return map(layout.size());
        }
        // SAFETY: the caller's promise is passed on.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_large(layout.size(), layout.align()) {
            return map(layout.size());
        }
        // SAFETY: the caller's promise is passed on.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        if is_large(layout.size(), layout.align()) {
            // SAFETY: it was mapped with this size. That it can't fail for a mapping that is there is all that is known.
            unsafe { libc::munmap(place.cast(), layout.size()) };
            return;
        }
        // SAFETY: the caller's promise is passed on.
        unsafe { MiMalloc.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match (is_large(layout.size(), layout.align()), is_large(size, layout.align())) {
            // SAFETY: the caller's promise is passed on.
            (false, false) => unsafe { MiMalloc.realloc(place, layout, size) },
            (true, true) => {
                // SAFETY: it was mapped with this size. Its pages move without being copied.
                let moved = unsafe { libc::mremap(place.cast(), layout.size(), size, libc::MREMAP_MAYMOVE) };
                if moved == libc::MAP_FAILED { null_mut() } else { moved.cast() }
            }
            _ => {
                // SAFETY: the caller promises that this size with this alignment makes a layout.
                let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
                // SAFETY: it is not empty, for the caller promises that, too.
                let moved = unsafe { self.alloc(wanted) };
                if !moved.is_null() {
                    // SAFETY: both hold so many bytes, and a new piece overlaps none. The old one is nobody's after that.
                    unsafe {
                        copy_nonoverlapping(place, moved, layout.size().min(size));
                        self.dealloc(place, layout);
                    }
                }
                moved
            }
        }
    }
}

#[cfg(test)]
#[expect(unsafe_code, reason = "an allocator is asked as it is by those who use it")]
mod tests {
    use super::*;

    /// Whatever size a piece takes on, what was in it stays.
    #[test]
    fn pieces_keep_what_is_in_them_over_all_sizes() {
        let sizes = [1, 4096, LARGE_BYTES - 1, LARGE_BYTES, 9 << 20, LARGE_BYTES + 1, 70_000, 33 << 20, 12];
        for align in [1, 16, PAGE_BYTES, 4 * PAGE_BYTES] {
            let mut layout = Layout::from_size_align(100, align).unwrap();
            // SAFETY: every piece is asked for, written, read and given back with its own layout.
            unsafe {
                let mut piece = Memory.alloc_zeroed(layout);
                for size in sizes {
                    let (kept, before) = (layout.size().min(size), layout.size());
                    piece.write(7);
                    piece.add(before - 1).write(9);
                    piece = Memory.realloc(piece, layout, size);
                    assert!(!piece.is_null() && piece.addr().is_multiple_of(align), "{size} at {align}");
                    if kept > 1 {
                        assert_eq!(piece.read(), 7, "{size} at {align}");
                    }
                    if kept == before {
                        assert_eq!(piece.add(kept - 1).read(), 9, "{size} at {align}");
                    }
                    layout = Layout::from_size_align(size, align).unwrap();
                }
                Memory.dealloc(piece, layout);
            }
        }
    }

    #[test]
    fn zeroed_pieces_are_zero_wherever_they_come_from() {
        for size in [10, LARGE_BYTES - 1, LARGE_BYTES, 5 << 20] {
            let layout = Layout::from_size_align(size, 8).unwrap();
            // SAFETY: the piece is as long as it is read, and given back with its own layout.
            unsafe {
                // What others left there is gone.
                let used = Memory.alloc(layout);
                used.write_bytes(0xff, size);
                Memory.dealloc(used, layout);
                let piece = Memory.alloc_zeroed(layout);
                assert!(std::slice::from_raw_parts(piece, size).iter().all(|byte| *byte == 0));
                Memory.dealloc(piece, layout);
            }
        }
    }

    /// More than there can be is not there, and nothing ends over that.
    #[test]
    fn what_is_not_there_is_not_given() {
        let layout = Layout::from_size_align(1 << 62, 8).unwrap();
        // SAFETY: null is not used.
        assert!(unsafe { Memory.alloc(layout) }.is_null());
        let small = Layout::from_size_align(2 << 20, 8).unwrap();
        // SAFETY: the piece stays what it was where it can't become larger, and is given back as that.
        unsafe {
            let piece = Memory.alloc(small);
            piece.write(5);
            assert!(Memory.realloc(piece, small, 1 << 62).is_null());
            assert_eq!(piece.read(), 5);
            Memory.dealloc(piece, small);
        }
    }
}
