//! The last words of a guest: what it wrote to stdout and stderr, the end of it, for the person who looks for a fault.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::log::printable;

/// Bytes that are kept: the last ones.
const KEPT_BYTES: usize = 8 << 10;
/// Bytes a guest may write at once.
const PERMIT_BYTES: usize = 64 << 10;
const LINES_MAX: usize = 12;
const LINE_BYTES_MAX: usize = 240;

/// Takes all that is written, keeps the end of it, and never refuses: how much was written before can't be told by a
/// guest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Words(Arc<Mutex<VecDeque<u8>>>);

impl Words {
    /// The last lines, fit to be printed.
    pub(crate) fn last_lines(&self) -> Vec<String> {
        let kept: Vec<u8> = self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        let text = String::from_utf8_lossy(&kept);
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        let first = lines.len().saturating_sub(LINES_MAX);
        lines.iter().skip(first).map(|line| printable(line, LINE_BYTES_MAX)).collect()
    }

    fn take(&self, bytes: &[u8]) {
        let end = bytes.get(bytes.len().saturating_sub(KEPT_BYTES)..).unwrap_or(bytes);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = (kept.len() + end.len()).saturating_sub(KEPT_BYTES).min(kept.len());
        kept.drain(..over);
        kept.extend(end);
    }
}

impl IsTerminal for Words {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Words {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // For guests of WASI 0.3, which are not linked.
        Box::new(tokio::io::empty())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Words {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PERMIT_BYTES)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Words {
    async fn ready(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_and_can_be_printed() {
        let words = Words::default();
        assert_eq!(words.last_lines(), [""; 0]);
        words.take(b"first\n\n\x1b[31msecond\r\nno end");
        assert_eq!(words.last_lines(), ["first", "\\u{1b}[31msecond", "no end"]);
        for number in 0..10_000 {
            words.take(format!("line {number}\n").as_bytes());
        }
        assert_eq!(words.last_lines().last().unwrap(), "line 9999");
        assert_eq!(words.last_lines().len(), LINES_MAX);
        words.take(&[b'x'; 3 * KEPT_BYTES]);
        assert_eq!(words.0.lock().unwrap().len(), KEPT_BYTES);
        assert_eq!(words.last_lines(), [format!("{}…", "x".repeat(LINE_BYTES_MAX))]);
    }
}
