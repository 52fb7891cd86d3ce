//! Threads that run the code, run after run: starting one takes longer than most runs do.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

type Job = Box<dyn FnOnce() + Send>;

/// Threads that have nothing to do, each by where its next job is sent. They end with this.
#[derive(Default)]
pub(crate) struct Workers {
    idle: Mutex<Vec<Sender<Job>>>,
}

impl Workers {
    /// Has a thread do it, which nothing of it unwinds.
    pub(crate) fn run(self: &Arc<Self>, job: Job) {
        let idle = self.idle().pop();
        let job = match idle {
            Some(worker) => match worker.send(job) {
                Ok(()) => return,
                // It is gone, and the job came back.
                Err(job) => job.0,
            },
            None => job,
        };
        let workers = Arc::downgrade(self);
        let name = thread::current().name().unwrap_or("code").to_owned();
        let body = move || {
            let mut job = job;
            loop {
                job();
                job = match next(&workers) {
                    Some(next) => next,
                    None => break,
                };
            }
        };
        let thread = thread::Builder::new().name(name).spawn(body);
        thread.expect("the system has a thread for the code under test");
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Sender<Job>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a thread that has nothing to do is sent next; none where nobody will want it any more.
fn next(workers: &Weak<Workers>) -> Option<Job> {
    let (sender, jobs) = channel();
    workers.upgrade()?.idle().push(sender);
    jobs.recv().ok()
}
