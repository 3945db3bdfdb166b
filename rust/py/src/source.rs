//! Sources: where the bytes of an import come from.

use crate::errors::NativeError;
use customer_panel_core::pipeline::source::{self, Fed, Input, Source as CoreSource};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A call that waits looks so often for signals that Python has to handle.
pub const PATIENCE: Duration = Duration::from_millis(50);
/// Much more than any header.
const HEAD_BYTES_MOST: usize = 64 << 20;
const EBADF: i32 = 9;

fn file(descriptor: i32) -> io::Result<File> {
    if descriptor < 0 {
        return Err(io::Error::from_raw_os_error(EBADF));
    }
    // SAFETY: not -1; a descriptor that is not open makes the system call fail.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    borrowed.try_clone_to_owned().map(File::from)
}

/// Hands buffers to the source that was made of it.
#[pyclass(frozen, module = "customer_panel._native")]
pub struct Feed {
    feed: source::Feed,
    fed: Mutex<Option<Fed>>,
}

#[pymethods]
impl Feed {
    #[new]
    fn new() -> Self {
        let (feed, fed) = source::feed();
        Feed {
            feed,
            fed: Mutex::new(Some(fed)),
        }
    }

    /// Waits for room and hands `buffer` over; False if nobody reads any more.
    fn push(&self, py: Python<'_>, buffer: &[u8]) -> bool {
        // `bytes` never change, so they may be read without the GIL.
        py.detach(|| self.feed.push(buffer))
    }

    /// Ends the source, as its end or (with `error`) as a failure to read it. Never waits.
    #[pyo3(signature = (error=None))]
    fn close(&self, error: Option<String>) {
        self.feed.end(error.map_or(Ok(()), Err));
    }
}

/// The bytes of an import.
#[pyclass(frozen, module = "customer_panel._native")]
pub struct Source {
    core: CoreSource,
}

#[pymethods]
impl Source {
    /// A file, by a descriptor of which the source keeps a copy.
    #[staticmethod]
    fn from_file(descriptor: i32) -> PyResult<Self> {
        let core = CoreSource::from_file(file(descriptor)?);
        Ok(Source { core })
    }

    /// What a feed hands over.
    #[staticmethod]
    fn from_feed(feed: &Bound<'_, Feed>) -> PyResult<Self> {
        let fed = &feed.get().fed;
        let fed = fed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let fed = fed.ok_or_else(|| PyRuntimeError::new_err("a feed serves one source"))?;
        Ok(Source {
            core: CoreSource::from_fed(fed),
        })
    }

    /// Whether it can be read more than once.
    #[getter]
    pub fn is_rewindable(&self) -> bool {
        self.core.is_rewindable()
    }

    /// Waits for the first `count` bytes; fewer if the source has no more.
    fn head<'py>(&self, py: Python<'py>, count: usize) -> PyResult<Bound<'py, PyBytes>> {
        if count > HEAD_BYTES_MOST {
            return Err(PyValueError::new_err(format!(
                "a head has at most {HEAD_BYTES_MOST} bytes"
            )));
        }
        loop {
            let head = py.detach(|| self.core.head(count, PATIENCE));
            if let Some(head) = head.map_err(NativeError::from)? {
                return Ok(PyBytes::new(py, &head));
            }
            py.check_signals()?;
        }
    }

    /// Ends whatever reads the source or waits for it, now and later, with Stopped.
    fn stop(&self) {
        self.core.stop();
    }
}

impl Source {
    /// All bytes, from the first one on.
    pub fn open(&self) -> PyResult<Input> {
        self.core
            .open()?
            .ok_or_else(|| PyRuntimeError::new_err("a stream cannot be read twice"))
    }
}
