//! The model for a browser: questions in, answers out, as JSON in a piece of memory.
//!
//! `cargo build -p dirtysim-what-if --profile what-if --target wasm32-unknown-unknown` makes the module that
//! `dirtysim explain --format html` puts into its page. What is asked and answered is in
//! [`dirtysim_evidence::explain::what_if`]; here is only the door. It takes three numbers, so that no generated glue is
//! needed: ask for room, write the question there, have it answered, read the answer where its text begins.

use std::sync::Mutex;

use dirtysim_evidence::explain::what_if::answer;

/// The question, and after it the answer.
static TEXT: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn with_text<T>(work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    // Nobody else has the lock in a browser's one thread, and what a panic leaves behind is overwritten.
    work(
        &mut TEXT
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner),
    )
}

/// Makes room for a question of `bytes` bytes, and answers where it begins.
#[unsafe(no_mangle)]
pub extern "C" fn dirtysim_room(bytes: usize) -> *mut u8 {
    with_text(|text| {
        text.clear();
        text.resize(bytes, 0);
        text.as_mut_ptr()
    })
}

/// Answers the question that was written there; how long the answer is, in bytes.
#[unsafe(no_mangle)]
pub extern "C" fn dirtysim_answer() -> usize {
    with_text(|text| {
        *text = answer(&String::from_utf8_lossy(text)).into_bytes();
        text.len()
    })
}

/// Where the answer begins.
#[unsafe(no_mangle)]
pub extern "C" fn dirtysim_text() -> *const u8 {
    with_text(|text| text.as_ptr())
}
