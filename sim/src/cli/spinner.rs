//! How far a search is: a line on a terminal, and a note where it will not fit.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::report::{block_words, grouped, say};
use crate::search::estimate::Forecast;
use crate::search::{Options, Progress, memory};
use crate::shrink;

/// A line on a terminal that says how far the search is, nothing elsewhere; and a note where the search will not fit.
pub(super) struct Spinner {
    bar: indicatif::ProgressBar,
    name: String,
    begun: Instant,
    limit_bytes: u64,
    shown: Mutex<(Instant, Forecast)>,
}

impl Spinner {
    pub(super) fn new(name: &str, begun: Instant, options: &Options) -> Self {
        Self {
            bar: indicatif::ProgressBar::new_spinner(),
            name: name.to_owned(),
            begun,
            limit_bytes: options
                .max_memory_bytes
                .unwrap_or_else(memory::default_limit_bytes),
            shown: Mutex::new((begun, Forecast::default())),
        }
    }

    pub(super) fn show(&self, progress: &Progress) {
        // One thread at a time writes, and none waits for another.
        let Ok(mut guard) = self.shown.try_lock() else {
            return;
        };
        let (shown, forecast) = &mut *guard;
        if let Some(forecast) = forecast.hear(progress, self.limit_bytes) {
            self.bar.suspend(|| {
                say(&format!(
                    "note: {}: {} states so far, about {} in all by the growth of its levels: some {} MiB, and the limit is {} MiB; it will probably end without a verdict: scale the scenario down, or give it more with --max-memory",
                    self.name,
                    grouped(progress.states),
                    about(forecast.states),
                    about(forecast.bytes >> 20),
                    self.limit_bytes >> 20,
                ));
            });
        }
        if shown.elapsed() < Duration::from_millis(200) {
            return;
        }
        *shown = Instant::now();
        let rate = progress.states as f64 / self.begun.elapsed().as_secs_f64().max(0.001);
        let all = forecast
            .states()
            .map_or(String::new(), |all| format!(" of about {}", about(all)));
        self.bar.set_message(format!(
            "{}: {} states{all}, frontier {}, depth {}, {} states/s, {} of {} MiB",
            self.name,
            grouped(progress.states),
            grouped(progress.frontier),
            progress.depth,
            grouped(rate as u64),
            progress.bytes >> 20,
            self.limit_bytes >> 20
        ));
        self.bar.tick();
    }

    pub(super) fn show_shrinking(&self, done: shrink::Progress) {
        self.bar.set_message(format!(
            "{}: a counterexample of {}, {} steps; {} states seen for a shorter one",
            self.name,
            block_words(done.blocks as u64),
            done.steps,
            grouped(done.states)
        ));
        self.bar.tick();
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A guess, with as many digits as it deserves: two.
fn about(number: u64) -> String {
    let scale = 10_u64.pow(number.checked_ilog10().unwrap_or(0).saturating_sub(1));
    grouped(number / scale * scale)
}
