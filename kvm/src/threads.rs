//! Threads of the code under test, and what they wait for each other by: a mutex, a channel.
//!
//! One thread goes on at a time, from an answer to its next call, so that memory which they share is read and written in the order of
//! their calls. What really waits has to wait here, where the scheduler sees it.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, PoisonError};

use crate::report::Outcome;
use crate::session::call::{Call, Site};
use crate::session::{Apart, Code};
use crate::vm::Vm;

impl Vm {
    /// Starts a thread of the VMM, as `std::thread::spawn` does; at most two beside the first. An error that it returns, and its panic, count
    /// as the code's.
    ///
    /// ```
    /// use dirtysim_kvm::{Arch, Machine, Vm, run};
    ///
    /// run(Machine::new(Arch::X86).slot(0, 1), 0..20, |vm: Vm| {
    ///     let pauser = vm.clone();
    ///     let thread = vm.spawn(move || pauser.pause_vcpus());
    ///     thread.join();
    ///     vm.send_all_pages();
    ///     vm.assert_copy_is_whole();
    /// });
    /// ```
    #[track_caller]
    pub fn spawn<T: Outcome + 'static>(
        &self,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle {
        let place = self.site();
        let thread = self.session().spawn(place, || run().into_words());
        JoinHandle {
            vm: self.clone(),
            thread,
        }
    }

    /// Starts a thread of the VMM that shares no memory with the others: a function, or a closure that captures nothing. What it does depends on
    /// its own answers alone then, and not on the order of all threads', so that a search has less to look at.
    ///
    /// Where all threads are started so, each is run by itself. A static that they share would be memory too, and is not seen.
    ///
    /// ```
    /// use dirtysim_kvm::{Arch, Machine, Vm, check};
    ///
    /// check(Machine::new(Arch::X86).slot(0, 1), |vm: Vm| {
    ///     let device = vm.spawn_apart(|vm: Vm| vm.store_page(0, 0));
    ///     vm.pause_vcpus();
    ///     device.join();
    ///     vm.send_all_pages();
    ///     vm.assert_copy_is_whole();
    /// });
    /// ```
    #[track_caller]
    pub fn spawn_apart<T: Outcome + 'static>(&self, run: fn(Vm) -> T) -> JoinHandle {
        let place = self.site();
        if !self.session().has_threads_apart() {
            let vm = self.clone();
            return self.spawn(move || run(vm));
        }
        let code: Code = Arc::new(move |session| run(Self::new(session)).into_words());
        let apart = Apart::new(run as usize, code);
        let thread = self.session().spawn_apart(place, apart);
        JoinHandle {
            vm: self.clone(),
            thread,
        }
    }

    /// A mutex for what threads share.
    #[track_caller]
    pub fn mutex<T>(&self, value: T) -> Mutex<T> {
        Mutex {
            number: self.session().new_lock(self.site()),
            vm: self.clone(),
            value: std::sync::Mutex::new(value),
        }
    }

    /// A channel without a bound.
    #[track_caller]
    pub fn channel<T>(&self) -> (Sender<T>, Receiver<T>) {
        let queue = Arc::new(Queue {
            number: self.session().new_signal(self.site()),
            vm: self.clone(),
            waiting: std::sync::Mutex::new((VecDeque::new(), 1)),
        });
        let sender = Sender {
            queue: queue.clone(),
        };
        (sender, Receiver { queue })
    }
}

/// A thread that [`Vm::spawn`] started.
#[derive(Debug)]
pub struct JoinHandle {
    vm: Vm,
    thread: u8,
}

impl JoinHandle {
    /// Waits until the thread is at its end.
    #[track_caller]
    pub fn join(self) {
        let place = self.vm.site();
        self.vm.session().call(Call::Join(self.thread), place);
    }
}

/// A mutex between threads of the code: locking it is a point at which others may act.
#[derive(Debug)]
pub struct Mutex<T> {
    number: u8,
    vm: Vm,
    value: std::sync::Mutex<T>,
}

/// What [`Mutex::lock`] gives.
#[derive(Debug)]
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    value: Option<std::sync::MutexGuard<'a, T>>,
    place: Site,
}

impl<T> Mutex<T> {
    /// Takes it, once nobody else has it.
    #[track_caller]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let place = self.vm.site();
        self.vm.session().call(Call::Lock(self.number), place);
        MutexGuard {
            mutex: self,
            // A thread that panicked with it has ended the run.
            value: Some(self.value.lock().unwrap_or_else(PoisonError::into_inner)),
            place,
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value
            .as_deref()
            .expect("it is held until it is dropped")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value
            .as_deref_mut()
            .expect("it is held until it is dropped")
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.value = None;
        let call = Call::Unlock(self.mutex.number);
        self.mutex.vm.session().call_in_drop(call, self.place);
    }
}

/// What is on its way in a channel, and how many senders it has.
#[derive(Debug)]
struct Queue<T> {
    number: u8,
    vm: Vm,
    waiting: std::sync::Mutex<(VecDeque<T>, usize)>,
}

impl<T> Queue<T> {
    fn with<R>(&self, act: impl FnOnce(&mut (VecDeque<T>, usize)) -> R) -> R {
        act(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The end of a channel that sends.
#[derive(Debug)]
pub struct Sender<T> {
    queue: Arc<Queue<T>>,
}

/// The end of a channel that receives.
#[derive(Debug)]
pub struct Receiver<T> {
    queue: Arc<Queue<T>>,
}

/// Nothing is on its way, and no sender is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecvError;

impl std::fmt::Display for RecvError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("receiving on a channel without senders")
    }
}

impl std::error::Error for RecvError {}

impl<T> Sender<T> {
    /// Sends.
    #[track_caller]
    pub fn send(&self, value: T) {
        self.queue.with(|(waiting, _)| waiting.push_back(value));
        let call = Call::Signal(self.queue.number);
        self.queue.vm.session().call(call, self.queue.vm.site());
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.queue.with(|(_, senders)| *senders += 1);
        Self {
            queue: self.queue.clone(),
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let left = self.queue.with(|(_, senders)| {
            *senders -= 1;
            *senders
        });
        if left == 0 {
            let call = Call::Signal(self.queue.number);
            let session = self.queue.vm.session();
            session.call_in_drop(call, self.queue.vm.site());
        }
    }
}

impl<T> Receiver<T> {
    /// Waits for the next value.
    ///
    /// # Errors
    /// None will come: every sender is gone.
    #[track_caller]
    pub fn recv(&self) -> Result<T, RecvError> {
        let place = self.queue.vm.site();
        loop {
            let (value, senders) = self
                .queue
                .with(|(waiting, senders)| (waiting.pop_front(), *senders));
            match (value, senders) {
                (Some(value), _) => return Ok(value),
                (None, 0) => return Err(RecvError),
                (None, _) => {
                    let call = Call::WaitSignal(self.queue.number);
                    self.queue.vm.session().call(call, place);
                }
            }
        }
    }

    /// The next value, if one is there: a point at which others may act.
    #[track_caller]
    pub fn try_recv(&self) -> Option<T> {
        let place = self.queue.vm.site();
        self.queue.vm.session().call(Call::Yield, place);
        self.queue.with(|(waiting, _)| waiting.pop_front())
    }
}
